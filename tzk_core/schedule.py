"""A weight that is a number, or one that moves linearly between two over some steps."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Ramp", "Weight", "at"]


class Ramp(BaseModel):
    """From ``start`` to ``end`` over the first ``steps`` steps of a stage, then ``end``."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    start: float = Field(ge=0, description="the weight at step 0")
    end: float = Field(ge=0, description="the weight from step `steps` on")
    steps: int = Field(ge=1, description="steps from one to the other")


Weight = Annotated[float, Field(allow_inf_nan=False)] | Ramp


def at(weight: Weight, step: int) -> float:
    """The weight at a step of its stage.

    >>> at(Ramp(start=0.0, end=1.0, steps=4), 1), at(0.2, 100)
    (0.25, 0.2)
    """
    if isinstance(weight, Ramp):
        share = min(1.0, step / weight.steps)
        return weight.start + share * (weight.end - weight.start)
    return weight
