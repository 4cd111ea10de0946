"""What benchmarks/serving.py counts and concludes, on rows and servers whose truth is known."""

from __future__ import annotations

import importlib
import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tzk_core.ports import HOST

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """Imports one of the benchmark's files, which find each other by their folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def row(target, rate, p50=10.0, *, clients=None, batch=None, load="closed", number=0, **more):
    row = {"kind": "score", "target": target, "load": load, "round": number, "rate": rate}
    row |= {"clients": clients, "batch": batch, "p50_ms": p50, "p95_ms": 2 * p50}
    return row | {"p99_ms": 3 * p50, "errors": 0, "late_share": 0.0, "cpu_ms": {}} | more


def limit(rate, p50, batch, number=0):
    return row("in process", rate, p50, batch=batch, load="in-process", number=number)


def judged(tables, rows) -> dict:
    return {one["what"]: one for one in tables.verdicts(rows)}


def test_saturation_is_the_most_of_the_closed_loops_of_a_round(module):
    tables = module("serving_tables")
    rows = [
        row("front", 50.0, clients=1),
        row("front", 90.0, clients=16),
        row("front", 80.0, clients=64),
        row("front", 500.0, clients=16, number=1),
        row("front", 999.0, load="open"),
        row("fastapi", 700.0, clients=16),
    ]
    assert tables.capacity(rows, "score", "front", 0) == 90.0
    assert tables.capacity(rows, "score", "litserve", 0) is None


@pytest.mark.parametrize("name", ["inprocess", "peer_fastapi", "peer_litserve"])
def test_what_is_compared_loads_its_model_as_handlers_do(name):
    text = (BENCHMARKS / f"serving_{name}.py").read_text()
    assert "load_as_served(" in text
    assert "Service.load" not in text


def test_a_verdict_is_the_median_of_ratios_within_rounds(module):
    # The rounds' ratios are 0.9, 0.5 and 0.9; the ratio of medians would be 100 / 160 = 0.625.
    rounds = [(90.0, 100.0), (100.0, 200.0), (144.0, 160.0)]
    rows = []
    for number, (ours, most) in enumerate(rounds):
        rows += [row("handlers", ours, clients=16, number=number), limit(most, 9.0, 16, number)]
    one = judged(module("serving_tables"), rows)[
        "score: handlers, throughput / in process at batch 16"
    ]
    assert one["rounds"] == pytest.approx([0.9, 0.5, 0.9])
    assert one["measured"] == pytest.approx(0.9)
    assert one["met"] is True


@pytest.mark.parametrize(("p50", "met"), [(13.0, True), (13.9, False)])
def test_a_lone_request_may_take_eight_milliseconds_longer_through_the_front(module, p50, met):
    rows = [row("front", 60.0, p50, clients=1), limit(180.0, 5.5, 1), limit(700.0, 1.0, 16)]
    one = judged(module("serving_tables"), rows)[
        "score: front, p50 of one client − in process at batch 1, ms"
    ]
    assert (one["measured"], one["met"]) == (pytest.approx(p50 - 5.5), met)
    assert one["target"] == "≤ 8"


def test_we_are_to_be_ahead_at_sixteen_clients_and_more(module):
    rows = [row("handlers", 100.0, clients=count) for count in (4, 16, 64)]
    rows += [row("litserve", rate, clients=c) for c, rate in ((4, 900.0), (16, 80.0), (64, 125.0))]
    told = judged(module("serving_tables"), rows)
    assert told["score: handlers / litserve, throughput at 16 clients"]["met"] is True
    at_64 = told["score: handlers / litserve, throughput at 64 clients"]
    assert (at_64["measured"], at_64["met"]) == (0.8, False)
    assert "score: handlers / litserve, throughput at 4 clients" not in told


def test_a_target_that_was_not_measured_is_neither_met_nor_missed(module):
    told = judged(module("serving_tables"), [row("fastapi", 10.0, clients=16)])
    assert (
        len(told) == 12
    )  # of a kind: 2 of ours × (2 of the limit + 2 others × 2 numbers of clients)
    assert {one["met"] for one in told.values()} == {None}


def test_a_summary_has_medians_ranges_and_all_errors(module):
    rows = [
        row("front", rate, p50, clients=4, number=n, errors=n, cpu_ms={"front": 0.1 * rate})
        for n, (rate, p50) in enumerate([(10.0, 5.0), (30.0, 1.0), (20.0, 9.0)])
    ]
    [cell] = module("serving_tables").summary(rows)
    assert (cell["rate"], cell["least"], cell["most"]) == (20.0, 10.0, 30.0)
    assert (cell["p50_ms"], cell["p99_ms"], cell["errors"]) == (5.0, 15.0, 3)
    assert cell["cpu_ms"] == {"front": pytest.approx(2.0)}


def test_tables_are_of_the_same_text_in_markdown(module):
    tables, shown = module("serving_tables"), module("serving_show")
    rows = [row("front", 60.0, clients=1), limit(80.0, 5.0, 16)]
    report = {"summary": tables.summary(rows), "saturation": tables.saturation(rows)}
    text = shown.markdown(tables.sheets(report | {"targets": tables.verdicts(rows)}))
    assert "| front | 1 client | 60.0 (60.0 – 60.0) | 10.0 | 20.0 | 30.0 | 0 |  |" in text
    assert "| score: front | 60.0 | 0.75 |" in text
    assert r"| a \| b |" in shown.markdown([shown.Sheet("t", ["a | b"], [])])


def test_arrivals_are_a_poisson_process(module):
    times = module("serving_load").arrivals(200.0, 50.0, np.random.default_rng(0))
    assert (np.diff(times) > 0).all()
    assert times[-1] < 50.0
    # 10,000 are expected, with a standard deviation of 100.
    assert abs(len(times) - 10_000) < 400
    gaps = np.sort(np.diff(times)) * 200.0
    uniform = 1 - np.exp(-gaps)
    distance = np.abs(uniform - (np.arange(len(gaps)) + 0.5) / len(gaps)).max()
    assert distance < 1.95 / np.sqrt(len(gaps))  # exceeded once in a thousand seeds


WAIT, EVERY = 0.02, 5


@pytest.fixture
def counting():
    """A server that answers after ``WAIT`` seconds, every fifth request with 503, and counts."""

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                got.append(body)
                status = 503 if len(got) % EVERY == 0 else 200
            time.sleep(WAIT)
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_):
            pass

    got, lock = [], threading.Lock()
    server = ThreadingHTTPServer((HOST, 0), Answering)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{HOST}:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


def generators():
    return ["aiohttp", *(["wrk"] if shutil.which("wrk") else [])]


def checked(load, got) -> None:
    """What both loops must tell truly."""
    assert set(load.statuses) <= {200, 503}
    assert len(load.latencies) == load.answered
    assert load.latencies.min() >= WAIT * 0.95  # what sleeps may wake a little early
    assert load.percentile_ms(50) < 1_000 * (WAIT + 1.0)
    assert load.cpu_seconds > 0
    assert set(got) <= {b"one", b"two", b"three"}
    assert len(set(got)) == 3


@pytest.mark.parametrize("generator", generators())
def test_a_closed_loop_counts_what_was_answered(module, counting, generator):
    (url, got), loads = counting, module("serving_load")
    requests = [loads.Request("/", body) for body in (b"one", b"two", b"three")]
    load = loads.closed_loop(generator, url, requests, 3, 1.0)
    checked(load, got)
    # wrk asks once before it begins; one a client may still be on its way at the end.
    assert load.answered <= len(got) <= load.answered + 3 + 1
    assert load.statuses[503] == pytest.approx(load.answered / EVERY, abs=3)
    assert load.errors == load.statuses[503] + sum(load.lost.values())
    assert load.rate == pytest.approx(load.statuses[200] / load.seconds)


@pytest.mark.parametrize("generator", generators())
def test_an_open_loop_sends_what_was_due(module, counting, generator):
    (url, got), loads = counting, module("serving_load")
    requests = [loads.Request("/", body) for body in (b"one", b"two", b"three")]
    times = np.arange(1, 61) / 50.0
    load = loads.open_loop(generator, url, requests, times)
    checked(load, got)
    assert load.sent == 60
    assert load.answered == len(got) == 60
    assert load.statuses == {200: 48, 503: 12}
    assert load.errors == 12
    assert load.rate == pytest.approx(48 / times[-1])


def test_the_time_that_all_takes_is_told_before(module):
    options = json.loads(
        '{"seconds": 8, "warmup": 2, "rounds": 3, "clients": [1, 4, 16, 64], "kinds": ["a", "b"]}'
    )
    # A round of a kind: 4 servers × 5 loads and 2 of the limit, 10 s each; 3 s for last answers.
    # Before the first round each server is warmed five times.
    of_rounds = 6 * (22 * 10 + 4 * 3)
    assert module("serving_measuring").seconds_of(options, 4, True) == of_rounds + 2 * 4 * 5 * 2


def test_a_full_queue_is_no_failure_where_more_is_sent_than_is_answered(module):
    failures = module("serving_measuring").failures
    full = {"errors": 7, "statuses": {200: 9, 503: 5, 500: 2}}
    assert failures([row("front", 1.0, load="open", **full)]) == 2
    assert failures([row("front", 1.0, clients=16, **full)]) == 7
    assert failures([limit(1.0, 1.0, 16) | {"errors": 1}]) == 1


def test_differences_are_taken_pair_by_pair(module):
    """What meets both alike, here far more than the difference, is in neither's favour."""
    paired, random = module("serving_delay").paired, np.random.default_rng(0)
    met = random.exponential(50.0, 400)
    others = met + random.normal(0, 0.5, 400)
    middle, low, high = paired(others + 2.0 + random.normal(0, 0.5, 400), others, 0)
    assert low < 2.0 < high
    assert high - low < 0.3
    assert middle == pytest.approx(2.0, abs=0.2)
    _, low, high = paired(others + random.normal(0, 0.5, 400), others, 0)
    assert low <= 0 <= high
