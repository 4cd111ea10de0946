"""``tzk train FOLDER``: what a folder says of itself."""

from __future__ import annotations

from pathlib import Path

from ..data.names import slug
from ..data.sources import class_names
from .recipe import Recipe, folder_recipe

__all__ = ["recipe_for_folder"]


def recipe_for_folder(folder: Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """The recipe for a folder: its name as knowledge, its class folders as the classes below.

    Raises:
        UsageError: no images there, or a wrong override.
    """
    folder = folder.resolve()
    classes = len(class_names(folder)) > 1
    return folder_recipe(folder, slug(folder.name), classes, overrides)
