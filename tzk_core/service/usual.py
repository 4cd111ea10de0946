"""What a model has stored to compare images with, read and checked once for each loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from tzk_core.typicality import KEY, Typicality, stored_typicality

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["Usual", "usual"]

HELD_OUT = "held_out_log_prob"  # in the model's statistics


class Usual(NamedTuple):
    """How images like those of the training are.

    Args:
        held_out: log p(t) of held-out images, ascending, nats; empty when none is stored.
        typicality: how a tail is found, or why it cannot be.
    """

    held_out: list[float]
    typicality: Typicality | str


_FOUND: WeakKeyDictionary[TzK, tuple[tuple[Any, Any], Usual]] = WeakKeyDictionary()


def usual(model: TzK) -> Usual:
    """Of this model, as it is stored there now.

    It is read anew when something else is stored: another object, as training does it. An object
    that is changed in place is not noticed.
    """
    stored = model.statistics.get(HELD_OUT), model.statistics.get(KEY)
    known = _FOUND.get(model)
    if known is not None and all(a is b for a, b in zip(known[0], stored)):
        return known[1]
    found = Usual(sorted(stored[0] or []), stored_typicality(model))
    _FOUND[model] = stored, found
    return found
