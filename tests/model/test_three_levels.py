"""A kind of a kind of a kind: the closed forms once more, three levels deep.

False-alarm rates are those of tests/model/test_closed_form.py and two_sample.py.
"""

from __future__ import annotations

import math

import pytest
import torch
from model.linear_gaussian import Bump, Kind, Normal, generator, tensor, write_into
from model.two_sample import differ

from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
from tzk_core.model import TzK
from tzk_core.objective import ObjectiveConfig, objective

SAMPLES = 2000
PATHS = ("a", "a/b", "a/b/d")


def kind(turn: float) -> Kind:
    """Of 2-D codes, diagonal where the encoder has to be exact."""
    return Kind(
        flow=(tensor([1.3, 0.2 * turn], [-0.3, 0.9]), tensor(0.1, -0.3 * turn)),
        weights=[torch.diag(tensor(0.3, 0.2)), torch.diag(tensor(0.8, -0.9))],
        biases=[tensor(0.4, -0.4), tensor(-0.3 * turn, 0.4)],
        sigmas=[tensor(0.9, 1.0), tensor(0.5, 0.6)],
        exists=Bump(0.8, tensor(0.9 * turn, -0.7), torch.diag(tensor(1.3, 0.8))),
        seen=Bump(0.9, tensor(0.1, 0.4), torch.diag(tensor(0.7, 0.4))),
    )


@pytest.fixture(scope="module")
def deep() -> tuple[TzK, list[Kind]]:
    kinds = [kind(turn) for turn in (1.0, -0.6, 0.5)]
    model = TzK(
        TzKConfig(observation=(2,), flow=FlowConfig(steps=1, width=2)), generator=generator(0)
    )
    small = KnowledgeConfig(code_dim=2, z_steps=0, code_steps=1, code_width=2)
    for path in PATHS:
        model.add_knowledge(path, small, generator=generator(1))
    model.double().eval()
    for path, truth in zip(PATHS, kinds, strict=True):
        above, _, name = path.rpartition("/")
        write_into(model.find(above).child if above else model, name, truth)
    return model, kinds


def seen_from_above(kinds: list[Kind], code: Normal) -> Normal:
    """What the decoders of the levels make of a code of the second one's."""
    return kinds[0].decoded(kinds[1].decoded(code, 1), 1)


def test_samples(deep):
    model, kinds = deep
    drawn = model.given("a/b/d").draw(SAMPLES, seed=4)
    truth = seen_from_above(kinds, kinds[2].present)
    assert not differ(drawn.images, truth.sample(SAMPLES, generator(0)))
    assert not differ(drawn.codes[2], kinds[2].code.sample(SAMPLES, generator(1)))
    assert not differ(drawn.codes[1], kinds[2].present.sample(SAMPLES, generator(2)))
    assert drawn.exact
    above = seen_from_above(kinds, kinds[1].code)  # of a/b
    assert differ(drawn.images, above.sample(SAMPLES, generator(0)))


def test_likelihood(deep):
    model, kinds = deep
    truth = seen_from_above(kinds, kinds[2].present)
    t = truth.sample(300, generator(0))
    said = model.given("a/b/d").log_prob(t, draws=256, generator=generator(1))
    gap = truth.log_prob(t) - said
    assert -5 * float(gap.std()) / math.sqrt(300) < float(gap.mean()) < 0.1
    # The average of p itself has no bias.
    one = t[:1].expand(400, 2)
    p = model.given("a/b/d").log_prob(one, draws=256, generator=generator(2)).exp()
    off = float(p.mean()) - float(truth.log_prob(t[:1]).exp())
    assert abs(off) < 5 * float(p.std()) / 20


def test_posterior(deep):
    """The joint is the product down the path, whatever is asked for beside it."""
    model, kinds = deep
    t = kinds[0].present.sample(20, generator(0))
    said = model.posterior(t, draws=2000, generator=generator(1))
    assert list(said) == list(PATHS)
    product = said["a"].encoder * said["a/b"].encoder * said["a/b/d"].encoder
    assert torch.allclose(said["a/b/d"].joint, product, rtol=1e-9)
    alone = model.posterior(t, knowledge=["a/b/d"], draws=2000, generator=generator(1))
    assert torch.equal(alone["a/b/d"].joint, said["a/b/d"].joint)
    # p_enc(c|t) is exact on every level, so E[bump] is known: through both codes a Gaussian.
    mean, cov = kinds[0].code_posterior(t)
    matrix, shift = (part for part in _affine(kinds[1]))
    for row in range(len(t)):
        second = Normal(mean[row], cov).pushed(matrix, shift, kinds[1].code_posterior(t[:1])[1])
        expected = second.times(kinds[2].seen)[0]
        # A bump in [0, 0.9] has a standard deviation below 0.45.
        assert float(said["a/b/d"].encoder[row]) == pytest.approx(
            expected, abs=5 * 0.45 / math.sqrt(2000)
        )


def _affine(truth: Kind) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of p(c|e=1, t) as matrix·t + shift."""
    basis = torch.cat((torch.zeros(1, 2), torch.eye(2))).double()
    mean, _ = truth.code_posterior(basis)
    return (mean[1:] - mean[0]).T, mean[0]


def test_the_objective_goes_all_the_way_down(deep):
    """With exact encoders the third level adds E[log p_dec(c, e=1) + log p_enc(e=1|c)]."""
    model, kinds = deep
    count = 8000
    t = kinds[0].present.sample(count, generator(0))
    existence = {path: torch.ones(count, dtype=torch.int8) for path in PATHS}
    bound = ObjectiveConfig(kl_weight=1.0, discriminator_weight=1.0)

    def total(paths) -> float:
        known = {path: existence[path] for path in paths}
        found = objective(model, t, known, bound, generator(1), flow=False)
        assert all(f"{path}/gap" in found.logs for path in paths)
        return float(found.total.detach())

    code, source = t, generator(2)
    for truth in kinds[:2]:
        mean, cov = truth.code_posterior(code)
        noise = torch.randn(count, 2, generator=source, dtype=code.dtype)
        code = mean + noise @ torch.linalg.cholesky(cov).T
    told = kinds[2].log_joint(code, 1) + kinds[2].seen.log_prob(code)
    added = total(PATHS) - total(PATHS[:2])
    # Two averages over as many independent codes, the two totals' own codes being the same.
    error = math.sqrt(3) * float(told.std()) / math.sqrt(count)
    assert added == pytest.approx(float(told.mean()), abs=5 * error)
