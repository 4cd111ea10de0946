"""Bad input to a real server: a 4xx problem that says what would be right, soon, worker alive."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_model import bomb, png

IMAGE = png()
PROBLEM = "application/problem+json"

# endpoint and path, what httpx sends, status, what is said
BAD = {
    "no image": ("tzk_nll", {"content": b"no image"}, 400, "no image"),
    "truncated": ("tzk_posterior", {"content": IMAGE[:150]}, 400, "cut off"),
    "bomb": ("tzk_nll", {"content": bomb()}, 413, "64 megapixels"),
    "empty body": ("tzk_nll", {"content": b""}, 400, "empty"),
    "json without its type": (
        "tzk_sample",
        {"content": b'{"n": 3}', "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        415,
        "Content-Type: application/json",
    ),
    "json with base64 without its type": (
        "tzk_nll",
        {
            "content": b'{"image": "iVBORw0KGgo=", "seed": 1}',
            "headers": {"Content-Type": "application/x-www-form-urlencoded"},
        },
        415,
        "Content-Type: application/json",
    ),
    "json null": (
        "tzk_nll",
        {"content": b"null", "headers": {"Content-Type": "application/json"}},
        422,
        "an object",
    ),
    "a field of another name": (
        "tzk_sample",
        {"files": {"file": ("x.png", IMAGE)}},
        422,
        "no such",
    ),
    "json without any type": ("tzk_nll", {"content": b'{"n": 3}'}, 415, "application/json"),
    "broken json": (
        "tzk_sample",
        {"content": b'{"n": 3', "headers": {"Content-Type": "application/json"}},
        422,
        "no JSON",
    ),
    "text": (
        "tzk_nll",
        {"content": "ünïcode".encode(), "headers": {"Content-Type": "text/plain"}},
        400,
        "no image",
    ),
    "unknown knowledge": ("tzk_sample/1.0/kanji", {}, 404, "there is mnist, mnist/3, fashion"),
    "path with an odd name": ("tzk_sample/1.0/K%C3%A4nji", {}, 422, "did you mean"),
    "n = 0": ("tzk_sample", {"json": {"n": 0}}, 422, "1 to 256"),
    "n = 10⁶": ("tzk_sample", {"files": {"n": (None, "1000000")}}, 422, "1 to 256"),
    "negative temperature": ("tzk_sample", {"json": {"temperature": -1}}, 422, "0 or more"),
    "seed of text": ("tzk_sample", {"files": {"seed": (None, "abc")}}, 422, "2^63"),
    "one image": ("tzk_interpolate", {"content": IMAGE}, 422, "image1"),
    "multipart of nothing": (
        "tzk_nll",
        {"content": b"abc", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        422,
        "curl -F",
    ),
    "surrogates": (
        "tzk_sample",
        {"content": b'{"given": "\\ud800"}', "headers": {"Content-Type": "application/json"}},
        422,
        "valid string",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(http, pids, name):
    where, sent, status, said = BAD[name]
    before = pids()
    began = time.monotonic()
    answer = http.post(f"/predictions/{where}", **sent)
    took = time.monotonic() - began
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem = answer.json()
    assert problem["status"] == status
    assert said in problem["detail"]
    assert took < 1
    assert pids() == before
    assert http.put("/predictions/tzk_nll", content=IMAGE).status_code == 200


def test_body_over_the_limit(http, pids):
    before = pids()
    answer = http.put("/predictions/tzk_nll", content=bytes(17 * 2**20))
    assert answer.status_code == 413
    assert pids() == before


def test_what_asks_for_too_much_keeps_no_stranger_waiting(http, pids):
    """64 requests of 256 images each would take a worker for minutes."""
    before = pids()
    greedy = [{"n": 256, "given": "mnist"}] * 64
    with ThreadPoolExecutor(4) as pool:
        refused = [
            pool.submit(http.post, "/predictions/tzk_sample", json=greedy) for _ in range(40)
        ]
        while not all(one.done() for one in refused):
            began = time.monotonic()
            assert http.get("/predictions/tzk_sample").status_code == 200
            assert time.monotonic() - began < 5
    for one in refused:
        answer = one.result()
        assert (answer.status_code, answer.json()["pointer"]) == (422, "/1/n")
    assert pids() == before


def test_get_is_for_sample_only(http):
    assert http.get("/predictions/tzk_sample").status_code == 200
    for endpoint in ("tzk_nll", "tzk_posterior", "tzk_interpolate"):
        assert http.get(f"/predictions/{endpoint}").status_code == 400
