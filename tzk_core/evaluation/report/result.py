"""What a part of an evaluation gives: figures, tables and pictures."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from ..held_out import Figure

__all__ = ["Picture", "Result", "Table", "file_name", "plain", "share", "value"]


class Table(NamedTuple):
    """Cells as they are shown; the first column is to the left, the others to the right."""

    title: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG."""

    name: str  # of its file, without suffix
    png: bytes
    caption: str
    pixels: bool = True  # whether it is made of whole pixels, which are enlarged as they are


@dataclass
class Result:
    """What was measured."""

    figures: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def file_name(name: str) -> str:
    """What a name is in a file's: a knowledge's own name, and other signs as dots.

    >>> file_name("mnist"), file_name("p(t)"), file_name("data sets-0.7")
    ('mnist', 'p.t', 'data.sets-0.7')
    """
    return re.sub(r"[^\w-]+", ".", name).strip(".")


def plain(value: Any) -> Any:
    """What JSON can hold: a figure is its fields, a tensor a list, what is not finite null."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def share(figure: Figure) -> str:
    """A share with its standard error, to four places."""
    return value(figure, 4)


def value(figure: Figure, places: int = 3) -> str:
    """A figure with its standard error."""
    mean = round(figure.mean, places) + 0.0  # no −0.000
    error = "" if math.isnan(figure.standard_error) else f" ± {figure.standard_error:.{places}f}"
    return f"{mean:.{places}f}{error}"
