"""Paths of knowledge that a request names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tzk_core.errors import TzkError

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["must_know"]


def must_know(model: TzK, path: str, pointer: str) -> None:
    """Raises 404 with the paths there are, or 422 for what is no path, and where it was said."""
    try:
        model.find(path)
    except TzkError as error:
        error.pointer = error.pointer or pointer
        raise
