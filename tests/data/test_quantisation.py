from __future__ import annotations

import math

import pytest
import torch

from tzk_core.data.quantisation import bits_per_dim, dequantise, nll_nats, to_pixels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_level_comes_back_for_every_noise(dtype):
    levels = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    ulp = torch.finfo(dtype).eps
    for noise in (0.0, ulp, 0.1, 0.5, 0.999, 1 - 2**-20, 1 - ulp / 2):
        u = torch.full((256, 1, 1, 1), noise, dtype=dtype)
        t = dequantise(levels, u)
        assert t.dtype == dtype
        assert t.min() >= -0.5
        assert t.max() < 0.5
        assert torch.equal(to_pixels(t), levels)


def test_values():
    t = dequantise(torch.tensor([[[[0, 128]]]], dtype=torch.uint8), torch.tensor([[[[0.0, 0.5]]]]))
    assert t.flatten().tolist() == [-0.5, 0.5 / 256]


def test_what_lies_outside_is_clamped():
    t = torch.tensor([-9.0, -0.5, 0.5, 9.0, float("inf"), float("nan")])
    assert to_pixels(t).tolist() == [0, 0, 255, 255, 255, 0]


def test_bits_of_a_uniform_density():
    """log p(t) = 0 on the cube, where t has the density 1: 8 bits for each element."""
    nats = nll_nats(torch.zeros(2), 784)
    assert nats.tolist() == pytest.approx([784 * math.log(256)] * 2)
    assert bits_per_dim(nats, 784).tolist() == pytest.approx([8.0, 8.0])
    assert bits_per_dim(nats, torch.tensor([784, 392])).tolist() == pytest.approx([8.0, 16.0])


@pytest.mark.parametrize(
    ("pixels", "noise"),
    [
        (torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, 1, 2, 3)),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, 1, 2, 2).bfloat16()),
    ],
)
def test_wrong_arguments_are_refused(pixels, noise):
    with pytest.raises(ValueError, match=r"pixels|noise"):
        dequantise(pixels, noise)
