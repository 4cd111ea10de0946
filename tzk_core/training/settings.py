"""The settings of a recipe that training itself reads: stages, watching, the end."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..objective import ObjectiveConfig

__all__ = ["PRESETS", "EvaluationConfig", "Section", "StageConfig", "WatchConfig"]

# Settings of a stage that go together; keys that a recipe gives itself count more.
PRESETS: dict[str, dict[str, Any]] = {
    # Section 4: Adam with its default parameters, lr = 1e-5, the warm-up schedule of Vaswani et
    # al. (2017) with 4,000 steps (its fall by the inverse square root included), batches of 10.
    "paper": {
        "optimiser": "adam",
        "betas": [0.9, 0.999],
        "weight_decay": 0.0,
        "batch": 10,
        "learning_rate": 1e-5,
        "scale_rate": 1.0,
        "warmup": 4000,
        "decay": "inverse_sqrt",
        "ema": 0.0,
    }
}


_Decay = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A mapping of a recipe, in which every key is known."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class StageConfig(Section):
    """One stage of training."""

    train: Literal["flow", "knowledge", "children", "all"] = Field(
        description="the t-flow; the knowledge on the frozen t-flow; the TzKs over the codes of "
        "frozen knowledge; or all together"
    )
    freeze: list[str] = Field(
        default_factory=list,
        description="parts of what it trains that stay as they are: `flow`, or paths of knowledge",
    )
    steps: int = Field(ge=1, description="optimiser steps")
    preset: Literal["paper"] | None = Field(
        None,
        description="`paper` takes the paper's optimiser, rate, schedule and batch for every key "
        "that the stage does not give itself",
    )
    optimiser: Literal["adam", "adamw", "adamax"] = Field(
        "adam", description="Adam, Adam with decoupled weight decay, or Adam with the largest norm"
    )
    betas: tuple[_Decay, _Decay] = Field(
        (0.9, 0.999), description="decays of the optimiser's averages of the gradient, its square"
    )
    weight_decay: float = Field(0.0, ge=0, description="of the optimiser")
    batch: int = Field(
        64, ge=2, description="images a step, over all processes and accumulated parts together"
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="parts of a batch that a process works on one after the other, which saves "
        "memory; the step is the same to rounding",
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32",
        description="what the networks within couplings, regressors and discriminators run in; "
        "the flow's own arithmetic, log-determinants and weights stay float32",
    )
    recompute: bool = Field(
        False,
        description="keep no activations of the coupling networks but work them out again on the "
        "way back (activation checkpointing): less memory, more time, the same step",
    )
    cuda_graph: bool = Field(
        True,
        description="on a GPU, launch a step's objective and its gradient as two recorded CUDA "
        "graphs; every row then goes through both branches of every kind. For `elbo` in whole "
        "batches: not with `recompute`, `accumulate` or several processes",
    )
    learning_rate: float = Field(1e-3, gt=0, description="of the optimiser, at its highest")
    scale_rate: float = Field(
        20.0, gt=0, description="ActNorm's log scales learn so many times faster than the rest"
    )
    warmup: int = Field(50, ge=0, description="steps of linear rise")
    decay: Literal["cosine", "inverse_sqrt", "none"] = Field(
        "cosine",
        description="fall after the rise: to 1 % along a cosine, by √(warmup / step), or none",
    )
    clip: float = Field(
        100.0, gt=0, description="largest norm of the gradient (of the loss in bits/dim)"
    )
    bad_steps: int = Field(
        10,
        ge=1,
        description="steps in a row whose loss or gradient is not finite, until the run stops; "
        "each is left out",
    )
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights, 0 for none")
    latent_draws: int = Field(
        2, ge=1, description="noise draws of each image whose z is kept, on a frozen t-flow"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    measure_every: int = Field(
        500, ge=0, description="steps between measurements on held-out images, 0 for none"
    )
    objective: ObjectiveConfig = Field(
        default_factory=ObjectiveConfig, description="what the stage maximises"
    )

    @property
    def terms(self) -> dict[str, bool]:
        """Which terms of :func:`~tzk_core.objective.objective` the stage maximises."""
        return {
            "flow": self.train in ("flow", "all"),
            "knowledge": self.train != "flow",
            "parents": self.train != "children",
        }

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") in PRESETS:
            return PRESETS[values["preset"]] | values
        return values


class WatchConfig(Section):
    """What is shown and kept while it trains."""

    log_every: int = Field(20, ge=1, description="steps between rows of metrics.jsonl")
    tensorboard: bool = Field(
        True, description="whether scalars and sample grids go to RUN/tensorboard too"
    )
    samples_every: int = Field(
        500, ge=0, description="steps between sample grids in TensorBoard, 0 for none"
    )
    samples: int = Field(16, ge=1, le=1024, description="images of such a grid")
    measure_images: int = Field(
        256, ge=2, description="held-out images of a measurement, the same ones each time"
    )
    keep_last: int = Field(
        2, ge=1, description="checkpoints that are kept, besides the best weights of each stage"
    )


class EvaluationConfig(Section):
    """What is fitted and measured at the end."""

    existence_draws: int = Field(1_000_000, ge=1000, description="codes for p(e = 1)")
    encoder_rate_draws: int = Field(
        0, ge=0, description="samples for the `encoder` estimator; 0 leaves it out"
    )
    held_out: int = Field(1000, ge=10, description="held-out images for figures and percentiles")
    draws: int = Field(16, ge=1, description="codes of the importance estimate")
    noise_draws: int = Field(
        1,
        ge=1,
        description="dequantisation draws of each held-out image, whose likelihoods are averaged: "
        "more are slower and tighten the bound on the 256-level image's likelihood",
    )
