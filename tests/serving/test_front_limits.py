"""Too much, too large, too slow, gone: each is bounded, and the front goes on serving."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from serving.stub_torchserve import FrontOnStub, ask_for_nothing, read_all, slow, until

from tzk_core.front import protocol

LIMIT = 2**20
IN_HAND = 4
HEAD = b"PUT /predictions/tzk_nll HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def fronted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("front")
    with FrontOnStub(folder, body_limit=LIMIT, in_hand=IN_HAND) as fronted:
        until(lambda: fronted.table()["ready"])
        yield fronted


@pytest.fixture(scope="module")
def http(fronted):
    with httpx.Client(base_url=fronted.url, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture(autouse=True)
def serves_afterwards(fronted, http):
    yield
    fronted.stub.answer = ask_for_nothing
    until(lambda: not fronted.table()["models"]["tzk_nll"]["in_hand"])
    assert fronted.table()["bytes_held"] == 0
    assert http.put("/predictions/tzk_nll", content=b"x").status_code == 200


def test_full_is_said_at_once(fronted, http):
    """As many as may are in hand; the others are told before the first of those is done."""
    go = threading.Event()

    def held(request, body):
        go.wait(60)
        return ask_for_nothing(request, body)

    fronted.stub.answer = held
    with ThreadPoolExecutor(IN_HAND) as pool:
        taken = [
            pool.submit(httpx.put, f"{fronted.url}/predictions/tzk_nll", content=b"x", timeout=90)
            for _ in range(IN_HAND)
        ]
        try:
            until(lambda: fronted.table()["models"]["tzk_nll"]["in_hand"] == {"1.0": IN_HAND})
            refused = [http.put("/predictions/tzk_nll", content=b"x") for _ in range(20)]
            assert not any(one.done() for one in taken)
            assert http.get("/ready").status_code == 200
        finally:
            go.set()
        for answer in refused:
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert "as many as it may" in answer.json()["detail"]
        assert [one.result().status_code for one in taken] == [200] * IN_HAND


def test_body_over_the_limit_announced(fronted, http):
    asked = len(fronted.stub.asked)
    answer = http.put("/predictions/tzk_nll", content=bytes(LIMIT + 1))
    assert (answer.status_code, answer.json()["status"]) == (413, 413)
    assert "1 MiB" in answer.json()["detail"]
    assert http.put("/predictions/tzk_nll", content=bytes(LIMIT)).json()["bytes"] == LIMIT
    assert len(fronted.stub.asked) == asked + 1


def test_body_over_the_limit_counted(http):
    """Without a Content-Length; more than is thrown away after the answer is never read."""
    pieces = (bytes(64 * 1024) for _ in range(20 * LIMIT // (64 * 1024)))
    assert http.post("/predictions/tzk_nll", content=pieces).status_code == 413


def test_a_body_that_need_not_be_sent(fronted):
    with fronted.connect() as connection:
        big = HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
        connection.sendall(big)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "flood",
    [
        b"".join(b"X-%d: y\r\n" % i for i in range(protocol.MOST_HEADERS + 1)) + b"\r\n",
        b"X: " + bytes(protocol.HEAD_BYTES).replace(b"\0", b"y") + b"\r\n\r\n",
        b"X: " + bytes(2 * 2**20).replace(b"\0", b"y"),
    ],
    ids=["many", "long", "without end"],
)
def test_a_flood_of_headers(fronted, flood):
    with fronted.connect() as connection:
        answer = b""
        # It may be closed while we write, which is right too.
        with contextlib.suppress(OSError):
            connection.sendall(HEAD + flood)
        with contextlib.suppress(OSError):
            answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 431 ") or (not answer and len(flood) > 2**20)


@pytest.mark.parametrize(
    "nonsense", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"PUT / HTTP/9.9\r\n\r\n"]
)
def test_what_is_no_http(fronted, nonsense):
    with fronted.connect() as connection:
        connection.sendall(nonsense)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer


def test_clients_that_leave_are_bounded(fronted, http):
    """Their requests stay in hand until TorchServe has answered, so that it is never flooded."""
    fronted.stub.answer = slow(1.0)
    for _ in range(3 * IN_HAND):
        with fronted.connect() as connection:
            connection.sendall(HEAD + b"Content-Length: 1\r\n\r\nx")
            time.sleep(0.01)
    assert sum(fronted.table()["models"]["tzk_nll"]["in_hand"].values()) <= IN_HAND
    until(lambda: not fronted.table()["models"]["tzk_nll"]["in_hand"])


def test_a_client_that_leaves_in_the_middle(fronted):
    asked = len(fronted.stub.asked)
    with fronted.connect() as connection:
        connection.sendall(HEAD + b"X-Request-Id: left\r\nContent-Length: 1000\r\n\r\nxxx")
        time.sleep(0.1)
    until(lambda: any(line["id"] == "left" for line in fronted.log()))
    assert next(line for line in fronted.log() if line["id"] == "left")["status"] == 499
    assert len(fronted.stub.asked) == asked


def test_slow_senders(fronted, http):
    """Of the head and of the body: each is told and closed, and others do not wait for them."""
    with fronted.connect() as head, fronted.connect() as body, fronted.connect() as nothing:
        head.sendall(HEAD)
        body.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        ended: dict[str, bytes] = {}

        def dripping(name, connection, drop):
            try:
                while not ended.get(name):
                    connection.sendall(drop)
                    time.sleep(0.5)
            except OSError:
                return

        threads = [
            threading.Thread(target=dripping, args=("head", head, b"X: y\r\n")),
            threading.Thread(target=dripping, args=("body", body, b"x")),
        ]
        for thread in threads:
            thread.start()
        assert http.put("/predictions/tzk_nll", content=b"x").status_code == 200
        for name, connection in (("nothing", nothing), ("head", head), ("body", body)):
            ended[name] = read_all(connection) or b"closed"
        for thread in threads:
            thread.join()
    assert ended["nothing"] == b"closed"
    assert ended["head"].startswith(b"HTTP/1.1 408 ")
    assert ended["body"].startswith(b"HTTP/1.1 408 ")
    until(lambda: any(line["status"] == 408 for line in fronted.log()))
