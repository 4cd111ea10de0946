"""The explicit step before training that sets every ActNorm from data (design, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.names import below
from ..flows import ActNorm
from ..knowledge import Knowledge
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

    Every kind of the first level starts from images of its own: 512 that have it and 512 that have
    it not, or as many as there are, since a kind may be one image in a million.

    Args:
        latents: of the images, where they are known: a job of one kind would else spend more on
            them than on its first fifty steps.
    """
    for name, kind in model.kinds().items():
        if name not in existence or not _fresh(kind):
            continue
        index = _of_both(existence[name], generator)
        if latents is None:
            t = data.observations(index, generator).to(model.device)
            z, _ = model.flow.encode(t)
        else:
            t, z = (part.to(model.device) for part in latents.pick(index, generator)[:2])
        own = {path: e[index].to(model.device) for path, e in existence.items()}
        _kind(kind, t, z, own[name], below(own, name), generator)


def _of_both(e: Tensor, generator: torch.Generator) -> Tensor:
    """Rows with e = 1 and with e = 0, up to half of ``IMAGES`` each; any rows if those are few."""
    chosen = []
    for value in (1, 0):
        rows = (e == value).nonzero().squeeze(1)
        chosen.append(rows[torch.randperm(len(rows), generator=generator)[: IMAGES // 2]])
    index = torch.cat(chosen)
    return index if len(index) >= 2 else torch.randperm(len(e), generator=generator)[:IMAGES]


def _kind(kind: Knowledge, t: Tensor, z: Tensor, e: Tensor, lower: dict, generator) -> None:
    """A kind and those below it, whose e are in ``lower`` by their paths from here."""
    if not kind.t_discriminator.norm.initialized:
        known = _rows(e >= 0)
        kind.initialize(t[known], z[known], e[known], generator)
    if kind.child is None:
        return
    present = _rows(e == 1)
    encoder = kind.encoders[1]
    base = encoder.base(t[present])
    noise = torch.randn(base[0].shape, generator=generator).to(base[0])
    c, _ = encoder.sample(base, noise)
    if not all(m.initialized for m in kind.child.flow.modules() if isinstance(m, ActNorm)):
        kind.child.flow.initialize(c)
    z_of_c, _ = kind.child.flow.encode(c)
    own = {path: e[present] for path, e in lower.items()}
    for name, child in kind.child.kinds().items():
        if name in own:
            _kind(child, c, z_of_c, own[name], below(own, name), generator)


def _rows(chosen: Tensor) -> Tensor:
    """The rows that are chosen; all of them where fewer than two are, which no ActNorm starts from.

    So a kind that hardly any image has starts from its neighbours, not from nothing.
    """
    rows = chosen.nonzero().squeeze(1)
    return rows if len(rows) >= 2 else torch.arange(len(chosen), device=chosen.device)


def _fresh(kind: Knowledge) -> bool:
    return not all(m.initialized for m in kind.modules() if isinstance(m, ActNorm))
