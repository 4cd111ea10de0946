"""Log lines: what they tell, and what they never do."""

from __future__ import annotations

import base64
import json
import logging

import pytest
from tiny_model import png

from tzk_core.service import logs
from tzk_core.service.service import ENDPOINTS, Endpoint
from tzk_core.service.wire import PROBLEM, RawRequest

IMAGE = png()
B64 = base64.b64encode(IMAGE).decode()
KEY = "8f14e45fceea167a5a36dedd4bea2543"


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """A function that reads the lines written so far."""
    loggers = [logging.getLogger(name) for name in logs.LOGGERS]
    before = [(one.handlers, one.level, one.propagate) for one in loggers]
    file = tmp_path / "tzk.jsonl"
    monkeypatch.setenv("TZK_LOGS", str(file))
    logs.configure()
    yield lambda: [json.loads(line) for line in file.read_text().splitlines()]
    for logger, (handlers, level, propagate) in zip(loggers, before):
        logger.handlers[0].close()
        logger.handlers, logger.level, logger.propagate = handlers, level, propagate


def broken(model, requests):
    raise RuntimeError(f"cannot multiply {IMAGE!r} by {KEY}, nor {B64}")


@pytest.fixture
def broken_posterior(monkeypatch):
    """An endpoint that fails on every request in a way that nobody foresaw."""
    from tzk_core.service.isolation import in_groups

    def call(model, requests):
        return in_groups(requests, lambda one: 0, lambda group: broken(model, group))

    asked = ENDPOINTS["tzk_posterior"].request
    monkeypatch.setitem(ENDPOINTS, "tzk_posterior", Endpoint(asked, call))


def test_ids_come_back(service):
    ids = ["abc-123", "x" * 128, "x" * 129, "two words", "line\nbreak", ""]
    raws = [RawRequest(body=IMAGE, headers={"x-request-id": one}) for one in ids]
    raws.append(RawRequest(body=b"junk", headers={"x-request-id": "bad-1"}))
    answers = service.answer("tzk_nll", raws)
    assert [answer.headers.get("X-Request-Id") for answer in answers] == [
        *ids[:2],
        *[None] * 4,
        "bad-1",
    ]


def test_a_line_a_batch(service, lines):
    raws = [
        RawRequest(body=IMAGE, headers={"x-request-id": "good-1", "x-request-start": "1"}),
        RawRequest(body=b"junk", headers={"x-request-id": "bad-1"}),
    ]
    service.answer("tzk_nll", raws)
    failed, batch = lines()
    assert failed["message"] == "request failed"
    assert (failed["request_id"], failed["status"]) == ("bad-1", 400)
    assert failed["errors"] == {"Not an image 400": 1}
    assert failed["level"] == "INFO"
    assert batch["message"] == "batch"
    assert (batch["endpoint"], batch["requests"]) == ("tzk_nll", 2)
    assert batch["statuses"] == {"200": 1, "400": 1}
    assert batch["request_ids"] == ["good-1", "bad-1"]
    assert set(batch["ms"]) == {"decode", "model", "encode", "worker"}


def test_errors_of_ours_have_a_traceback_and_the_client_an_id(service, lines, broken_posterior):
    raws = [RawRequest(body=IMAGE, headers={"x-request-id": "ours-1"}), RawRequest(body=IMAGE)]
    answers = service.answer("tzk_posterior", raws)
    for answer in answers:
        told = json.loads(answer.body)
        assert (answer.status, answer.content_type) == (500, PROBLEM)
        assert told["request_id"] == answer.headers["X-Request-Id"]
        assert "multiply" not in answer.body.decode()
        assert "Traceback" not in answer.body.decode()
    assert answers[0].headers["X-Request-Id"] == "ours-1"
    said = lines()
    traced = [line for line in said if "traceback" in line]
    assert traced
    for line in traced:
        assert "ours-1" in line["request_ids"]
        assert "in broken" in line["traceback"]
        assert "RuntimeError: cannot multiply <bytes> by <32 characters>" in line["traceback"]
    failed = [line for line in said if line["message"] == "request failed"]
    assert [line["level"] for line in failed] == ["ERROR", "ERROR"]
    assert [line["request_id"] for line in failed] == [
        answer.headers["X-Request-Id"] for answer in answers
    ]


def test_no_secret_and_no_image_is_logged(service, lines, broken_posterior):
    headers = {
        "x-request-id": f"{KEY} {KEY}",
        "authorization": f"Bearer {KEY}",
        "cookie": f"session={KEY}",
        "accept": KEY,
    }
    for endpoint in ENDPOINTS:
        raws = [
            RawRequest(body=IMAGE, headers=headers),
            RawRequest(body={"image": B64 + "§", "given": KEY}, headers=headers),
            RawRequest(body={"images": [B64, B64], "given": KEY}, headers=headers),
            RawRequest(fields={KEY: IMAGE, "seed": KEY.encode()}, headers=headers),
            RawRequest(url_path=KEY, body=IMAGE, headers=headers),
        ]
        service.answer(endpoint, raws)
    said = json.dumps(lines())
    assert len(lines()) > len(ENDPOINTS)
    for secret in (KEY, B64[:24], B64[40:64], "PNG", "IHDR", "Bearer", "session="):
        assert secret not in said


def test_a_line_stays_one_line(lines):
    logging.getLogger("tzk_core.x").warning("two\nlines\x1b[31m \u2028 é")
    [line] = lines()
    assert line["message"] == "two\nlines\x1b[31m \u2028 é"
    assert line["time"].endswith("Z")


def test_words_of_errors_stay_readable():
    kept = "CUBLAS_STATUS_NOT_INITIALIZED in /usr/lib/python3/dist-packages/a.py at 3×3: it's 1e-5"
    assert logs.without_data(kept) == kept
    assert len(logs.without_data("x " * 100_000)) < 2_100


def test_without_the_variable_nothing_changes(monkeypatch):
    monkeypatch.delenv("TZK_LOGS", raising=False)
    before = logging.getLogger("tzk_core").handlers[:]
    logs.configure()
    assert logging.getLogger("tzk_core").handlers == before
