"""Optimisers, rates and averages, as a stage of a recipe asks for them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..flows import ActNorm
from ..siblings import Stack
from .settings import StageConfig

__all__ = ["Average", "go_on", "optimiser", "rate"]

_KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "adamax": torch.optim.Adamax}
LAST_RATE = 0.01  # of the highest, at the end of the cosine, so that the last steps still move


def optimiser(
    model: nn.Module, parameters: list[Tensor], config: StageConfig, stacks: Iterable[Stack] = ()
) -> torch.optim.Optimizer:
    """Of ``parameters``; each group has a ``rate`` by which the stage's rate is multiplied."""
    # A coupling's scale is at most 1, so only ActNorm can stretch the constant background of
    # an image to unit variance, which takes log 256 nats in all: see docs/decisions.md.
    scales = {
        id(m.log_scale)
        for m in model.modules()
        if isinstance(m, ActNorm) and m.log_scale is not None
    }
    for stack in stacks:
        scales |= {id(whole) for whole, each in stack.parameters if id(each[0]) in scales}
    groups = [
        {"params": [p for p in parameters if id(p) not in scales], "rate": 1.0},
        {"params": [p for p in parameters if id(p) in scales], "rate": config.scale_rate},
    ]
    # Of many small tensors, one call for all of them takes a quarter of the time.
    fused = {} if config.optimiser == "adamax" else {"fused": True}
    return _KINDS[config.optimiser](
        groups,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        **fused,
    )


def go_on(optimiser: torch.optim.Optimizer, state: dict) -> None:
    """Takes in the state of a checkpoint, in the layout of the parameters.

    A fused step walks through memory: a moment that lay otherwise than its parameter would be
    another element's.
    """
    optimiser.load_state_dict(state)
    for parameter, moments in optimiser.state.items():
        for key, value in moments.items():
            if value.shape == parameter.shape:
                moments[key] = torch.empty_like(parameter).copy_(value)


def rate(config: StageConfig, step: int) -> float:
    """The learning rate of a step of its stage.

    A linear rise over ``warmup`` steps, then what ``decay`` says: ``cosine`` falls to 1 % at the
    last step, ``inverse_sqrt`` by √(warmup / step) (Vaswani et al. 2017, section 5.3).
    """
    done = step + 1
    rise = min(1.0, done / config.warmup) if config.warmup else 1.0
    if config.decay == "none":
        return config.learning_rate * rise
    if config.decay == "inverse_sqrt":
        return config.learning_rate * min(rise, math.sqrt(max(config.warmup, 1) / done))
    left = 1 - max(0, step - config.warmup) / max(1, config.steps - config.warmup)
    fall = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 - math.cos(math.pi * left))
    return config.learning_rate * rise * fall


class Average:
    """The exponential moving average of parameters.

    After step s the decay is (s + 1)/(s + 10) where that is less: of the first weights, which are
    far from any good ones, nothing is left after a few hundred steps however slow the average is.

    Args:
        parameters: it starts from them as they are.
        decay: of the average at each step.
        values: it goes on from these.
    """

    def __init__(
        self, parameters: list[Tensor], decay: float, values: list[Tensor] | None = None
    ) -> None:
        self.parameters = parameters
        if values is None:
            values = [p.detach() for p in parameters]
        self.values = [v.to(p, copy=True) for v, p in zip(values, parameters, strict=True)]
        self.decay = decay

    def update(self, steps: int) -> None:
        """Takes the parameters in, after ``steps`` steps."""
        decay = min(self.decay, (steps + 1) / (steps + 10))
        get_ema_multi_avg_fn(decay)(self.values, self.parameters, torch.tensor(steps))

    @torch.no_grad()
    def put_in_place(self) -> None:
        """Makes the parameters their average."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            parameter.copy_(value)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The parameters are their average within the block, and afterwards what they were."""
        kept = [p.detach().clone() for p in self.parameters]
        self.put_in_place()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.parameters, kept, strict=True):
                    parameter.copy_(value)
