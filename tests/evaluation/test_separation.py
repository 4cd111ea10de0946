"""AUROCs with their errors, and the scores of images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_model import tiny_model

from tzk_core.data.quantisation import dequantise
from tzk_core.evaluation.auroc import auroc_of
from tzk_core.evaluation.separation import ks_chance, scored
from tzk_core.randomness import derived, rows
from tzk_core.typicality import Typicality, ks_uniform
from tzk_core.typicality_statistics import forward, statistic_names, statistics


@pytest.mark.parametrize("levels", [4, 1000])
def test_auroc_is_the_share_of_pairs_and_its_error_delongs(levels):
    source = torch.Generator().manual_seed(levels)
    own = torch.randint(levels, (37,), generator=source).double()
    other = torch.randint(levels, (23,), generator=source).double() + levels // 8
    pairs = (other[:, None] > own).double() + 0.5 * (other[:, None] == own)
    found = auroc_of(own, other, "x")
    assert found.mean == pytest.approx(float(pairs.mean()), abs=1e-12)
    error = math.sqrt(pairs.mean(1).var() / 23 + pairs.mean(0).var() / 37)
    assert found.standard_error == pytest.approx(error, abs=1e-12)


def test_the_error_is_the_spread_over_many_sets():
    """Normal scores one standard deviation apart: AUROC Φ(1/√2), and its spread by repetition."""
    generator, found = np.random.default_rng(0), []
    for _ in range(600):
        own, other = generator.normal(size=80), generator.normal(1, size=60)
        found.append(auroc_of(torch.tensor(own), torch.tensor(other), "x"))
    means = np.array([f.mean for f in found])
    truth = 0.5 * (1 + math.erf(0.5))
    assert means.mean() == pytest.approx(truth, abs=4 * means.std() / math.sqrt(600))
    errors = np.array([f.standard_error for f in found])
    assert errors.mean() == pytest.approx(means.std(), rel=0.12)  # ± 3 % of 600 repetitions, × 4


def test_apart_is_one_and_has_no_error():
    found = auroc_of(torch.zeros(5), torch.ones(4), "x")
    assert (found.mean, found.standard_error) == (1.0, 0.0)
    assert auroc_of(torch.full((3,), math.inf), torch.tensor([-math.inf]), "x").mean == 0


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def pixels():
    source = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (150, 1, 16, 16), generator=source, dtype=torch.uint8)


@pytest.fixture(scope="module")
def fitted(model, pixels):
    noise = rows(torch.Generator().manual_seed(1), 150).uniform(1, 16, 16)
    with torch.no_grad():
        values = statistics(forward(model, dequantise(pixels, noise)), pixels)
    return Typicality.fit(statistic_names(model), values[:70], values[70:])


def test_scores_are_those_of_the_model(model, pixels, fitted):
    found = scored(model, fitted, pixels[:130], seed=4, name="own")
    noise = torch.cat(
        [
            rows(derived(4, "separation", "own", start), count).uniform(1, 16, 16)
            for start, count in ((0, 128), (128, 2))
        ]
    )
    t = dequantise(pixels[:130], noise)
    with torch.no_grad():
        log_p = model.prior.log_prob(t).double()
    torch.testing.assert_close(-found.odd["low log p(t)"], log_p)
    held_out = torch.tensor(model.statistics["held_out_log_prob"], dtype=torch.float64)
    rank = (held_out[None] < log_p[:, None]).double().sum(1)
    tail = (1 + torch.minimum(rank, 100 - rank)) * 2 / 101
    torch.testing.assert_close(-found.odd["log p(t), two-sided"], tail)
    assert torch.equal(found.odd["typicality"], -found.typicality)


def test_black_images_are_told_from_noise(model, pixels, fitted):
    own = scored(model, fitted, pixels, seed=0, name="own")
    black = scored(model, fitted, torch.zeros_like(pixels[:20]), seed=0, name="black")
    assert auroc_of(own.odd["typicality"], black.odd["typicality"], "x").mean > 0.95
    assert auroc_of(own.odd["long PNG"], black.odd["long PNG"], "x").mean == 0
    assert auroc_of(own.odd["PNG, two-sided"], black.odd["PNG, two-sided"], "x").mean == 1


def test_chance_exceeds_its_bound_once_in_twenty_times():
    """Ranks of 200 uniform numbers among 300 others, 400 times."""
    generator, above = np.random.default_rng(1), 0
    for _ in range(400):
        reference, own = np.sort(generator.random(300)), generator.random(200)
        tails = (1 + 300 - np.searchsorted(reference, own)) / 301
        above += ks_uniform(torch.tensor(tails)) > ks_chance(200, 300)
    assert 4 <= above <= 36  # 20 expected, ± 4.4: four errors, asymptotics aside
