"""What is counted, against requests whose outcome is known, and that nobody's text gets into it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tiny_model import HELD_OUT, SIDE, png, tiny_model

from tzk_core import errors
from tzk_core.service.metrics import files, front
from tzk_core.service.metrics.batch import waited
from tzk_core.service.metrics.definitions import STAGES
from tzk_core.service.metrics.labels import ENDPOINT_NAMES, OTHER, TITLES, error_labels
from tzk_core.service.metrics.quality import held_out_bits, model_loaded
from tzk_core.service.metrics.stages import Stopwatch, stage
from tzk_core.service.service import ENDPOINTS, Service
from tzk_core.service.wire import RawRequest

IMAGE = png()
B64 = base64.b64encode(IMAGE).decode()


def read():
    """Every sample by its name and labels."""
    return samples(files.exposition())


def samples(text):
    return {
        (one.name, *sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(text.decode())
        for one in family.samples
        if not one.name.endswith("_created")
    }


class Since:
    """How much each sample has grown since this was made."""

    def __init__(self):
        self.before = read()

    def __call__(self, name, **labels):
        key = (name, *sorted(labels.items()))
        return read().get(key, 0.0) - self.before.get(key, 0.0)


@pytest.fixture(scope="module")
def labelled():
    return Service(tiny_model(), "0123456789ab")


def test_endpoints_are_the_services():
    assert list(ENDPOINT_NAMES) == list(ENDPOINTS)


def test_counts_are_exact(labelled):
    grown = Since()
    started = {"x-request-start": f"{time.time() - 2:.6f}"}
    raws = [
        RawRequest(body=IMAGE, headers=started),
        RawRequest(body=b"junk"),
        RawRequest(body=[{"image": B64}, {"image": B64, "given": "kanji"}, {"image": "§"}]),
        RawRequest(fields={"image": IMAGE, "given": b"mnist"}),
    ]
    answers = labelled.answer("tzk_nll", raws)
    assert [answer.status for answer in answers] == [200, 400, 200, 200]
    nll = {"endpoint": "tzk_nll"}
    assert grown("tzk_batch_requests_count", **nll) == 1
    assert grown("tzk_batch_requests_sum", **nll) == 4
    assert grown("tzk_answers_total", **nll, status_class="2xx") == 3
    assert grown("tzk_answers_total", **nll, status_class="4xx") == 1
    for title, status in (
        ("Not an image", "400"),
        ("No such knowledge", "404"),
        ("Invalid request", "422"),
    ):
        assert grown("tzk_errors_total", **nll, title=title, status=status) == 1
    counts = {name: grown("tzk_stage_seconds_count", **nll, stage=name) for name in STAGES}
    assert counts == {"queue": 1, "decode": 4, "model": 4, "encode": 4, "total": 4}
    assert grown("tzk_stage_seconds_bucket", **nll, stage="queue", le="1.0") == 0
    assert grown("tzk_stage_seconds_bucket", **nll, stage="total", le="1.0") <= 3
    scored = [json.loads(answers[0].body), json.loads(answers[2].body)[0]]
    given = json.loads(answers[3].body)
    model = {"model": "0123456789ab"}
    assert grown("tzk_bits_per_dim_sum", **model, estimator="prior") == pytest.approx(
        sum(one["bits_per_dim"] for one in scored)
    )
    assert grown("tzk_bits_per_dim_sum", **model, estimator="importance") == pytest.approx(
        given["bits_per_dim"]
    )
    assert grown("tzk_percentile_count", **model) == 3
    assert grown("tzk_percentile_sum", **model) == pytest.approx(
        sum(one["percentile"] for one in [*scored, given])
    )


def test_stages_add_up_to_the_whole(labelled):
    grown = Since()
    began = time.perf_counter()
    labelled.answer("tzk_sample", [RawRequest(body={"n": 2})])
    taken = time.perf_counter() - began
    parts = {
        name: grown("tzk_stage_seconds_sum", endpoint="tzk_sample", stage=name)
        for name in ("decode", "model", "encode", "total")
    }
    assert min(parts.values()) > 0
    assert parts["decode"] + parts["model"] + parts["encode"] <= parts["total"] <= taken


def test_a_stage_within_another_takes_its_time_from_it():
    watch = Stopwatch()
    with stage("decode"):
        pass  # no batch: nothing is timed
    began = time.perf_counter()
    with watch.stage("model"):
        time.sleep(0.01)
        with stage("decode"):
            time.sleep(0.02)
    taken = time.perf_counter() - began
    assert watch.seconds["model"] >= 0.01
    assert watch.seconds["decode"] >= 0.02
    assert sum(watch.seconds.values()) <= taken


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("999.5", 0.5),
        ("t=999.5", 0.5),
        ("400", 600.0),
        ("399", None),
        ("1000.001", None),
        ("", None),
        ("nan", None),
        ("-inf", None),
        ("yesterday", None),
        ("1" * 5000, None),
    ],
)
def test_waits_that_are_not_plausible_are_dropped(header, seconds):
    assert waited(header, 1000.0) == seconds


def test_held_out_quantiles_are_bits_per_dim(labelled):
    told = held_out_bits(labelled.model)
    # By hand: log p of the 50 % is −202, on 256 elements; 8 bits are the level's own.
    assert told[0.5] == pytest.approx(8 + 202 / (SIDE**2 * 0.6931471805599453))
    assert list(told.values()) == sorted(told.values())
    assert len(HELD_OUT) == 100
    model_loaded("feedfeedfeed", labelled.model)
    told = read()[("tzk_held_out_bits_per_dim", ("model", "feedfeedfeed"), ("rank", "0.5"))]
    assert told == pytest.approx(held_out_bits(labelled.model)[0.5])


def test_a_loaded_service_is_called_by_its_weights(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    digest = json.loads((tmp_path / "config.json").read_text())["weights_sha256"]
    assert Service.load(tmp_path).label == digest[:12]
    assert read()[("tzk_workers", ("model", digest[:12]))] == 1


def test_labels_stay_few_under_junk(labelled):
    """Names that clients make up add no series."""

    def junk(i):
        headers = {"x-request-id": f"junk-{i}", "x-request-start": f"junk-{i}"}
        return [
            RawRequest(url_path=f"junk-{i}", body=IMAGE, headers=headers),
            RawRequest(fields={f"junk-{i}": b"x"}, headers=headers),
            RawRequest(body={"image": B64, "given": f"junk-{i}"}, headers=headers),
        ]

    def send(i):
        labelled.answer("tzk_nll", junk(i))
        with front.front_request(f"junk-{i}") as request:
            request.status = 1000 + i
        with front.front_request("tzk_nll") as request:
            request.status = 404

    send(0)
    before = set(read())
    for i in range(1, 20):
        send(i)
    assert set(read()) == before
    assert b"junk" not in files.exposition()


def test_an_error_of_an_unknown_kind_is_other():
    class Odd(errors.TzkError):
        title = "junk"
        status = 1234

    assert error_labels(Odd("x")) == (OTHER, OTHER)
    assert error_labels(errors.NotAnImage("x")) == ("Not an image", "400")
    assert len(TITLES) < 20


def test_the_front_counts_whatever_ends_a_request():
    grown = Since()
    in_flight = ("tzk_front_in_flight", ("endpoint", "tzk_sample"))
    with front.front_request("tzk_sample") as request:
        assert read()[in_flight] == 1
        request.status = 503
    with pytest.raises(ConnectionError), front.front_request("tzk_sample"):
        raise ConnectionError("the client left")
    assert read()[in_flight] == 0
    sample = {"endpoint": "tzk_sample"}
    assert grown("tzk_front_answers_total", **sample, status="503") == 1
    assert grown("tzk_front_answers_total", **sample, status="other") == 1
    assert grown("tzk_front_seconds_count", **sample, status_class="5xx") == 1
    front.front_ready(True)
    assert read()[("tzk_front_ready",)] == 1


def test_a_disk_that_is_full_costs_no_answer(labelled, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tzk_core.service.metrics.batch.count_scores", full)
    [answer] = labelled.answer("tzk_nll", [RawRequest(body=IMAGE)])
    assert answer.status == 200


# -- several processes -----------------------------------------------------------------------------

WORKER = """
import os, sys
from tzk_core.service.metrics.definitions import ERRORS, STAGE_SECONDS, WORKERS
count = int(sys.argv[1])
WORKERS.labels("0123456789ab").set(1)
for _ in range(count):
    ERRORS.labels("tzk_nll", "Not an image", "400").inc()
    STAGE_SECONDS.labels("tzk_nll", "model").observe(0.25)
print("counted", flush=True)
sys.stdin.read()
"""
READER = """
import sys
from tzk_core.service.metrics.files import exposition
assert "torch" not in sys.modules, "the front would carry torch"
for line in sys.stdin:
    text = exposition()
    print(len(text), flush=True)
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def processes(tmp_path):
    """``start(code, *arguments)``: a Python process that shares one folder of metrics."""
    started = []
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}

    def start(code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def scraped(reader):
    reader.stdin.write(b"\n")
    reader.stdin.flush()
    return samples(reader.stdout.read(int(reader.stdout.readline())))


def test_processes_add_up_and_the_dead_stay_counted(processes, tmp_path):
    workers = [processes(WORKER, str(count)) for count in (3, 4)]
    for worker in workers:
        assert worker.stdout.readline() == b"counted\n"
    reader = processes(READER)
    failed = (
        "tzk_errors_total",
        ("endpoint", "tzk_nll"),
        ("status", "400"),
        ("title", "Not an image"),
    )
    at = (("endpoint", "tzk_nll"), ("le", "0.25"), ("stage", "model"))
    alive, ended = (
        (name, ("model", "0123456789ab")) for name in ("tzk_workers", "tzk_workers_ended_total")
    )
    told = scraped(reader)
    assert (told[failed], told[alive]) == (7, 2)
    assert ended not in told

    for left, worker in zip((1, 0), workers):
        worker.kill()
        worker.wait()
        told = scraped(reader)
        assert told[failed] == 7
        assert told[("tzk_stage_seconds_bucket", *at)] == 7
        assert told[("tzk_stage_seconds_sum", at[0], at[2])] == 7 * 0.25
        assert told[ended] == 2 - left
        assert told.get(alive, 0) == left
        assert not list((tmp_path / "metrics").glob(f"*_{worker.pid}.db"))
    replaced = processes(WORKER, "5")
    assert replaced.stdout.readline() == b"counted\n"
    told = scraped(reader)
    assert (told[failed], told[alive], told[ended]) == (12, 1, 2)
    # What the dead left is one file of each kind, however many they were.
    assert len(list((tmp_path / "metrics").glob("*_dead.db"))) == 2
