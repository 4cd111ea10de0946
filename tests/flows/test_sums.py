"""Log-determinants of deep flows lose nothing by being added up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tzk_core.flows import ActNorm, Chain


@pytest.mark.parametrize("direction", [1, -1], ids=["encode", "decode"])
def test_a_deep_chain_s_sum_is_right_to_the_last_bit(direction):
    """One step of float32 off ``math.fsum`` of its parameters; encode, added one by one, was 5."""
    source = torch.Generator().manual_seed(0)
    chain = Chain(ActNorm(5) for _ in range(1000))
    with torch.no_grad():
        for layer in chain.layers:
            layer.log_scale.copy_(0.01 + 0.1 * torch.randn(5, generator=source))
    x = torch.randn(1, 5, 32, 32, generator=source)
    _, log_det = chain.encode(x) if direction == 1 else chain.decode(x)
    scales = [scale for layer in chain.layers for scale in layer.log_scale.tolist()]
    truth = direction * math.fsum(scales) * 32 * 32
    assert abs(truth) > 1000
    assert log_det.dtype == torch.float32
    # Each layer's own is rounded once, and so is the sum.
    step = np.spacing(np.float32(abs(truth)))
    assert np.abs(log_det.detach().double().numpy() - truth).max() <= step
