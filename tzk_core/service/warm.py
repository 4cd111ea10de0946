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
from tzk_core.service.sizes import SIZES
from tzk_core.service.wire import RawRequest

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["REFERENCE", "agreeing_sizes", "first_request"]

REFERENCE = 16
"""The size that others are compared with: TorchServe's full batch."""

SEED = 1

log = logging.getLogger(__name__)

# The first rows of what a size of batch gives.
Probe = Callable[[int], Tensor]


@torch.inference_mode()
def agreeing_sizes(model: TzK, endpoint: str) -> tuple[int, ...]:
    """The sizes of batch at which the rows of ``endpoint`` have the same bits.

    What an endpoint calls is run at every size, which also makes the first request as fast as the
    next: kernels are chosen, memory is had. Compared are latent states, images and
    logits rather than the sums that are told, as sums hide a difference.

    Args:
        model: on its device.
        endpoint: a key of :data:`tzk_core.service.service.ENDPOINTS`.
    """
    agreeing = set(SIZES)
    for probe in _probes(model, endpoint):
        # The reference first: its rows are what the others' must be.
        wanted = probe(REFERENCE)
        for size in SIZES:
            rows = min(size, REFERENCE)
            if not _same_bits(probe(size)[:rows], wanted[:rows]):
                agreeing.discard(size)
    left_out = [size for size in SIZES if size not in agreeing]
    if left_out:
        log.info("%s: batches of %s are filled up, for the same bits", endpoint, left_out)
    return tuple(sorted(agreeing))


@torch.inference_mode()
def first_request(service: Service, endpoint: str) -> int:
    """One request from bytes to bytes, which no metric counts; its status.

    What is imported, compiled or read at the first use is then there: image codecs, validators.
    """
    image = encode_png(to_pixels(_images(service.model, 1))[0].cpu().numpy())
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


def _probes(model: TzK, endpoint: str) -> Iterator[Probe]:
    # Samples are told with their likelihood too.
    if endpoint in ("tzk_nll", "tzk_sample", "tzk_interpolate"):
        yield lambda size: model.flow.encode(_images(model, size))[0]
    if endpoint in ("tzk_sample", "tzk_interpolate"):
        yield lambda size: model.prior.draw(size, rows=_rows(size)).images
    if endpoint == "tzk_posterior":
        yield (
            lambda size: (
                torch.stack(
                    [
                        one.logit
                        for one in model.posterior(
                            _images(model, size), generator=_rows(size)
                        ).values()
                    ],
                    1,
                )
                if model.paths()
                else torch.zeros(size)
            )
        )
    if endpoint in ("tzk_nll", "tzk_sample"):
        for path in _unlike(model):
            kind = model.given(path)
            if endpoint == "tzk_nll":
                yield lambda size, kind=kind: kind.log_prob(
                    _images(model, size), generator=_rows(size)
                )
            else:
                yield lambda size, kind=kind: kind.draw(size, rows=_rows(size)).images


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


def _rows(size: int) -> Rows:
    return Rows(seeds_from(SEED, size))


def _images(model: TzK, size: int) -> Tensor:
    """Noise of the observation's shape; a row is the same in a batch of any size."""
    like = model.reference
    shape = model.observation_shape
    return _rows(size).uniform(*shape, dtype=like.dtype, device=like.device) - 0.5
