"""Figures of discriminators against brute force and constructed data."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_model import tiny_model

from tzk_core.config import KnowledgeConfig
from tzk_core.data.quantisation import dequantise
from tzk_core.errors import UsageError
from tzk_core.evaluation.auroc import auroc_of
from tzk_core.evaluation.discriminators import (
    among,
    balanced_accuracy,
    binary,
    calibration_error,
    logits_below,
    root_logits,
)
from tzk_core.randomness import derived, rows


def brute_force(scores: torch.Tensor, present: torch.Tensor) -> float:
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a in scores[present].tolist()
        for b in scores[~present].tolist()
    ]
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [3, 1000])
def test_auroc_is_the_share_of_pairs_in_order(seed, levels):
    source = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (60,), generator=source).float()  # few levels: many ties
    present = torch.rand(60, generator=source) < 0.3
    found = auroc_of(scores[~present], scores[present], "x").mean
    assert found == pytest.approx(brute_force(scores, present), abs=1e-12)


def test_auroc_of_one_kind_alone_is_nan():
    assert math.isnan(auroc_of(torch.empty(0), torch.arange(3.0), "x").mean)


def test_auroc_takes_infinite_logits():
    absent, present = torch.tensor([math.inf, -math.inf]), torch.tensor([math.inf, 0.0])
    assert auroc_of(absent, present, "x").mean == (0.5 + 1 + 0 + 1) / 4


def test_calibration_error_of_constructed_data():
    # 0.8 said of ten, six happened; 0.1 said of thirty, three happened.
    probability = torch.tensor([0.8] * 10 + [0.1] * 30)
    happened = torch.tensor([1] * 6 + [0] * 4 + [1] * 3 + [0] * 27)
    assert calibration_error(probability, happened).mean == pytest.approx(0.2 * 10 / 40, abs=1e-6)


def test_standard_errors_are_the_spread_over_sets_of_images():
    """Against 400 sets of 500 images: probabilities with a known error, and logits to match."""
    found = []
    for seed in range(400):
        source = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(500, generator=source)
        happened = torch.rand(500, generator=source) < (0.5 * logits + 0.7).sigmoid()
        each = binary(logits, happened, "a")
        found.append((each.balanced_accuracy, each.auroc, each.calibration_error))
    for figures in zip(*found, strict=True):
        means = torch.tensor([figure.mean for figure in figures], dtype=torch.float64)
        errors = torch.tensor([figure.standard_error for figure in figures])
        assert float(means.std() / errors.mean()) == pytest.approx(1, abs=0.15)


def test_certainty_that_is_right_is_calibrated_and_wrong_is_not():
    sure = torch.tensor([0.0, 1.0])
    assert calibration_error(sure, torch.tensor([0, 1])).mean == 0
    assert calibration_error(sure, torch.tensor([1, 0])).mean == 1


def test_always_no_has_half_the_balanced_accuracy():
    present = torch.arange(100) < 10
    assert balanced_accuracy(torch.zeros(100, dtype=torch.bool), present).mean == 0.5


def test_one_kind_only_has_neither_auroc_nor_balanced_accuracy():
    found = binary(torch.tensor([2.0, -1.0]), torch.ones(2, dtype=torch.bool), "mnist")
    assert (found.auroc, found.balanced_accuracy) == (None, None)
    assert found.said_present.mean == 0.5


def test_top_1_and_balanced_accuracy_of_unequal_classes():
    labels = torch.tensor([0] * 8 + [1] * 2)
    logits = torch.tensor([[1.0, -1.0]] * 9 + [[-1.0, 1.0]])
    found = among(logits, labels, ["a/0", "a/1"])
    assert found.top_1.mean == pytest.approx(0.9)
    assert found.balanced_accuracy.mean == pytest.approx((1 + 0.5) / 2)
    assert [each.path for each in found.each] == ["a/0", "a/1"]


@pytest.fixture(scope="module")
def pixels():
    source = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (6, 1, 16, 16), generator=source, dtype=torch.uint8)


def test_logits_are_those_of_the_model(pixels):
    model, seed = tiny_model(), 5
    source = derived(seed, "posterior", "mnist", 0)
    t = dequantise(pixels, torch.rand(pixels.shape, generator=source))
    with torch.no_grad():
        each = model.lineage("mnist/3").presence_logits(t, rows(source, len(t)), 16)
    truth = each.sigmoid().mean(1).logit()
    found = logits_below(model, ["mnist/3"], pixels, seed=seed)[:, 0]
    torch.testing.assert_close(found.float(), truth, atol=1e-4, rtol=1e-4)


def test_root_logits_are_the_discriminator_on_images(pixels):
    model, seed = tiny_model(), 5
    t = dequantise(pixels, torch.rand(pixels.shape, generator=derived(seed, "posterior", "", 0)))
    with torch.no_grad():
        truth = model.find("mnist").t_discriminator(t)
    torch.testing.assert_close(root_logits(model, "mnist", pixels, seed=seed).float(), truth)


def test_sure_kinds_do_not_tie(pixels):
    model = tiny_model().add_knowledge("mnist/4", KnowledgeConfig(code_dim=2))
    with torch.no_grad():
        for name, bias in (("mnist/3", 40.0), ("mnist/4", 50.0)):
            model.find(name).t_discriminator.trunk.last.weight.zero_()
            model.find(name).t_discriminator.trunk.last.bias.fill_(bias)
    logits = logits_below(model, ["mnist/3", "mnist/4"], pixels, seed=0)
    assert logits[0].tolist() == pytest.approx([40.0, 50.0])


def test_kinds_of_two_parents_are_refused(pixels):
    with pytest.raises(UsageError, match="below one parent"):
        logits_below(tiny_model(), ["mnist", "mnist/3"], pixels, seed=0)


def test_a_seed_gives_the_same_logits(pixels):
    model = tiny_model()
    first = logits_below(model, ["mnist/3"], pixels, seed=1)
    assert torch.equal(first, logits_below(model, ["mnist/3"], pixels, seed=1))
    assert not torch.equal(first, logits_below(model, ["mnist/3"], pixels, seed=2))
