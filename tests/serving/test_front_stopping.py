"""SIGTERM: what is in flight is finished, what comes after is told, and nothing is lost."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from serving.stub_torchserve import FrontOnStub, slow, until

CLIENTS = 8


def test_none_is_lost_under_load(tmp_path):
    with FrontOnStub(tmp_path) as fronted:
        until(lambda: fronted.table()["ready"])
        fronted.stub.answer = slow(0.2)
        outcomes: list[object] = []
        begun = threading.Barrier(CLIENTS + 1)

        def client():
            with httpx.Client(base_url=fronted.url, trust_env=False, timeout=60) as http:
                begun.wait()
                while True:
                    try:
                        answer = http.put("/predictions/tzk_nll", content=b"x")
                    except httpx.ConnectError as refused:
                        outcomes.append(refused)
                        return
                    outcomes.append(answer.status_code)
                    if answer.status_code == 503:
                        assert answer.headers["connection"] == "close"
                        assert answer.headers["retry-after"]

        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(client) for _ in range(CLIENTS)]
            begun.wait()
            until(lambda: outcomes.count(200) > 2 * CLIENTS)
            fronted.front.stop()
            for one in clients:
                one.result()
        # Each had its answers, the last with Connection: close, or was told, and then was refused.
        assert sum(isinstance(one, httpx.ConnectError) for one in outcomes) == CLIENTS
        assert outcomes.count(503) <= CLIENTS
        assert outcomes.count(200) == len(fronted.stub.asked)
        assert len(outcomes) == outcomes.count(200) + outcomes.count(503) + CLIENTS


def test_a_kept_connection_is_told(tmp_path):
    """An idle client asks while another's request is finished: 503, and the connection ends."""
    with FrontOnStub(tmp_path) as fronted, httpx.Client(base_url=fronted.url) as kept:
        until(lambda: fronted.table()["ready"])
        kept.get("/ready")
        fronted.stub.answer = slow(3.0)
        with ThreadPoolExecutor(2) as pool:
            asked = pool.submit(
                httpx.put, f"{fronted.url}/predictions/tzk_nll", content=b"x", timeout=60
            )
            until(lambda: fronted.table()["models"]["tzk_nll"]["in_hand"])
            stopping = pool.submit(fronted.front.stop)
            until(lambda: fronted.table()["draining"])
            told = kept.get("/ready")
            assert (told.status_code, told.headers["connection"]) == (503, "close")
            with pytest.raises(httpx.ConnectError):
                kept.get("/ready")
            stopping.result()
            assert asked.result().status_code == 200


@pytest.mark.parametrize("given", [0.5, 20.0])
def test_the_time_to_drain_is_kept(tmp_path, given):
    """A request that is longer is cut off; a shorter one has its answer."""
    with FrontOnStub(tmp_path, drain=given) as fronted:
        until(lambda: fronted.table()["ready"])
        fronted.stub.answer = slow(3.0)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(
                httpx.put, f"{fronted.url}/predictions/tzk_nll", content=b"x", timeout=60
            )
            until(lambda: fronted.table()["models"]["tzk_nll"]["in_hand"])
            began = time.monotonic()
            fronted.front.stop()
            if given > 3:
                assert asked.result().status_code == 200
            else:
                assert time.monotonic() - began < 15
                with pytest.raises(httpx.TransportError):
                    asked.result()


def test_it_ends_with_who_started_it(tmp_path):
    """The pipe to its launcher closes when that dies, however it dies."""
    with FrontOnStub(tmp_path) as fronted:
        fronted.front._process.stdin.close()
        assert fronted.front._process.wait(60) == 0
