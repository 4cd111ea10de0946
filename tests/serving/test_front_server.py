"""The front before a real TorchServe: answers, readiness, an end under load."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import httpx
from serving.load import CLIENTS, IMAGE, load
from serving.stub_torchserve import until
from tiny_model import PATHS, SIDE

from tzk_core.client import TzkClient
from tzk_core.tour import tour

TZK = [sys.executable, "-m", "tzk_core.cli.main"]


def status(port):
    return subprocess.run(
        [*TZK, "status", "--port", str(port)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_answers_are_those_of_the_endpoints(serving):
    with TzkClient(serving.url) as client:
        assert client.nll(IMAGE, seed=7, given="mnist").seed == 7
        assert client.sample("mnist/3", n=2, seed=1).images[1].seed == 2
    drawn = httpx.get(f"{serving.url}/predictions/tzk_sample/1.0/mnist/3", trust_env=False)
    assert (drawn.headers["x-tzk-path"], drawn.headers["content-type"]) == ("mnist/3", "image/png")
    big = httpx.put(f"{serving.url}/predictions/tzk_nll", content=bytes(17 * 2**20), timeout=90)
    assert big.status_code == 413


def test_ready_and_status(serving):
    told = httpx.get(f"{serving.url}/ready", trust_env=False)
    assert told.json() == {"ready": True, "models": {"tzk_nll": "ready", "tzk_sample": "ready"}}
    asked = status(serving.ports["--port"])
    assert (asked.returncode, asked.stdout.count(": ready")) == (0, 2)
    scraped = httpx.get(f"{serving.admin_url}/metrics", trust_env=False, timeout=30).text
    assert "tzk_front_ready 1.0" in scraped
    assert "ts_inference_requests_total" in scraped


def test_sigterm_under_load_loses_nothing(store, tmp_path):
    shutil.copy(store / "tzk_nll.mar", tmp_path)
    options = ["--model-store", str(tmp_path), "--port", "0", "--device", "cpu", "--threads", "1"]
    process = subprocess.Popen([*TZK, "serve", *options], stderr=subprocess.PIPE, text=True)
    try:
        ready = next(line for line in process.stderr if line.startswith("ready:"))
        url = ready.rpartition(" at ")[2].strip().removesuffix("/predictions/")
        with load(url) as outcomes:
            until(lambda: len(outcomes) > 50)
            process.send_signal(signal.SIGTERM)
            outcomes.until_refused()
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.stderr.close()
    codes = [one.code for one in outcomes]
    assert set(codes) <= {200, 503, "refused"}
    assert codes.count(200) > 50
    assert codes.count("refused") == CLIENTS


def test_the_tour_through_the_front(serving, tmp_path):
    answered = {step.endpoint: step for step in tour(serving.url, PATHS, (SIDE, SIDE), tmp_path)}
    assert not answered["tzk_nll"].wrong
    assert "there is tzk_nll, tzk_sample" in answered["tzk_posterior"].wrong[0]
