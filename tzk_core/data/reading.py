"""From a source that was found to an array of prepared images: decoding, in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from tzk_core.data.decoding import decode_image
from tzk_core.data.names import shown
from tzk_core.data.preparation import GREYED, Preparation, Prepared
from tzk_core.data.table import Item, Table
from tzk_core.devices import processors
from tzk_core.errors import TzkError, UsageError, WorkFailed

__all__ = ["Described", "Progress", "check_share", "numbered", "read_table"]

Progress = Callable[[int, int], None]

_BLOCK = 64  # images that one thread decodes at a time: fewer cost more in handing over
_AHEAD = 4  # blocks a thread that are read before they are decoded
_TOLD = 256  # images between two reports of progress, and two looks at how many are bad


@dataclass
class Described:
    """What is known of the images that were read, beside their pixels.

    Attributes:
        labels: int64, shape (N,): an index into ``label_names``, or −1 for unknown.
        label_names: as the source has them.
        native_dims: int64, shape (N,).
        attributes: int8, shape (N, A), of 1, 0 and −1.
        skipped: one line for each that could not be read.
        greyed: how many had colour channels and were turned to grey.
        lasting: whether the same files give the same again: none is outside the table, none could
            not be opened for a reason that may pass.
    """

    labels: np.ndarray
    label_names: list[str]
    native_dims: np.ndarray
    attributes: np.ndarray
    skipped: list[str] = field(default_factory=list)
    greyed: int = 0
    lasting: bool = True


class _Unopened(str):
    """Why a file could not be opened now."""


def read_table(
    table: Table,
    preparation: Preparation,
    total: int,
    max_bad_share: float,
    progress: Progress | None,
    write: Callable[[np.ndarray], None],
) -> Described:
    """Decodes and prepares ``total`` of a table's images, evenly spaced, in order.

    Args:
        max_bad_share: the largest share of them that may be unreadable.
        progress: called with (images read, images in all), now and then and at the end.
        write: takes the pixels of the next images, uint8 (n, C, H, W).

    Raises:
        UsageError: an attribute holds something else than true and false, or the labels are of
            several kinds.
        WorkFailed: too many images are unreadable.
    """
    labels: list[Any] = []
    native: list[int] = []
    attributes: list[np.ndarray] = []
    skipped: list[str] = []
    seen, greyed, lasting = 0, 0, True
    for block, outcomes in _decoded(_evenly(table.items(), table.count, total), preparation):
        good, values = [], []
        for item, outcome in zip(block, outcomes, strict=True):
            lasting &= item.lasting and not isinstance(outcome, _Unopened)
            if isinstance(outcome, str):
                skipped.append(f"{item.title}: {outcome}")
                continue
            good.append(outcome.pixels)
            greyed += GREYED in outcome.notes
            native.append(outcome.native_dims)
            labels.append(item.label)
            values.append(item.attributes)
        if good:
            write(np.stack(good))
            attributes.append(np.array(values, dtype=np.int8))
        before, seen = seen, seen + len(block)
        if before // _TOLD == seen // _TOLD and seen < total:
            continue
        check_share(table.name, skipped, total, max_bad_share)
        if progress is not None:
            progress(seen, total)
    numbers, names = numbered(labels, table)
    known = np.concatenate([*attributes, np.empty((0, len(table.attributes)), dtype=np.int8)])
    _check_attributes(known, table)
    native_dims = np.array(native, dtype=np.int64)
    return Described(numbers, names, native_dims, known, skipped, greyed, lasting)


def check_share(name: str, skipped: list[str], total: int, share: float) -> None:
    """Raises WorkFailed if more than ``share`` of ``total`` images were skipped."""
    if len(skipped) <= share * total:
        return
    shown = "; ".join(skipped[:3]) + (" …" if len(skipped) > 3 else "")
    raise WorkFailed(
        f"{name}: {len(skipped)} of {total} images cannot be read, more than the {share:.2%} that "
        f"may be skipped: {shown}; remove them, or allow more (max_bad_share, which a recipe has "
        "below data)"
    )


def _decoded(
    items: Iterator[Item], preparation: Preparation
) -> Iterator[tuple[list[Item], list[Prepared | str]]]:
    """Blocks of images with what became of them, in order, a few of them under way at a time.

    Threads, as Pillow decodes outside the interpreter's lock; order and result do not depend on
    how many there are.
    """
    threads = min(8, processors())
    waiting: deque[tuple[list[Item], Future[list[Prepared | str]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                while len(waiting) < threads * _AHEAD and (block := list(islice(items, _BLOCK))):
                    waiting.append((block, pool.submit(_prepare_all, block, preparation)))
                if not waiting:
                    return
                block, future = waiting.popleft()
                yield block, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _prepare_all(items: list[Item], preparation: Preparation) -> list[Prepared | str]:
    return [_prepare(item, preparation) for item in items]


def _prepare(item: Item, preparation: Preparation) -> Prepared | str:
    """The prepared image, or why it cannot be read."""
    try:
        return preparation.apply(decode_image(item.read()))
    except TzkError as error:
        return error.detail
    except FileNotFoundError as error:
        return error.strerror or str(error)
    except OSError as error:
        return _Unopened(error.strerror or error)


def _evenly(items: Iterable[Item], count: int, wanted: int) -> Iterator[Item]:
    """``wanted`` of ``count`` items, evenly spaced."""
    return (
        item
        for number, item in enumerate(items)
        if number * wanted // count != (number - 1) * wanted // count
    )


def numbered(labels: list[Any], table: Table) -> tuple[np.ndarray, list[str]]:
    """Labels as indices into names; names made of the labels where the table has none.

    Raises:
        UsageError: there are none, and the labels are no texts, numbers or truth values, or not
            all of the same kind, so that they have no order.
    """
    names = table.label_names
    if names is not None:
        known = range(len(names))
        return np.array([x if x in known else -1 for x in labels], dtype=np.int64), names
    kinds = {_kind(x) for x in labels if x is not None}
    if len(kinds) > 1 or kinds & {"list", "dict"}:
        raise UsageError(
            f"the column {table.label!r} of {table.name} holds {' and '.join(sorted(kinds))} as "
            "labels; a label is a text, a number or a truth value, and of the same kind for all "
            "images"
        )
    # "Not at least 0" is said of NaN too, which is what an empty field of numbers may become.
    unknown = {x for x in labels if x is None or (isinstance(x, (int, float)) and not x >= 0)}
    distinct = list(set(labels) - unknown)
    if all(isinstance(x, str) and x.isdecimal() for x in distinct):  # as a CSV has integers
        distinct.sort(key=lambda x: (int(x), x))
    else:
        distinct.sort()
    index = {label: number for number, label in enumerate(distinct)}
    numbers = np.array([index.get(label, -1) for label in labels], dtype=np.int64)
    return numbers, [shown(label) for label in distinct]


def _kind(label: Any) -> str:
    """What can be put in order with what: the name of its type, one for integers and floats."""
    number = isinstance(label, (int, float)) and not isinstance(label, bool)
    return "number" if number else type(label).__name__


def _check_attributes(values: np.ndarray, table: Table) -> None:
    """Refuses −1 for absent, which would silently become unknown."""
    for name, column in zip(table.attributes, values.T):
        if (column == 1).any() and (column == -1).any() and not (column == 0).any():
            raise UsageError(
                f"the attribute {name!r} of {table.name} is 1 or −1 and never 0: absent is 0 or "
                "false, −1 is unknown"
            )
