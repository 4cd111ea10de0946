"""One experiment, from its recipes to its table."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .._version import __version__
from ..devices import conditions_on, device_named
from ..errors import UsageError, WorkFailed
from ..files import must_be_writable
from ..training.progress import Reporter
from .data import PaperData
from .experiment import Experiment, Part, recipes_of
from .recipes import check_overrides, packaged
from .registry import find
from .runs import Run, facts_of, make
from .settings import SCALES, Settings
from .store import Store
from .work import Work

__all__ = ["reproduce"]


def reproduce(
    name: str,
    *,
    scale: str = "small",
    out: Path,
    data: PaperData | None = None,
    seed: int | None = None,
    overrides: Iterable[str] = (),
    only: Iterable[str] = (),
    resume: bool = False,
    processes: int = 1,
    device: str | torch.device = "auto",
    settings: Settings | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Trains the runs of an experiment, measures them, and writes the table.

    Runs that are finished in ``out/runs`` are taken, whichever experiment trained them; parts that
    were measured of the same weights by the same code with the same settings are kept.

    Args:
        name: of :data:`~tzk_core.reproduction.EXPERIMENTS`.
        scale: ``full``, the paper's architecture and data, or ``small``.
        out: gets NAME.json, NAME.md, pictures and runs.
        data: where images come from; the hub by default.
        seed: of recipes and measurements; the recipes' own by default.
        overrides: ``KEY=VALUE`` changes every recipe, ``RECIPE:KEY=VALUE`` one.
        only: runs of the experiment; parts that need others are left for another time.
        resume: go on with runs that were interrupted.
        processes: that train a t-flow together; kinds on a frozen one take all cores anyway.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        settings: how much is measured; that of the scale by default.
        quiet: show no progress.

    Returns:
        What NAME.json holds.

    Raises:
        UsageError: no such experiment or scale, a wrong change, data that cannot be had, or
            ``out`` holds other runs or results.
        WorkFailed: training or measuring failed or was interrupted; what is done is kept.
    """
    experiment = find(name)
    if scale not in SCALES:
        raise UsageError(f"a scale is one of {', '.join(SCALES)}, not {scale!r}")
    data, overrides, out = data or PaperData(), tuple(overrides), Path(out)
    where, reporter = device_named(device), Reporter(quiet)
    work = Work(
        experiment.runs,
        scale,
        out,
        data,
        seed,
        overrides,
        settings or SCALES[scale],
        where,
        reporter,
    )
    store = Store(out, name, _facts(experiment, work), [part.name for part in experiment.parts])
    runs = _chosen(experiment, only)
    check_overrides(overrides, recipes_of(experiment))
    names = [run.recipe for run in runs] + list(experiment.recipes)
    data.check(packaged(each, scale) for each in names)
    for each in names:
        work.recipe(each)  # a wrong change is told before anything trains
    must_be_writable(out / f"{name}.json")
    trained: set[str] = set()
    _measure_what_can_be(experiment, work, store, trained)
    for run in runs:
        make(
            run,
            work.recipe(run.recipe),
            work.folder(run.recipe),
            base=None if run.on is None else work.folder(run.on),
            resume=resume,
            processes=processes,
            device=str(where),
            quiet=quiet,
            say=reporter.say,
        )
        trained.add(run.recipe)
        store.told(run.recipe, _of_run(work, run.recipe))
        # As soon as its runs are there, so that what is known early is written early.
        _measure_what_can_be(experiment, work, store, trained)
    store.write()
    return store.report


def _chosen(experiment: Experiment, only: Iterable[str]) -> list[Run]:
    """The runs to be trained: those that are named, each after the one it is fitted on."""
    wanted, known = list(only), {run.recipe: run for run in experiment.runs}
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"{experiment.name} has no run {name!r}; it has {', '.join(known) or 'none'}"
            )
    if not wanted:
        return list(experiment.runs)
    wanted += [known[name].on for name in wanted if known[name].on is not None]
    return [run for run in experiment.runs if run.recipe in wanted]


def _measure_what_can_be(
    experiment: Experiment, work: Work, store: Store, trained: set[str]
) -> None:
    with work.reporter.live():
        for part in experiment.parts:
            if not set(part.runs) <= trained:
                continue
            key = _key(part, work)
            if store.has(part.name, key):
                continue
            work.reporter.say(f"measuring {experiment.name}: {part.name}")
            began = time.monotonic()
            try:
                found = part.measure(work)
            except KeyboardInterrupt as error:
                raise WorkFailed(
                    "interrupted while it was measured: the same command goes on from there"
                ) from error
            store.add(part.name, key, found, time.monotonic() - began)


def _key(part: Part, work: Work) -> dict[str, Any]:
    """All that a part's figures depend on, but for the rounding of devices."""
    return {
        "weights": {run: work.weights(run) for run in part.runs},
        "recipes": sorted(work.overrides),
        "settings": asdict(work.settings),
        "seed": work.measuring_seed,
        "data": [sorted(work.data.given.items()), sorted(work.data.stand_ins.items())],
        "tzk": __version__,
        "code": _code(),
    }


@cache
def _code() -> str:
    """The SHA-256 of what measures: figures of older code are not taken for those of this."""
    here = Path(__file__).parent
    files = [*here.rglob("*.py"), *(here.parent / "evaluation").rglob("*.py")]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(here.parent).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


def _facts(experiment: Experiment, work: Work) -> dict[str, Any]:
    device = work.device
    return {
        "title": experiment.title,
        "section": experiment.section,
        "scale": work.scale,
        "command": _command(experiment.name, work),
        "order": [part.name for part in experiment.parts],
        "seed": work.measuring_seed,
        "stand_ins": [work.data.told(name) for name in work.data.stand_ins],
        "changed": list(work.overrides),
        **conditions_on(device),
    }


def _command(name: str, work: Work) -> str:
    """The command that makes these results, without the places of this machine."""
    words = ["tzk reproduce", name, "--scale", work.scale, *work.data.options()]
    if work.seed is not None:
        words += ["--seed", str(work.seed)]
    return " ".join([*words, *(f"--set {shlex.quote(change)}" for change in work.overrides)])


def _of_run(work: Work, run: str) -> dict[str, Any]:
    parameters = sum(p.numel() for p in work.model(run).parameters())
    conditions = work.conditions(run)
    return facts_of(work.folder(run), work.recipe(run)) | {
        "parameters": parameters,
        "smaller": conditions.smaller,
        "replaced": conditions.replaced,
    }
