"""The example alarms name metrics and labels that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tzk_core.service.metrics import front  # noqa: F401 - its metrics join the registry
from tzk_core.service.metrics.definitions import BITS, PERCENT, REGISTRY, SECONDS, STAGES, TAIL

RULES = Path(__file__).parents[2] / "deploy" / "prometheus-rules.yml"
ALARMS = [
    rule
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
METRICS = {
    f"{one.name}{suffix}"
    for one in REGISTRY.collect()
    for suffix in {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(
        one.type, ("",)
    )
}
EDGES = {
    "tzk_stage_seconds": SECONDS,
    "tzk_bits_per_dim": BITS,
    "tzk_percentile": PERCENT,
    "tzk_typicality": TAIL,
}


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm["alert"])
def test_alarms_are_about_metrics_there_are(alarm):
    named = set(re.findall(r"\btzk_(?!nll|sample|posterior|interpolate)\w+", alarm["expr"]))
    assert named
    assert named <= METRICS
    assert alarm["annotations"]["summary"]
    assert alarm["labels"]["severity"] in ("page", "ticket")


def test_buckets_and_stages_that_alarms_name_exist():
    text = RULES.read_text(encoding="utf-8")
    edges = re.findall(r'(tzk_\w+)_bucket\{[^}]*le="([^"]+)"', text)
    assert edges
    for name, edge in edges:
        assert float(edge) in EDGES[name]
        assert edge == repr(float(edge)), "as prometheus_client writes it"
    assert set(re.findall(r'stage="(\w+)"', text)) <= set(STAGES)
