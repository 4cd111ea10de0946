"""Many items through few calls of the model, none at the expense of another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from tzk_core.errors import OutOfDeviceMemory, TzkError
from tzk_core.service.faults import device_lost, failed, unavailable
from tzk_core.service.sizes import at_most, current_sizes, filled, of_kinds

__all__ = ["attempted", "in_groups"]

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Work = TypeVar("Work")
Result = TypeVar("Result")
Call = Callable[[list], Sequence]


def attempted(
    function: Callable[[Item], Work], items: Sequence[Item | TzkError]
) -> list[Work | TzkError]:
    """``function`` of each item, or the error that it raised; errors among the items stay."""
    return [item if isinstance(item, TzkError) else _attempt(function, item) for item in items]


def in_groups(
    items: Sequence[Item | TzkError],
    key: Callable[[Item], Hashable],
    call: Callable[[list[Item]], Sequence[Result | TzkError]],
    *,
    fill: bool = True,
    kinds: Callable[[Item], bool] = lambda item: True,
) -> list[Result | TzkError]:
    """``call`` for the items with the same key, together; results in the items' order.

    When a call fails, each of its items is tried alone, so that only those that are at fault fail;
    when it runs out of memory, its halves are tried. ``call`` therefore makes its random numbers
    from the items' seeds each time.

    Args:
        fill: an item is one row of the model's batch, so a group is cut into batches of fixed
            sizes, filled up with copies of its last item. Otherwise ``call`` sees to that itself
            (:func:`tzk_core.service.seeds.filled_seeds`).
        kinds: whether an item asks for a kind, the same of all items with one key; its batches
            have the sizes that are for that.
    """
    results: list[Result | TzkError | None] = list(items)
    groups: dict[Hashable, list[int]] = {}
    for index, item in enumerate(items):
        if not isinstance(item, TzkError):
            groups.setdefault(key(item), []).append(index)
    whole = _by_sizes if fill else _by_requests
    for members in groups.values():
        group = [items[i] for i in members]
        with of_kinds(kinds(group[0])):
            for index, result in zip(members, whole(group, call), strict=True):
                results[index] = result
    return results


def _by_sizes(group: list, call: Call) -> list:
    """Batches of fixed sizes."""

    def full(batch: list) -> Sequence:
        [(_, size)] = filled(len(batch))
        return call(batch + batch[-1:] * (size - len(batch)))[: len(batch)]

    batches = [group[part] for part, _ in filled(len(group))]
    return [result for batch in batches for result in _together(batch, full)]


def _by_requests(group: list, call: Call) -> list:
    """All at once; each may be of many rows, of which ``call`` makes batches."""
    return _together(group, call, lambda alone, outcome: _in_smaller_batches(alone, call, outcome))


def _together(group: list, call: Call, last_resort: Callable | None = None) -> list:
    """One call, or what becomes of its items when it fails.

    Args:
        last_resort: what to do with one item for which memory is short.
    """
    if device_lost():
        return [unavailable() for _ in group]
    outcome = _try(call, group)
    if not isinstance(outcome, TzkError):
        return list(outcome)
    if device_lost():
        return [unavailable() for _ in group]
    no_memory = isinstance(outcome, OutOfDeviceMemory)
    if len(group) == 1:
        return [last_resort(group, outcome) if no_memory and last_resort else outcome]
    log.warning("A batch of %d failed (%s): it is tried in parts", len(group), outcome)
    step = (len(group) + 1) // 2 if no_memory else 1
    return [
        result
        for start in range(0, len(group), step)
        for result in _together(group[start : start + step], call, last_resort)
    ]


def _in_smaller_batches(group: list, call: Call, outcome: TzkError):
    """One request again with ever fewer rows at once, as it may be of many images."""
    for size in reversed(current_sizes()[:-1]):
        if not isinstance(outcome, OutOfDeviceMemory) or device_lost():
            break
        with at_most(size):
            again = _try(call, group)
        outcome = again if isinstance(again, TzkError) else again[0]
    return outcome


def _try(call: Call, group: list) -> Sequence | TzkError:
    # What the traceback holds, tensors among it, is let go here and not kept for the next try.
    try:
        return call(group)
    except Exception as error:
        return failed(error)


def _attempt(function: Callable[[Item], Work], item: Item) -> Work | TzkError:
    if device_lost():
        return unavailable()
    try:
        return function(item)
    except Exception as error:
        return failed(error)
