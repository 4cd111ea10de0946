"""How usual an image is: uniform on what it was calibrated on, whatever its statistics are like."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from tiny_model import SIDE, tiny_model

from tzk_core.model import TzK
from tzk_core.randomness import derived
from tzk_core.training.dataset import Dataset
from tzk_core.training.labels import Known
from tzk_core.typicality import Typicality, fit_typicality, ks_uniform, stored_typicality
from tzk_core.typicality_statistics import (
    forward,
    png_bits_per_dim,
    png_probe,
    statistic_names,
    statistics,
)

NAMES = ["a", "b", "c"]


def skewed(count: int, seed: int) -> torch.Tensor:
    """Three correlated statistics, one of them lognormal: no Gaussian."""
    z = torch.randn(count, 3, generator=derived(seed, "toy"), dtype=torch.float64)
    return torch.stack((z[:, 0], 5 + 100 * (z[:, 0] + 0.1 * z[:, 1]), z[:, 2].exp()), 1)


def held_out(count: int, seed: int = 0, low: int = 60, high: int = 180) -> Dataset:
    """Images of noise in a range of levels."""
    levels = np.random.default_rng(seed).integers(low, high, (count, 1, SIDE, SIDE), dtype=np.uint8)
    return Dataset(
        pixels=torch.from_numpy(levels),
        native_dims=torch.full((count,), SIDE**2),
        known=Known({}, {}),
        names=["noise"],
        origin=torch.zeros(count, dtype=torch.int64),
        fingerprints={},
        skipped=[],
    )


@pytest.fixture(scope="module")
def fitted():
    return Typicality.fit(NAMES, skewed(2000, 0), skewed(4000, 1))


def test_it_is_uniform_on_fresh_draws_of_the_same_density(fitted):
    tails = fitted.tail(skewed(4000, 2))
    # Two samples of 4,000: chance alone goes beyond this once in ten million times.
    assert ks_uniform(tails) < 2.9 * math.sqrt(2 / 4000)
    assert 0 < tails.min() <= tails.max() <= 1


def test_of_a_gaussian_it_is_the_tail_of_the_chi_squared_distribution():
    """With two independent statistics d has two degrees of freedom: P(d > x) = exp(−x/2)."""
    draw = [
        torch.randn(n, 2, generator=derived(i), dtype=torch.float64)
        for i, n in enumerate((8000,) * 2)
    ]
    found = Typicality.fit(["a", "b"], *draw)
    points = torch.tensor([[0.5, 0.0], [0.0, -1.0], [1.5, 1.5], [-2.0, 0.5]], dtype=torch.float64)
    truth = (-points.square().sum(1) / 2).exp()
    torch.testing.assert_close(found.tail(points), truth, atol=0.025, rtol=0)


def test_either_side_is_unusual(fitted):
    middle, scale = skewed(2000, 0).median(0).values, skewed(2000, 0).std(0)
    least = 1 / (len(fitted.calibration) + 1)
    for statistic in range(3):
        for side in (-30, 30):
            odd = middle.clone()
            odd[statistic] += side * scale[statistic]
            tail = float(fitted.tail(odd[None]))
            assert 0 < tail < least
            # Twice as far out is more unusual still: beyond the calibration nothing is tied.
            odd[statistic] += side * scale[statistic]
            assert 0 < float(fitted.tail(odd[None])) < tail


def test_a_difference_is_unusual_where_both_statistics_alone_are_not(fitted):
    both = torch.tensor([[1.0, 105.0, 1.0], [1.0, -95.0, 1.0]], dtype=torch.float64)
    together, apart = fitted.tail(both).tolist()
    assert together > 0.3
    assert apart < 0.001


def test_units_and_order_do_not_matter(fitted):
    fresh = skewed(500, 3)
    change = lambda s: s[:, [2, 0, 1]] * torch.tensor([3.0, 1e3, 1e-3]) - 7  # noqa: E731
    other = Typicality.fit(NAMES, change(skewed(2000, 0)), change(skewed(4000, 1)))
    torch.testing.assert_close(other.tail(change(fresh)), fitted.tail(fresh), atol=1e-3, rtol=0)


def test_alone_and_among_others_it_is_the_same(fitted):
    fresh = skewed(40, 3)
    alone = torch.cat([fitted.tail(one[None]) for one in fresh])
    assert torch.equal(alone, fitted.tail(fresh))


def test_what_is_not_finite_has_none(fitted):
    values = skewed(3, 3)
    values[0, 1], values[2, 0] = math.nan, -math.inf
    assert fitted.tail(values).isnan().tolist() == [True, False, True]
    with pytest.raises(ValueError, match="not finite"):
        Typicality.fit(NAMES, values, values)


def test_a_statistic_that_never_varied_is_no_alarm_at_rounding():
    first, second = skewed(500, 0), skewed(500, 1)
    first[:, 1] = second[:, 1] = 3.0
    found = Typicality.fit(NAMES, first, second)
    usual = torch.tensor([[0.0, 3.0 + 1e-9, 1.0]])
    assert float(found.tail(usual)) > 0.2


# -- of a model ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    made = tiny_model()
    done = fit_typicality(made, held_out(600), seed=3)
    made.statistics["typicality"] = done.typicality.model_dump(mode="json")
    return made, done


@torch.no_grad()
def of(model: TzK, pixels: torch.Tensor) -> torch.Tensor:
    t = held_out(1).observations(torch.tensor([0]), derived(0)) * 0 + (pixels + 0.5) / 256 - 0.5
    return statistics(forward(model, t), pixels)


@torch.no_grad()
def test_the_statistics_are_those_of_the_flow():
    model, data = tiny_model(), held_out(6)
    t = data.observations(torch.arange(6), derived(1))
    levels = forward(model, t)
    assert torch.equal(levels.log_prob, model.prior.log_prob(t))
    z, log_det = model.flow.encode(t)
    parts = z.split(model.flow.level_channels, dim=1)
    squares = torch.stack([part.square().sum((1, 2, 3)) for part in parts], 1)
    torch.testing.assert_close(levels.squares, squares)
    torch.testing.assert_close(levels.log_dets.sum(1), log_det)
    values = statistics(levels, data.pixels)
    assert values.shape == (6, len(statistic_names(model)))
    torch.testing.assert_close(values[:, -1], png_bits_per_dim(data.pixels))


def test_flat_images_have_short_files():
    noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32), dtype=np.uint8)
    flat, rough = png_bits_per_dim(torch.from_numpy(np.stack((np.full_like(noise, 7), noise))))
    assert flat < 1 < 8 < rough


def test_a_model_is_fitted_and_tells_what_is_unusual(model):
    made, done = model
    assert len(done.report) == 150
    assert ks_uniform(done.report) < 0.2
    found = stored_typicality(made)
    assert isinstance(found, Typicality)
    usual = found.tail(of(made, held_out(200, seed=5).pixels))
    odd = found.tail(of(made, held_out(200, seed=5, low=0, high=256).pixels))
    assert usual.mean() > 0.4
    assert odd.mean() < 0.02


def test_the_same_seed_fits_the_same():
    a, b, c = (fit_typicality(tiny_model(), held_out(200), seed=seed) for seed in (1, 1, 2))
    assert a.typicality == b.typicality
    assert a.typicality != c.typicality


def test_saved_and_loaded_it_says_the_same(model, tmp_path):
    made, _ = model
    made.save_pretrained(tmp_path)
    loaded = TzK.from_pretrained(tmp_path)
    assert stored_typicality(loaded) == stored_typicality(made)
    assert len((tmp_path / "config.json").read_bytes()) < 100_000
    assert loaded.statistics["typicality"] == json.loads(json.dumps(made.statistics["typicality"]))


def test_too_few_held_out_images_are_refused():
    assert "20 images were held out" in fit_typicality(tiny_model(), held_out(20), seed=0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"statistics": ["x"] * 5}, "another shape"),
        ({"precision": [[1.0]]}, "its sizes"),
        ({"calibration": []}, "calibration"),
        ({"knots": "wide"}, "knots"),
        ({"png_probe": [length * 2 for length in png_probe()]}, "zlib"),
    ],
)
def test_what_cannot_be_used_says_why(model, change, reason):
    made, other = model[0], tiny_model()
    assert "no statistics" in stored_typicality(other)
    other.statistics["typicality"] = made.statistics["typicality"] | change
    assert reason in stored_typicality(other)
