"""What training maximises: its values against closed forms, and what its gradients reach."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from flows.registry import perturb
from model.linear_gaussian import Kind, generator, world, write_into

from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig, paper_knowledge
from tzk_core.errors import UsageError
from tzk_core.model import TzK
from tzk_core.objective import ObjectiveConfig, Part, Terms, check_objective, objective
from tzk_core.schedule import Ramp, at

BOUND = ObjectiveConfig(kl_weight=1.0, discriminator_weight=1.0)


def ones(count: int) -> torch.Tensor:
    return torch.ones(count, dtype=torch.int8)


def value(model, t, existence, config, **options) -> float:
    total = objective(model, t, existence, config, generator(0), **options).total
    return float(torch.as_tensor(total).detach())


def prior(kind: Kind, t: torch.Tensor) -> torch.Tensor:
    """log p(t) of z = A·t + a."""
    matrix, shift = kind.flow
    z = t @ matrix.T + shift
    return -0.5 * z.square().sum(1) - math.log(2 * math.pi) + torch.linalg.slogdet(matrix)[1]


# -- values ----------------------------------------------------------------------------------------


def test_the_bound_is_tight_with_an_exact_encoder():
    """log p_dec(t, e=1) + log p_enc(e=1 ∣ t), whatever codes were drawn."""
    exact = world()
    exact.model.remove_knowledge("a/b")
    t = exact.a.present.sample(50, generator(1))
    truth = float((exact.a.log_joint(t, 1) + exact.a.seen.log_prob(t)).mean())
    assert value(exact.model, t, {"a": ones(50)}, BOUND, flow=False) == pytest.approx(truth)
    truth += float(prior(exact.a, t).mean())
    assert value(exact.model, t, {"a": ones(50)}, BOUND) == pytest.approx(truth)
    # Without knowledge it is log p(t).
    only = value(exact.model, t, {"a": ones(50)}, BOUND, knowledge=False)
    assert only == pytest.approx(float(prior(exact.a, t).mean()))


def test_the_bound_is_below_with_another_encoder_by_its_kl():
    spoiled = world(off=0.25, widen=1.4)
    spoiled.model.remove_knowledge("a/b")
    one = spoiled.a.present.sample(1, generator(1))
    t = one.expand(40_000, 2)
    said = value(spoiled.model, t, {"a": ones(len(t))}, BOUND, flow=False)
    variance = spoiled.a.code_posterior(one)[1].diagonal()
    kl = 0.5 * (1.4**2 - 1 - 2 * math.log(1.4) + 0.25**2 / variance).sum()
    truth = float(spoiled.a.log_joint(one, 1) + spoiled.a.seen.log_prob(one) - kl)
    assert said == pytest.approx(truth, abs=5 * 1.5 / math.sqrt(len(t)))


def test_absent_ones_take_the_other_branch():
    exact = world(off=0.3)
    t = exact.a.decoded(exact.a.code_prior, 0).sample(20_000, generator(1))
    said = value(exact.model, t, {"a": 0 * ones(len(t))}, BOUND, flow=False)
    truth = exact.a.log_joint(t, 0) + torch.log1p(-exact.a.seen.log_prob(t).exp())
    assert said < float(truth.mean())
    assert said > float(truth.mean()) - 2


def test_every_image_counts_once():
    """A batch of both is the average over its images of what each part says alone."""
    exact = world(off=0.2)
    exact.model.remove_knowledge("a/b")
    t = exact.a.present.sample(8, generator(1))
    e = torch.tensor([0, 1, 1, -1, 1, 0, 1, 1], dtype=torch.int8)
    together = value(exact.model, t, {"a": e}, BOUND, flow=False)
    source, parts = generator(0), 0.0
    for present in (1, 0):  # in the order in which they draw their codes
        rows = e == present
        said = objective(exact.model, t[rows], {"a": e[rows]}, BOUND, source, flow=False)
        parts += float(said.total.detach()) * int(rows.sum())
    assert together == pytest.approx(parts / 7)


def test_weights_weigh_what_they_say():
    """The objective is linear in both weights, with slopes that the logs and truths tell."""
    exact = world()
    exact.model.remove_knowledge("a/b")
    t = exact.a.present.sample(50, generator(1))
    existence = {"a": ones(50)}

    def at_weights(kl: float, w: float) -> float:
        config = ObjectiveConfig(kl_weight=kl, discriminator_weight=w)
        return value(exact.model, t, existence, config, flow=False)

    logs = objective(exact.model, t, existence, BOUND, generator(0)).logs
    assert at_weights(0.2, 1) - at_weights(1, 1) == pytest.approx(0.8 * float(logs["a/kl"]))
    slope = at_weights(1, 3) - at_weights(1, 2)
    assert at_weights(1, 10) - at_weights(1, 2) == pytest.approx(8 * slope)
    assert at_weights(1, 0) + slope == pytest.approx(at_weights(1, 1))
    assert slope < 0


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_the_paper_s_form(fraction):
    """½(log p_enc + log p_dec) for codes of the encoder or of the prior, in closed form."""
    exact = world()
    exact.model.remove_knowledge("a/b")
    one = exact.a.present.sample(1, generator(1))
    t = one.expand(40_000, 2)
    config = ObjectiveConfig(name="tzk", encoder_fraction=fraction, discriminator_weight=1.0)
    said = value(exact.model, t, {"a": ones(len(t))}, config, flow=False)
    mean, cov = exact.a.code_posterior(one)
    # With the exact encoder log p_dec(t, e, c) = log p_dec(t, e) + log q(c), so both halves need
    # only E[log q(c)]: minus its entropy for its own codes, a quadratic form for the prior's.
    if fraction == 1:
        spread = torch.tensor(2.0)
    else:
        off = mean[0]
        spread = (torch.linalg.inv(cov) * (torch.eye(2) + off[:, None] * off)).sum()
    log_q = -0.5 * (spread + torch.logdet(2 * math.pi * cov))
    seen = exact.a.seen.log_prob(one)
    truth = 0.5 * (prior(exact.a, one) + seen + log_q) + 0.5 * (exact.a.log_joint(one, 1) + log_q)
    assert said == pytest.approx(float(truth), abs=5 * 12 / math.sqrt(len(t)))


def test_schedules():
    ramp = Ramp(start=1.0, end=0.2, steps=4)
    assert [at(ramp, step) for step in (0, 2, 4, 100)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    exact = world()
    t = exact.a.present.sample(10, generator(1))
    moving = ObjectiveConfig(kl_weight=ramp, discriminator_weight=1.0)
    fixed = ObjectiveConfig(kl_weight=0.6, discriminator_weight=1.0)
    existence = {"a": ones(10)}
    assert value(exact.model, t, existence, moving, step=2) == value(
        exact.model, t, existence, fixed
    )
    assert value(exact.model, t, existence, moving, step=0) != value(
        exact.model, t, existence, fixed
    )


# -- unknown existence -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["elbo", "tzk"])
def test_an_unknown_existence_contributes_nothing(name):
    exact = world(off=0.2)
    config = ObjectiveConfig(name=name)
    t = exact.a.present.sample(6, generator(1))
    e = torch.tensor([1, 0, -1, -1, 1, -1], dtype=torch.int8)
    known = [0, 1, 4]
    said = value(exact.model, t, {"a": e}, config, flow=False)
    assert said == pytest.approx(
        value(exact.model, t[known], {"a": e[known]}, config, flow=False), rel=1e-12
    )
    other = t.clone()
    other[e == -1] += 3.0
    assert value(exact.model, other, {"a": e}, config, flow=False) == said
    assert value(exact.model, t, {"a": -ones(6)}, config, flow=False) == 0
    assert value(exact.model, t, {}, config, flow=False) == 0
    assert value(exact.model, t, {}, config) == pytest.approx(float(prior(exact.a, t).mean()))


def test_an_unknown_existence_gives_no_gradient():
    exact = world()
    t = exact.a.present.sample(4, generator(1)).requires_grad_()
    e = torch.tensor([1, -1, 0, -1], dtype=torch.int8)
    objective(exact.model, t, {"a": e}, BOUND, generator(0), flow=False).total.backward()
    assert bool((t.grad[[0, 2]] != 0).any())
    assert torch.equal(t.grad[[1, 3]], torch.zeros(2, 2).double())


# -- parts of a batch ------------------------------------------------------------------------------

PARTS = [
    ObjectiveConfig(),
    ObjectiveConfig(stop_child_density=False, kl_weight=1.0),
    ObjectiveConfig(name="tzk"),
    ObjectiveConfig(name="tzk", encoder_fraction=0.0, prior_codes="conditional"),
    ObjectiveConfig(name="tzk", product=True, unbounded=True),
]


@pytest.mark.parametrize("config", PARTS, ids=lambda config: f"{config.name}-{config.prior_codes}")
@pytest.mark.parametrize("edges", [[0, 4, 8], [0, 1, 1, 7, 8], list(range(9))], ids=str)
@pytest.mark.parametrize("parents", [True, False], ids=["whole", "children"])
def test_the_parts_of_a_batch_add_up_to_it(config, edges, parents):
    """Values, figures and gradients, with parts in which some kind, or anyone, is missing."""
    model = hierarchy()
    model.add_knowledge("other", model.find("a").config, generator=generator(5))
    t = torch.randn(8, 2, generator=generator(2), dtype=torch.float64)
    existence = {
        "a": torch.tensor([1, 1, 0, 1, -1, 1, 1, 0], dtype=torch.int8),
        "a/b": torch.tensor([1, 0, -1, 0, -1, 1, 1, -1], dtype=torch.int8),
        "other": torch.tensor([-1, -1, -1, -1, -1, 0, 1, 1], dtype=torch.int8),
    }
    balance = {"a": torch.rand(8, generator=generator(6), dtype=torch.float64)}

    def worked_out(bounds: list[int]) -> tuple[dict, dict]:
        model.zero_grad()
        joined, total = Terms(), 0.0
        for start, stop in pairwise(bounds):
            part = Part(8, start, stop)
            source = generator(3)
            own = t[part.here]
            terms = objective(
                model,
                own,
                existence,
                config,
                source,
                flow=parents,
                parents=parents,
                part=part,
                balance=balance,
            )
            if isinstance(terms.total, torch.Tensor):
                terms.total.backward()
                total += float(terms.total.detach())
            joined.join(terms)
        gradients = {key: p.grad for key, p in model.named_parameters()}
        return {"total": total} | {k: float(v) for k, v in joined.figures().items()}, gradients

    (whole, gradients), (sums, added) = worked_out([0, 8]), worked_out(edges)
    assert sums == pytest.approx(whole, rel=1e-10, abs=1e-10)
    assert len(whole) > (10 if parents else 4)
    for key, gradient in gradients.items():
        # None where nothing in the whole batch reaches it, in every way to cut it.
        assert (gradient is None) == (added[key] is None), key
        if gradient is not None:
            assert torch.allclose(gradient, added[key], rtol=1e-9, atol=1e-12), key


def test_balance_weighs_the_discriminators_alone():
    model, t = hierarchy(), torch.randn(8, 2, generator=generator(2), dtype=torch.float64)
    e = {"a": torch.tensor([1, 0] * 4, dtype=torch.int8)}

    def total(w: float, weight: float | None) -> float:
        config = ObjectiveConfig(discriminator_weight=w)
        balance = None if weight is None else {"a": torch.full((8,), weight).double()}
        return value(model, t, e, config, balance=balance)

    assert total(10.0, 1.0) == total(10.0, None)
    assert total(10.0, 0.5) == pytest.approx(total(5.0, None), rel=1e-12)
    only = {"a": torch.tensor([2.0, 0, 2, 0, 2, 0, 2, 0]).double()}
    said = value(model, t, e, ObjectiveConfig(discriminator_weight=10.0), balance=only)
    assert said != pytest.approx(total(10.0, None), rel=1e-3)


# -- hierarchy -------------------------------------------------------------------------------------


def hierarchy() -> TzK:
    """2-D observations, ``a`` and on its code ``b``, away from where they start."""
    model = TzK(TzKConfig(observation=(2,), flow=FlowConfig(steps=2, width=6)))
    kind = KnowledgeConfig(
        code_dim=2,
        code_steps=1,
        code_width=6,
        encoder_width=6,
        decoder_width=6,
        z_steps=1,
        z_width=6,
        discriminator_width=6,
    )
    for path in ("a", "a/b"):
        model.add_knowledge(path, kind, generator=generator(0))
    return perturb(model, generator(1), 0.2).double()


def parents_gradient(model: TzK, config: ObjectiveConfig) -> dict[str, torch.Tensor]:
    """The gradient of everything of ``a`` but its child."""
    model.zero_grad()
    t = torch.randn(8, 2, generator=generator(2), dtype=torch.float64)
    below = torch.tensor([1, 0, 1, 0, -1, 1, 0, 1], dtype=torch.int8)
    existence = {"a": ones(8), "a/b": below}
    objective(model, t, existence, config, generator(3), flow=False).total.backward()
    return {
        key: parameter.grad
        for key, parameter in model.find("a").named_parameters()
        if not key.startswith("child.") and parameter.grad is not None
    }


@pytest.mark.parametrize("weight", [0.0, 10.0])
@pytest.mark.parametrize("stopped", [True, False])
def test_a_child_s_density_does_not_shape_its_parent_s_code_but_its_discriminators_do(
    weight, stopped
):
    config = ObjectiveConfig(discriminator_weight=weight, stop_child_density=stopped)
    model = hierarchy()
    with_child = parents_gradient(model, config)
    assert all((p.grad != 0).any() for p in model.find("a").child.flow.parameters())
    model.find("a").child = None
    alone = parents_gradient(model, config)
    assert with_child.keys() == alone.keys()
    moved = {key for key in alone if not torch.allclose(with_child[key], alone[key], rtol=1e-9)}
    if weight == 0 and stopped:
        assert moved == set()
    else:
        # Only the encoder of those that exist makes the child's observations.
        assert moved
        assert all(key.startswith("encoders.1.") for key in moved)


def test_a_child_s_own_bound_does_not_reach_its_parent_either():
    """With its p_enc(e ∣ c) silenced, no other part of the child shapes the code."""
    config = ObjectiveConfig(discriminator_weight=10.0)
    model = hierarchy()
    silent = model.find("a").child.find("b").t_discriminator
    with torch.no_grad():
        silent.trunk.last.weight.zero_()
    with_child = parents_gradient(model, config)
    model.find("a").child = None
    alone = parents_gradient(model, config)
    assert all(torch.allclose(with_child[key], alone[key], rtol=1e-9) for key in alone)


def test_the_child_sees_only_those_whose_parent_exists():
    model = hierarchy()
    t = torch.randn(4, 2, generator=generator(2), dtype=torch.float64)
    a = torch.tensor([1, 0, 0, 0], dtype=torch.int8)
    below = torch.tensor([1, -1, -1, -1], dtype=torch.int8)
    logs = objective(model, t, {"a": a, "a/b": below}, BOUND, generator(0)).logs
    assert "a/b/kl" in logs
    none = {"a": 0 * a, "a/b": -ones(4)}
    assert not any("/b/" in key for key in objective(model, t, none, BOUND, generator(0)).logs)


def test_below_frozen_parents_it_is_the_child_s_own_objective_of_their_codes():
    """A child is the same class as the model: what it maximises is that of a model of codes."""
    model, config = hierarchy(), ObjectiveConfig(kl_weight=0.7, discriminator_weight=3.0)
    t = torch.randn(8, 2, generator=generator(2), dtype=torch.float64)
    a = torch.tensor([1, 1, 0, 1, -1, 1, 1, 0], dtype=torch.int8)
    b = torch.tensor([1, 0, -1, -1, 1, 1, 0, -1], dtype=torch.int8)
    below = objective(model, t, {"a": a, "a/b": b}, config, generator(3), flow=False, parents=False)
    below.total.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert reached
    assert all(name.startswith("knowledge.k_a.child.") for name in reached)
    source, parent = generator(3), model.find("a")
    with torch.no_grad():
        base = parent.encoders[1].base(t[a == 1])
        c, _ = parent.encoders[1].sample(base, torch.randn(5, 2, generator=source, dtype=t.dtype))
    truth = objective(parent.child, c, {"b": b[a == 1]}, config, source).total
    assert float(below.total.detach()) == pytest.approx(float(truth.detach()), rel=1e-12)
    # Of nobody with that kind, or of a kind with none below it, there is nothing.
    for existence in ({"a": 0 * a}, {"a/b": b}, {}):
        assert value(model, t, existence, config, flow=False, parents=False) == 0


# -- gradients -------------------------------------------------------------------------------------


SIZES = {"code_dim": 3, "code_width": 4, "encoder_width": 4, "decoder_stem": 4, "z_width": 4}


@pytest.mark.parametrize(
    "kind",
    [
        KnowledgeConfig(**SIZES, decoder_width=4, discriminator_width=4, z_steps=1),
        KnowledgeConfig(**SIZES, discriminator_head="flatten", z_context=False, z_steps=2),
        KnowledgeConfig(**SIZES, code_prior="volume_preserving"),
        KnowledgeConfig(**SIZES, code_prior="flow"),
        paper_knowledge(3, decoder_width=4, z_width=4, encoder_width=4, decoder_stem=4, z_steps=2),
    ],
    ids=["default", "flatten", "volume", "flow", "paper"],
)
def test_every_parameter_of_a_whole_model_gets_a_gradient(kind):
    config = TzKConfig(observation=(1, 8, 8), flow=FlowConfig(levels=2, steps=1, width=4))
    model = TzK(config, generator=generator(0))
    model.add_knowledge("a", kind, generator=generator(0))
    vector = KnowledgeConfig(code_dim=2, code_width=4, encoder_width=4, decoder_width=4, z_width=4)
    model.add_knowledge("a/b", vector, generator=generator(0))
    perturb(model, generator(1), 0.05).double()
    t = 0.3 * torch.randn(8, 1, 8, 8, generator=generator(2), dtype=torch.float64)
    e = torch.tensor([1, 1, 1, 1, 0, 0, 1, 0], dtype=torch.int8)
    below = torch.tensor([1, 0, 1, 0, -1, -1, 0, -1], dtype=torch.int8)
    objective(model, t, {"a": e, "a/b": below}, BOUND, generator(3)).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


# -- the properties of the design's section 4 ------------------------------------------------------


def scaled(scale: float, names: tuple[str, ...]) -> tuple[TzK, Kind]:
    """K equal kinds whose t-flow and decoders are scaled together, so p(t ∣ k) stays."""
    base = world().a
    base.flow = (scale * base.flow[0], scale * base.flow[1])
    for e in (0, 1):
        base.weights[e], base.biases[e] = scale * base.weights[e], scale * base.biases[e]
        base.sigmas[e] = scale * base.sigmas[e]
    model = TzK(TzKConfig(observation=(2,), flow=FlowConfig(steps=1, width=2)))
    for name in names:
        limits = {"z_log_sigma": (-20, 20), "code_log_sigma": (-20, 20)}
        model.add_knowledge(
            name, KnowledgeConfig(code_dim=2, z_steps=0, code_steps=1, code_width=2, **limits)
        )
    model.double()
    for name in names:
        write_into(model, name, base)
    return model, base


@pytest.mark.parametrize(
    ("count", "product", "coefficient"), [(1, True, 0.5), (2, True, 0.0), (3, True, -0.5)]
)
def test_property_1_the_product_s_weight_of_the_prior_is_2_minus_k_over_2(
    count, product, coefficient
):
    """Scaling z changes only log p(t): its weight is (2 − K)/2, negative from K = 3 on."""
    names = ("a", "b", "c")[:count]
    config = ObjectiveConfig(name="tzk", product=product)
    t = world().a.present.sample(50, generator(1))
    existence = {name: ones(50) for name in names}
    said, priors = [], []
    for scale in (1.0, 10.0, 100.0):
        model, truth = scaled(scale, names)
        said.append(value(model, t, existence, config))
        priors.append(float(prior(truth, t).mean()))
    for k in (1, 2):
        expected = coefficient * (priors[k] - priors[0])
        assert said[k] - said[0] == pytest.approx(expected, abs=1e-6 * abs(priors[k]))
    assert priors[2] < priors[1] < priors[0]
    if count == 3:
        assert said[2] > said[1] + 1000, "it has no maximum"
        with pytest.raises(UsageError, match="rewards scaling z up for ever"):
            check_objective(scaled(1.0, names)[0], config, trains_flow=True)
        check_objective(scaled(1.0, names)[0], config, trains_flow=False)


@pytest.mark.parametrize("name", ["elbo", "tzk"])
def test_property_1_is_absent_from_the_default(name):
    t = world().a.present.sample(50, generator(1))
    existence = {key: ones(50) for key in "abc"}
    said = [
        value(scaled(scale, ("a", "b", "c"))[0], t, existence, ObjectiveConfig(name=name))
        for scale in (1.0, 10.0, 100.0)
    ]
    assert said[2] < said[1] < said[0]


def test_property_2_encoder_codes_alone_reward_a_narrow_encoder_for_ever():
    def at_width(widen: float, **options) -> float:
        narrow = world(widen=1.0)
        narrow.model.find("a").encoders[1].limits = (-50.0, 50.0)
        write_into(narrow.model, "a", narrow.a, widen=widen)
        narrow.model.find("a").child = None
        t = narrow.a.present.sample(500, generator(1))
        return value(narrow.model, t, {"a": ones(500)}, ObjectiveConfig(**options))

    widths = [1e-1, 1e-3, 1e-6]
    alone = [at_width(w, name="tzk", encoder_fraction=1.0) for w in widths]
    # −½·E[log q] grows by log 10 for each factor of ten in each of two dimensions, halved.
    assert alone[1] - alone[0] == pytest.approx(2 * math.log(10), abs=0.2)
    assert alone[2] - alone[1] == pytest.approx(3 * math.log(10), abs=0.2)
    other = [at_width(w, name="tzk", encoder_fraction=0.0) for w in widths]
    assert alone[0] + other[0] > alone[1] + other[1] > alone[2] + other[2]
    bound = [at_width(w, kl_weight=1.0) for w in widths]
    assert bound[0] > bound[1] > bound[2]


def test_a_product_below_a_kind_is_refused_too():
    """The flow over its code trains with it, whatever the t-flow does."""
    model, config = world().model, ObjectiveConfig(name="tzk", product=True)
    small = KnowledgeConfig(code_dim=1, z_steps=0, code_steps=1, code_width=2)
    model.add_knowledge("a/c", small, generator=generator(2))
    check_objective(model, config, trains_flow=False)
    model.add_knowledge("a/d", small, generator=generator(2))
    with pytest.raises(UsageError, match="3 kinds below a and the flow over its code"):
        check_objective(model, config, trains_flow=False)
    unbounded = config.model_copy(update={"unbounded": True})
    check_objective(model, unbounded, trains_flow=False)


def test_what_has_no_maximum_is_refused():
    model = world().model
    with pytest.raises(UsageError, match="rewards σ → 0 for ever"):
        check_objective(model, ObjectiveConfig(name="tzk", encoder_fraction=1), trains_flow=False)
    check_objective(
        model,
        ObjectiveConfig(name="tzk", encoder_fraction=1, unbounded=True),
        trains_flow=False,
    )
    check_objective(model, ObjectiveConfig(name="tzk"), trains_flow=True)
    model.add_knowledge("free", KnowledgeConfig(code_prior="flow"))
    check_objective(model, ObjectiveConfig(), trains_flow=True)
    with pytest.raises(UsageError, match="rewards shrinking c for ever"):
        check_objective(model, ObjectiveConfig(name="tzk"), trains_flow=False)


def test_conditional_prior_codes_are_those_that_exist():
    """``prior_codes: conditional`` draws c ~ p(c ∣ e=1): with it the mean of log p(e∣c) rises."""
    exact = world()
    t = exact.a.present.sample(4000, generator(1))

    def accuracy(codes: str) -> float:
        config = ObjectiveConfig(name="tzk", encoder_fraction=0.0, prior_codes=codes)
        terms = objective(exact.model, t, {"a": ones(4000)}, config, generator(0))
        return float(terms.figures()["a/code_variance"])

    truth = float(exact.a.code.cov.diagonal().mean())
    assert accuracy("prior") == pytest.approx(1.0, abs=0.1)
    assert accuracy("conditional") == pytest.approx(truth, abs=0.05)
    assert truth < 0.6


def test_logs_are_plain_numbers():
    exact = world()
    t = exact.a.present.sample(10, generator(1))
    terms = objective(exact.model, t, {"a": ones(10)}, BOUND, generator(0))
    assert not any(v.requires_grad for v in terms.logs.values())
    bits = 8 - prior(exact.a, t).mean() / (2 * math.log(2))
    assert float(terms.logs["bits_per_dim"]) == pytest.approx(float(bits))


def test_the_gap_and_its_regulariser_are_those_of_equation_11():
    """log p_enc(t, k) − log p_dec(t, k), which an exact p_enc(c ∣ e=1, t) makes free of c."""
    exact = world()
    exact.model.remove_knowledge("a/b")
    t = exact.a.present.sample(60, generator(1))
    e = ones(60)
    e[::3] = 0
    e[7] = -1
    logs = objective(exact.model, t, {"a": e}, BOUND, generator(0)).logs
    there = t[e == 1]
    gap = prior(exact.a, there) + exact.a.seen.log_prob(there) - exact.a.log_joint(there, 1)
    assert float(logs["a/gap"]) == pytest.approx(float(gap.mean()))
    assert float(logs["a/log_enc"] - logs["a/log_dec"]) == pytest.approx(float(gap.mean()))
    # Eq. 11 as it is printed: the log of 2 over the sum of a root and its inverse.
    ratio = (gap / 2).exp()
    printed = (2 / (ratio + 1 / ratio)).log()
    assert float(logs["a/regulariser"]) == pytest.approx(float(printed.mean()))
    assert float(printed.mean()) < -0.01
