"""What training costs: seconds a step, and what a second worker saves (paper, Section 4.3)."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from ..config import TzKConfig
from ..errors import WorkFailed
from ..model import TzK
from ..randomness import derived
from ..training.dataset import Dataset
from ..training.fit import FOLDER, fit_kinds
from ..training.fit_workers import Never, Processes
from ..training.latents import LATENTS
from ..training.loop import Stage
from ..training.progress import Reporter
from ..training.recipe import Recipe, StageConfig
from ..training.run import add_known_kinds, read_data

__all__ = [
    "encode_seconds",
    "few_images",
    "fitting_seconds",
    "flow_of",
    "one_thread",
    "step_seconds",
]

LIMIT = 600  # images of each source: how many there are changes no step


def few_images(recipe: Recipe, reporter: Reporter) -> Dataset:
    """Some images of each source of a recipe."""
    sources = [
        source.model_copy(update={"limit": min(LIMIT, source.limit or LIMIT)})
        for source in recipe.data.sources
    ]
    data = recipe.data.model_copy(update={"sources": sources})
    return read_data(recipe.model_copy(update={"data": data}), reporter)[0]


def flow_of(recipe: Recipe, data: Dataset) -> TzK:
    """A new model with the recipe's t-flow."""
    config = TzKConfig(
        observation=tuple(data.pixels.shape[1:]),
        flow=recipe.model.flow,
        preparation=recipe.data.preparation,
    )
    return TzK(config, generator=derived(recipe.seed, "weights"))


def step_seconds(
    recipe: Recipe,
    data: Dataset,
    stage: StageConfig,
    *,
    steps: int,
    device: torch.device,
    only: str | None = None,
) -> float:
    """Seconds that one image takes in a step of a stage, on a new model.

    The difference of a run of three times ``steps`` and one of ``steps``: what happens once,
    before the first step or after the last, is in neither. On a CPU they are seconds of one
    processor, which other processes on the machine change through caches and clocks alone.

    Args:
        only: the root kind that trains, alone on the frozen t-flow.

    Raises:
        WorkFailed: the longer run took no longer: the machine is too busy, or the steps too few.
    """

    def run(count: int) -> float:
        model = flow_of(recipe, data)
        if stage.train != "flow":
            add_known_kinds(model, data.known, recipe)
        model.to(device)
        plain = {"steps": count, "measure_every": 0, "checkpoint_every": count}
        with tempfile.TemporaryDirectory() as folder:
            began = _now(device)
            Stage(
                model,
                data,
                stage.model_copy(update=plain),
                0,
                seed=recipe.seed,
                folder=Path(folder),
                reporter=Reporter(quiet=True),
                interrupt=Never,
                only=None if only is None else [only],
                resumable=False,
            ).run()
            return _now(device) - began

    few = run(steps)
    more = run(3 * steps) - few
    if more <= 0:
        raise WorkFailed(
            f"{2 * steps} more steps of {recipe.name} took no more time: measure again when the "
            "machine is less busy, or time more steps"
        )
    return more / (2 * steps * stage.batch)


@torch.no_grad()
def encode_seconds(recipe: Recipe, data: Dataset, *, device: torch.device, batch: int) -> float:
    """Seconds that one image takes through a new t-flow, without a gradient."""
    model = flow_of(recipe, data).to(device).eval()
    index = torch.arange(batch) % len(data)
    t = data.observations(index, derived(recipe.seed, "timing")).to(device)
    model.flow.encode(t)  # what a first call sets up is not counted
    began = _now(device)
    model.flow.encode(t)
    return (_now(device) - began) / batch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch works with one thread, so that its seconds are of one processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fitting_seconds(
    model: TzK,
    data: Dataset,
    recipe: Recipe,
    stage: StageConfig,
    names: list[str],
    *,
    steps: int,
    workers: int,
    folder: Path,
) -> float:
    """Seconds on the clock of fitting some kinds by so many processes, latent states included."""
    for kept in (FOLDER, LATENTS):
        shutil.rmtree(folder / kept, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    own = stage.model_copy(update={"steps": steps})
    quiet, team = Reporter(quiet=True), Processes(workers, 1)
    began = time.monotonic()
    fit_kinds(folder, model, data, recipe, own, 0, names, team, quiet, "cpu")
    return time.monotonic() - began


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.monotonic()
    return time.process_time()
