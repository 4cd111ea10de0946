"""Knowledge in parallel: K root kinds on a frozen t-flow are K independent jobs.

Paper, Section 4.3: "conditional models can be trained in parallel". Latent states are worked out
once (``RUN/latents``), every job leaves an artefact (``RUN/knowledge``), and what is there and was
made from the same is not made again. At the end the artefacts become part of the run's model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

import torch
import yaml
from filelock import FileLock

from ..devices import device_named, processors
from ..errors import UsageError, WorkFailed
from ..evaluation.held_out import Figure, measure
from ..evaluation.pictures import sample_grids
from ..files import must_be_writable, write_aside
from ..model import TzK
from .dataset import Dataset
from .fit_artefact import FOLDER, Artefact, merge, read_artefact, write_artefact
from .fit_job import Job, Shared, fit_kind, job_of
from .fit_workers import RETRIES, Failure, InProcess, Processes, Workers
from .interrupt import Interrupt
from .latents import LATENTS, FlowWeights, Latents, part_keys
from .progress import Reporter
from .recipe import Recipe, SourceConfig, StageConfig, parse_recipe
from .run import RECIPE, read_data

__all__ = [
    "Fitted",
    "finish",
    "fit_kinds",
    "fit_knowledge",
    "knowledge_stage",
    "recipe_of",
]


class Fitted(dict[str, Artefact]):
    """Artefacts by kind, how many of them were made now, and why others are missing."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []
        self.failures: dict[str, str] = {}


def fit_knowledge(
    run: Path,
    *,
    only: Iterable[str] = (),
    steps: int | None = None,
    processes: int | None = None,
    threads: int = 1,
    ray: str | None = None,
    retries: int = RETRIES,
    device: str = "auto",
    quiet: bool = False,
) -> TzK:
    """Fits the knowledge that a run's recipe tells of and its model does not have.

    Kinds that the model has stay as they are, bit for bit. The weights depend on the recipe, its
    seed and the threads a process, not on how many processes there are or where they work.

    Args:
        run: a finished run folder.
        only: root kinds; all that are missing by default.
        steps: of training; those of the recipe's last stage of knowledge by default.
        processes: of this machine; as many as there are cores for by default (one on a GPU).
        threads: of each process, or cores of each Ray task.
        ray: work as Ray tasks: the address of a cluster, ``auto``, or an empty one (see
            :class:`~tzk_core.training.fit_ray.RayWorkers`).
        retries: of a kind whose process died.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        quiet: show no progress.

    Returns:
        The run's model, saved.

    Raises:
        UsageError: no recipe, no such kind, or nothing that the recipe tells of.
        WorkFailed: some kind could not be fitted; what was is in the model.
    """
    where = device_named(device)
    recipe, model = recipe_of(run), TzK.from_pretrained(run)
    stage, index = knowledge_stage(recipe, steps)
    reporter, began = Reporter(quiet), time.monotonic()
    with reporter.live(), Interrupt() as interrupt:
        data, held_out = read_data(recipe, reporter, interrupt)
        wanted = _wanted(run, model, data, only)
        there = [name for name in wanted if name in model.kinds()]
        missing = [name for name in wanted if name not in model.kinds()]
        for name in there:
            reporter.say(f"{name}: the model has it; tzk remove-knowledge {run} {name} to fit anew")
        if not missing:
            return model
        count = 1 if where.type == "cuda" else max(1, processors() // threads)
        gpus = 1 if where.type == "cuda" else 0
        if ray is not None:
            from .fit_ray import RayWorkers

            workers: Workers = RayWorkers(
                ray, threads, gpus=gpus, interrupt=interrupt, retries=retries
            )
        else:
            workers = Processes(processes or count, threads, interrupt, retries)
        fitted = fit_kinds(
            run, model, data, recipe, stage, index, missing, workers, reporter, str(where)
        )
        for name in missing:
            if name in fitted and name not in fitted.made:
                reporter.say(f"{name}: {run / FOLDER} has it")
    return finish(run, fitted, recipe, held_out, reporter, began, device=where)


def locked(run: Path) -> FileLock:
    """Held by whoever changes a run's model or recipe."""
    (run / FOLDER).mkdir(exist_ok=True)
    return FileLock(run / FOLDER / ".lock")


def recipe_of(run: Path) -> Recipe:
    """The recipe that a run was trained by.

    Raises:
        UsageError: it has none.
    """
    stored = run / RECIPE
    if not stored.is_file():
        raise UsageError(f"{run} has no {RECIPE}: without it there are no images to fit against")
    return parse_recipe(yaml.safe_load(stored.read_text()), title=str(stored))


def knowledge_stage(recipe: Recipe, steps: int | None = None) -> tuple[StageConfig, int]:
    """The last stage of knowledge and its number; one of 1,000 steps where there is none."""
    places = [i for i, stage in enumerate(recipe.stages) if stage.train == "knowledge"]
    index = places[-1] if places else len(recipe.stages)
    stage = recipe.stages[index] if places else StageConfig(train="knowledge", steps=1000)
    return (stage if steps is None else stage.model_copy(update={"steps": steps})), index


def _of_kind(stage: StageConfig, name: str) -> StageConfig:
    """The stage for a job that knows one root kind: what it freezes elsewhere is not there."""
    below = [path for path in stage.freeze if path.startswith(name + "/")]
    return stage.model_copy(update={"freeze": below})


def fit_kinds(
    run: Path,
    model: TzK,
    data: Dataset,
    recipe: Recipe,
    stage: StageConfig,
    index: int,
    names: list[str],
    workers: Workers,
    reporter: Reporter,
    device: str,
) -> Fitted:
    """The artefacts of some root kinds: those that are there, and the rest made by ``workers``.

    Args:
        run: its ``latents`` and ``knowledge`` are read and written, its model is not.
        model: for its t-flow.
        names: of root kinds that the data tell of.

    Raises:
        WorkFailed: interrupted, or the run folder cannot be written.
    """
    folder, fitted = run / FOLDER, Fitted()
    must_be_writable(folder / "any")
    flow, draws = FlowWeights(model), stage.latent_draws
    parts = part_keys(model, data, draws, recipe.seed)
    jobs = [
        job_of(name, data, recipe, _of_kind(stage, name), index, parts, device) for name in names
    ]
    missing: list[Job] = []
    for job in jobs:
        found = read_artefact(folder, job.name)
        if found is not None and found.made_from == job.made_from:
            fitted[job.name] = found
        else:
            missing.append(job)
    if not missing:
        return fitted
    with workers:
        task = reporter.task("latent states", draws * len(data))
        latents = Latents.encode(
            model,
            data,
            draws,
            recipe.seed,
            task.advance,
            folder=run / LATENTS,
            run=lambda *work: _all_or_none(workers.run(*work)),
            device=device,
        )
        ticking = not isinstance(workers, InProcess)
        task = reporter.task("knowledge", stage.steps * len(missing)) if ticking else None
        tick = (lambda units: task.advance(units)) if ticking else (lambda units: None)
        shared = Shared.of(flow, latents, data)
        for number, result in workers.run(fit_kind, shared, missing, tick):
            name = missing[number].name
            if isinstance(result, Failure):
                fitted.failures[name] = result.reason
                reporter.say(f"{name}: {result.trace or result.reason}")
                continue
            write_artefact(folder, result)
            _append(run / "metrics.jsonl", name, result.metrics)
            fitted[name] = result
            fitted.made.append(name)
            if task is not None and not isinstance(workers, Processes):
                task.advance(stage.steps)  # a Ray task tells nothing before it is done
            reporter.say(f"{name}: {stage.steps} steps, {result.facts['seconds']:.0f} s")
    return fitted


def finish(
    run: Path,
    fitted: Fitted,
    recipe: Recipe,
    held_out: Dataset,
    reporter: Reporter,
    began: float,
    *,
    recorded: SourceConfig | None = None,
    device: str | torch.device = "cpu",
) -> TzK:
    """Puts artefacts into the run's model, measures them on held-out images and saves the run.

    Args:
        recorded: a source that the run's recipe gets.
        device: where it is measured.

    Raises:
        WorkFailed: there were failures; what is there is in the model all the same.
    """
    order = [name for name in held_out.known.labels if name in fitted]
    # Another process may add knowledge to this run too: neither may overwrite what the other did.
    with locked(run):
        model = TzK.from_pretrained(run)
        new = [name for name in order if name not in model.kinds()]
        for name in new:
            merge(model, fitted[name])
        roots = [s for s in recipe.data.sources if s.classes and s.exclusive and not s.knowledge]
        if roots and set(order) | set(model.kinds()) >= {
            path for path in held_out.known.labels if "/" not in path
        }:
            model.declare_exclusive(None)
        if new:
            model.to(device)
            figures, _ = measure(
                model,
                held_out,
                count=recipe.evaluation.held_out,
                draws=recipe.evaluation.draws,
                seed=recipe.seed,
                only=new,
            )
            sample_grids(model, run / "samples", seed=recipe.seed, only=new)
            if recorded is not None:
                # Read again: it may have got another source since.
                before = recipe_of(run)
                data = before.data.with_source(recorded)
                record = before.model_copy(update={"data": data}).model_dump(mode="json")
                text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
                write_aside(run / RECIPE, text)
            model.to("cpu").save_pretrained(run)
            _note(run, new, figures, began)
            reporter.say(f"{run} has {', '.join(new)}: {figures[0]}")
    if fitted.failures:
        told = "; ".join(f"{name}: {reason}" for name, reason in fitted.failures.items())
        raise WorkFailed(f"{told}; the others are in {run}, run it again for what is missing")
    return model


def _wanted(run: Path, model: TzK, data: Dataset, only: Iterable[str]) -> list[str]:
    told = [path for path in data.known.labels if "/" not in path]
    if not told:
        raise UsageError(
            f"data.sources of {run / RECIPE} tell of no knowledge: set `knowledge` or `classes` of "
            "a source, or use tzk add-knowledge"
        )
    only = list(dict.fromkeys(only))
    unknown = [name for name in only if name not in told]
    if unknown:
        raise UsageError(
            f"{', '.join(unknown)}: no knowledge of the first level that the recipe of {run} "
            f"tells of; there is {', '.join(told)}"
        )
    return only or told


def _all_or_none(results: Iterable) -> Iterable:
    for _, result in results:
        if isinstance(result, Failure):
            raise WorkFailed(f"the latent states could not be worked out: {result.reason}")
        yield result


def _append(path: Path, name: str, rows: str) -> None:
    """Adds what a job logged to the run's, with the kind's name."""
    marked = [json.dumps({"kind": name} | json.loads(row)) for row in rows.splitlines()]
    with path.open("a") as file:
        file.write("".join(row + "\n" for row in marked))


def _note(run: Path, names: list[str], figures: list[Figure], began: float) -> None:
    """Adds what was done to the model card and to ``run.json``."""
    seconds, title = round(time.monotonic() - began), f"Added: {', '.join(names)}"
    lines = [f"- {figure.name}: {figure}" for figure in figures]
    card = run / "README.md"
    text = card.read_text() if card.is_file() else ""
    body = [text.rstrip(), "", f"## {title}", "", *lines, f"- in {seconds} s", ""]
    write_aside(card, "\n".join(body))
    facts = run / "run.json"
    known = json.loads(facts.read_text()) if facts.is_file() else {}
    known.setdefault("added", []).append({"title": title, "seconds": seconds, "figures": lines})
    write_aside(facts, json.dumps(known, indent=2) + "\n")
