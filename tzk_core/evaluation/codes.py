"""What a knowledge of a path observes: the image, or its parent's code."""

from __future__ import annotations

from torch import Tensor

from ..lineage import Lineage
from ..randomness import Rows

__all__ = ["observed_by"]


def observed_by(lineage: Lineage, t: Tensor, source: Rows, draws: int = 1) -> Tensor:
    """``draws`` observations of the last knowledge on a path for each row of t.

    At the root that is t itself, whatever ``draws``; below it, codes of the parent, drawn from the
    encoders of its ancestors, e = 1.

    Returns:
        t, or (B·draws, C) with the draws of a row together.
    """
    x = t
    for depth, (_, kind) in enumerate(lineage.nodes[:-1]):
        encoder = kind.encoders[1]
        base = encoder.base(x)
        if depth == 0:
            # The network on images is the costly part, and the same for every draw.
            base = tuple(part.repeat_interleave(draws, dim=0) for part in base)
        size = kind.config.code_dim
        noise = source.normal(draws, size, dtype=t.dtype, device=t.device)
        x, _ = encoder.sample(base, noise.reshape(-1, size))
    return x
