"""One job: a root kind, and all below it, on the frozen t-flow (paper, Section 4.3).

The same function works in this process, in one of several, and as a Ray task. What it returns
depends on the job and on what is shared by all jobs, and on nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .._version import __version__
from ..data.names import with_ancestors
from ..devices import device_named
from ..likelihood import fit_encoder_rate, fit_existence
from ..randomness import derived
from .dataset import Dataset
from .fit_artefact import Artefact
from .fit_workers import Context
from .labels import Known
from .latents import FlowWeights, Latents
from .loop import Stage
from .recipe import Recipe, StageConfig
from .run import add_known_kinds

__all__ = ["Job", "Shared", "fit_kind", "job_of"]


@dataclass
class Shared:
    """What all jobs of a run read."""

    flow: FlowWeights
    latents: Latents
    data: Dataset  # without images and labels: those are in ``latents`` and the jobs

    @classmethod
    def of(cls, flow: FlowWeights, latents: Latents, data: Dataset) -> Shared:
        bare = dataclasses.replace(data, pixels=torch.empty(0), known=Known({}, {}))
        return cls(flow, latents, bare)

    def in_memory(self) -> Shared:
        """The same with plain arrays, which can be sent to another machine."""
        return dataclasses.replace(self, latents=self.latents.in_memory())


@dataclass
class Job:
    """What is fitted, and how."""

    name: str
    labels: dict[str, str]  # path → label for display, parents first
    existence: dict[str, np.ndarray]  # path → int8 (N,)
    recipe: Recipe
    stage: StageConfig
    index: int  # of the stage
    device: str
    made_from: dict


def job_of(
    name: str,
    data: Dataset,
    recipe: Recipe,
    stage: StageConfig,
    index: int,
    parts: list[str],
    device: str,
) -> Job:
    """The job of one root kind.

    Args:
        parts: keys of the latent states, which tell of the t-flow, the images and their noise.
        device: where it works: ``cpu``, ``cuda`` or ``cuda:N``.
    """
    paths = [path for path in data.known.labels if with_ancestors(path)[0] == name]
    existence = {path: data.known.existence[path].numpy() for path in paths}
    # What the recipe says of other kinds does not enter.
    sources = [s for s in recipe.data.sources if s.knowledge in (name, None)]
    # An attribute of the first level may have no source of its name: what the sources of others
    # say of their classes is then of kinds that the job's model does not have.
    kept = sources or [s.model_copy(update={"exclusive": False}) for s in recipe.data.sources]
    own = recipe.model_copy(update={"data": recipe.data.model_copy(update={"sources": kept})})
    labels = {path: data.known.labels[path] for path in paths}
    known = hashlib.sha256()
    for path, e in existence.items():
        known.update(f"{path}={labels[path]}\n".encode() + e.tobytes())
    exclusive = any(s.knowledge == name and s.classes and s.exclusive for s in sources)
    made_from = {
        "kind": name,
        "latents": parts,
        "existence_sha256": known.hexdigest(),
        "exclusive": exclusive,
        "sampling": {"balance": data.balance, "shares_sha256": _sha256(data.shares)},
        "model": recipe.model.model_dump(mode="json", exclude={"flow"}),
        "stage": stage.model_dump(mode="json", exclude={"checkpoint_every"}),
        "stage_index": index,
        "seed": recipe.seed,
        "existence_draws": recipe.evaluation.existence_draws,
        "encoder_rate_draws": recipe.evaluation.encoder_rate_draws,
        "device": device.partition(":")[0],
    }
    return Job(name, labels, existence, own, stage, index, device, made_from)


def _sha256(values: torch.Tensor | None) -> str | None:
    return None if values is None else hashlib.sha256(values.numpy().tobytes()).hexdigest()


def fit_kind(shared: Shared, job: Job, context: Context) -> Artefact:
    """Fits the kind of a job.

    Raises:
        WorkFailed: interrupted, or the loss was not finite several times in a row.
    """
    began, seed = time.monotonic(), job.recipe.seed
    model = shared.flow.model()
    existence = {path: torch.tensor(e) for path, e in job.existence.items()}
    known = Known(job.labels, existence)
    data = dataclasses.replace(shared.data, pixels=shared.latents.pixels, known=known)
    add_known_kinds(model, known, job.recipe)
    model.to(device_named(job.device))
    with tempfile.TemporaryDirectory() as folder:
        Stage(
            model,
            data,
            job.stage,
            job.index,
            seed=seed,
            folder=Path(folder),
            reporter=context.reporter,
            interrupt=context.interrupt,
            only=list(job.labels),
            resumable=False,
            latents=shared.latents,
        ).run()
        metrics = Path(folder, "metrics.jsonl")
        told = metrics.read_text() if metrics.is_file() else ""
    draws = job.recipe.evaluation.existence_draws
    fit_existence(model, draws=draws, generator=derived(seed, "existence", job.name))
    rate_draws = job.recipe.evaluation.encoder_rate_draws
    if rate_draws:
        generator = derived(seed, "encoder rate", job.name)
        fit_encoder_rate(model, draws=rate_draws, generator=generator)
    facts = {
        "steps": job.stage.steps,
        "seconds": round(time.monotonic() - began, 2),
        "threads": torch.get_num_threads(),
        "tzk": __version__,
        "torch": torch.__version__,
    }
    return Artefact.of(model, job.name, job.made_from, facts, told)
