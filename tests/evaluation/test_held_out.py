"""How a figure is told."""

from __future__ import annotations

import math

import pytest

from tzk_core.evaluation.held_out import Figure


@pytest.mark.parametrize(
    ("mean", "error", "told"),
    [
        (2.4087, 0.0342, "2.409 ± 0.034"),
        (0.0, 0.0, "0.000 ± 0.000"),
        (4.21e-5, math.nan, "4.2e-05 ± –"),
        (-3.2, math.nan, "-3.200 ± –"),
    ],
)
def test_a_small_figure_is_not_told_as_nothing(mean, error, told):
    figure = Figure("largest round-trip error", mean, error, 11, "of t")
    assert figure.told == told
    assert str(figure) == f"{told} of t (11 images)"
