"""The soak's statistics on series whose truth is known, and its sampler on a process that leaks."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SAMPLES = 288  # of half an hour, every 5 s, without its first fifth
SERIES = 400


@pytest.fixture
def module(monkeypatch):
    """Imports one of the benchmark's files, which find each other by their folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def noise(correlation: float, seed: int, series: int = SERIES, samples: int = SAMPLES):
    """Autoregressive series without a trend, (series, samples), of innovations N(0, 1)."""
    random = np.random.default_rng(seed)
    steps = random.standard_normal((series, samples))
    made = np.empty_like(steps)
    # From its stationary distribution, so that there is no run-in; a walk begins anywhere.
    made[:, 0] = steps[:, 0] / np.sqrt(1 - correlation**2) if correlation < 1 else steps[:, 0]
    for t in range(1, samples):
        made[:, t] = correlation * made[:, t - 1] + steps[:, t]
    return made


def ordinary_interval(values) -> tuple[float, float]:
    """What least squares says of samples that it takes for independent."""
    times = np.arange(len(values)) - (len(values) - 1) / 2
    slope = times @ values / (times @ times)
    left = values - values.mean() - slope * times
    half = 1.968 * np.sqrt(left @ left / (len(values) - 2) / (times @ times))
    return slope - half, slope + half


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, 0.98, 1.0])
def test_a_flat_series_has_zero_in_its_interval_at_the_stated_rate(module, correlation):
    trend, times = module("serving_trend").trend, np.arange(SAMPLES)
    intervals = [trend(times, one) for one in noise(correlation, seed=1)]
    share = np.mean([one.low <= 0 <= one.high for one in intervals])
    # 0.95 is meant; chance alone has a standard deviation of 0.011 over 400 series, and the
    # method's own error near a correlation of 1 is some 0.02.
    assert 0.91 <= share <= 0.99


def test_least_squares_alone_would_call_flat_series_leaks():
    """So the test above can fail: this is what the method is for."""
    intervals = [ordinary_interval(one) for one in noise(0.9, seed=1)]
    assert np.mean([low <= 0 <= high for low, high in intervals]) < 0.6


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_a_leak_is_found_and_its_size_is_in_the_interval(module, correlation):
    trend, times = module("serving_trend").trend, np.arange(SAMPLES)
    leak = 0.2  # of an innovation's standard deviation a sample: 58 over the run
    found = [trend(times, 500 + leak * times + one) for one in noise(correlation, seed=2)]
    assert np.mean([one.low > 0 for one in found]) > 0.98
    assert np.mean([one.low <= leak <= one.high for one in found]) > 0.91
    assert np.mean([one.slope for one in found]) == pytest.approx(leak, rel=0.05)


def test_a_saw_tooth_is_no_leak_and_a_rising_one_is(module):
    """A heap that fills and is collected, every 25 samples."""
    trend, times = module("serving_trend").trend, np.arange(SAMPLES)
    teeth = 300 + times % 25 + np.random.default_rng(3).normal(0, 0.5, SAMPLES)
    flat = trend(times, teeth)
    assert flat.low <= 0 <= flat.high
    assert trend(times, teeth + 0.5 * times).low > 0


def test_slopes_are_in_the_units_of_time(module):
    trend, line = module("serving_trend").trend, 100.0 + 3.0 * np.arange(40)
    found = trend(np.arange(40) / 2, line)
    assert found.slope == pytest.approx(6.0)
    assert found.high - found.low < 1e-6
    assert found.level == pytest.approx(line.mean())


def test_too_few_samples_have_no_slope(module):
    with pytest.raises(ValueError, match="19 samples are too few"):
        module("serving_trend").trend(np.arange(19), np.arange(19))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-3.0, 4.0, "flat"),  # growth of 5 is excluded
        (1.0, 4.0, "flat"),  # it grows, but by less than matters
        (-3.0, 6.0, "undecided"),
        (0.5, 6.0, "grows"),
        (5.5, 6.0, "grows"),
    ],
)
def test_flat_excludes_growth_rather_than_admitting_none(module, low, high, said):
    tools = module("serving_trend")
    assert tools.verdict(tools.Trend((low + high) / 2, low, high, 0.5, 500.0), 5.0) == said


@pytest.mark.parametrize(("degrees", "quantile"), [(10, 2.2281), (30, 2.0423), (285, 1.9683)])
def test_quantiles_are_those_of_the_tables(module, degrees, quantile):
    assert module("serving_trend").student(degrees) == pytest.approx(quantile, abs=1e-3)


def test_parts_that_grow_are_told_apart(module):
    """Per part and together, in MB an hour, without the time in which all settle."""
    random = np.random.default_rng(5)
    samples = []
    for number in range(120):
        settling = 400 * (number < 20)
        worker = 600 + settling + 0.1 * number + random.normal(0, 0.2)
        front = 50 + random.normal(0, 0.2)
        samples.append(
            {"seconds": 5.0 * number, "workers": {"uss": worker}, "front": {"uss": front}}
        )
    told = module("serving_memory").trends(samples, settle=100.0, most=0.01, shortest=500.0)
    # 0.1 MB in 5 s is 72 MB an hour.
    assert told["workers"]["low"] <= 72 <= told["workers"]["high"]
    assert told["workers"]["verdict"] == told["total"]["verdict"] == "grows"
    assert told["front"]["low"] <= 0 <= told["front"]["high"]
    assert told["total"]["first"] == samples[20]["workers"]["uss"] + samples[20]["front"]["uss"]
    assert module("serving_memory").trends(samples[:30], settle=100.0, most=0.01) == {}
    short = module("serving_memory").trends(samples, settle=100.0, most=0.01)
    assert {one["verdict"] for one in short.values()} == {"too short"}
    assert short["workers"]["slope"] == told["workers"]["slope"]


LEAKING = """
import time
kept = []
print("up", flush=True)
while True:
    kept.append(bytearray(b"x" * 500_000))
    time.sleep(0.02)
"""


def test_a_process_that_leaks_is_seen_to_leak(module):
    memory = module("serving_memory")
    with subprocess.Popen([sys.executable, "-c", LEAKING], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            parts = {"workers": [psutil.Process(process.pid)], "front": [psutil.Process()]}
            with memory.Watch(lambda: parts, 0.05) as watch:
                time.sleep(3)
        finally:
            process.kill()
    told = memory.trends(watch.samples, settle=0.0, most=0.01, shortest=1.0)
    # 25 MB a second at most, on a machine that may be busy with other things.
    assert 1.0 < told["workers"]["slope"] / 3600 < 26
    assert told["workers"]["verdict"] == "grows"
    assert watch.replaced(parts) == 0
    assert watch.replaced({"workers": [], "front": parts["front"]}) == 1


def test_what_makes_a_soak_fail(module):
    wrong = module("soak").wrong
    grown = {"slope": 9.0, "low": 8.0, "high": 10.0, "verdict": "grows"}
    flat = grown | {"verdict": "flat"}
    good = {"load": {"errors": 0}, "replaced": 0, "memory": {"uss": {"total": flat}}}
    assert wrong(good) == []
    assert wrong(good | {"memory": {"uss": {}}}) == []
    assert wrong(good | {"memory": {"uss": {"total": grown, "front": flat}}}) == [
        "memory grows by 9.0 (8.0 – 10.0) MB an hour"
    ]
    assert wrong(good | {"load": {"errors": 3}}) == ["3 requests were not answered with 200"]
    assert wrong(good | {"replaced": 1}) == ["1 processes were replaced"]
