"""The two-sample test itself: it lets equal distributions pass, and sees small differences."""

from __future__ import annotations

import torch
from model.two_sample import differ


def normal(seed: int, n: int = 2000, size: int = 2) -> torch.Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_no_false_alarm_in_twenty():
    assert not any(differ(normal(2 * i), normal(2 * i + 1)) for i in range(20))


def test_the_rate_is_what_it_says():
    """At a rate of ½ it may be wrong half of the time: the bound is a bound."""
    alarms = sum(differ(normal(2 * i), normal(2 * i + 1), 0.5) for i in range(20))
    assert alarms <= 10


def test_what_it_sees():
    shifted = normal(1) + torch.tensor([0.3, 0.0], dtype=torch.float64)
    wider = normal(1) * 1.3
    turned = normal(1) @ torch.tensor([[1.0, 0.5], [0.0, 0.87]], dtype=torch.float64)
    for other in (shifted, wider, turned):
        assert differ(normal(0), other)
