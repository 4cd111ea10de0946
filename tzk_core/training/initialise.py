"""The explicit step before training that sets every ActNorm from data (design, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..flows import ActNorm
from ..model import TzK
from .dataset import Dataset
from .latents import Latents

__all__ = ["IMAGES", "initialise_flow", "initialise_knowledge"]

IMAGES = 1024  # ActNorm wants at least 512


def _sample(data: Dataset, generator: torch.Generator) -> Tensor:
    return torch.randperm(len(data), generator=generator)[:IMAGES]


@torch.no_grad()
def initialise_flow(model: TzK, data: Dataset, generator: torch.Generator) -> None:
    """The t-flow's ActNorms, from 1,024 images (all where there are fewer), unless they are set.

    A second stage goes on with the flow of the first.
    """
    if all(m.initialized for m in model.flow.modules() if isinstance(m, ActNorm)):
        return
    t = data.observations(_sample(data, generator), generator)
    model.flow.initialize(t.to(model.device))


@torch.no_grad()
def initialise_knowledge(
    model: TzK,
    data: Dataset,
    existence: dict[str, Tensor],
    generator: torch.Generator,
    latents: Latents | None = None,
) -> None:
    """The ActNorms of all knowledge that has not been trained, down the hierarchy.

    Args:
        latents: of the images, where they are known: a job of one kind would else spend more on
            them than on its first fifty steps.
    """
    index = _sample(data, generator)
    if latents is None:
        t = data.observations(index, generator).to(model.device)
        z, _ = model.flow.encode(t)
    else:
        t, z = (part.to(model.device) for part in latents.pick(index, generator)[:2])
    existence = {p: e[index].to(model.device) for p, e in existence.items()}
    _level(model, t, z, existence, generator)


def _level(tzk: TzK, t: Tensor, z: Tensor, existence: dict[str, Tensor], generator) -> None:
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
        _level(kind.child, c, kind.child.flow.encode(c)[0], below, generator)
