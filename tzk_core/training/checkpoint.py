"""Complete, atomic checkpoints in safetensors and JSON (design, section 11).

``checkpoints/0-000500/`` (stage, step) holds the model as a run folder does, the averaged weights,
the optimiser's tensors, and ``state.json``. Generators and the place in the data need no state of
their own: both follow from (seed, stage, step), and the rate from the step.

``checkpoints/best-0/`` is the model of that stage that was best on held-out images, its averaged
weights in place: a folder that can be served, but no training goes on from it.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import ModelUnavailable, WorkFailed
from ..files import folder_aside
from ..hub import load_config, sha256
from ..model import TzK

__all__ = [
    "Checkpoint",
    "best_of",
    "clear_leftovers",
    "is_state",
    "latest_checkpoint",
    "load_checkpoint",
    "load_latest",
    "save_best",
    "save_checkpoint",
]

KEEP = 2
BEST, STATE = "best.json", "state.json"


@dataclass
class Checkpoint:
    """Where a run stopped, and everything it needs to go on."""

    model: TzK
    stage: int
    step: int  # steps of that stage that are done
    optimizer: dict | None
    averaged: list[Tensor] | None
    bad_in_a_row: int = 0  # steps that were left out, up to this one
    bad_steps: int = 0  # and in all
    best: float | None = None  # the lowest held-out figure of the stage


def save_checkpoint(
    folder: Path,
    model: TzK,
    *,
    stage: int,
    step: int,
    optimizer: torch.optim.Optimizer,
    averaged: list[Tensor] | None,
    keep: int = KEEP,
    bad_in_a_row: int = 0,
    bad_steps: int = 0,
    best: float | None = None,
) -> Path:
    """Writes ``folder/STAGE-STEP`` whole or not at all, and keeps the last ``keep``.

    Raises:
        WorkFailed: it cannot be written; the checkpoints that are there stay as they are.
    """
    place = folder / f"{stage}-{step:06d}"
    with _written_whole(place) as aside:
        model.save_pretrained(aside)
        state = optimizer.state_dict()
        tensors = {
            f"{index}.{key}": value.contiguous()
            for index, entries in state["state"].items()
            for key, value in entries.items()
        }
        save_file(tensors, aside / "optimizer.safetensors")
        if averaged is not None:
            numbered = {str(i): a.contiguous() for i, a in enumerate(averaged)}
            save_file(numbered, aside / "averaged.safetensors")
        record = {
            "stage": stage,
            "step": step,
            "bad_in_a_row": bad_in_a_row,
            "bad_steps": bad_steps,
            "best": best,
            "param_groups": state["param_groups"],
            "sha256": {path.name: sha256(path) for path in aside.glob("*.safetensors")},
        }
        (aside / STATE).write_text(json.dumps(record) + "\n")
    for old in _places(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def save_best(folder: Path, model: TzK, *, stage: int, step: int, figure: float) -> Path:
    """Writes ``folder/best-STAGE``: the model as it is, and the held-out figure it has.

    Raises:
        WorkFailed: it cannot be written; the one that is there stays.
    """
    place = folder / f"best-{stage}"
    with _written_whole(place) as aside:
        model.save_pretrained(aside)
        record = {"stage": stage, "step": step, "held_out": figure}
        (aside / BEST).write_text(json.dumps(record) + "\n")
    return place


def is_state(folder: Path) -> bool:
    """Whether training goes on from a folder: its weights are those of a step, and no average."""
    return (folder / STATE).is_file()


def best_of(folder: Path) -> list[dict]:
    """What ``best.json`` says of the best model of each stage: stage, step, held_out."""
    return [json.loads((p / BEST).read_text()) for p in sorted(folder.glob("best-*"))]


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run folder's ``checkpoints``."""
    places = _places(folder)
    return places[-1] if places else None


def load_latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is as it was written, and why newer ones are not.

    Those are put aside as ``corrupt-…``: they must not count among the last that are kept.

    Raises:
        ModelUnavailable: there are checkpoints, and none can be read.
    """
    reasons: list[str] = []
    corrupt: list[Path] = []
    for place in reversed(_places(folder)):
        try:
            found = load_checkpoint(place)
        except ModelUnavailable as error:
            reasons.append(error.detail)
            corrupt.append(place)
            continue
        for other in corrupt:
            with contextlib.suppress(OSError):  # where nothing can be renamed, nothing is pruned
                other.rename(other.with_name(f"corrupt-{other.name}"))
        return found, reasons
    if reasons:
        raise ModelUnavailable(reasons[0])
    return None, []


def load_checkpoint(place: Path) -> Checkpoint:
    """Reads a checkpoint back.

    Raises:
        ModelUnavailable: a file is missing or is not what was written.
    """
    load_config(place)
    model = TzK.from_pretrained(place)
    try:
        record = json.loads((place / STATE).read_text())
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
    return Checkpoint(
        model,
        record["stage"],
        record["step"],
        {"state": state, "param_groups": record["param_groups"]},
        averaged,
        record.get("bad_in_a_row", 0),
        record.get("bad_steps", 0),
        record.get("best"),
    )


def clear_leftovers(run: Path) -> None:
    """Removes from a run folder what a killed run began to write or remove and never finished."""
    for path in run.glob(".*.*"):
        # As `write_aside` names them.
        if re.fullmatch(r"\.(recipe\.yaml|run\.json|metrics\.jsonl|README\.md)\.\d+", path.name):
            path.unlink(missing_ok=True)
    for path in [*run.glob(".saving-*"), *(run / "checkpoints").glob(".*-*")]:
        if re.match(r"\.(\d+-\d+|best-\d+|saving)-", path.name):
            shutil.rmtree(path, ignore_errors=True)
    whole = _places(run / "checkpoints")
    for path in (run / "checkpoints").glob("[0-9]*-[0-9]*"):
        if path not in whole:
            shutil.rmtree(path, ignore_errors=True)


def _places(folder: Path) -> list[Path]:
    try:
        found = [p for p in folder.glob("[0-9]*-[0-9]*") if is_state(p)]
    except OSError as error:
        raise WorkFailed(f"{folder} cannot be read: {error}") from error
    # As numbers: step 1000000 comes after 999500.
    return sorted(found, key=lambda place: [int(part) for part in place.name.split("-")])


@contextlib.contextmanager
def _written_whole(place: Path) -> Iterator[Path]:
    """A folder aside that becomes ``place``; if it cannot, the error says what is still there."""
    try:
        with folder_aside(place) as aside:
            yield aside
    except (SafetensorError, WorkFailed) as error:
        before = latest_checkpoint(place.parent)
        kept = f"{before} is as it was, go on with --resume" if before else "none was written yet"
        # What the system said, without the name of a file that is gone.
        reason = " ".join(str(error).split()).rpartition(": ")[2]
        raise WorkFailed(f"the checkpoint {place} cannot be written: {reason} ({kept})") from error
