"""A source that has been found, before its images are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from tzk_core.errors import UsageError

__all__ = ["Columns", "Item", "Split", "Table", "truth"]

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Columns:
    """Which columns of a table say what; what is left open is found by the hub's usual names.

    Attributes:
        image: the column of the images.
        label: the column of the labels.
        attributes: columns that hold 1 or 0 (true or false) for each image; ``True`` for every
            column of booleans.
    """

    image: str | None = None
    label: str | None = None
    attributes: bool | tuple[str, ...] = False


@dataclass(frozen=True)
class Item:
    """One image that has not been read.

    Attributes:
        title: what to call it when it cannot be read.
        label: as the source has it.
        read: gives the bytes of its file.
        attributes: one of 1, 0 and −1 (unknown) for each of the table's.
        lasting: whether the table's identity changes with the image's bytes.
    """

    title: str
    label: Any
    read: Callable[[], bytes]
    attributes: tuple[int, ...] = ()
    lasting: bool = True


@dataclass(frozen=True)
class Table:
    """A source that has been found.

    Attributes:
        name: what it is called.
        count: how many images it tells of.
        label_names: None where only the labels themselves tell which there are.
        items: gives the images in order, each time anew.
        identity: gives a text that changes whenever the images or labels may have changed (sizes
            and times of files, not their contents), which keys what is kept of them.
        attributes: names of the columns that became attributes.
        label: the column of the labels, where they are in one.
        notes: what is worth telling of how it was found.
    """

    name: str
    count: int
    label_names: list[str] | None
    items: Callable[[], Iterable[Item]]
    identity: Callable[[], str]
    attributes: list[str] = field(default_factory=list)
    label: str | None = None
    notes: list[str] = field(default_factory=list)


_WORDS = {"true": 1, "yes": 1, "1": 1, "false": 0, "no": 0, "0": 0, "": -1, "-1": -1}


def truth(value: Any, column: str, where: object) -> int:
    """1, 0, or −1 for unknown, from what a column of an attribute holds.

    Raises:
        UsageError: it is neither a truth value nor 1, 0, −1 or nothing.
    """
    if value is None:
        return -1
    text = str(value).strip().lower().removesuffix(".0")
    if text not in _WORDS:
        raise UsageError(
            f"{where} has {value!r} in the column {column!r}; an attribute is true or false, 1 or "
            "0, or empty for unknown"
        )
    return _WORDS[text]
