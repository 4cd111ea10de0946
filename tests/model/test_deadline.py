"""A deadline ends work of unknown length, and nothing else."""

from __future__ import annotations

import pytest
import torch

from tzk_core import deadline as deadlines
from tzk_core.deadline import check, deadline, seconds_left
from tzk_core.densities import standard_normal
from tzk_core.errors import OutOfTime
from tzk_core.randomness import Rows
from tzk_core.smc import anneal


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""

    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(deadlines, "time", clock)
    return clock


def test_without_one_work_goes_on():
    assert seconds_left() is None
    check()


def test_it_ends_work_once_it_has_passed(clock):
    with deadline(2.0):
        clock.now += 2.0
        check()
        clock.now += 0.1
        with pytest.raises(OutOfTime) as told:
            check()
        assert told.value.status == 504
    check()


def test_the_earlier_of_two_holds(clock):
    with deadline(5.0):
        with deadline(9.0):
            assert seconds_left() == 5.0
        with deadline(None):
            assert seconds_left() == 5.0
        with deadline(3.0):
            assert seconds_left() == 3.0
        assert seconds_left() == 5.0


def test_an_anneal_ends_with_it_and_is_the_same_with_time_to_spare(clock):
    """What it gives does not depend on the clock, only whether it gives it."""

    def target(x):
        clock.now += 1.0
        return standard_normal(x), -0.5 * ((x - 3) / 0.3).square().sum(1)

    def annealed():
        source = Rows([1, 2])
        return anneal(source.normal(32, 4, dtype=torch.float64), source, target)[0]

    free = annealed()
    began = clock.now
    with deadline(1e6):
        torch.testing.assert_close(annealed(), free, rtol=0, atol=0)
    took = clock.now - began
    began = clock.now
    with pytest.raises(OutOfTime), deadline(took / 2):
        annealed()
    # It looked at the clock between any two passes through the model.
    assert clock.now - began <= took / 2 + 2
