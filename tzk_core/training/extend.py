"""Adding knowledge to a finished run: nothing that was there changes, bit for bit.

Paper, Section 4: "All learning occurred in an online fashion, adding new conditional knowledge
types as needed."
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from ..data.names import split_path
from ..devices import device_named
from ..errors import UsageError
from ..model import TzK
from .fit import finish, fit_kinds, knowledge_stage, locked, recipe_of
from .fit_workers import Context, InProcess
from .interrupt import Interrupt
from .progress import Reporter
from .recipe import SourceConfig
from .run import read_data

__all__ = ["add_knowledge", "remove_knowledge"]


def add_knowledge(
    run: Path,
    *,
    name: str,
    source: str,
    classes: bool = False,
    steps: int | None = None,
    limit: int | None = None,
    device: str | torch.device = "auto",
    quiet: bool = False,
) -> TzK:
    """Fits one knowledge (and its classes) on the frozen t-flow of a run, and saves the run.

    The images that the run was trained on are its negatives.

    Args:
        run: a finished run folder.
        name: of the new knowledge.
        source: as in a recipe: a folder, a parquet file, ``builtin/…`` or a hub name.
        classes: whether its labels become knowledge below it.
        steps: of training; those of the recipe's last stage of knowledge by default.
        limit: at most so many of its images.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: the name is taken or is a path, or the run has no recipe.
    """
    where = device_named(device)
    if len(split_path(name)) > 1:
        raise UsageError(f"{name!r}: a data set is knowledge of the first level, without '/'")
    model = TzK.from_pretrained(run)
    if name in model.paths():
        raise UsageError(
            f"{run} has a knowledge {name!r} already; take another name, or "
            f"`tzk remove-knowledge {run} {name}` first"
        )
    added = SourceConfig(source=source, knowledge=name, classes=classes, limit=limit)
    recipe = recipe_of(run)
    recipe = recipe.model_copy(update={"data": recipe.data.with_source(added)})
    stage, _ = knowledge_stage(recipe, steps)
    reporter, began = Reporter(quiet), time.monotonic()
    with reporter.live(), Interrupt() as interrupt:
        data, held_out = read_data(recipe, reporter)
        fitted = fit_kinds(
            run,
            model.to(where),
            data,
            recipe,
            stage,
            len(recipe.stages),
            [name],
            InProcess(Context(reporter, interrupt)),
            reporter,
            str(where),
        )
    return finish(run, fitted, recipe, held_out, reporter, began, recorded=added, device=where)


def remove_knowledge(run: Path, name: str) -> TzK:
    """Removes a knowledge and all below it from a run, and saves the run."""
    model = TzK.from_pretrained(run)
    model.find(name)
    with locked(run):
        model = TzK.from_pretrained(run)
        model.remove_knowledge(name)
        model.save_pretrained(run)
    return model
