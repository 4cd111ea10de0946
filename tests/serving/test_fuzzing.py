"""A few hundred broken bodies against the real server; benchmarks/fuzzing.py sends 20,000."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import httpx
import pytest


@pytest.fixture(scope="module")
def fuzzing():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzzing.py"
    spec = importlib.util.spec_from_file_location("fuzzing", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_bodies_are_the_same_every_time(fuzzing):
    assert [fuzzing.body(1, i) for i in range(20)] == [fuzzing.body(1, i) for i in range(20)]


def test_broken_bodies(fuzzing, fronted, pids_of):
    pids = pids_of(fronted)
    with httpx.Client(base_url=fronted.url, trust_env=False) as client:
        report = fuzzing.fuzz(client, 300, 7, pids=pids)
    assert not report.faults
    assert sum(sum(one.values()) for one in report.statuses.values()) == 300
