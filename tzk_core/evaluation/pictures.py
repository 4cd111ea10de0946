"""Pictures of a trained model."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from ..data.decoding import encode_png, grid
from ..data.quantisation import to_pixels
from ..files import write_aside
from ..model import TzK

__all__ = ["sample_grids"]


def sample_grids(
    model: TzK,
    folder: Path,
    *,
    seed: int,
    temperature: float = 0.7,
    n: int = 64,
    only: list[str] | None = None,
) -> list[Path]:
    """A grid of samples of p(t), of each root kind, and of the kinds below it, one a row.

    Args:
        folder: gets ``prior.png``, ``mnist.png``, ``mnist-classes.png``, …
        n: samples of a grid; a kind below another gets √n of them in its row.
        only: root kinds; all by default.
    """
    written = []

    def write(name: str, images, columns: int) -> None:
        path = folder / f"{name}.png"
        write_aside(path, encode_png(grid(to_pixels(images).cpu().numpy(), columns=columns)))
        written.append(path)

    side = max(1, math.isqrt(n))
    prior = type(model.prior)(model, temperature)
    write("prior", prior.draw(n, seed=seed).images, side)
    for name, kind in model.kinds().items():
        if only is not None and name not in only:
            continue
        given = model.given(name, temperature=temperature)
        write(name, given.draw(n, seed=seed).images, side)
        if kind.child is not None:
            rows = [
                model.given(f"{name}/{below}", temperature=temperature).draw(side, seed=seed).images
                for below in kind.child.kinds()
            ]
            write(f"{name}-classes", torch.cat(rows), side)
    return written
