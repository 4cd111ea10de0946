"""Sheets between four images, and what is told of log p on them."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_model import tiny_model

from tzk_core.evaluation.between import between, choose_corners


@pytest.fixture(scope="module")
def pixels():
    source = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 1, 16, 16), generator=source, dtype=torch.uint8)


@pytest.mark.parametrize("given", [None, "mnist"])
@pytest.mark.parametrize("method", ["linear", "spherical"])
def test_corners_are_the_images_and_bits_are_those_of_the_density(pixels, given, method):
    model, side = tiny_model().double(), 4
    found = between(model, pixels, side=side, seed=0, method=method, given=given)
    corners = found.pixels.reshape(side, side, 1, 16, 16)[:: side - 1, :: side - 1].flatten(0, 1)
    assert torch.equal(corners, pixels)
    assert found.bits.shape == (side, side)
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[0, 0] = mask[0, -1] = mask[-1, 0] = mask[-1, -1] = True
    assert found.corners == pytest.approx(float(found.bits[mask].mean()))
    assert found.inside == pytest.approx(float(found.bits[~mask].mean()))
    assert found.worst == float(found.bits.max())
    # log p of what is in the middle of the way, of the image that is there.
    t = (pixels.double() + 0.5) / 256 - 0.5
    with torch.no_grad():
        log_p = model.prior.log_prob(t)
    expected = (256 * math.log(256) - log_p) / (256 * math.log(2))
    assert found.corners == pytest.approx(float(expected.mean()), abs=0.05)  # but for the noise


def test_in_z_log_p_is_what_the_library_gives(pixels):
    model = tiny_model()
    found = between(model, pixels, side=3, seed=0)
    z_middle = found.bits[1, 1]
    assert z_middle < found.corners  # a mean of four z lies nearer to the mode
    again = between(model, pixels, side=3, seed=0)
    assert torch.equal(found.bits, again.bits)


def test_corners_are_of_four_classes_if_there_are_so_many():
    labels = torch.tensor([0] * 50 + [1] * 50 + [2] + [3])
    for seed in range(5):
        chosen = choose_corners(labels, seed, "x")
        assert sorted(labels[chosen].tolist()) == [0, 1, 2, 3]
    few = choose_corners(torch.tensor([0, 0, 1, 1, 1]), 0, "x")
    assert len(set(few.tolist())) == 4
    assert not torch.equal(choose_corners(labels, 0, "x"), choose_corners(labels, 1, "x"))
