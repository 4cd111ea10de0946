"""How good a model is on held-out images while it trains, and what its samples look like."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..model import TzK
from ..objective import Existence, Part, objective
from ..randomness import derived
from .dataset import Dataset
from .settings import StageConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HeldOut", "sample_images"]

AT_ONCE = 64  # images of one pass
TEMPERATURE = 0.7  # of the samples, as in the run's grids
KINDS = 8  # whose samples are shown


class HeldOut:
    """Some held-out images, always the same, with always the same noise.

    ``figure`` is what "best" means: bits/dim of p(t) where the t-flow trains; where only
    knowledge trains p(t) stays as it is, and it is the stage's loss, in bits/dim too.

    Args:
        count: at most so many images.
        needed: paths whose existence enters the loss.
    """

    def __init__(
        self,
        data: Dataset,
        config: StageConfig,
        *,
        count: int,
        seed: int,
        needed: Iterable[str],
    ) -> None:
        self.config, self.seed = config, seed
        self.index = torch.randperm(len(data), generator=derived(seed, "measured"))[:count]
        self.data = data
        known = data.known.existence
        self.existence: Existence = {p: known[p][self.index] for p in needed if p in known}

    @property
    def name(self) -> str:
        """Of the figure, in metrics."""
        return "held_out_loss" if self.config.train == "knowledge" else "held_out_bits_per_dim"

    @torch.no_grad()
    def figure(self, model: TzK) -> float:
        """Lower is better; NaN where the model gives no finite one."""
        noise = derived(self.seed, "measured", "codes").get_state()
        total, count = torch.zeros((), device=model.device), len(self.index)
        flow = self.config.train != "knowledge"
        existence = {path: e.to(model.device) for path, e in self.existence.items()}
        for start in range(0, count, AT_ONCE):
            part = Part(count, start, min(start + AT_ONCE, count))
            pick = derived(self.seed, "measured", start)
            t = self.data.observations(self.index[part.here], pick).to(model.device)
            terms = objective(
                model,
                t,
                existence,
                self.config.objective,
                torch.Generator().set_state(noise),
                step=self.config.steps,
                flow=flow,
                knowledge=not flow,
                part=part,
            )
            total += torch.as_tensor(terms.total)
        loss = -float(total) / (math.prod(model.observation_shape) * math.log(2))
        return (8 if flow else 0) + loss


@torch.no_grad()
def sample_images(model: TzK, train: str, *, count: int, seed: int) -> dict[str, Tensor]:
    """Samples of p(t), or of the first root kinds where only knowledge trains, ``count`` each."""
    if train == "knowledge":
        kinds = list(model.kinds())[:KINDS]
        given = {name: model.given(name, temperature=TEMPERATURE) for name in kinds}
    else:
        given = {"prior": type(model.prior)(model, TEMPERATURE)}
    return {name: each.draw(count, seed=seed).images for name, each in given.items()}
