"""The likelihoods of labelled images, every estimator under its own name (design, section 5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.quantisation import bits_per_dim, dequantise, nll_nats
from ..densities import log_mean_exp
from ..errors import UsageError
from ..likelihood import PRIOR_SHARE, estimate
from ..model import TzK
from ..randomness import Rows, derived, rows
from .figures import mean_of
from .held_out import Figure
from .settings import DRAWS

__all__ = [
    "DRAWS",
    "Likelihood",
    "Measured",
    "Row",
    "likelihood_rows",
    "likelihood_table",
    "log_prob_by_child",
    "measure_rows",
]

BATCH = 64


@dataclass(frozen=True)
class Likelihood:
    """One row of the table."""

    distribution: str  # "p(t)", "p(t|mnist)", …
    estimator: str  # "prior", "importance", "reconstruction", "encoder"
    draws: int | None  # N of the importance estimate
    nats: Figure  # an image, of its 256 levels
    bits: Figure  # bits/dim on D
    bits_native: Figure  # bits/dim on each image's native D
    effective_sample_size: Figure | None  # of N


class Row(NamedTuple):
    """What a row of the table will be of."""

    distribution: str
    estimator: str  # "prior", "importance", "reconstruction" or "encoder"
    draws: int | None  # N of the importance estimate
    groups: list[tuple[str, Tensor]]  # (path, index of the images that it is asked for)
    tag: str  # "prior", "root", "child" or "class"; of the random numbers too

    @property
    def images(self) -> int:
        return sum(len(index) for _, index in self.groups)


class Measured(NamedTuple):
    """A row with log p of every image, for differences from other rows."""

    row: Likelihood
    log_prob: Tensor  # nats, of the density of t, float64 (N,); NaN for images not asked for


def likelihood_rows(
    model: TzK,
    parent: str | None,
    own: list[tuple[str, Tensor]],
    count: int,
    *,
    draws: tuple[int, ...] = DRAWS,
    encoder: bool = False,
) -> list[Row]:
    """The rows for ``count`` images of one source.

    Args:
        parent: the root kind that all of them have; None where none has all.
        own: (path of a class, index of the images that have it).
        draws: N of the importance estimates.
        encoder: whether the `encoder` estimator of ``parent`` is asked for too.
    """
    every = torch.arange(count)
    found = [Row("p(t)", "prior", None, [("", every)], "prior")]

    def by_estimator(name: str, groups: list[tuple[str, Tensor]], tag: str) -> None:
        found.extend(Row(name, "importance", n, groups, tag) for n in draws)
        found.append(Row(name, "reconstruction", None, groups, tag))

    if parent is not None:
        by_estimator(f"p(t|{parent})", [(parent, every)], "root")
        if encoder:
            found.append(Row(f"p(t|{parent})", "encoder", None, [(parent, every)], "root"))
        if model.find(parent).child is not None:
            name = f"p(t|{parent}) by the child's prior"
            found.extend(Row(name, "importance", n, [(parent, every)], "child") for n in draws)
    if own := [(path, index) for path, index in own if len(index)]:
        above = f"{parent}/" if parent is not None else ""
        by_estimator(f"p(t|{above}own class)", own, "class")
    return found


@torch.no_grad()
def measure_rows(
    model: TzK,
    asked: list[Row],
    pixels: Tensor,
    native_dims: Tensor,
    *,
    seed: int,
    tick: Callable[[int], None] | None = None,
) -> list[Measured]:
    """The rows, all on the same images with the same dequantisation noise, so that their
    differences have smaller errors than their figures.

    Args:
        pixels: uint8 (N, C, H, W).
        native_dims: int64 (N,).
        tick: called with the number of images of each batch; in all ``Σ row.images``.
    """
    noise = rows(derived(seed, "likelihood", "noise"), len(pixels)).uniform(*pixels.shape[1:])
    t = dequantise(pixels, noise).to(model.device)
    table = _Table(model, t, native_dims, seed, tick)
    return [table.measured(row) for row in asked]


def likelihood_table(
    model: TzK,
    pixels: Tensor,
    native_dims: Tensor,
    labels: Tensor,
    paths: list[str],
    *,
    seed: int,
    draws: tuple[int, ...] = DRAWS,
    tick: Callable[[int], None] | None = None,
) -> list[Likelihood]:
    """Of p(t), p(t | parent), the same by the child's prior, and p(t | own class).

    Args:
        pixels: uint8 (N, C, H, W).
        native_dims: int64 (N,).
        labels: index into ``paths``, (N,).
        paths: of the classes, all below one parent of the first level.
        draws: N of the importance estimates.
        tick: called with the number of images of each batch; there are ``2 + 3·(len(draws) + 1)``
            passes over them, less the reconstruction that the child's prior has not.
    """
    own = [(path, (labels == k).nonzero().squeeze(1)) for k, path in enumerate(paths)]
    asked = likelihood_rows(model, _parent_of(paths), own, len(pixels), draws=draws)
    return [m.row for m in measure_rows(model, asked, pixels, native_dims, seed=seed, tick=tick)]


class _Table:
    def __init__(self, model: TzK, t: Tensor, native: Tensor, seed: int, tick) -> None:
        self.model, self.t, self.native, self.seed, self.tick = model, t, native, seed, tick

    def measured(self, asked: Row) -> Measured:
        name, estimator, draws, groups, tag = asked
        log_p = torch.full((len(self.t),), torch.nan, dtype=torch.float64)
        sizes = torch.full_like(log_p, torch.nan) if draws else None
        for path, members in groups:
            for index in members.split(BATCH):
                part = self.t[index]
                key = (tag, path, estimator, draws or 1, int(index[0]))
                source = rows(derived(self.seed, "likelihood", *key), len(part))
                values, ess = self._estimate(part, path, estimator, draws or 1, tag, source)
                log_p[index] = values.double().cpu()
                if sizes is not None:
                    sizes[index] = ess.double().cpu()
                if self.tick is not None:
                    self.tick(len(part))
        dims = math.prod(self.model.observation_shape)
        asked_for = torch.cat([index for _, index in groups]).sort().values
        nats, native = nll_nats(log_p, dims)[asked_for], self.native[asked_for]
        row = Likelihood(
            distribution=name,
            estimator=estimator,
            draws=draws,
            nats=mean_of(nats, name, "nats"),
            bits=mean_of(bits_per_dim(nats, dims), name, f"bits/dim on D = {dims}"),
            bits_native=mean_of(bits_per_dim(nats, native), name, _native(native)),
            effective_sample_size=(
                None if sizes is None else mean_of(sizes[asked_for], name, "draws")
            ),
        )
        return Measured(row, log_p)

    def _estimate(self, t, path, estimator, draws, tag, source):
        if estimator == "prior":
            return self.model.prior.log_prob(t), None
        if tag == "child":
            return log_prob_by_child(self.model, path, t, draws=draws, source=source)
        found = estimate(
            self.model,
            self.model.lineage(path),
            t,
            estimator=estimator,
            draws=draws,
            generator=source,
        )
        return found.log_prob, found.effective_sample_size


@torch.no_grad()
def log_prob_by_child(
    model: TzK, name: str, t: Tensor, *, draws: int, source: Rows
) -> tuple[Tensor, Tensor]:
    r"""log p(t | e = 1) of a root kind with the child's prior of its code, and its ESS, each (B,).

    The child models p(c ∣ e = 1) itself, having seen only codes of its parent's positives, so the
    weights are :math:`p_{child}(c)\, p_{dec}(t \mid e{=}1, c) / q(c)` and no p(e = 1) is left out
    or subtracted. Its gap to the kind's own prior measures their consistency. The mixture q is
    that of :func:`tzk_core.likelihood.log_joint_by_importance`, with draws of the child's prior.

    Raises:
        UsageError: the kind has no child.
    """
    kind = model.find(name)
    if kind.child is None:
        raise UsageError(f"{name} has no child, so there is no prior of its to take")
    batch, n_prior = len(t), math.ceil(PRIOR_SHARE * draws) if draws >= 16 else 0
    n_encoder = draws - n_prior
    encoder, decoder = kind.encoders[1], kind.decoders[1]
    z, log_det = model.flow.encode(t)
    base = encoder.base(t)
    noise = source.normal(draws, base[0].shape[1], dtype=t.dtype, device=t.device)
    few = tuple(part.repeat_interleave(n_encoder, dim=0) for part in base)
    codes = encoder.sample(few, noise[:, :n_encoder].flatten(0, 1))[0].unflatten(0, (batch, -1))
    if n_prior:
        drawn = kind.child.flow.decode(noise[:, n_encoder:].flatten(0, 1))[0]
        codes = torch.cat((codes, drawn.unflatten(0, (batch, -1))), dim=1)
    c = codes.flatten(0, 1)
    log_prior = kind.child.prior.log_prob(c)
    log_q = encoder.log_prob(tuple(part.repeat_interleave(draws, dim=0) for part in base), c)
    if n_prior:
        log_q = torch.logaddexp(
            log_q + math.log(n_encoder / draws), log_prior + math.log(n_prior / draws)
        )
    log_p_z = decoder.log_prob(z.repeat_interleave(draws, dim=0), c)
    log_w = (log_prior + log_p_z - log_q).unflatten(0, (batch, draws))
    ess = (2 * log_w.logsumexp(1) - (2 * log_w).logsumexp(1)).exp()
    return log_mean_exp(log_w, 1) + log_det, ess


def _parent_of(paths: list[str]) -> str:
    parents = {path.rpartition("/")[0] for path in paths}
    if len(parents) != 1 or "/" in next(iter(parents)):
        raise UsageError(f"{', '.join(paths)} are not kinds below one root kind")
    return parents.pop()


def _native(native: Tensor) -> str:
    sizes = sorted(set(native.tolist()))
    where = f"native D = {sizes[0]}" if len(sizes) == 1 else "each image's native D"
    return f"bits/dim on {where}"
