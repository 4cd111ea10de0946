"""Nearest training images against brute force in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tzk_core.evaluation import neighbours
from tzk_core.evaluation.neighbours import copying, nearest


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return (
        generator.integers(0, 256, (7, 3, 5, 4), dtype=np.uint8),
        generator.integers(0, 256, (90, 3, 5, 4), dtype=np.uint8),
    )


def brute_force(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    a, b = (x.reshape(len(x), -1).astype(np.int64) for x in (some, others))
    return np.sqrt(((a[:, None] - b[None]) ** 2).mean(2))


@pytest.mark.parametrize("block", [16, 2048])
def test_it_is_brute_force(images, monkeypatch, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    some, others = images
    ticks = []
    found = nearest(torch.from_numpy(some), others, k=4, tick=ticks.append)
    distance = brute_force(some, others)
    order = np.argsort(distance, axis=1, kind="stable")[:, :4]
    assert np.array_equal(found.index.numpy(), order)
    np.testing.assert_allclose(
        found.distance.numpy(), np.take_along_axis(distance, order, 1), rtol=1e-12
    )
    assert sum(ticks) == 90


def test_a_copy_is_at_no_distance_at_all_and_one_level_is_seen(images):
    some, others = images
    others[50] = some[2]
    others[60] = some[3]
    others[60, 0, 0, 0] ^= 1
    found = nearest(torch.from_numpy(some), others)
    assert (found.index[2, 0], found.distance[2, 0]) == (50, 0)
    assert found.index[3, 0] == 60
    assert found.distance[3, 0] == pytest.approx((1 / 60) ** 0.5)


def test_of_equal_images_the_first_is_taken(images, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 16)
    some, others = images
    others[[20, 40, 80]] = some[0]
    found = nearest(torch.from_numpy(some), others, k=3)
    assert found.index[0].tolist() == [20, 40, 80]


def test_copying_of_a_model_that_copies_and_of_one_that_does_not():
    source = torch.Generator().manual_seed(0)
    test = 10 + torch.rand(1000, generator=source, dtype=torch.float64)
    alike = 10 + torch.rand(1000, generator=source, dtype=torch.float64)
    found = copying(alike, test)
    # 1 % of 1000, ± √10 and the threshold's own error: four errors.
    assert found.nearer.mean == pytest.approx(0.01, abs=0.018)
    assert (found.copies, found.copied_test_images) == (0, 0)
    copies = torch.cat((torch.zeros(3), alike[:7] - 5)).double()
    found = copying(copies, test)
    assert found.nearer.mean == 1
    assert found.copies == 3
    assert found.quantiles["test_images"][0] == float(test.min())
    assert found.quantiles["samples"][3] == float(copies.quantile(0.5))
