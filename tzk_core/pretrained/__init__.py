"""The model that comes with tzk, and how it is stored in half the size."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["BUILTIN", "compact", "expanded", "run_folder"]

BUILTIN = "builtin"
_FOLDER = Path(__file__).parent
_KIND = re.compile(r"(.*\.child\.knowledge\.)k_[\w-]+(\..*)")


def run_folder(run: str | Path) -> Path:
    """The folder of a run: ``builtin`` is the model that comes with tzk, unless there is one here.

    >>> run_folder("runs/quick").as_posix(), run_folder("builtin").name
    ('runs/quick', 'pretrained')
    """
    given = Path(run)
    return _FOLDER if str(run) == BUILTIN and not given.exists() else given


def compact(model: nn.Module) -> dict[str, Tensor]:
    """The model's state in half the size, as ``from_pretrained`` reads it.

    Matrices and kernels are in float16, everything else as it is: what has one dimension is a
    fiftieth of the bytes, and ActNorm's log scales count once for every position of a map. Kinds on
    one code are stored as one: of twenty kinds the names alone would take half a megabyte.
    """
    state = {name: _half(value.detach()) for name, value in model.state_dict().items()}
    groups: dict[str, list[str]] = {}
    for name in state:
        match = _KIND.fullmatch(name)
        if match:
            groups.setdefault(f"{match[1]}*{match[2]}", []).append(name)
    for together, names in groups.items():
        if len(names) > 1 and len({state[name].shape for name in names}) == 1:
            state[together] = torch.stack([state.pop(name) for name in names])
    return {name: value.contiguous() for name, value in state.items()}


def _half(value: Tensor) -> Tensor:
    return value.half() if value.ndim > 1 and value.dtype == torch.float32 else value


def expanded(state: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The state with what :func:`compact` stored together by the names that a model has for it."""
    found = {name: value for name, value in state.items() if "*" not in name}
    rows: dict[str, int] = {}
    for name in names:
        match = _KIND.fullmatch(name)
        together = f"{match[1]}*{match[2]}" if match else ""
        if name not in found and together in state:
            row = rows[together] = rows.get(together, -1) + 1
            if row < len(state[together]):
                found[name] = state[together][row]
    return found
