"""A linear-Gaussian TzK against its closed forms.

Monte Carlo figures are held to 5 standard errors of their own: a false alarm has a probability of
6e-7 a figure (all seeds are fixed, so a run is right or wrong for good).
"""

from __future__ import annotations

import math

import pytest
import torch
from model.linear_gaussian import Bump, Normal, generator, tensor, world
from model.two_sample import differ

from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
from tzk_core.errors import InvalidRequest
from tzk_core.likelihood import estimate, fit_encoder_rate, fit_existence
from tzk_core.model import TzK
from tzk_core.randomness import Rows

SAMPLES = 4000


@pytest.fixture(scope="module")
def exact():
    """Its e = 1 encoder of ``a`` is the true posterior of the code."""
    return world()


@pytest.fixture(scope="module")
def spoiled():
    """Its encoder is off, as a trained one is."""
    return world(off=0.25, widen=1.4)


def within(values: torch.Tensor, truth: float, errors: float = 5.0) -> bool:
    """Whether the mean of independent figures is the truth to so many standard errors."""
    error = float(values.std()) / math.sqrt(len(values))
    return abs(float(values.mean()) - truth) <= errors * error


# -- the truth itself ------------------------------------------------------------------------------


def test_the_truth_adds_up(exact):
    """The closed forms, by quadrature on a grid: no test below is better than they are."""
    axis = torch.linspace(-9, 9, 361, dtype=torch.float64)
    t = torch.cartesian_prod(axis, axis)
    cell = float(axis[1] - axis[0]) ** 2
    for e, mass in ((1, exact.a.existence), (0, 1 - exact.a.existence)):
        assert float(exact.a.log_joint(t, e).exp().sum() * cell) == pytest.approx(mass, rel=1e-6)
    bumped = exact.a.code_prior.log_prob(t) + exact.a.exists.log_prob(t)
    assert float(bumped.exp().sum() * cell) == pytest.approx(exact.a.existence, rel=1e-6)


# -- densities -------------------------------------------------------------------------------------


def test_the_prior(exact):
    matrix, shift = exact.a.flow
    inverse = torch.linalg.inv(matrix)
    truth = Normal(-inverse @ shift, inverse @ inverse.T)
    t = truth.sample(50, generator(0))
    assert torch.allclose(exact.model.prior.log_prob(t), truth.log_prob(t), rtol=1e-10)
    drawn = exact.model.prior.sample((SAMPLES,), generator=generator(1))
    assert not differ(drawn, truth.sample(SAMPLES, generator(2)))
    colder = type(exact.model.prior)(exact.model, 0.5).sample((SAMPLES,), generator=generator(3))
    narrow = Normal(truth.mean, 0.25 * truth.cov)
    assert not differ(colder, narrow.sample(SAMPLES, generator(4)))


def test_given_a_code(exact):
    t = exact.a.present.sample(20, generator(0))
    c = exact.a.code.sample(20, generator(1))
    said = exact.model.given("a").log_prob_given_code(t, c)
    assert torch.allclose(said, exact.a.log_given_code(t, c), rtol=1e-10)
    said = exact.model.given(absent=["a"]).log_prob_given_code(t, c)
    assert torch.allclose(said, exact.a.log_given_code(t, c, e=0), rtol=1e-10)


@pytest.mark.parametrize("draws", [1, 2, 15])
def test_an_exact_encoder_makes_every_weight_the_truth(exact, draws):
    """q(c) = p(c ∣ e=1, t), so w = p(t, e=1) whatever was drawn, and N draws are worth N."""
    t = exact.a.present.sample(30, generator(0))
    answer = estimate(exact.model, exact.model.lineage("a"), t, draws=draws, generator=generator(1))
    assert torch.allclose(answer.log_prob, exact.a.present.log_prob(t), rtol=1e-9)
    assert torch.allclose(answer.effective_sample_size, torch.full((30,), float(draws)).double())


def test_the_importance_estimate_rises_to_the_truth(spoiled):
    t = spoiled.a.present.sample(400, generator(0)).repeat_interleave(10, dim=0)
    truth = spoiled.a.present.log_prob(t)
    given, gaps = spoiled.model.given("a"), {}
    for draws in (1, 16, 256):
        said = given.log_prob(t, draws=draws, generator=generator(draws))
        gaps[draws] = (truth - said).reshape(400, 10).mean(1)
    means = {draws: float(gap.mean()) for draws, gap in gaps.items()}
    errors = {draws: float(gap.std()) / 20 for draws, gap in gaps.items()}
    assert means[1] > means[16] + 5 * errors[1]
    assert means[16] > means[256] + 5 * errors[16]
    assert means[256] > -5 * errors[256], "above the truth"
    assert means[256] < 0.003
    # With one draw the gap is KL(q ‖ p(c ∣ e=1, t)), which two Gaussians have in closed form.
    _, cov = spoiled.a.code_posterior(t[:1])
    variance = cov.diagonal()
    kl = 0.5 * (1.4**2 - 1 - 2 * math.log(1.4) + 0.25**2 / variance).sum()
    assert within(gaps[1], float(kl))


@pytest.mark.parametrize("draws", [1, 16, 256])
@pytest.mark.parametrize("present", [True, False], ids=["e=1", "e=0"])
def test_the_weights_average_to_the_joint_density(spoiled, draws, present):
    """E[ŵ] = p_dec(t, e) without bias, the defensive mixture included, for either e."""
    one = tensor([0.4, 0.9])
    t = one.expand(40_000 // draws if draws > 1 else 40_000, 2)
    lineage = spoiled.model.lineage("a", present=present)
    said = estimate(spoiled.model, lineage, t, draws=draws, generator=generator(draws))
    joint = (said.log_prob + lineage.existence.log()).exp()
    assert within(joint, float(spoiled.a.log_joint(one, int(present)).exp()))


def test_prior_draws_bound_the_weights_of_a_narrow_encoder():
    """A hopeless encoder costs draws, not truth: the mixture keeps the estimate unbiased."""
    narrow = world(off=1.0, widen=0.2)
    one = narrow.a.present.mean[None]
    t = one.expand(400, 2)
    truth = float(narrow.a.present.log_prob(one))
    said = estimate(narrow.model, narrow.model.lineage("a"), t, draws=256, generator=generator(0))
    assert within(said.log_prob.exp(), math.exp(truth))
    assert float(said.log_prob.mean()) < truth
    assert float(said.log_prob.mean()) > truth - 0.2
    assert float(said.effective_sample_size.max()) < 64
    # A weight is at most (N/n_prior)·p(e∣c)·p(t∣e,c), and p(t∣e,c) at most its value at the mode.
    mode = narrow.a.decoded(Normal(tensor(0, 0), torch.zeros(2, 2).double()), 1)
    bound = 256 / 26 * 0.8 * float(mode.log_prob(mode.mean[None]).exp()) / narrow.a.existence
    assert float(said.log_prob.exp().max()) < bound


def test_reconstruction_is_not_the_likelihood(exact, spoiled):
    """It has a closed form of its own; with an exact encoder it is too good by I(c; t)."""
    one = spoiled.a.present.sample(1, generator(5))
    t = one.expand(20_000, 2)
    said = spoiled.model.given("a").log_prob(t, estimator="reconstruction", generator=generator(0))
    mean, cov = spoiled.a.code_posterior(one)
    spread = cov.diagonal() * 1.4**2
    w, s = spoiled.a.weights[1], spoiled.a.sigmas[1]
    truth = (
        spoiled.a.log_given_code(one, mean + 0.25)
        - 0.5 * ((w @ torch.diag(spread) @ w.T).diagonal() / s**2).sum()
    )
    assert within(said, float(truth))
    many = spoiled.a.present.sample(2000, generator(6))
    said = exact.model.given("a").log_prob(many, estimator="reconstruction", generator=generator(1))
    excess = said - exact.a.present.log_prob(many)
    information = 0.5 * (torch.logdet(exact.a.code.cov) - torch.logdet(cov))
    assert within(excess, float(information))
    assert not within(excess, 0.0)


def test_absence(spoiled):
    """p(t ∣ e=0), a difference of two Gaussians."""
    t = spoiled.a.decoded(spoiled.a.code_prior, 0).sample(200, generator(0))
    truth = spoiled.a.log_joint(t, 0) - math.log(1 - spoiled.a.existence)
    said = spoiled.model.given(absent=["a"]).log_prob(t, draws=256, generator=generator(1))
    gap = truth - said
    assert -5 * float(gap.std()) / 14 < float(gap.mean()) < 0.04
    assert float(gap.abs().max()) < 0.5


def test_the_encoder_estimate(exact):
    t = exact.a.present.sample(50, generator(0))
    matrix, shift = exact.a.flow
    inverse = torch.linalg.inv(matrix)
    rate, truth = Normal(-inverse @ shift, inverse @ inverse.T).times(exact.a.seen)
    other = world()
    with pytest.raises(InvalidRequest, match=r"needs .* fit_encoder_rate"):
        other.model.given("a").log_prob(t, estimator="encoder")
    fit_encoder_rate(other.model, draws=20_000, generator=generator(1))
    kind = other.model.find("a")
    # The bump is in [0, 0.9], so its standard deviation is below 0.45.
    assert float(kind.encoder_rate) == pytest.approx(rate, abs=5 * 0.45 / math.sqrt(20_000))
    kind.encoder_rate.fill_(rate)
    # log p(t) + log p_enc(e∣t) − log E is the normalised density of what the bump lets through.
    said = other.model.given("a").log_prob(t, estimator="encoder")
    assert torch.allclose(said, truth.log_prob(t), rtol=1e-9)
    said = other.model.given(absent=["a"]).log_prob(t, estimator="encoder")
    absent = other.model.prior.log_prob(t) + torch.log1p(-exact.a.seen.log_prob(t).exp())
    assert torch.allclose(said, absent - math.log(1 - rate), rtol=1e-9)
    with pytest.raises(InvalidRequest, match="first level"):
        other.model.given("a/b").log_prob(t, estimator="encoder")


def test_fit_existence(exact):
    other = world()
    for path in ("a", "a/b"):
        other.model.find(path).existence.fill_(0.5)
    fit_existence(other.model, draws=200_000, generator=generator(0))
    tolerance = 5 * 0.4 / math.sqrt(200_000)  # a bump in [0, 0.8] varies by less than 0.4
    assert float(other.model.find("a").existence) == pytest.approx(exact.a.existence, abs=tolerance)
    assert float(other.model.find("a/b").existence) == pytest.approx(
        exact.b.existence, abs=tolerance
    )


@pytest.mark.parametrize("certain", [200.0, -2000.0])
def test_a_kind_that_is_sure_of_everything_leaves_log_p_finite(certain):
    model = TzK(
        TzKConfig(observation=(2,), flow=FlowConfig(steps=1, width=2)), generator=generator(0)
    )
    model.add_knowledge("sure", KnowledgeConfig(code_dim=2, z_steps=0), generator=generator(1))
    with torch.no_grad():
        model.find("sure").c_discriminator.trunk.last.bias.fill_(certain)
        fit_existence(model, draws=1000, generator=generator(0))
        assert 0 < float(model.find("sure").existence) < 1
        t = torch.zeros(1, 2)
        for given in (model.given("sure"), model.given(absent=["sure"])):
            assert float(given.log_prob(t, draws=16, generator=generator(2))) < 1e3


def test_estimators_are_asked_for_by_name(exact):
    t = torch.zeros(1, 2).double()
    with pytest.raises(InvalidRequest, match="importance, reconstruction, encoder") as caught:
        exact.model.given("a").log_prob(t, estimator="elbo")
    assert caught.value.pointer == "/estimator"
    with pytest.raises(InvalidRequest, match="at least 1, got 0"):
        exact.model.given("a").log_prob(t, draws=0)


def test_no_observations_no_answers(exact):
    none = torch.empty(0, 2).double()
    assert exact.model.prior.log_prob(none).shape == (0,)
    assert exact.model.given("a").log_prob(none, draws=16).shape == (0,)
    assert exact.model.given("a").sample((0,)).shape == (0, 2)


# -- posteriors ------------------------------------------------------------------------------------


def test_both_posteriors(spoiled):
    """p_enc(e=1∣t) is the bump; p_dec(e=1∣t) = p(t,1)/(p(t,0)+p(t,1))."""
    t = torch.cat(
        (spoiled.a.present.sample(50, generator(0)), 2 * torch.randn(50, 2, generator=generator(1)))
    )
    said = spoiled.model.posterior(t, knowledge=["a"], decoder_draws=2048, generator=generator(2))[
        "a"
    ]
    encoder = spoiled.a.seen.log_prob(t).exp()
    assert torch.allclose(said.encoder, encoder, rtol=1e-9)
    assert torch.allclose(said.joint, encoder, rtol=1e-9)
    assert torch.allclose(said.logit, torch.logit(encoder), rtol=1e-8)
    decoder = torch.sigmoid(spoiled.a.log_joint(t, 1) - spoiled.a.log_joint(t, 0))
    assert float(decoder.max() - decoder.min()) > 0.5, "a constant would agree with anything"
    assert torch.allclose(said.decoder, decoder, atol=0.05)
    assert within(said.decoder - decoder, 0.0)


def test_posteriors_agree_where_encoder_and_decoder_do(exact):
    """Bayes: with p_enc(e∣t) set to the decoder's, the two figures are one."""
    other = world()
    t = other.a.present.sample(40, generator(0))

    class Consistent(torch.nn.Module):
        def forward(self, x):
            return (other.a.log_joint(x, 1) - other.a.log_joint(x, 0)).unsqueeze(1)

    other.model.find("a").t_discriminator.trunk = Consistent()
    said = other.model.posterior(t, knowledge=["a"], decoder_draws=2048, generator=generator(1))
    assert torch.allclose(said["a"].encoder, said["a"].decoder, atol=0.05)
    assert within(said["a"].encoder - said["a"].decoder, 0.0)


def test_a_decoder_posterior_is_only_there_when_asked_for(exact):
    assert exact.model.posterior(torch.zeros(1, 2).double())["a"].decoder is None


# -- sampling --------------------------------------------------------------------------------------


def test_exact_sampling(exact):
    """Samples of p(t ∣ e=1) pass a two-sample test (false-alarm rate: see two_sample.py)."""
    drawn = exact.model.given("a").draw(SAMPLES, seed=11)
    assert not differ(drawn.images, exact.a.present.sample(SAMPLES, generator(0)))
    assert not differ(drawn.codes[0], exact.a.code.sample(SAMPLES, generator(1)))
    assert drawn.exact
    assert drawn.effective_sample_size is None
    rate = exact.a.existence
    # The tries until acceptance are geometric; rate/√n·√(1−rate) is the standard error to first
    # order.
    assert drawn.acceptance_rate == pytest.approx(rate, abs=5 * rate / math.sqrt(SAMPLES))


def test_the_paper_s_shortcut_fails_the_same_test(exact):
    shortcut = exact.model.given("a", paper_sampler=True).draw(SAMPLES, seed=11)
    assert differ(shortcut.images, exact.a.present.sample(SAMPLES, generator(0)))
    assert not shortcut.exact
    assert shortcut.acceptance_rate is None
    # What it draws from instead is p_dec(t ∣ e=1) with c from its prior.
    instead = exact.a.decoded(exact.a.code_prior, 1)
    assert not differ(shortcut.images, instead.sample(SAMPLES, generator(2)))


def test_absent_samples(exact):
    """c is accepted with 1 − p(e=1∣c): a mixture with a hole, drawn here by plain rejection."""
    drawn = exact.model.given(absent=["a"]).draw(SAMPLES, seed=3)
    c = exact.a.code_prior.sample(4 * SAMPLES, generator(0))
    u = torch.rand(len(c), generator=generator(1), dtype=torch.float64)
    c = c[u > exact.a.exists.log_prob(c).exp()][:SAMPLES]
    assert not differ(drawn.codes[0], c)
    noise = torch.randn(SAMPLES, 2, generator=generator(2), dtype=torch.float64)
    z = c @ exact.a.weights[0].T + exact.a.biases[0] + exact.a.sigmas[0] * noise
    matrix, shift = exact.a.flow
    assert not differ(drawn.images, (z - shift) @ torch.linalg.inv(matrix).T)
    assert differ(drawn.images, exact.a.present.sample(SAMPLES, generator(0)))


def test_temperatures(exact):
    """``temperature`` scales the noise of z only, ``code_temperature`` that of the code."""
    cold = exact.model.given("a", temperature=0.5).draw(SAMPLES, seed=1)
    truth = world()
    truth.a.sigmas[1] = 0.5 * truth.a.sigmas[1]
    assert not differ(cold.images, truth.a.present.sample(SAMPLES, generator(0)))
    assert not cold.exact
    warm = exact.model.given("a", code_temperature=1.5).draw(SAMPLES, seed=1)
    wider = Normal(tensor(0, 0), 2.25 * torch.eye(2).double()).times(truth.a.exists)[1]
    assert not differ(warm.codes[0], wider.sample(SAMPLES, generator(1)))
    assert not warm.exact
    with pytest.raises(InvalidRequest, match="temperature must be a finite number ≥ 0, got -1"):
        exact.model.given("a", temperature=-1)
    with pytest.raises(InvalidRequest, match="temperature"):
        exact.model.given("a", temperature=float("nan"))


def test_out_of_tries_it_resamples_and_says_so(monkeypatch):
    """A rare kind: candidates are weighed by p(e=1∣c), and the draw is not called exact."""
    rare = world()
    bump = Bump(1e-3, tensor(1.0, -0.8), torch.diag(tensor(1.5, 0.7)))
    rare.a.exists.height = bump.height
    monkeypatch.setattr("tzk_core.lineage.ROUNDS", 4)
    drawn = rare.model.given("a").draw(1000, seed=5)
    assert not drawn.exact
    assert 1 < drawn.effective_sample_size < 64
    assert drawn.acceptance_rate < 2e-3
    # 64 weighed candidates: close to the truth, and far from the prior that they came from.
    truth = Normal(tensor(0, 0), torch.eye(2).double()).times(bump)[1]
    off = (drawn.codes[0].mean(0) - truth.mean).abs()
    assert float(off.max()) < 0.15
    assert differ(drawn.codes[0], torch.randn(1000, 2, generator=generator(0)).double())
    again = rare.model.given("a").draw(1, seed=7)
    assert torch.allclose(again.images[0], drawn.images[2], rtol=1e-12)


# -- down a path -----------------------------------------------------------------------------------


def present_on_path(world) -> Normal:
    """p(t ∣ a/b): b's model of a's code, seen through a's decoder."""
    return world.a.decoded(world.b.present, 1)


def test_the_child_is_a_model_of_its_own(exact):
    child = exact.model.find("a").child
    c = exact.b.present.sample(100, generator(0))
    said = child.given("b").log_prob(c, draws=256, generator=generator(1))
    gap = exact.b.present.log_prob(c) - said
    assert float(gap.abs().max()) < 0.05
    drawn = child.given("b").draw(SAMPLES, seed=0)
    assert not differ(drawn.images, exact.b.present.sample(SAMPLES, generator(2)))


def test_likelihood_down_a_path(exact):
    t = present_on_path(exact).sample(200, generator(0)).repeat_interleave(5, dim=0)
    truth = present_on_path(exact).log_prob(t)
    given = exact.model.given("a/b")
    gaps = {
        draws: truth - given.log_prob(t, draws=draws, generator=generator(draws))
        for draws in (1, 16, 256)
    }
    means = {draws: float(gap.mean()) for draws, gap in gaps.items()}
    assert means[1] > means[16] > means[256] > -0.02
    assert means[256] < 0.03
    # Without bias, as on the first level.
    for draws in (1, 16, 256):
        one = t[:1].expand(40_000 // draws, 2)
        said = given.log_prob(one, draws=draws, generator=generator(draws + 1)).exp()
        assert within(said, float(truth[0].exp()))


def test_samples_down_a_path(exact):
    """The parent's own acceptance is not applied again."""
    drawn = exact.model.given("a/b").draw(SAMPLES, seed=21)
    assert not differ(drawn.images, present_on_path(exact).sample(SAMPLES, generator(0)))
    assert not differ(drawn.codes[0], exact.b.present.sample(SAMPLES, generator(1)))
    assert not differ(drawn.codes[1], exact.b.code.sample(SAMPLES, generator(2)))
    assert drawn.exact
    again = exact.b.present.times(exact.a.exists)[1]
    assert differ(drawn.codes[0], again.sample(SAMPLES, generator(3)))
    shortcut = exact.model.given("a/b", paper_sampler=True).draw(SAMPLES, seed=21)
    assert differ(shortcut.images, present_on_path(exact).sample(SAMPLES, generator(0)))


def test_posteriors_down_a_path(exact):
    """E over p_enc(c ∣ e=1, t) of the child's bump, and the product down the path."""
    t = exact.a.present.sample(30, generator(0))
    said = exact.model.posterior(
        t, knowledge=["a/b"], draws=4000, decoder_draws=2048, generator=generator(1)
    )
    assert list(said) == ["a/b"]
    mean, cov = exact.a.code_posterior(t)
    truth = tensor(*[Normal(m, cov).times(exact.b.seen)[0] for m in mean])
    # A bump in [0, 0.85] has a standard deviation below 0.43.
    assert torch.allclose(said["a/b"].encoder, truth, atol=5 * 0.43 / math.sqrt(4000), rtol=0)
    assert float((said["a/b"].encoder - truth).mean().abs()) < 5e-3
    above = exact.a.seen.log_prob(t).exp()
    assert torch.allclose(said["a/b"].joint, said["a/b"].encoder * above, rtol=1e-9)
    assert torch.allclose(said["a/b"].logit, torch.logit(said["a/b"].encoder), rtol=1e-7)

    def log_z(e: int) -> torch.Tensor:
        if e:
            return math.log(exact.b.existence) + present_on_path(exact).log_prob(t)
        whole = exact.a.decoded(exact.b.decoded(exact.b.code_prior, 0), 1).log_prob(t)
        part = exact.a.decoded(exact.b.decoded(exact.b.code, 0), 1).log_prob(t)
        return whole + torch.log1p(-exact.b.existence * (part - whole).exp())

    decoder = torch.sigmoid(log_z(1) - log_z(0))
    assert torch.allclose(said["a/b"].decoder, decoder, atol=0.05)
    assert within(said["a/b"].decoder - decoder, 0.0)


# -- seeds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["a", "a/b"])
def test_likelihoods_of_rows_do_not_depend_on_strangers(exact, path):
    t = exact.a.present.sample(5, generator(0))
    given = exact.model.given(path)
    together = given.log_prob(t, draws=16, generator=Rows([5, 6, 7, 8, 9]))
    for i in range(5):
        alone = given.log_prob(t[i : i + 1], draws=16, generator=Rows([5 + i]))
        assert torch.allclose(alone[0], together[i], rtol=1e-12)
    backwards = given.log_prob(t.flip(0), draws=16, generator=Rows([9, 8, 7, 6, 5]))
    assert torch.allclose(backwards.flip(0), together, rtol=1e-12)
