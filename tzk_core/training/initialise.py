"""The explicit step before training that sets every ActNorm from data (design, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..model import TzK
from .dataset import Dataset

__all__ = ["IMAGES", "initialise_flow", "initialise_knowledge"]

IMAGES = 1024  # ActNorm wants at least 512


def _sample(data: Dataset, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    index = torch.randperm(len(data), generator=generator)[:IMAGES]
    return index, data.observations(index, generator)


@torch.no_grad()
def initialise_flow(model: TzK, data: Dataset, generator: torch.Generator) -> None:
    """The t-flow's ActNorms, from 1,024 images (all where there are fewer)."""
    _, t = _sample(data, generator)
    model.flow.initialize(t.to(model.device))


@torch.no_grad()
def initialise_knowledge(
    model: TzK, data: Dataset, existence: dict[str, Tensor], generator: torch.Generator
) -> None:
    """The ActNorms of all knowledge that has not been trained, down the hierarchy."""
    index, t = _sample(data, generator)
    t = t.to(model.device)
    existence = {p: e[index].to(model.device) for p, e in existence.items()}
    _level(model, t, existence, generator)


def _level(tzk: TzK, t: Tensor, existence: dict[str, Tensor], generator) -> None:
    z, _ = tzk.flow.encode(t)
    for name, kind in tzk.kinds().items():
        e = existence.get(name)
        if e is None:
            continue
        known = e >= 0
        if not kind.t_discriminator.norm.initialized:
            kind.initialize(t[known], z[known], e[known], generator)
        if kind.child is None or int((e == 1).sum()) < 2:
            continue
        encoder = kind.encoders[1]
        base = encoder.base(t[e == 1])
        noise = torch.randn(base[0].shape, generator=generator).to(base[0])
        c, _ = encoder.sample(base, noise)
        fresh = [m for m in kind.child.flow.modules() if hasattr(m, "initialized")]
        if fresh and not fresh[0].initialized:
            kind.child.flow.initialize(c)
        below = {
            path[len(name) + 1 :]: labels[e == 1]
            for path, labels in existence.items()
            if path.startswith(name + "/")
        }
        _level(kind.child, c, below, generator)
