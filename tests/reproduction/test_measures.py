"""What the parts measure, against figures worked out by hand or by the model itself."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_model import tiny_model

from tzk_core.data.quantisation import to_pixels
from tzk_core.evaluation.held_out import Figure
from tzk_core.reproduction.experiments.cifar_bits import bit_accuracy
from tzk_core.reproduction.experiments.interpolation import _above, depth, ways
from tzk_core.reproduction.measuring import UNUSED, _of_unused_code
from tzk_core.reproduction.paper import SAID
from tzk_core.reproduction.rows import claim_row
from tzk_core.reproduction.verdict import NOT_REPRODUCED, REPRODUCED, Conditions, claim_verdict


def test_depth_is_of_the_worst_point_between_against_the_worse_end():
    bits = torch.tensor(
        [
            [3.0, 2.0, 2.9, 2.5],  # below the worse end everywhere
            [2.0, 2.5, 2.25, 2.0],
            [2.0, math.nan, 1.0, 3.0],
        ],
        dtype=torch.float64,
    )
    assert depth(bits)[:2].tolist() == pytest.approx([-0.1, 0.5])
    assert depth(bits)[2] == math.inf


def test_ways_begin_and_end_at_the_images():
    model = tiny_model().double().eval()
    source = torch.Generator().manual_seed(1)
    a, b = torch.rand(2, 3, 1, 16, 16, generator=source, dtype=torch.float64) - 0.5
    found = ways(model, a, b, 5)
    assert found.bits.shape == (3, 5)
    assert found.dims == 256
    for column, t in ((0, a), (-1, b)):
        levels = to_pixels(t).double().flatten(1).mean(1)
        assert torch.allclose(found.grey[:, column], levels, atol=0.1)  # a level of a few pixels
    for column, t in ((0, a), (-1, b)):
        expected = 8 - model.prior.log_prob(t) / (256 * math.log(2))
        assert torch.allclose(found.bits[:, column], expected)
    # The middle is the density at the image of the mean of the two z.
    z = (model.flow.encode(a)[0] + model.flow.encode(b)[0]) / 2
    expected = 8 - model.prior.log_prob(model.flow.decode(z)[0]) / (256 * math.log(2))
    assert torch.allclose(found.bits[:, 2], expected)


def test_bits_right_and_what_saying_the_more_frequent_gets():
    # The labels of CIFAR-10, once each: bits 0 to 3 are 1 in 5, 4, 4 and 2 of ten.
    truth = torch.tensor([[label >> bit & 1 for bit in range(4)] for label in range(10)])
    always_no = torch.full((10, 4), -1.0)
    right, frequent = bit_accuracy(always_no, truth)
    assert frequent == pytest.approx((5 + 6 + 6 + 8) / 40) == pytest.approx(0.625)
    assert float(right.mean()) == pytest.approx(frequent)
    perfect, _ = bit_accuracy(truth * 2.0 - 1, truth)
    assert perfect.tolist() == [1.0] * 10
    one_wrong = truth * 2.0 - 1
    one_wrong[3, 0] = -1.0  # of 0011 the lowest is said to be 0
    assert bit_accuracy(one_wrong, truth)[0][3] == 0.75


def test_the_figures_of_the_papers_table_2():
    # TzK's two columns, prior and conditional, as they stand there.
    rows = {"cifar10": (3.54, 2.99), "mnist": (1.11, 1.02)}
    assert rows["cifar10"] == (
        SAID["baseline cifar10"].figure,
        SAID["specialise-cifar cifar10"].figure,
    )
    assert rows["mnist"] == (SAID["baseline mnist"].figure, SAID["specialise-multi mnist"].figure)
    for name, said in SAID.items():
        conditional = name.split()[1] in ("cifar10", "mnist", "digits") and not name.startswith(
            ("baseline", "multi-data", "mnist-omniglot")
        )
        assert (said.estimator == "reconstruction") == conditional


def exact_lower(successes: int, n: int, p: float) -> float:
    """P(at least so many successes), of the binomial distribution."""
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(successes, n + 1))


@pytest.mark.parametrize("n", [40, 100, 400])
def test_a_share_of_one_is_not_known_exactly(n):
    """Wilson's limits against exact binomial tails: about 2.3 % is beyond two errors."""
    for successes in (n, n - 1, n - 3):
        share = Figure("s", successes / n, 0.0, n, "share")
        found = _above(share, 0.0)
        lower = found.mean - 2 * found.standard_error
        assert 0.003 < exact_lower(successes, n, lower) < 0.04
    every = claim_verdict(_above(Figure("s", 1.0, 0.0, n, "share"), 0.95), Conditions())
    assert every.word == (REPRODUCED if n >= 100 else NOT_REPRODUCED)


def test_a_gain_of_an_unused_code_says_whose_it_is():
    gain = Figure("gain", 0.2, 0.01, 100, "bits/dim")
    row = claim_row("w", "p", "4.3", "prior", gain, "d", Conditions(smaller=("x",)))
    for tells, unused in ((UNUSED / 2, True), (2 * UNUSED, False)):
        found = _of_unused_code(row, Figure("I", tells, 0.01, 100, "nats"))
        assert found.verdict.word == REPRODUCED
        assert ("unused" in found.verdict.why) == unused
        assert found.verdict.why.startswith("smaller")
