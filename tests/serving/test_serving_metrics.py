"""What a real server tells Prometheus and its log, of requests that are known."""

from __future__ import annotations

import json
import time

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tiny_model import png

from tzk_core.launcher import Serving, Settings

IMAGE = png()
JUNK = "junk-6e0d2f5a91c84b7788aa"


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("logs") / "tzk.jsonl"


@pytest.fixture(scope="module")
def serving(store, log):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZK_LOGS", str(log))
        with Serving(
            Settings(model_store=store, port=0, device="cpu", threads=1, start_timeout=300)
        ) as serving:
            yield serving


def scraped(serving):
    """Every sample of /metrics by its name and labels."""
    answer = httpx.get(f"{serving.admin_url}/metrics", trust_env=False, timeout=30)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (one.name, *sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(answer.text)
        for one in family.samples
    }


def wait_until(holds, otherwise):
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.5)


def test_known_requests_are_counted(serving, store, log):
    # The front looks at the workers now and then, and tells what it saw.
    wait_until(lambda: scraped(serving)["tzk_front_ready",] == 1, "the front is not ready")
    before = scraped(serving)
    digest = json.loads((store.parent / "run" / "config.json").read_text())["weights_sha256"]
    model = ("model", digest[:12])
    assert before["tzk_workers", model] == 4

    headers = {"X-Request-Id": "known-1", "Authorization": f"Bearer {JUNK}"}
    with httpx.Client(base_url=serving.url, trust_env=False, timeout=60, headers=headers) as http:
        good = [http.put("/predictions/tzk_nll", content=IMAGE) for _ in range(5)]
        bad = http.put("/predictions/tzk_nll", content=JUNK.encode())
        unknown = http.get(f"/predictions/tzk_sample/1.0/{JUNK}")
        nowhere = http.get(f"/predictions/{JUNK}")
        drawn = http.get("/predictions/tzk_sample")
    told = [*good, bad, unknown, nowhere, drawn]
    assert [one.status_code for one in told] == [200] * 5 + [400, 404, 404, 200]
    assert {one.headers["x-request-id"] for one in told} == {"known-1"}

    after = scraped(serving)

    def grown(name, **labels):
        key = (name, *sorted(labels.items()))
        return after.get(key, 0) - before.get(key, 0)

    for endpoint, count in (("tzk_nll", 6), ("tzk_sample", 2)):
        for stage in ("queue", "decode", "model", "encode", "total"):
            assert grown("tzk_stage_seconds_count", endpoint=endpoint, stage=stage) == count
        assert grown("tzk_batch_requests_sum", endpoint=endpoint) == count
    assert grown("tzk_front_answers_total", endpoint="tzk_nll", status="200") == 5
    assert grown("tzk_front_answers_total", endpoint="tzk_nll", status="400") == 1
    assert grown("tzk_front_answers_total", endpoint="other", status="404") == 1
    failed = {"endpoint": "tzk_sample", "title": "No such knowledge", "status": "404"}
    assert grown("tzk_errors_total", **failed) == 1
    bits = sum(one.json()["bits_per_dim"] for one in good)
    scores = {"model": digest[:12], "estimator": "prior"}
    assert grown("tzk_bits_per_dim_count", **scores) == 5
    assert grown("tzk_bits_per_dim_sum", **scores) == pytest.approx(bits)
    # The stages are parts of what the front saw.
    total = grown("tzk_stage_seconds_sum", endpoint="tzk_nll", stage="total")
    seen = sum(
        grown("tzk_front_seconds_sum", endpoint="tzk_nll", status_class=group)
        for group in ("2xx", "4xx")
    )
    assert 0 < total < seen
    assert JUNK not in str(after)

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    errors = [line["errors"] for line in lines if line.get("request_id") == "known-1"]
    assert errors == [{"Not an image 400": 1}, {"No such knowledge 404": 1}]
    assert sum(line.get("request_ids", []).count("known-1") for line in lines) >= 8
    assert JUNK not in log.read_text()


def test_a_worker_that_dies_is_counted_and_its_counts_stay(serving):
    with httpx.Client(trust_env=False, timeout=60) as http:
        http.put(f"{serving.url}/predictions/tzk_nll", content=IMAGE)
        before = scraped(serving)
        [told] = http.get(f"{serving.management_url}/models/tzk_nll").json()
        [worker] = told["workers"]
        process = psutil.Process(int(worker["pid"]))
        process.kill()
        process.wait(30)
        after = scraped(serving)
    [alive] = [key for key in before if key[0] == "tzk_workers"]
    ended = ("tzk_workers_ended_total", *alive[1:])
    counted = ("tzk_stage_seconds_count", ("endpoint", "tzk_nll"), ("stage", "model"))
    assert after[ended] == before.get(ended, 0) + 1
    assert after[counted] == before[counted]
    wait_until(lambda: scraped(serving)[alive] == 4, "no other worker took its place")
