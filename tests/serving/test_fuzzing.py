"""A few hundred broken bodies against the real server; benchmarks/fuzzing.py sends 20,000."""

from __future__ import annotations

import httpx
import pytest
from scripts import script_module


@pytest.fixture(scope="module")
def fuzzing():
    return script_module("fuzzing")


def test_bodies_are_the_same_every_time(fuzzing):
    assert [fuzzing.body(1, i) for i in range(20)] == [fuzzing.body(1, i) for i in range(20)]


def test_broken_bodies(fuzzing, fronted, pids_of):
    pids = pids_of(fronted)
    with httpx.Client(base_url=fronted.url, trust_env=False) as client:
        report = fuzzing.fuzz(client, 300, 7, pids=pids)
    assert not report.faults
    assert sum(sum(one.values()) for one in report.statuses.values()) == 300
