"""A worker's death, and what cannot come back: told soon, never a hang."""

from __future__ import annotations

import time

import httpx
import pytest
from serving.stub_torchserve import FrontOnStub, ask_for_nothing, until


@pytest.fixture(scope="module")
def fronted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("front")
    with FrontOnStub(folder, model_log=str(folder / "model.log")) as fronted:
        until(lambda: fronted.table()["ready"])
        yield fronted


def ask(fronted):
    return httpx.put(f"{fronted.url}/predictions/tzk_nll", content=b"x", timeout=90)


def test_requests_of_a_dead_worker_are_told(fronted):
    """TorchServe itself would let them wait for a worker that may never come."""

    def dies(request, body):
        fronted.stub.status = "UNLOADING"
        fronted.stub.kill()
        time.sleep(30)
        return ask_for_nothing(request, body)

    fronted.stub.answer = dies
    began = time.monotonic()
    answer = ask(fronted)
    assert time.monotonic() - began < 15
    assert answer.status_code == 503
    assert "no live worker any more" in answer.json()["detail"]
    assert "retry-after" in answer.headers
    fronted.stub.answer = ask_for_nothing
    # Nobody waits for what is not there.
    began = time.monotonic()
    answer = ask(fronted)
    assert time.monotonic() - began < 15
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    ready = httpx.get(f"{fronted.url}/ready", trust_env=False)
    assert ready.status_code == 503
    assert ready.json()["models"]["tzk_nll"].startswith("its worker is not ready")
    # And back, as soon as TorchServe has another.
    fronted.stub.replace_worker()
    fronted.stub.status = "READY"
    until(lambda: ask(fronted).status_code == 200)
    assert httpx.get(f"{fronted.url}/ready", trust_env=False).status_code == 200


def test_readiness_tells_the_workers_own_error(fronted):
    lines = [
        "Backend worker process died.",
        "Traceback (most recent call last):",
        '  File "x.py", line 1, in <module>',
        "tzk_core.errors.ModelUnavailable: model.safetensors is cut off",
    ]
    start = "2026-11-25T04:30:58,403 [INFO ] W-9000-tzk_nll_1.0-stdout MODEL_LOG - "
    log = fronted.access_log.with_name("model.log")
    log.write_text("".join(f"{start}{line}\n" for line in lines))
    fronted.stub.status = "UNLOADING"
    fronted.stub.kill()
    until(lambda: not fronted.table()["ready"])
    until(lambda: "cut off" in (fronted.table()["models"]["tzk_nll"]["reason"] or ""))
    told = httpx.get(f"{fronted.url}/ready", trust_env=False).json()["models"]["tzk_nll"]
    assert told.endswith("ModelUnavailable: model.safetensors is cut off")
