"""What lies between four test images, and how likely it is on the way (paper, 4.2, Fig. 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.quantisation import bits_per_dim, dequantise, nll_nats, to_pixels
from ..model import TzK
from ..randomness import derived, rows

__all__ = ["CORNERS", "Sheet", "between", "choose_corners"]

CORNERS = 4


@dataclass(frozen=True)
class Sheet:
    """A grid of images between four, row by row, with −log p(t) of each in bits/dim on D.

    The images are not of 256 levels but wherever the model's map takes the points, so the figure
    is that of the density at one point, without dequantisation.
    """

    way: str  # "z, linear", "c of mnist, linear", …
    pixels: Tensor  # uint8 (side², C, H, W)
    bits: Tensor  # float64 (side, side); NaN where the image is not finite
    corners: float  # mean bits/dim of the four
    inside: float  # mean bits/dim of all others that are finite
    worst: float  # the largest


def choose_corners(labels: Tensor, seed: int, name: str) -> Tensor:
    """The index of four images, of four labels if there are so many, int64 (4,).

    Args:
        labels: int64 (N,), N ≥ 4.
        seed, name: of the choice.
    """
    order = torch.randperm(len(labels), generator=derived(seed, "corners", name))
    firsts: dict[int, int] = {}
    for index in order.tolist():
        firsts.setdefault(int(labels[index]), index)
    chosen = list(firsts.values())[:CORNERS]
    chosen += [index for index in order.tolist() if index not in chosen][: CORNERS - len(chosen)]
    return torch.tensor(chosen)


@torch.no_grad()
def between(
    model: TzK,
    pixels: Tensor,
    *,
    side: int,
    seed: int,
    method: str = "linear",
    given: str | None = None,
) -> Sheet:
    """The sheet between four images, in z, or in the code of the root kind ``given``.

    Args:
        pixels: uint8 (4, C, H, W).
        side: images along a side, corners included.
        seed: of dequantisation, which all sheets share, and codes.
        method: ``linear`` or ``spherical``.
    """
    noise = rows(derived(seed, "between"), CORNERS).uniform(*pixels.shape[1:])
    t = dequantise(pixels, noise).to(model.reference)
    found = model.interpolate(
        t,
        steps=(side, side),
        method=method,
        space="z" if given is None else "c",
        given=given,
        generator=derived(seed, "between", given or ""),
    )
    # p(t) in every space, so that the sheets compare.
    log_p = model.prior.log_prob(found.images).double().cpu()
    dims = math.prod(model.observation_shape)
    bits = bits_per_dim(nll_nats(log_p, dims), dims)
    finite = found.images.flatten(1).isfinite().all(1).cpu() & bits.isfinite()
    bits = torch.where(finite, bits, torch.nan).reshape(side, side)
    corner = torch.zeros(side, side, dtype=torch.bool)
    corner[:: side - 1, :: side - 1] = True
    inside = bits[~corner & bits.isfinite()]
    return Sheet(
        way=f"{'z' if given is None else f'c of {given}'}, {method}",
        pixels=to_pixels(torch.nan_to_num(found.images, nan=-0.5)).cpu(),
        bits=bits,
        corners=float(bits[corner].mean()),
        inside=float(inside.mean()) if len(inside) else math.nan,
        worst=float(bits[bits.isfinite()].max()) if bits.isfinite().any() else math.nan,
    )
