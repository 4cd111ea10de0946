"""The part `interpolation`: sheets between four test images, in z and in a kind's code."""

from __future__ import annotations

import torch

from ...between import CORNERS, Sheet, between, choose_corners
from ..charts import sheets
from ..result import Picture, Result, Table
from ..work import Part, Work

__all__ = ["PART"]


def _scopes(work: Work) -> list[str]:
    return [source.name for source in work.sources]


def _measure(work: Work, scope: str) -> Result | str:
    source = work.source(scope)
    if len(source.test) < CORNERS:
        return f"{scope} has {len(source.test)} test images, and it takes {CORNERS}"
    labels = torch.from_numpy(source.test.labels)
    pixels = source.pixels[choose_corners(labels, work.seed, scope)]
    parent, side = work.parent(source), work.settings.interpolation_side
    ways = [("linear", None), ("spherical", None)]
    if parent is not None:
        ways.append(("linear", parent))
    task = work.task(f"interpolation of {scope}", len(ways))
    found = []
    for method, given in ways:
        found.append(
            between(work.model, pixels, side=side, seed=work.seed, method=method, given=given)
        )
        task(1)
    table = Table(
        "bits/dim of log p(t) at the four corners and between them",
        ["in", "corners, mean", "between, mean", "largest"],
        [
            [each.way, f"{each.corners:.3f}", f"{each.inside:.3f}", f"{each.worst:.3f}"]
            for each in found
        ],
    )
    picture = Picture(
        f"interpolation-{scope}",
        sheets(found, f"between four test images of {scope}; below, bits/dim of log p(t)"),
        "The corners are test images. Where bits/dim rises between them, the way leads through "
        "what the model holds unlikely; where it falls, through what is simpler than images are.",
        pixels=False,
    )
    return Result({"ways": [_figures(each) for each in found]}, [table], [picture])


def _figures(each: Sheet) -> dict:
    return {
        "way": each.way,
        "bits_per_dim": each.bits,
        "corners": each.corners,
        "between": each.inside,
        "largest": each.worst,
    }


PART = Part(
    "interpolation",
    "Interpolation",
    "Between four test images of different classes (paper, Fig. 5): in z, straight and along great "
    "circles, and in a kind's code with its base noise. log p(t) is that of the continuous images, "
    "without dequantisation.",
    ("test_images", "interpolation_side"),
    _scopes,
    _measure,
)
