"""Round-trip errors, in grey levels, of a model whose error is made known."""

from __future__ import annotations

import pytest
import torch
from tiny_model import tiny_model

from tzk_core.evaluation.round_trip import round_trip


@pytest.fixture
def pixels():
    source = torch.Generator().manual_seed(0)
    return torch.randint(1, 255, (6, 1, 16, 16), generator=source, dtype=torch.uint8)


def test_a_sound_flow_comes_back_to_rounding(pixels):
    found = round_trip(tiny_model(), pixels, seed=0, name="x")
    assert 0 < found.median <= found.median_of_largest <= found.largest < 0.01
    assert (found.images, found.not_finite) == (6, 0)
    better = round_trip(tiny_model().double(), pixels, seed=0, name="x")
    assert better.largest < 1e-3 * found.largest


def spoiled(monkeypatch, model, off):
    """The decoder's results have ``off`` (in t) added."""
    plain = model.flow.decode

    def decode(z, context=None):
        t, log_det = plain(z, context)
        return t + off(len(t)), log_det

    monkeypatch.setattr(model.flow, "decode", decode)


def test_it_is_told_in_grey_levels(pixels, monkeypatch):
    model = tiny_model().double()

    def off(count):
        added = torch.zeros(count, 1, 16, 16, dtype=torch.float64)
        added[:2, 0, 0, 0] = 3 / 256
        added[2:, 0, 5, 5] = -1 / 256
        return added

    spoiled(monkeypatch, model, off)
    found = round_trip(model, pixels, seed=0, name="x")
    assert found.largest == pytest.approx(3, abs=1e-6)
    assert found.median_of_largest == pytest.approx(1, abs=1e-6)
    assert found.median < 1e-6
    assert found.changed.mean == 1


def test_what_does_not_come_back_is_counted(pixels, monkeypatch):
    model = tiny_model()

    def off(count):
        added = torch.zeros(count, 1, 16, 16)
        added[4] = torch.nan
        return added

    spoiled(monkeypatch, model, off)
    found = round_trip(model, pixels, seed=0, name="x")
    assert (found.not_finite, found.largest) == (1, float("inf"))
    assert found.changed.mean >= 1 / 6
