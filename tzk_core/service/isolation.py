"""Many items through few calls of the model, none at the expense of another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from tzk_core.errors import TzkError
from tzk_core.service.problems import as_error

__all__ = ["attempted", "in_groups"]

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Work = TypeVar("Work")
Result = TypeVar("Result")


def attempted(
    function: Callable[[Item], Work], items: Sequence[Item | TzkError]
) -> list[Work | TzkError]:
    """``function`` of each item, or the error that it raised; errors among the items stay."""
    return [item if isinstance(item, TzkError) else _attempt(function, item) for item in items]


def in_groups(
    items: Sequence[Item | TzkError],
    key: Callable[[Item], Hashable],
    call: Callable[[list[Item]], Sequence[Result | TzkError]],
) -> list[Result | TzkError]:
    """``call`` once for each group of items with the same key; results in the items' order.

    When a group's call fails, each of its items is tried alone, so that only those that are
    at fault fail. ``call`` therefore makes its random numbers from the items' seeds each time.
    """
    results: list[Result | TzkError | None] = list(items)
    groups: dict[Hashable, list[int]] = {}
    for index, item in enumerate(items):
        if not isinstance(item, TzkError):
            groups.setdefault(key(item), []).append(index)
    for members in groups.values():
        for index, result in zip(members, _call([items[i] for i in members], call), strict=True):
            results[index] = result
    return results


def _call(group: list, call: Callable) -> Sequence:
    if len(group) == 1:
        return [_attempt(lambda one: call([one])[0], group[0])]
    try:
        return call(group)
    except Exception as error:
        log.warning("A batch of %d failed (%s): each is tried alone", len(group), error)
    return [_call([one], call)[0] for one in group]


def _attempt(function: Callable[[Item], Work], item: Item) -> Work | TzkError:
    try:
        return function(item)
    except Exception as error:
        return as_error(error)
