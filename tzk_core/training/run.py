"""A recipe, from data to a run folder that can be served (design, section 11)."""

from __future__ import annotations

import contextlib
import json
import platform
import time
from pathlib import Path

import torch
import yaml

from .._version import __version__
from ..config import KnowledgeConfig, TzKConfig
from ..devices import device_named
from ..errors import UsageError, WorkFailed
from ..evaluation.held_out import Figure, measure
from ..evaluation.pictures import sample_grids
from ..files import must_be_writable, write_aside
from ..hub import CONFIG, WEIGHTS
from ..likelihood import fit_encoder_rate, fit_existence
from ..model import TzK
from ..randomness import derived
from .card import card
from .checkpoint import Checkpoint, latest_checkpoint, load_checkpoint
from .dataset import Dataset, load_data
from .interrupt import Interrupt
from .labels import Known
from .loop import Stage
from .progress import Reporter
from .recipe import Recipe, parse_recipe

__all__ = ["add_known_kinds", "is_finished", "read_data", "train"]

RECIPE = "recipe.yaml"


def train(
    recipe: Recipe,
    *,
    out: Path,
    resume: bool = False,
    device: str | torch.device = "auto",
    quiet: bool = False,
) -> TzK:
    """Trains by a recipe and writes the run folder.

    Args:
        recipe: what to do.
        out: the run folder; it must be new or empty unless ``resume``.
        resume: go on from the last checkpoint of an interrupted run of the same recipe.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        quiet: show no progress.

    Raises:
        UsageError: ``out`` holds a run already, or one of another recipe; no such device.
        WorkFailed: data or disk failed, the loss diverged, or the run was interrupted.
    """
    out = Path(out)
    if not any(source.knowledge or source.classes for source in recipe.data.sources):
        for index, stage in enumerate(recipe.stages):
            if stage.train == "knowledge":
                raise UsageError(
                    f"stages.{index}.train is knowledge, but data.sources tell of none: set "
                    "`knowledge` or `classes` of a source"
                )
    where = device_named(device)
    started = _start_folder(recipe, out, resume)
    reporter = Reporter(quiet)
    began = time.monotonic()
    with reporter.live(), contextlib.ExitStack() as until_trained:
        interrupt = until_trained.enter_context(Interrupt())
        data, held_out = read_data(recipe, reporter)
        # Only now: a recipe whose data cannot be read leaves nothing behind.
        record = recipe.model_dump(mode="json")
        write_aside(out / RECIPE, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))
        if started is None:
            model = TzK(
                TzKConfig(
                    observation=tuple(data.pixels.shape[1:]),
                    flow=recipe.model.flow,
                    preparation=recipe.data.preparation,
                ),
                generator=derived(recipe.seed, "weights"),
            )
        else:
            model = started.model
        model.to(where)
        for index, config in enumerate(recipe.stages):
            if started is not None and index < started.stage:
                continue
            here = started if started is not None and index == started.stage else None
            if config.train != "flow":
                add_known_kinds(model, data.known, recipe)
            Stage(
                model,
                data,
                config,
                index,
                seed=recipe.seed,
                folder=out,
                reporter=reporter,
                interrupt=interrupt,
            ).run(here)
        # What follows has no steps to stop between: Ctrl-C acts at once, and the last checkpoint
        # holds all that was trained.
        until_trained.close()
        try:
            figures = _finish(model, recipe, held_out, reporter)
        except KeyboardInterrupt as error:
            raise WorkFailed(
                "interrupted after training, before the model was measured: go on with --resume"
            ) from error
    _write(model, recipe, data, held_out, figures, out, time.monotonic() - began, str(where))
    reporter.say(f"{out} is ready: {', '.join(str(f) for f in figures[:1])}")
    return model


def is_finished(out: Path) -> bool:
    """Whether a run folder holds a model that can be served."""
    return (out / CONFIG).is_file() and (out / WEIGHTS).is_file()


def add_known_kinds(model: TzK, known: Known, recipe: Recipe) -> None:
    """Adds every kind that the data tell of and the model does not have (paper, Section 4)."""
    for path, label in known.labels.items():
        if path in model.paths():
            continue
        below = "/" in path
        sizes = recipe.model.child_knowledge if below else recipe.model.knowledge
        config = KnowledgeConfig.model_validate(sizes.model_dump() | {"label": label})
        model.add_knowledge(
            path,
            config,
            child_flow=recipe.model.child_flow,
            generator=derived(recipe.seed, "knowledge", path),
        )
    for source in recipe.data.sources:
        if source.classes and source.exclusive:
            model.declare_exclusive(source.knowledge)


def _start_folder(recipe: Recipe, out: Path, resume: bool) -> Checkpoint | None:
    """Whether the folder may be used, and the checkpoint to go on from."""
    stored = out / RECIPE
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; --out names a folder")
    if not resume:
        if is_finished(out):
            raise UsageError(f"{out} holds a finished run; name another folder, or remove it")
        if stored.exists():
            raise UsageError(
                f"{out} holds an interrupted run; go on with --resume, or name another folder"
            )
        # Known before all images are read, not after.
        must_be_writable(stored)
        return None
    if not stored.exists():
        raise UsageError(f"{out} holds no run to resume")
    if is_finished(out):
        raise UsageError(f"the run in {out} is finished; there is nothing to resume")
    if parse_recipe(yaml.safe_load(stored.read_text())) != recipe:
        raise UsageError(
            f"the run in {out} was started with another recipe: resume with {stored}, or name "
            "another folder"
        )
    latest = latest_checkpoint(out / "checkpoints")
    return load_checkpoint(latest) if latest else None


def read_data(recipe: Recipe, reporter: Reporter) -> tuple[Dataset, Dataset]:
    """(training images, held-out images) of a recipe, telling what is read and what is skipped.

    Raises:
        UsageError: there are too few.
    """
    tasks = []

    def progress(done: int, total: int) -> None:
        if not tasks or tasks[-1].done >= tasks[-1].total:  # of the first source, or the next
            tasks.append(reporter.task("reading images", total))
        tasks[-1].advance(done - tasks[-1].done)

    data, held_out = load_data(recipe.data, recipe.seed, progress)
    for name in data.skipped:
        reporter.say(f"skipped {name}")
    if len(data) < 2 or not len(held_out):
        raise UsageError(
            f"{len(data)} training and {len(held_out)} held-out images are too few to train on"
        )
    counts = {name: int((data.origin == i).sum()) for i, name in enumerate(data.names)}
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    reporter.say(f"{len(data):,} training images ({told}), {len(held_out):,} held out")
    return data, held_out


def _finish(model: TzK, recipe: Recipe, held_out: Dataset, reporter: Reporter) -> list[Figure]:
    config, seed = recipe.evaluation, recipe.seed
    if model.kinds():
        reporter.say("fitting p(e = 1) of every knowledge")
        fit_existence(model, draws=config.existence_draws, generator=derived(seed, "existence"))
        if config.encoder_rate_draws:
            fit_encoder_rate(
                model, draws=config.encoder_rate_draws, generator=derived(seed, "encoder rate")
            )
    reporter.say("measuring on held-out images")
    figures, log_p = measure(model, held_out, count=config.held_out, draws=config.draws, seed=seed)
    if not bool(log_p.isfinite().all()):
        raise WorkFailed("the trained model gives a log p that is not finite on held-out images")
    model.statistics["held_out_log_prob"] = [round(float(v), 3) for v in log_p]
    return figures


def _write(model, recipe, data, held_out, figures, out, seconds, device) -> None:
    grids = sample_grids(model, out / "samples", seed=recipe.seed)
    facts = {
        "tzk": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds),
        "seed": recipe.seed,
        "images": {"training": len(data), "held_out": len(held_out)},
        "fingerprints": data.fingerprints,
        "figures": [vars(figure) for figure in figures],
    }
    write_aside(out / "run.json", json.dumps(facts, indent=2) + "\n")
    write_aside(out / "README.md", card(model, recipe, facts, figures, grids, out))
    # Last, so that a folder with both files is one where everything is there.
    model.to("cpu").save_pretrained(out)
