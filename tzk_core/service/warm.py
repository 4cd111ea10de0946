"""Before the first request: every size of batch has run, and those that agree are known."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tzk_core.data.decoding import encode_png
from tzk_core.data.quantisation import to_pixels
from tzk_core.randomness import Rows
from tzk_core.service.parsing import parse
from tzk_core.service.rendering import render
from tzk_core.service.seeds import seeds_from
from tzk_core.service.service import ENDPOINTS, Service
from tzk_core.service.sizes import SIZES, Agreed
from tzk_core.service.wire import RawRequest

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["REFERENCE", "agreeing_sizes", "first_request"]

REFERENCE = 16
"""The size that others are compared with: TorchServe's full batch."""

COMPARED = 8
"""Rows that a smaller size is compared on, in several batches: one row's sum may agree by luck."""

SEED = 1

log = logging.getLogger(__name__)

# What becomes of the rows of some seeds.
Probe = Callable[[list[int]], Tensor]


@torch.inference_mode()
def agreeing_sizes(model: TzK, endpoint: str) -> Agreed:
    """The sizes of batch at which the rows of ``endpoint`` have the same bits.

    What an endpoint calls is run at every size, which also makes the first request as fast as the
    next: kernels are chosen, memory is had. Compared are latent states, codes, images and logits
    rather than the sums alone that are told, as sums hide a difference.

    Args:
        model: on its device.
        endpoint: a key of :data:`tzk_core.service.service.ENDPOINTS`.
    """
    plain = _agreeing(SIZES, _plain_probes(model, endpoint))
    agreed = Agreed(plain, _agreeing(plain, _kind_probes(model, endpoint)))
    for what, sizes in zip(("", ", of kinds"), agreed, strict=True):
        left_out = [size for size in SIZES if size not in sizes]
        if left_out:
            log.info(
                "%s%s: batches of %s are filled up, for the same bits", endpoint, what, left_out
            )
    return agreed


def _agreeing(sizes: Sequence[int], probes: Iterator[Probe]) -> tuple[int, ...]:
    agreeing = list(sizes)
    seeds = seeds_from(SEED, max(SIZES))
    for probe in probes:
        # The reference first: its rows are what the others' must be.
        wanted = probe(seeds[:REFERENCE])
        agreeing = [size for size in agreeing if _agrees(probe, size, seeds, wanted)]
    return tuple(agreeing)


def _agrees(probe: Probe, size: int, seeds: list[int], wanted: Tensor) -> bool:
    for start in range(0, max(size, COMPARED) - size + 1, size):
        rows = wanted[start : start + size]
        if not _same_bits(probe(seeds[start : start + size])[: len(rows)], rows):
            return False  # it will not be used, so nothing more of it has to run
    return True


@torch.inference_mode()
def first_request(service: Service, endpoint: str) -> int:
    """One request from bytes to bytes, which no metric counts; its status.

    What is imported, compiled or read at the first use is then there: image codecs, validators.
    """
    image = encode_png(to_pixels(_images(service.model, seeds_from(SEED, 1)))[0].cpu().numpy())
    fields = {
        "tzk_nll": {"image": image},
        "tzk_posterior": {"image": image},
        "tzk_interpolate": {"image1": image, "image2": image, "steps": b"2"},
        "tzk_sample": {"n": b"1"},
    }[endpoint]
    raw = RawRequest(fields=fields | {"seed": str(SEED).encode()})
    [asked] = parse(raw, ENDPOINTS[endpoint].request).items
    [given] = ENDPOINTS[endpoint].call(service.model, [asked])
    return render(asked, given).status


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


def _plain_probes(model: TzK, endpoint: str) -> Iterator[Probe]:
    # Samples are told with their likelihood too.
    if endpoint in ("tzk_nll", "tzk_sample", "tzk_interpolate"):
        yield lambda seeds: model.flow.encode(_images(model, seeds))[0]
    if endpoint in ("tzk_sample", "tzk_interpolate"):
        yield lambda seeds: model.prior.draw(len(seeds), rows=Rows(seeds)).images


def _kind_probes(model: TzK, endpoint: str) -> Iterator[Probe]:
    if endpoint == "tzk_posterior" and model.paths():
        yield lambda seeds: _judged(model, seeds)
    for path in _unlike(model):
        kind = model.given(path)
        if endpoint == "tzk_nll":
            yield lambda seeds, path=path: _between(model, path, seeds)
            yield lambda seeds, kind=kind: kind.log_prob(
                _images(model, seeds), generator=Rows(seeds)
            )
        if endpoint == "tzk_sample":
            yield lambda seeds, kind=kind: kind.draw(len(seeds), rows=Rows(seeds)).images


def _judged(model: TzK, seeds: list[int]) -> Tensor:
    """All that is told of each kind, (B, …)."""
    found = model.posterior(_images(model, seeds), generator=Rows(seeds))
    told = [figure for one in found.values() for figure in one if figure is not None]
    return torch.stack(told, 1)


def _between(model: TzK, path: str, seeds: list[int]) -> Tensor:
    """What log p(t∣kind) is made of: the codes, and the decoder's base noise of z, (B, …)."""
    lineage, t = model.lineage(path), _images(model, seeds)
    z, _ = model.flow.encode(t)
    codes = lineage.encode(t, lineage.draw_noise(Rows(seeds), like=model.reference))
    noise = lineage.decoder.noise(z, codes[0])
    return torch.cat([*codes, noise.flatten(1)], 1)


def _unlike(model: TzK) -> list[str]:
    """Paths of whose parts none are of the same shape: ten digits need one run, not ten."""
    found: dict[Sequence, str] = {}
    for path in model.paths():
        steps = path.split("/")
        above = ["/".join(steps[: depth + 1]) for depth in range(len(steps))]
        shape = tuple(
            model.find(one).config.model_dump_json(exclude={"label", "child"}) for one in above
        )
        found.setdefault(shape, path)
    return list(found.values())


def _images(model: TzK, seeds: list[int]) -> Tensor:
    """Noise of the observation's shape; a row is the same in a batch of any size."""
    like = model.reference
    shape = model.observation_shape
    return Rows(seeds).uniform(*shape, dtype=like.dtype, device=like.device) - 0.5
