"""How good a model is on held-out images while it trains, and what its samples look like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..evaluation.information import mixture_information
from ..model import TzK
from ..objective import Existence, Part, objective
from ..randomness import derived
from .dataset import Dataset
from .settings import StageConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Codes", "HeldOut", "sample_images"]

AT_ONCE = 64  # images of one pass
TEMPERATURE = 0.7  # of the samples, as in the run's grids
KINDS = 8  # whose samples are shown


@dataclass(frozen=True)
class Codes:
    """What the codes of a kind are like, e = 1: whether they live, and which σ shrink."""

    information: float  # I(c; t), nats, at most log of the number of images (Eq. 12's term)
    encoder_log_sigma: Tensor  # of p_enc(c∣e=1,t)'s base, (N, C)
    decoder_log_sigma: Tensor  # of p_dec(z∣e=1,c)'s base, (N, *latent shape)


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
        return "held_out_bits_per_dim" if self.config.terms["flow"] else "held_out_loss"

    @torch.no_grad()
    def figure(self, model: TzK) -> float:
        """Lower is better; NaN where the model gives no finite one."""
        noise = derived(self.seed, "measured", "codes").get_state()
        total, count = torch.zeros((), device=model.device), len(self.index)
        # p(t) says what the best flow is, whatever else trains with it.
        flow = self.config.terms["flow"]
        asked = self.config.terms | {"knowledge": not flow}
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
                part=part,
                **asked,
            )
            total += torch.as_tensor(terms.total)
        loss = -float(total) / (math.prod(model.observation_shape) * math.log(2))
        return (8 if flow else 0) + loss

    @torch.no_grad()
    def codes(self, model: TzK) -> dict[str, Codes]:
        """Of every kind of the first level that enough of the images have."""
        found = {}
        for name, kind in model.kinds().items():
            e = self.existence.get(name)
            own = self.index[:0] if e is None else self.index[e == 1]
            if len(own) < 2:
                continue
            noise = derived(self.seed, "measured", "codes", name)
            t = self.data.observations(own, noise).to(model.device)
            mean, log_sigma = kind.encoders[1].base(t)
            epsilon = torch.randn(mean.shape, generator=noise).to(mean)
            c, _ = kind.encoders[1].sample((mean, log_sigma), epsilon)
            base = mean + log_sigma.exp() * epsilon
            terms = mixture_information(base, mean, log_sigma)
            _, of_decoder = kind.decoders[1].base(c)
            found[name] = Codes(float(terms.mean()), log_sigma, of_decoder)
        return found


@torch.no_grad()
def sample_images(model: TzK, train: str, *, count: int, seed: int) -> dict[str, Tensor]:
    """Samples of p(t), or where only knowledge trains of the first kinds, ``count`` each."""
    if train in ("knowledge", "children"):
        paths = model.paths() if train == "children" else model.kinds()
        kinds = list(paths)[:KINDS]
        given = {name: model.given(name, temperature=TEMPERATURE) for name in kinds}
    else:
        given = {"prior": type(model.prior)(model, TEMPERATURE)}
    return {name: each.draw(count, seed=seed).images for name, each in given.items()}
