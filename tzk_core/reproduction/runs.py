"""The runs that an experiment trains: a finished one is taken, an interrupted one gone on with."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..errors import UsageError, WorkFailed
from ..files import folder_aside, write_aside
from ..hub import CONFIG, WEIGHTS, load_config
from ..training.fit import fit_knowledge
from ..training.latents import LATENTS
from ..training.launch import launch
from ..training.recipe import Recipe, parse_recipe
from ..training.run import FACTS, RECIPE, is_finished, train

__all__ = ["Run", "facts_of", "is_done", "make"]


class Run(NamedTuple):
    """One run of an experiment.

    Attributes:
        recipe: its name below recipes/paper/, without the scale.
        on: the run whose frozen t-flow its kinds are fitted on, in parallel (paper, 4.3); None for
            a run that trains a t-flow of its own.
    """

    recipe: str
    on: str | None = None


def make(
    run: Run,
    recipe: Recipe,
    folder: Path,
    *,
    base: Path | None = None,
    resume: bool = False,
    processes: int = 1,
    device: str = "auto",
    quiet: bool = False,
    say: Callable[[str], object] = print,
) -> None:
    """Sees to it that ``folder`` holds the finished run.

    Args:
        recipe: as it is run.
        base: the folder of ``run.on``.
        resume: go on with an interrupted run.
        processes: that train together, each a part of every batch. Kinds that are fitted in
            parallel take as many as there are cores, whatever this says.

    Raises:
        UsageError: the folder holds a run by another recipe, or an interrupted one without
            ``resume``.
        WorkFailed: training failed or was interrupted.
    """
    stored = folder / RECIPE
    if stored.is_file():
        if parse_recipe(yaml.safe_load(stored.read_text()), title=str(stored)) != recipe:
            raise UsageError(
                f"{folder} holds a run by another recipe (sizes, data or seed): remove it, or name "
                "another --out"
            )
        if is_done(folder, recipe):
            say(f"{recipe.name}: {folder} has it")
            return
        if not resume:
            raise UsageError(
                f"{folder} holds an interrupted run: go on with --resume, or name another --out"
            )
    say(f"{recipe.name}: {recipe.description}")
    if run.on is None:
        if processes > 1:
            _by_processes(recipe, folder, processes, resume=stored.is_file(), device=device)
        else:
            train(recipe, out=folder, resume=stored.is_file(), device=device, quiet=quiet)
        return
    if not stored.is_file():
        _with_flow_of(base, recipe, folder)
    fit_knowledge(folder, device=device, quiet=quiet)
    # As large as the images twelve times over, and of no use once all kinds are there.
    shutil.rmtree(folder / LATENTS, ignore_errors=True)


def _by_processes(
    recipe: Recipe, folder: Path, processes: int, *, resume: bool, device: str
) -> None:
    """What ``tzk train --processes`` does with the recipe."""
    with tempfile.TemporaryDirectory() as aside:
        file = Path(aside, RECIPE)
        file.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True))
        given = ["--out", str(folder), "--device", device, *(["--resume"] if resume else [])]
        code = launch(["train", *given, "--", str(file)], processes)
    if code:
        raise WorkFailed(f"{recipe.name}: training by {processes} processes failed, as told above")


def is_done(folder: Path, recipe: Recipe) -> bool:
    """Whether a run folder holds a model with every data set that the recipe makes a kind."""
    if not is_finished(folder):
        return False
    config, _ = load_config(folder)
    return {s.knowledge for s in recipe.data.sources if s.knowledge} <= set(config.knowledge)


def facts_of(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """What a report tells of a run: its size, its images, its time."""
    file = folder / FACTS
    known = json.loads(file.read_text()) if file.is_file() else {}
    added = known.get("added", [])
    return {
        "steps": [[stage.train, stage.steps, stage.batch] for stage in recipe.stages],
        "seed": recipe.seed,
        "images": known.get("images"),
        "device": known.get("device"),
        "threads": known.get("threads"),
        "processes": known.get("processes"),
        # Of a resumed run those since it was resumed.
        "seconds": known.get("seconds", 0) + sum(each["seconds"] for each in added),
    }


def _with_flow_of(base: Path, recipe: Recipe, folder: Path) -> None:
    """A run folder with the t-flow of another run and the recipe of kinds that are to come."""
    with folder_aside(folder) as aside:
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(base / name, aside / name)
        record = recipe.model_dump(mode="json")
        write_aside(aside / RECIPE, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))
