"""The checks catch what they are there for: wrong layers, planted one by one, fail them."""

from __future__ import annotations

import flows.checks as checks
import pytest
import torch
from flows.registry import Case
from torch import nn

from tzk_core.flows import ActNorm, Coupling, Invertible, Shuffle


def case(layer, channels: int = 6, **options) -> Case:
    return Case("planted", (channels,), layer, **options)


class OffByAConstant(Coupling):
    """Says 0.01 nats too much, both ways consistently."""

    def encode(self, t, context=None):
        z, log_det = super().encode(t, context)
        return z, log_det + 0.01

    def decode(self, z, context=None):
        t, log_det = super().decode(z, context)
        return t, log_det - 0.01


class SameSignBothWays(Coupling):
    def decode(self, z, context=None):
        t, log_det = super().decode(z, context)
        return t, -log_det


class ForgetsPositions(ActNorm):
    """A scale a channel, counted once instead of once a position."""

    def _log_det(self, x):
        return self.log_scale.sum().expand(x.shape[0])


class UnstoredShuffle(Invertible):
    """The permutation is no buffer, so a reloaded model has another one."""

    def __init__(self, generator):
        super().__init__()
        self.permutation = torch.randperm(6, generator=generator)

    def encode(self, t, context=None):
        return t[:, self.permutation], t.new_zeros(len(t))

    def decode(self, z, context=None):
        return z[:, self.permutation.argsort()], z.new_zeros(len(z))


class BatchNorm(Invertible):
    """Takes the mean of whoever is in the batch."""

    def encode(self, t, context=None):
        return t - t.mean(0), t.new_zeros(len(t))

    def decode(self, z, context=None):
        return z + z.mean(0), z.new_zeros(len(z))


class Clamped(ActNorm):
    """Fine near the mode, not invertible far from it."""

    def encode(self, t, context=None):
        z, log_det = super().encode(t, context)
        return z.clamp(-8, 8), log_det


class Dead(ActNorm):
    def __init__(self, channels):
        super().__init__(channels)
        self.unused = nn.Parameter(torch.zeros(1))


class NoiseWhenTraining(ActNorm):
    def encode(self, t, context=None):
        z, log_det = super().encode(t, context)
        return z * (1.001 if self.training else 1.0), log_det


class InitialisesItself(ActNorm):
    """Data-dependent initialisation as a side effect of use."""

    def encode(self, t, context=None):
        if not self.initialized:
            self.bias.data = -t.mean(0)
            self.initialized.fill_(True)
        return super().encode(t, context)


class HidesNaN(ActNorm):
    def encode(self, t, context=None):
        return super().encode(t.nan_to_num(), context)


class TakesAnything(Shuffle):
    def _select(self, x, index):
        return x[:, index]


def test_a_determinant_off_by_a_constant():
    with pytest.raises(AssertionError):
        checks.check_determinants(case(lambda g: OffByAConstant(6, 4, g, spatial=False)))


def test_a_determinant_with_the_wrong_sign():
    wrong = case(lambda g: SameSignBothWays(6, 4, g, spatial=False))
    with pytest.raises(AssertionError):
        checks.check_determinants(wrong)
    with pytest.raises(AssertionError):
        checks.check_round_trip(wrong, torch.float64)


def test_a_determinant_that_forgets_positions():
    with pytest.raises(AssertionError):
        checks.check_determinants(Case("planted", (3, 2, 2), lambda g: ForgetsPositions(3)))


def test_a_shuffle_that_is_not_stored():
    with pytest.raises(AssertionError):
        checks.check_reload(case(UnstoredShuffle))


def test_rows_that_see_each_other():
    with pytest.raises(AssertionError):
        checks.check_rows(case(lambda g: BatchNorm()))


def test_an_inverse_that_holds_near_the_mode_only():
    wrong = case(lambda g: Clamped(6))
    checks.check_round_trip(wrong, torch.float64)
    with pytest.raises(AssertionError):
        checks.check_round_trip(wrong, torch.float64, scale=10.0)


def test_a_parameter_without_a_gradient():
    with pytest.raises(AssertionError, match="leaves unused without a gradient"):
        checks.check_gradients(case(lambda g: Dead(6)))


def test_a_mode_that_matters():
    with pytest.raises(AssertionError):
        checks.check_train_is_eval(case(lambda g: NoiseWhenTraining(6)))


def test_use_that_changes_the_layer():
    with pytest.raises(AssertionError):
        checks.check_no_memory(case(lambda g: InitialisesItself(6)))


def test_a_nan_that_is_hidden():
    with pytest.raises(AssertionError):
        checks.check_nan_stays_in_its_row(case(lambda g: HidesNaN(6)))


def test_a_shape_that_is_let_through():
    with pytest.raises(pytest.fail.Exception):
        checks.check_wrong_shapes(case(lambda g: TakesAnything(6, g)))
