"""The t-flow's networks in bfloat16, where that changes nothing that matters."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import torch

from tzk_core.data.quantisation import dequantise, to_pixels
from tzk_core.flows import ImageFlow
from tzk_core.flows.prepared import Prepared
from tzk_core.networks import run_networks_in
from tzk_core.randomness import Rows
from tzk_core.service.seeds import seeds_from

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["BITS_PER_DIM", "ROUND_TRIP", "bfloat16_if_close"]

ROUND_TRIP = 1 / 512
"""Half a grey level of t: the most that an element may change on the way to z and back."""

BITS_PER_DIM = 0.005
"""The most that an image's log p(t) may differ from float32's, as the design's own tolerance."""

IMAGES, SEED, TEMPERATURES = 8, 1, (0.7, 1.0)

log = logging.getLogger(__name__)


@torch.inference_mode()
def bfloat16_if_close(model: TzK) -> bool:
    """Lets the networks of the t-flow run in bfloat16 if images of the model's own stay the same.

    They are most of the work; the knowledge's networks and all invertible arithmetic stay in
    float32. Measured on 16 samples of the model, half of them at temperature 0.7.

    Returns:
        Whether they do now; otherwise the log says why not.
    """
    t = _samples(model)
    if not len(t):
        log.warning("Networks stay in float32: no sample of the model is finite")
        return False
    exact = _log_prob(*model.flow.encode(t))
    run_networks_in(model.flow, torch.bfloat16)
    # What will serve is what is measured: on a CPU the prepared flow, which rounds elsewhere.
    on_cpu = model.device.type == "cpu" and isinstance(model.flow, ImageFlow)
    flow = Prepared(model.flow) if on_cpu else model.flow
    z, log_det = flow.encode(t)
    error = float((flow.decode(z)[0] - t).abs().nan_to_num(math.inf).max())
    moved = (_log_prob(z, log_det) - exact).abs().nan_to_num(math.inf)
    bits = float(moved.max()) / (t[0].numel() * math.log(2))
    found = f"round trip {error:.1e} (at most {ROUND_TRIP:.1e}), {bits:.1e} bits/dim (at most "
    found += f"{BITS_PER_DIM:g}) on {len(t)} samples"
    if error > ROUND_TRIP or bits > BITS_PER_DIM:
        run_networks_in(model.flow, None)
        log.warning("Networks stay in float32, as bfloat16 is too far from it: %s", found)
        return False
    log.info("Networks run in bfloat16: %s", found)
    return True


def _log_prob(z: torch.Tensor, log_det: torch.Tensor) -> torch.Tensor:
    """log p(t) but for its constant, (B,)."""
    return log_det.double() - 0.5 * z.double().square().flatten(1).sum(1)


def _samples(model: TzK) -> torch.Tensor:
    """Finite samples as they are when they come back as images, (≤ 16, C, H, W)."""
    drawn = torch.cat(
        [
            type(model.prior)(model, temperature).draw(IMAGES, rows=_rows()).images
            for temperature in TEMPERATURES
        ]
    )
    drawn = drawn[torch.isfinite(drawn).flatten(1).all(1)]
    noise = Rows(seeds_from(SEED, len(drawn))).uniform(*drawn.shape[1:], dtype=drawn.dtype)
    return dequantise(to_pixels(drawn), noise.to(drawn.device))


def _rows() -> Rows:
    return Rows(seeds_from(SEED, IMAGES))
