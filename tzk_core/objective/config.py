"""Which objective a stage maximises, and which have no maximum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import UsageError
from ..schedule import Weight

if TYPE_CHECKING:
    from ..model import TzK

__all__ = ["ObjectiveConfig", "check_objective"]


class ObjectiveConfig(BaseModel):
    """The objective of a stage."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["elbo", "tzk"] = Field("elbo", description="evidence bound, or the paper's form")
    kl_weight: Weight = Field(
        0.2, description="β of elbo: a number, or {start, end, steps}; below 1 it is no bound"
    )
    discriminator_weight: Weight = Field(
        10.0, description="w of log p_dec(e|c) and log p_enc(e|t): a number or {start, end, steps}"
    )
    encoder_fraction: float = Field(
        0.5, ge=0, le=1, description="tzk: share of batches whose codes come from the encoder"
    )
    prior_codes: Literal["prior", "conditional"] = Field(
        "prior", description="tzk: the other codes come from p_dec(c), or p_dec(c|e) by acceptance"
    )
    product: bool = Field(False, description="tzk: Eq. 4 as it stands, for K ≥ 2 not a bound")
    unbounded: bool = Field(
        False, description="tzk: run even where the objective can be raised for ever"
    )
    stop_child_density: bool = Field(
        True, description="the child's density does not reach the parent's code"
    )


def check_objective(model: TzK, config: ObjectiveConfig, trains_flow: bool) -> None:
    """Refuses settings whose objective can be raised for ever.

    Raises:
        UsageError: `tzk` with a free code prior, with encoder codes alone, or as a product of
            more than two kinds with a t-flow that trains, and not ``unbounded``. The flow over a
            kind's code trains whenever knowledge does.
    """
    if config.name != "tzk" or config.unbounded:
        return
    if config.encoder_fraction == 1:
        raise UsageError(
            "objective tzk with encoder_fraction 1 rewards σ → 0 for ever; take a smaller one"
        )
    for kind in model.every_knowledge():
        if kind.config.code_prior == "flow":
            raise UsageError(
                "objective tzk with code_prior flow rewards shrinking c for ever; take normal or "
                "volume_preserving"
            )
    if not config.product:
        return
    crowds = {"": len(model.kinds())} if trains_flow else {}
    for path in model.paths():
        child = model.find(path).child
        if child is not None:
            crowds[f" below {path}"] = len(child.kinds())
    for where, count in crowds.items():
        if count > 2:
            flow = "the flow over its code" if where else "a t-flow that trains"
            raise UsageError(
                f"objective tzk with product, {count} kinds{where} and {flow} rewards scaling z up "
                "for ever; leave product out, or say unbounded: true where that flow is frozen"
            )
