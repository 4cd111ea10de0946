"""benchmarks/quality.py with our own flow in the place of normflows': both must fare alike."""

from __future__ import annotations

import json
import math

import pytest
from click.testing import CliRunner
from scripts import script_module


@pytest.fixture(scope="module")
def quality():
    return script_module("quality")


@pytest.fixture(scope="module")
def report(quality, tmp_path_factory):
    """Of a few steps of tiny flows, the peer being ours with the constant of its N(0, I)."""

    class Peer(quality.Ours):
        def log_prob(self, t):
            constant = 0.5 * t[0].numel() * math.log(2 * math.pi)
            return super().log_prob(t) - constant

    out = tmp_path_factory.mktemp("quality")
    options = ["--data", "builtin/mnist", "--size", "2,1,4", "--test-images", "20"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(quality.PEERS, "normflows", Peer)
        patched.setattr(quality, "FASTEST", 2 * quality.FIRST_RATE)
        result = CliRunner().invoke(
            quality.quality, [*options, "--steps", "4", "--steps", "6", "--out", str(out)]
        )
    assert result.exit_code == 0, result.output
    assert (out / "quality.md").read_text().count("| normflows, tzk's time |") == 2
    return json.loads((out / "quality.json").read_text())


def test_the_same_flow_under_both_names_has_the_same_bits(quality, report):
    """Same images, noise, rates and steps; the constant of N(0, I) is counted once."""
    assert report["widths"] == {"tzk": 4, "normflows": 4}
    for row in report["budgets"]:
        ours, peer = row["tzk"], row["normflows"]
        assert ours["bits_per_dim"] == pytest.approx(peer["bits_per_dim"], abs=1e-5)
        assert ours["rate"] == peer["rate"]
        assert ours["ahead of normflows"] == pytest.approx(0, abs=1e-5)
        assert row["tzk recipe"]["bits_per_dim"] != ours["bits_per_dim"]


def test_ahead_is_of_fewer_bits(report):
    for row in report["budgets"]:
        for name in ("tzk", "tzk recipe", "normflows, tzk's time"):
            ahead = row["normflows"]["bits_per_dim"] - row[name]["bits_per_dim"]
            assert row[name]["ahead of normflows"] == pytest.approx(ahead, abs=1e-6)


def test_rates_are_tried_on_either_side_of_the_best(quality, report):
    for row in report["budgets"]:
        for name in quality.CONTESTANTS:
            tried = {float(rate): bits for rate, bits in row["held_out"][name].items()}
            best = row[name]["rate"]
            assert tried[best] == min(tried.values())
            for beside in (best / 2, 2 * best):
                assert beside in tried or not quality.SLOWEST <= beside <= 2 * quality.FIRST_RATE


def test_one_of_fewer_steps_takes_them_as_evenly_as_they_go(quality):
    """A run of 3 steps beside one of 5 is never a whole step from its share."""
    done, longest, budget = 0, 5, 3
    for turn in range(longest):
        if not quality.is_ahead(done, budget, turn, longest):
            done += 1
        assert abs(done - budget * (turn + 1) / longest) < 1
    assert done == budget
