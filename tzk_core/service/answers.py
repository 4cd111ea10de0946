"""What each endpoint answers: one model an endpoint, every field described.

A number is finite or null; ``reasons`` says why one is null.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Existence",
    "InterpolateAnswer",
    "Interpolated",
    "NllAnswer",
    "PosteriorAnswer",
    "SampleAnswer",
    "Sampled",
    "finite",
]

Reasons = dict[str, str]


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class NllAnswer(Answer):
    """How likely is this image?"""

    nll_nats: float | None = Field(description="−log p of the 256-level image, in nats")
    bits_per_dim: float | None = Field(description="nll_nats / (D ln 2), D being `dims`")
    bits_per_dim_native: float | None = Field(
        description="nll_nats / (D ln 2) on the image's own D, `dims_native`, in which padding "
        "and copied channels do not count"
    )
    typicality: float | None = Field(
        description="share of held-out images that are at least as unusual as this one, to "
        "either side (a tail probability, uniform on images like them), falling further beyond "
        "all of these; no probability of being out of distribution"
    )
    percentile: float | None = Field(
        description="share of held-out images, in percent, whose log p(t) is not above this one's"
    )
    given: str | None = Field(description="the knowledge that was given")
    estimator: Literal["prior", "importance"] = Field(
        description="prior: log p(t), exact given the dequantisation noise; importance: a lower "
        "bound, in expectation, of log p(t | given)"
    )
    draws: int = Field(description="draws of the code (importance) or of the noise (prior)")
    seed: int = Field(description="from which every random number came")
    dims: int = Field(description="D, the number of elements that the model sees")
    dims_native: int = Field(description="D of the image itself")
    notes: list[str] = Field(description="how the image was prepared, in words")
    reasons: Reasons = Field(default_factory=dict, description="why a number is null, by field")


class Sampled(Answer):
    """One new image."""

    seed: int = Field(description="asks for this image again, with n = 1")
    png: str = Field(description="the picture: PNG in base64")
    nll_nats: float | None = Field(
        description="−log p(picture) without knowledge: what tzk_nll answers for it and this seed"
    )


class SampleAnswer(Answer):
    """New images."""

    seed: int = Field(description="of the first image; image i has seed + i")
    path: str | None = Field(
        description="the knowledge that was given; of several `a,b,-c`, c being absent"
    )
    temperature: float
    acceptance_rate: float | None = Field(description="share of the codes drawn that were kept")
    effective_sample_size: float | None = Field(
        None, description="of whatever was resampled by importance, the smallest of the images'"
    )
    exact: bool = Field(description="whether the images come from the model's own distribution")
    images: list[Sampled]
    notes: list[str] = Field(default_factory=list, description="warnings, in words")
    reasons: Reasons = Field(default_factory=dict, description="why a number is null, by field")


class Existence(Answer):
    """Whether one kind of knowledge applies."""

    encoder: float | None = Field(description="p_enc(e = 1 | t), given its parent on a path")
    decoder: float | None = Field(description="p_dec(e = 1 | t), by the other way round")
    logit: float | None = Field(description="log-odds of `encoder`")
    joint: float | None = Field(description="the product of `encoder` down the path")
    normalised: float | None = Field(
        None, description="among its siblings, where the model declares them exclusive"
    )
    reasons: Reasons = Field(default_factory=dict, description="why a number is null, by field")


PosteriorAnswer = dict[str, Existence]
"""By path; the values need not sum to one."""


class Interpolated(Answer):
    """One image between others."""

    png: str = Field(description="the picture: PNG in base64")
    nll_nats: float | None = Field(description="−log p of the 256-level image, in nats")


class InterpolateAnswer(Answer):
    """The images between two or four others, row by row."""

    seed: int
    given: str | None
    method: Literal["linear", "spherical"]
    space: Literal["z", "c"]
    estimator: Literal["prior", "reconstruction"] = Field(
        description="of nll_nats: log p(t) in z; in c log p_dec(t | e = 1, c), which leaves out "
        "the cost of knowing c"
    )
    rows: int
    columns: int
    images: list[Interpolated]
    notes: list[str] = Field(description="how the images were prepared, in words")
    reasons: Reasons = Field(default_factory=dict, description="why a number is null, by field")


def finite(value: float, field: str, reasons: Reasons) -> float | None:
    """``value``, or ``None`` with the reason noted when it is infinite or not a number."""
    if math.isfinite(value):
        return float(value)
    reasons[field] = f"the model's figure is {value}, which is no number that JSON can hold"
    return None
