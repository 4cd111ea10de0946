"""Why the objective is what it is: design, section 4, properties 1, 2 and 4.

Each test walks along the direction in which the paper's exact form can be raised for ever, with
everything else made to follow, and shows that the default does not reward it.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
from tzk_core.errors import UsageError
from tzk_core.model import TzK
from tzk_core.objective import ObjectiveConfig, check_objective, objective
from tzk_core.randomness import generator

WALK = (0.0, 1.0, 2.0, 3.0, 4.0)
SIZE = {
    "code_dim": 2,
    "z_steps": 1,
    "code_steps": 1,
    "code_width": 4,
    "encoder_width": 4,
    "decoder_width": 4,
    "discriminator_width": 4,
    "z_context": False,
}


def plane_model(*names: str, **changes) -> TzK:
    model = TzK(
        TzKConfig(observation=(2,), flow=FlowConfig(steps=1, width=4)), generator=generator(0)
    ).double()
    for seed, name in enumerate(names):
        model.add_knowledge(name, KnowledgeConfig(**(SIZE | changes)), generator=generator(seed))
    return model


def observed(count: int = 512) -> torch.Tensor:
    return torch.randn(count, 2, generator=generator(5), dtype=torch.float64)


def value(model: TzK, t: torch.Tensor, config: ObjectiveConfig, **known: int) -> float:
    existence = {name: torch.full((len(t),), e) for name, e in known.items()}
    with torch.no_grad():
        return float(objective(model, t, existence, config, generator(7)).total)


def first_norm(flow) -> torch.nn.Module:
    return flow.layers[0].layers[0]


def walked(build, config: ObjectiveConfig, move, **known: int) -> list[float]:
    """The objective along the walk, from a new model at each place."""
    values = []
    for place in WALK:
        model = build()
        with torch.no_grad():
            move(model, place)
        values.append(value(model, observed(), config, **known))
    return values


def rises_for_ever(values: list[float]) -> bool:
    """Each step up is at least 0.9 of the one before: no ceiling is in sight."""
    steps = [b - a for a, b in pairwise(values)]
    return all(s > 0 for s in steps) and all(b > 0.9 * a for a, b in pairwise(steps))


# -- property 1: the product at K > 2 rewards scaling z up -----------------------------------------


def scale_z(model: TzK, place: float) -> None:
    """z grows by e^place; the kinds' z-flows take it back, so p(t|k) does not change."""
    first_norm(model.flow).log_scale += place
    for kind in model.kinds().values():
        for decoder in kind.decoders:
            first_norm(decoder.flow).log_scale -= place


def three() -> TzK:
    return plane_model("a", "b", "c")


def test_product_of_three_rewards_scaling_z() -> None:
    exact = ObjectiveConfig(name="tzk", product=True, unbounded=True, encoder_fraction=1)
    assert rises_for_ever(walked(three, exact, scale_z, a=1, b=1, c=1))


@pytest.mark.parametrize("name", ["elbo", "tzk"])
def test_default_does_not_reward_scaling_z(name: str) -> None:
    values = walked(three, ObjectiveConfig(name=name), scale_z, a=1, b=1, c=1)
    assert max(values) == values[0]


def test_product_of_two_leaves_the_prior_out() -> None:
    """At K = 2 log p(t) has the weight (2 − K)/2 = 0: z's scale changes nothing."""
    exact = ObjectiveConfig(name="tzk", product=True, encoder_fraction=1)
    values = walked(lambda: plane_model("a", "b"), exact, scale_z, a=1, b=1)
    assert max(values) - min(values) < 1e-9


def test_product_that_trains_the_flow_is_refused() -> None:
    product = ObjectiveConfig(name="tzk", product=True)
    with pytest.raises(UsageError, match="scaling z up"):
        check_objective(three(), product, trains_flow=True)
    check_objective(three(), product, trains_flow=False)


# -- property 2: shrinking c -----------------------------------------------------------------------


def shrink_encoder(model: TzK, place: float) -> None:
    """Codes of the encoder shrink by e^−place; everything that reads a code takes it back."""
    kind = model.find("a")
    for encoder in kind.encoders:
        first_norm(encoder.flow).log_scale += place
    for reader in (*kind.decoders, kind.c_discriminator):
        reader.norm.log_scale += place


def shrink_both(model: TzK, place: float) -> None:
    shrink_encoder(model, place)
    first_norm(model.find("a").code_prior.flow).log_scale += place


@pytest.mark.parametrize("fraction", [0.0, 1.0], ids=["prior's codes", "encoder's codes"])
def test_free_prior_rewards_shrinking_codes(fraction: float) -> None:
    config = ObjectiveConfig(name="tzk", unbounded=True, encoder_fraction=fraction)
    build = lambda: plane_model("a", code_prior="flow")  # noqa: E731
    assert rises_for_ever(walked(build, config, shrink_both, a=1))


def test_fixed_prior_with_encoder_codes_alone_rewards_a_small_sigma() -> None:
    config = ObjectiveConfig(name="tzk", unbounded=True, encoder_fraction=1)
    values = walked(lambda: plane_model("a"), config, shrink_encoder, a=1)
    assert values == sorted(values)


def test_fixed_prior_with_both_halves_does_not() -> None:
    def both(place_values):
        return [sum(pair) / 2 for pair in zip(*place_values, strict=True)]

    halves = [
        walked(
            lambda: plane_model("a"),
            ObjectiveConfig(name="tzk", unbounded=True, encoder_fraction=fraction),
            shrink_encoder,
            a=1,
        )
        for fraction in (0.0, 1.0)
    ]
    values = both(halves)
    assert values[-1] < values[0]


def test_bound_does_not_reward_shrinking_codes() -> None:
    build = lambda: plane_model("a", code_prior="flow")  # noqa: E731
    values = walked(build, ObjectiveConfig(kl_weight=1.0), shrink_both, a=1)
    assert max(values) - min(values) < 1e-9


def test_settings_without_a_bound_are_refused() -> None:
    with pytest.raises(UsageError, match="shrinking c"):
        check_objective(plane_model("a", code_prior="flow"), ObjectiveConfig(name="tzk"), False)
    with pytest.raises(UsageError, match="σ → 0"):
        check_objective(plane_model("a"), ObjectiveConfig(name="tzk", encoder_fraction=1), False)
    check_objective(plane_model("a", code_prior="flow"), ObjectiveConfig(), False)


# -- property 4: a child's density of c ------------------------------------------------------------


def with_child() -> TzK:
    model = plane_model("a")
    return model.add_knowledge("a/b", KnowledgeConfig(**SIZE), generator=generator(9))


def gradient_to_encoder(stop: bool, discriminator_weight: float) -> float:
    """How strongly the child's terms alone pull at the parent's encoder.

    The parent's own terms are the same with and without the child's label, so the difference of
    the two gradients is the child's.
    """
    gradients = []
    for child in (0, 1):
        model = with_child()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(
                    parameter.shape, generator=generator(3), dtype=parameter.dtype
                )
        if not child:
            model.find("a").child = None
        config = ObjectiveConfig(discriminator_weight=discriminator_weight, stop_child_density=stop)
        t = observed(64)
        existence = {"a": torch.ones(64, dtype=torch.int64), "a/b": torch.arange(64) % 2}
        objective(model, t, existence, config, generator(7)).total.backward()
        encoder = model.find("a").encoders[1]
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.parameters()]))
    return float((gradients[1] - gradients[0]).norm())


def test_childs_density_stops_at_the_code() -> None:
    assert gradient_to_encoder(stop=True, discriminator_weight=0.0) < 1e-12


def test_childs_discriminators_shape_the_code() -> None:
    assert gradient_to_encoder(stop=True, discriminator_weight=1.0) > 1e-3


def test_childs_density_would_reward_shrinking_the_code() -> None:
    def shrink(model: TzK, place: float) -> None:
        shrink_encoder(model, place)
        child = model.find("a").child
        first_norm(child.flow).log_scale += place
        below = model.find("a/b")
        for reader in (*below.encoders, below.t_discriminator):
            reader.norm.log_scale += place

    exact = ObjectiveConfig(stop_child_density=False, kl_weight=0.0)
    values = walked(with_child, exact, shrink, **{"a": 1, "a/b": 1})
    assert rises_for_ever(values)
