"""Between two or four observations, in z or in a knowledge's code (paper, Section 4.2, Fig. 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .densities import standard_normal
from .errors import InvalidRequest
from .lineage import Lineage
from .randomness import Rows, rows

if TYPE_CHECKING:
    from .model import TzK

__all__ = ["Interpolation", "interpolate"]

POINTS_AT_ONCE = 64


@dataclass
class Interpolation:
    """A grid of observations, row-major; its corners are the ones that were given."""

    images: Tensor  # t, (rows·columns, *observation shape)
    log_prob: Tensor  # (rows·columns,), nats: log p(t), or log p_dec(t∣e=1,c) in code space
    shape: tuple[int, int]


def interpolate(
    model: TzK,
    corners: Tensor,
    *,
    steps: int | tuple[int, int] = (8, 8),
    method: str = "linear",
    space: str = "z",
    lineage: Lineage | None = None,
    generator: torch.Generator | Rows | None = None,
) -> Interpolation:
    """A line between two corners or a sheet between four (top left, top right, bottom …).

    In ``z`` the points are mixtures of f(t). In ``c`` they are mixtures of (c, ε): c one draw of
    p_enc(c∣e=1,t), ε the base noise under p_dec(·∣e=1,c), so that the corners come back.

    Args:
        corners: t, (2, …) or (4, …).
        steps: points along a side, ends included; (rows, columns) for four corners.
        method: ``linear`` or ``spherical`` (along the great circle, norms interpolated too).
        space: ``z``, or ``c`` with a lineage of one step.
        generator: for the codes' draws.

    Raises:
        InvalidRequest: another number of corners, of steps, method or space.
    """
    if len(corners) not in (2, 4):
        raise InvalidRequest(f"2 or 4 images are needed, got {len(corners)}", pointer="/images")
    if method not in _METHODS:
        raise InvalidRequest(f"method is linear or spherical, not {method!r}", pointer="/method")
    if space not in ("z", "c"):
        raise InvalidRequest(f"space is z or c, not {space!r}", pointer="/space")
    if space == "c" and lineage is None:
        raise InvalidRequest("interpolation in c needs `given`", pointer="/given")
    if space == "c" and len(lineage.nodes) > 1:
        raise InvalidRequest(
            f"interpolation in c takes a knowledge of the first level, not {lineage.path!r}",
            pointer="/given",
        )
    height, breadth = _sides(steps, len(corners))
    mix = _METHODS[method]
    with torch.no_grad():
        z, _ = model.flow.encode(corners)
        if space == "z":
            points = _sheet(z, height, breadth, mix)
            images, log_det = _decoded(model, points)
            return Interpolation(images, standard_normal(points) - log_det, (height, breadth))
        kind = lineage.nodes[0][1]
        noise = rows(generator, len(corners)).normal(
            kind.config.code_dim, dtype=corners.dtype, device=corners.device
        )
        encoder, decoder = kind.encoders[1], kind.decoders[1]
        c, _ = encoder.sample(encoder.base(corners), noise)
        epsilon = _sheet(decoder.noise(z, c), height, breadth, mix)
        c = _sheet(c, height, breadth, mix)
        points = decoder.transform(epsilon, c)
        images, log_det = _decoded(model, points)
        log_prob = decoder.log_prob(points, c) - log_det
        return Interpolation(images, log_prob, (height, breadth))


def _decoded(model: TzK, points: Tensor) -> tuple[Tensor, Tensor]:
    """Images and log-determinants of points in z; a large sheet would not fit beside the model."""
    found = [model.flow.decode(part) for part in points.split(POINTS_AT_ONCE)]
    images, log_dets = zip(*found, strict=True)
    return torch.cat(images), torch.cat(log_dets)


def _sides(steps: int | tuple[int, int], corners: int) -> tuple[int, int]:
    if isinstance(steps, int):
        steps = (1, steps) if corners == 2 else (steps, steps)
    height, breadth = steps
    if corners == 2:
        height, breadth = 1, max(height, breadth)
    if breadth < 2 or (corners == 4 and height < 2):
        raise InvalidRequest("steps must be at least 2 along each side", pointer="/steps")
    return height, breadth


def _sheet(corners: Tensor, height: int, breadth: int, mix) -> Tensor:
    """(2 or 4, …) → (height·breadth, …), row-major."""
    across = torch.linspace(0, 1, breadth, dtype=corners.dtype, device=corners.device)
    top = [mix(corners[0], corners[1], a) for a in across]
    if len(corners) == 2:
        return torch.stack(top)
    bottom = [mix(corners[2], corners[3], a) for a in across]
    down = torch.linspace(0, 1, height, dtype=corners.dtype, device=corners.device)
    return torch.stack([mix(a, b, w) for w in down for a, b in zip(top, bottom, strict=True)])


def linear(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """(1 − w)·a + w·b."""
    return torch.lerp(a, b, weight)


def spherical(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Along the great circle between a and b, their lengths interpolated linearly.

    A Gaussian in many dimensions keeps its mass on a shell, which a straight line leaves.
    """
    length_a, length_b = a.norm(), b.norm()
    if not length_a * length_b > 0:  # the origin has no direction
        return linear(a, b, weight)
    angle = ((a * b).sum() / (length_a * length_b)).clamp(-1, 1).acos()
    if angle.sin() < 1e-4:
        return linear(a, b, weight)
    part_a = ((1 - weight) * angle).sin() / angle.sin() * a / length_a
    part_b = (weight * angle).sin() / angle.sin() * b / length_b
    return (part_a + part_b) * torch.lerp(length_a, length_b, weight)


_METHODS = {"linear": linear, "spherical": spherical}
