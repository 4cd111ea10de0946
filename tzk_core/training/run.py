"""A recipe, from data to a run folder that can be served (design, section 11)."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from pathlib import Path

import torch
import yaml

from ..config import KnowledgeConfig, TzKConfig
from ..devices import device_named
from ..errors import UsageError, WorkFailed
from ..evaluation.held_out import Figure, measure
from ..evaluation.pictures import sample_grids
from ..files import must_be_writable, write_aside
from ..hub import CONFIG, WEIGHTS
from ..likelihood import fit_encoder_rate, fit_existence
from ..model import TzK
from ..objective import check_objective
from ..randomness import derived
from ..typicality import fit_typicality, ks_uniform
from .card import card
from .checkpoint import Checkpoint, best_of, load_latest
from .dataset import Dataset, load_data
from .facts import facts_of, same_data, session_of
from .group import Group
from .interrupt import Interrupt
from .labels import Known
from .latents import LATENTS
from .loop import Stage, select_parameters
from .progress import Reporter
from .recipe import Recipe, parse_recipe
from .watching import Board

__all__ = ["add_known_kinds", "is_finished", "read_data", "train"]

RECIPE, FACTS = "recipe.yaml", "run.json"


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
    Where a launcher started several processes, they train together on parts of each batch, and
    all but the main one return the model as it is before it is measured.

    Raises:
        UsageError: ``out`` holds a run already, or one of another recipe or of other images; no
            such device.
        WorkFailed: data or disk failed, the loss diverged, or the run was interrupted.
    """
    out = Path(out)
    if not any(source.tells for source in recipe.data.sources):
        for index, stage in enumerate(recipe.stages):
            if stage.train in ("knowledge", "children"):
                raise UsageError(
                    f"stages.{index}.train is {stage.train}, but data.sources tell of none: set "
                    "`knowledge`, `classes`, `attributes` or `binary_digits` of a source"
                )
    with Group.joined(device_named(device)) as group:
        return _train(recipe, out, resume, group, Reporter(quiet or not group.main))


def _train(recipe: Recipe, out: Path, resume: bool, group: Group, reporter: Reporter) -> TzK:
    began = time.monotonic()
    with group.main_first():
        started = _start_folder(recipe, out, resume, reporter, group.main)
    with reporter.live(), contextlib.ExitStack() as until_trained:
        interrupt = until_trained.enter_context(Interrupt())
        with group.main_first():
            data, held_out = read_data(recipe, reporter, interrupt)
        facts = facts_of(recipe, data, held_out, group)
        session = session_of(group, started)
        _check_stages(recipe, data)
        model = _model(recipe, data) if started is None else started.model
        model.to(group.device)
        if group.main:
            _record(recipe, out, facts, session, resume)
            until_trained.callback(_record_time, out, facts, session, began)
        first = 0 if started is None else started.stage
        offset = sum(stage.steps for stage in recipe.stages[:first])
        next_step = offset + (started.step if started else 0)
        board = _board(recipe, out, group, reporter, next_step if resume else None)
        if board is not None:
            until_trained.callback(board.close)
        for index, config in enumerate(recipe.stages[first:], start=first):
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
                watch=recipe.watch,
                # What is tested on may not choose the best of the stages' models.
                held_out=None if recipe.data.test else held_out,
                board=board,
                offset=offset,
                group=group,
            ).run(here)
            offset += config.steps
        if group.main:
            # Of a stage that was killed after its last checkpoint, or that others went on with.
            shutil.rmtree(out / LATENTS, ignore_errors=True)
        # What follows has no steps to stop between: Ctrl-C acts at once, and the last checkpoint
        # holds all that was trained.
        until_trained.close()
        if not group.main:
            return model
        try:
            figures = _finish(model, recipe, held_out, reporter)
        except KeyboardInterrupt as error:
            raise WorkFailed(
                "interrupted after training, before the model was measured: go on with --resume"
            ) from error
    session["seconds"] = round(time.monotonic() - began)
    facts |= {
        "seconds": sum(each.get("seconds", 0) for each in facts["sessions"]),
        "best": best_of(out / "checkpoints"),
        "figures": [vars(figure) for figure in figures],
    }
    _write(model, recipe, figures, out, facts)
    reporter.say(f"{out} is ready: {', '.join(str(f) for f in figures[:1])}")
    return model


def _check_stages(recipe: Recipe, data: Dataset) -> None:
    """Finds what is wrong with a later stage now, and not once the t-flow is trained.

    Raises:
        UsageError: a stage trains or freezes what there is not, or its objective has no maximum.
    """
    model = _model(recipe, data)
    for index, stage in enumerate(recipe.stages):
        if stage.train != "flow":
            add_known_kinds(model, data.known, recipe)
            if stage.train == "children" and len(model.paths()) == len(model.kinds()):
                raise UsageError(
                    f"stages.{index}.train is children, but no knowledge has any below it: set "
                    "`classes` or `binary_digits` of a source"
                )
            check_objective(model, stage.objective, stage.train == "all")
        select_parameters(model, stage)


def _model(recipe: Recipe, data: Dataset) -> TzK:
    """A new one, of p(t) alone."""
    config = TzKConfig(
        observation=tuple(data.pixels.shape[1:]),
        flow=recipe.model.flow,
        preparation=recipe.data.preparation,
    )
    return TzK(config, generator=derived(recipe.seed, "weights"))


def _board(
    recipe: Recipe, out: Path, group: Group, reporter: Reporter, first: int | None
) -> Board | None:
    if not (recipe.watch.tensorboard and group.main):
        return None
    if not Board.there():
        reporter.say("TensorBoard is not installed: nothing is written for it")
        return None
    return Board(out / "tensorboard", first)


def _record(recipe: Recipe, out: Path, facts: dict, session: dict, resume: bool) -> None:
    """What the run is of. Only once its images are read and its stages looked through: a recipe
    that cannot be trained leaves nothing behind, and the folder is free for the right one."""
    stored, before = out / FACTS, []
    if resume and stored.is_file():
        first = json.loads(stored.read_text())
        same_data(first, facts, out)
        before = first.get("sessions", [])
    facts["sessions"] = [*before, session]
    record = recipe.model_dump(mode="json")
    write_aside(out / RECIPE, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))
    write_aside(stored, json.dumps(facts, indent=2) + "\n")


def _record_time(out: Path, facts: dict, session: dict, began: float) -> None:
    """How long it took so far, also where it was stopped. What cannot be written says so before
    or after: not here, where it would hide why it stopped."""
    session["seconds"] = round(time.monotonic() - began)
    with contextlib.suppress(WorkFailed):
        write_aside(out / FACTS, json.dumps(facts, indent=2) + "\n")


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


def _start_folder(
    recipe: Recipe, out: Path, resume: bool, reporter: Reporter, main: bool
) -> Checkpoint | None:
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
        if main:
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
    checkpoint, reasons = load_latest(out / "checkpoints")
    for reason in reasons:
        reporter.say(f"{reason}; going on from the one before it")
    return checkpoint


def read_data(
    recipe: Recipe, reporter: Reporter, interrupt: Interrupt | None = None
) -> tuple[Dataset, Dataset]:
    """(training images, held-out images) of a recipe, telling what is read and what is skipped.

    Raises:
        UsageError: there are too few.
        WorkFailed: interrupted.
    """
    tasks = []

    def progress(done: int, total: int) -> None:
        if interrupt is not None and interrupt.asked:
            raise WorkFailed("interrupted while images were read: the same command begins anew")
        if not tasks or tasks[-1].done >= tasks[-1].total:  # of the first source, or the next
            tasks.append(reporter.task("reading images", total))
        task = tasks[-1]
        task.advance(done - task.done, f"{done / max(task.seconds, 1e-3):,.0f} images/s")

    data, held_out = load_data(recipe.data, recipe.seed, progress)
    for name in data.skipped:
        reporter.say(f"skipped {name}")
    for note in data.notes:
        reporter.say(note)
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
    figures, log_p = measure(
        model,
        held_out,
        count=config.held_out,
        draws=config.draws,
        seed=seed,
        noise_draws=config.noise_draws,
    )
    if not bool(log_p.isfinite().all()):
        raise WorkFailed("the trained model gives a log p that is not finite on held-out images")
    model.statistics["held_out_log_prob"] = [round(float(v), 3) for v in log_p]
    return figures + _typicality(model, held_out, seed, reporter)


def _typicality(model: TzK, held_out: Dataset, seed: int, reporter: Reporter) -> list[Figure]:
    """Stores what tells how usual an image is; the figure is of images not fitted on."""
    model.statistics.pop("typicality", None)
    fitted = fit_typicality(model, held_out, seed=seed)
    if isinstance(fitted, str):
        reporter.say(f"scores will have no typicality: {fitted}")
        return []
    model.statistics["typicality"] = fitted.typicality.model_dump(mode="json")
    distance, count = ks_uniform(fitted.report), len(fitted.report)
    return [Figure("typicality", distance, math.nan, count, "Kolmogorov–Smirnov from uniform")]


def _write(model: TzK, recipe: Recipe, figures: list[Figure], out: Path, facts: dict) -> None:
    grids = sample_grids(model, out / "samples", seed=recipe.seed)
    write_aside(out / FACTS, json.dumps(facts, indent=2) + "\n")
    write_aside(out / "README.md", card(model, recipe, facts, figures, grids, out))
    # Last, so that a folder with both files is one where everything is there.
    model.to("cpu").save_pretrained(out)
