"""Adding knowledge to a finished run: nothing that was there changes, bit for bit.

Paper, Section 4: "All learning occurred in an online fashion, adding new conditional knowledge
types as needed."
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
import yaml

from ..data.names import split_path
from ..devices import device_named
from ..errors import UsageError
from ..evaluation.held_out import measure
from ..evaluation.pictures import sample_grids
from ..files import write_aside
from ..likelihood import fit_existence
from ..model import TzK
from ..randomness import derived
from .interrupt import Interrupt
from .loop import Stage
from .progress import Reporter
from .recipe import Recipe, SourceConfig, StageConfig, parse_recipe
from .run import RECIPE, add_known_kinds, read_data

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
        raise UsageError(f"{run} has a knowledge {name!r} already; remove or rename it first")
    recipe = _with_source(
        run, SourceConfig(source=source, knowledge=name, classes=classes, limit=limit)
    )
    stage = _stage(recipe, steps)
    reporter, began = Reporter(quiet), time.monotonic()
    with reporter.live(), Interrupt() as interrupt:
        data, held_out = read_data(recipe, reporter)
        before = set(model.paths())
        add_known_kinds(model, data.known, recipe)
        new = [path for path in model.paths() if path not in before]
        others = [path for path in new if path.split("/")[0] != name]
        for path in reversed(others):
            # A class that the old sources tell of and the run does not have is not asked for.
            model.remove_knowledge(path)
        new = [path for path in new if path not in others]
        Stage(
            model.to(where),
            data,
            stage,
            index=len(recipe.stages),
            seed=recipe.seed,
            folder=run,
            reporter=reporter,
            interrupt=interrupt,
            only=new,
            resumable=False,
        ).run()
        fit_existence(
            model,
            draws=recipe.evaluation.existence_draws,
            generator=derived(recipe.seed, "existence", name),
            only=new,
        )
        figures, _ = measure(
            model,
            held_out,
            count=recipe.evaluation.held_out,
            draws=recipe.evaluation.draws,
            seed=recipe.seed,
            only=[name],
        )
    sample_grids(model, run / "samples", seed=recipe.seed, only=[name])
    model.to("cpu").save_pretrained(run)
    record = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_aside(run / RECIPE, record)
    _note(run, f"## Added: {name}", [f"- {figure.name}: {figure}" for figure in figures], began)
    return model


def remove_knowledge(run: Path, name: str) -> TzK:
    """Removes a knowledge and all below it from a run, and saves the run."""
    model = TzK.from_pretrained(run)
    model.remove_knowledge(name)
    model.save_pretrained(run)
    return model


def _with_source(run: Path, source: SourceConfig) -> Recipe:
    stored = run / RECIPE
    if not stored.is_file():
        raise UsageError(f"{run} has no {RECIPE}: without it there are no negatives to fit against")
    recipe = parse_recipe(yaml.safe_load(stored.read_text()), title=str(stored))
    kept = [s for s in recipe.data.sources if s.knowledge != source.knowledge]
    data = recipe.data.model_copy(update={"sources": [*kept, source]})
    return recipe.model_copy(update={"data": data})


def _stage(recipe: Recipe, steps: int | None) -> StageConfig:
    stages = [s for s in recipe.stages if s.train == "knowledge"]
    stage = stages[-1] if stages else StageConfig(train="knowledge", steps=1000)
    return stage if steps is None else stage.model_copy(update={"steps": steps})


def _note(run: Path, title: str, lines: list[str], began: float) -> None:
    """Adds what was done to the model card and to ``run.json``."""
    seconds = round(time.monotonic() - began)
    card = run / "README.md"
    text = card.read_text() if card.is_file() else ""
    write_aside(card, "\n".join([text.rstrip(), "", title, "", *lines, f"- in {seconds} s", ""]))
    facts = run / "run.json"
    known = json.loads(facts.read_text()) if facts.is_file() else {}
    known.setdefault("added", []).append({"title": title, "seconds": seconds, "figures": lines})
    write_aside(facts, json.dumps(known, indent=2) + "\n")
