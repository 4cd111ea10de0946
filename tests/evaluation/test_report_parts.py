"""What the parts of an evaluation work out besides their estimators."""

from __future__ import annotations

import pytest

from tzk_core.evaluation.report.parts.typicality import _as_in_training


@pytest.mark.parametrize(
    ("available", "training", "expected"),
    [
        ([100, 100], [600, 300], [100, 50]),
        ([100, 10], [600, 300], [20, 10]),
        ([7], [60_000], [7]),
        ([300, 300, 300], [49, 1, 3000], [5, 1, 300]),
    ],
)
def test_a_mixture_is_like_that_of_training(available, training, expected):
    assert _as_in_training(available, training) == expected
