"""Complete, atomic checkpoints in safetensors and JSON (design, section 11).

``checkpoints/0-000500/`` (stage, step) holds the model as a run folder does, the averaged weights,
the optimiser's tensors, and ``state.json``. Generators and the place in the data need no state of
their own: both follow from (seed, stage, step).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import ModelUnavailable, WorkFailed
from ..files import folder_aside
from ..hub import load_config, sha256
from ..model import TzK

__all__ = ["Checkpoint", "latest_checkpoint", "load_checkpoint", "save_checkpoint"]

KEEP = 2


@dataclass
class Checkpoint:
    """Where a run stopped, and everything it needs to go on."""

    model: TzK
    stage: int
    step: int  # steps of that stage that are done
    optimizer: dict | None
    averaged: list[Tensor] | None


def save_checkpoint(
    folder: Path,
    model: TzK,
    *,
    stage: int,
    step: int,
    optimizer: torch.optim.Optimizer,
    averaged: list[Tensor] | None,
) -> Path:
    """Writes ``folder/STAGE-STEP`` whole or not at all, and keeps the last ``KEEP``."""
    place = folder / f"{stage}-{step:06d}"
    with folder_aside(place) as aside:
        model.save_pretrained(aside)
        state = optimizer.state_dict()
        tensors = {
            f"{index}.{key}": value.contiguous()
            for index, entries in state["state"].items()
            for key, value in entries.items()
        }
        save_file(tensors, aside / "optimizer.safetensors")
        if averaged is not None:
            save_file({str(i): a for i, a in enumerate(averaged)}, aside / "averaged.safetensors")
        sums = {path.name: sha256(path) for path in aside.glob("*.safetensors")}
        record = {
            "stage": stage,
            "step": step,
            "param_groups": state["param_groups"],
            "sha256": sums,
        }
        (aside / "state.json").write_text(json.dumps(record) + "\n")
    for old in _places(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run folder's ``checkpoints``."""
    places = _places(folder)
    return places[-1] if places else None


def load_checkpoint(place: Path) -> Checkpoint:
    """Reads a checkpoint back.

    Raises:
        ModelUnavailable: a file is missing or is not what was written.
    """
    load_config(place)
    model = TzK.from_pretrained(place)
    try:
        record = json.loads((place / "state.json").read_text())
        for name, wanted in record["sha256"].items():
            if sha256(place / name) != wanted:
                raise ModelUnavailable(f"{place / name} is not what was written: it is corrupt")
        tensors = load_file(place / "optimizer.safetensors")
        averaged = None
        if (place / "averaged.safetensors").is_file():
            loaded = load_file(place / "averaged.safetensors")
            averaged = [loaded[str(i)] for i in range(len(loaded))]
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailable(f"the checkpoint {place} cannot be read: {error}") from error
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer = {"state": state, "param_groups": record["param_groups"]}
    return Checkpoint(model, record["stage"], record["step"], optimizer, averaged)


def _places(folder: Path) -> list[Path]:
    try:
        found = [p for p in folder.glob("[0-9]*-[0-9]*") if (p / "state.json").is_file()]
    except OSError as error:
        raise WorkFailed(f"{folder} cannot be read: {error}") from error
    # As numbers: step 1000000 comes after 999500.
    return sorted(found, key=lambda place: [int(part) for part in place.name.split("-")])
