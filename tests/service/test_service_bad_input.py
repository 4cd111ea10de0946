"""Whatever is wrong with a request, its answer says what would be right, and is 4xx."""

from __future__ import annotations

import base64
import json
import time

import pytest
from tiny_model import PATHS, bomb, png

from tzk_core.service.wire import PROBLEM, RawRequest

PNG = png()
B64 = base64.b64encode(PNG).decode()
FORM = {"content-type": "application/x-www-form-urlencoded", "content-length": "9"}
MULTIPART = {"content-type": "multipart/form-data; boundary=x", "content-length": "3"}
DEEP = b'{"n":' + b"[" * 100_000
AS_JSON = {"content-type": "application/json"}

BAD = {
    "no image": ("tzk_nll", RawRequest(body=b"no image"), 400, "/image", "PNG"),
    "truncated": ("tzk_nll", RawRequest(body=PNG[:150]), 400, "/image", "cut off"),
    "bomb": ("tzk_nll", RawRequest(body=bomb()), 413, "/image", "64 megapixels"),
    "empty": ("tzk_nll", RawRequest(body=b""), 400, None, "curl -T"),
    "empty field": ("tzk_nll", RawRequest(fields={"image": b""}), 400, None, "empty"),
    "json as a form": (
        "tzk_sample",
        RawRequest(body=None, headers=FORM),
        415,
        None,
        "application/json",
    ),
    "json as a body": ("tzk_nll", RawRequest(body=b'{"n": 3}'), 415, None, "application/json"),
    "no multipart": ("tzk_nll", RawRequest(body=None, headers=MULTIPART), 422, None, "curl -F"),
    "broken json": (
        "tzk_sample",
        RawRequest(body=b'{"n": 3', headers=AS_JSON),
        422,
        "",
        "line 1 column",
    ),
    "deep json": ("tzk_sample", RawRequest(body=DEEP, headers=AS_JSON), 422, "", "JSON"),
    "json number": ("tzk_sample", RawRequest(body=3), 422, "", "object"),
    "json with base64 as a form": (
        "tzk_nll",
        RawRequest(fields={'{"image": "iVBORw0KGgo': b'="}'}, headers=FORM),
        415,
        None,
        "Content-Type: application/json",
    ),
    "json null": ("tzk_nll", RawRequest(body=None, headers=AS_JSON), 422, "", "an object"),
    "a field of another name": (
        "tzk_sample",
        RawRequest(fields={"file": PNG}),
        422,
        "/file",
        "no such field",
    ),
    "empty list": ("tzk_sample", RawRequest(body=[]), 422, "", "1 to 64"),
    "long list": ("tzk_sample", RawRequest(body=[{}] * 65), 413, None, "1 to 64"),
    "unknown": ("tzk_sample", RawRequest(url_path="kanji"), 404, "/given", "mnist/3"),
    "unknown child": ("tzk_nll", RawRequest("mnist/9", body=PNG), 404, "/given", "mnist/3"),
    "no name": ("tzk_sample", RawRequest(url_path="Mnist"), 422, "/given", "did you mean 'mnist'"),
    "two paths": (
        "tzk_sample",
        RawRequest("mnist", body={"given": "fashion"}),
        422,
        "/given",
        "one of them",
    ),
    "n = 0": ("tzk_sample", RawRequest(body={"n": 0}), 422, "/n", "1 to 256"),
    "n = 10⁶": ("tzk_sample", RawRequest(fields={"n": b"1000000"}), 422, "/n", "1 to 256"),
    "n = true": ("tzk_sample", RawRequest(body={"n": True}), 422, "/n", "1 to 256"),
    "temperature < 0": (
        "tzk_sample",
        RawRequest(body={"temperature": -0.5}),
        422,
        "/temperature",
        "0 or more",
    ),
    "temperature nan": (
        "tzk_sample",
        RawRequest(fields={"temperature": b"nan"}),
        422,
        "/temperature",
        "finite",
    ),
    "temperature huge": (
        "tzk_sample",
        RawRequest(body={"temperature": 1e38}),
        422,
        "/temperature",
        "0 to 1",
    ),
    "seed of text": ("tzk_sample", RawRequest(fields={"seed": b"abc"}), 422, "/seed", "2^63"),
    "seed too large": ("tzk_sample", RawRequest(body={"seed": 2**63}), 422, "/seed", "2^63"),
    "seed no utf-8": ("tzk_sample", RawRequest(fields={"seed": b"\xff"}), 422, "/seed", "UTF-8"),
    "no such field": ("tzk_nll", RawRequest(body={"image": B64, "n": 1}), 422, "/n", "draws"),
    "draws = 3": ("tzk_nll", RawRequest(body={"image": B64, "draws": 3}), 422, "/draws", "16"),
    "no base64": ("tzk_nll", RawRequest(body={"image": "§"}), 422, "/image", "base64"),
    "no string": ("tzk_nll", RawRequest(body={"image": 5}), 422, "/image", "base64"),
    "missing": ("tzk_posterior", RawRequest(body={}), 422, "/image", "base64"),
    "unknown among many": (
        "tzk_posterior",
        RawRequest(fields={"image": PNG, "knowledge": b"mnist, kanji"}),
        404,
        "/knowledge",
        "kanji",
    ),
    "image to sample": ("tzk_sample", RawRequest(body=PNG), 415, None, "no image"),
    "raw to interpolate": ("tzk_interpolate", RawRequest(body=PNG), 422, "/images", "image1"),
    "three images": ("tzk_interpolate", RawRequest(body={"images": [B64] * 3}), 422, "/images", ""),
    "a gap": (
        "tzk_interpolate",
        RawRequest(fields={"image1": PNG, "image3": PNG}),
        422,
        "/images",
        "image2",
    ),
    "bad second": (
        "tzk_interpolate",
        RawRequest(fields={"image1": PNG, "image2": b"x"}),
        400,
        "/images/1",
        "PNG",
    ),
    "steps of text": (
        "tzk_interpolate",
        RawRequest(fields={"image1": PNG, "image2": PNG, "steps": b"many"}),
        422,
        "/steps",
        "8x8",
    ),
    "too many steps": (
        "tzk_interpolate",
        RawRequest(body={"images": [B64] * 4, "steps": [200, 200]}),
        422,
        "/steps",
        "256",
    ),
    "c without given": (
        "tzk_interpolate",
        RawRequest(body={"images": [B64] * 2, "space": "c"}),
        422,
        "/given",
        "code",
    ),
    "picture in a list": ("tzk_sample", RawRequest(body=[{"format": "png"}]), 200, None, "alone"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_problem_details(service, name):
    endpoint, raw, status, pointer, said = BAD[name]
    began = time.process_time()  # seconds of the clock would be of the machine too
    [answer] = service.answer(endpoint, [raw])
    assert time.process_time() - began < 1
    assert answer.status == status
    problem = json.loads(answer.body)
    if status == 200:  # a list, whose item is the problem
        [problem] = problem
    else:
        assert answer.content_type == PROBLEM
        assert problem["status"] == status
    assert pointer is None or problem["pointer"] == pointer
    assert said in problem["detail"]
    assert problem["title"]
    assert answer.phrase.isascii()


def test_unknown_knowledge_lists_what_there_is(service):
    [answer] = service.answer("tzk_sample", [RawRequest(url_path="kanji")])
    assert json.loads(answer.body)["known"] == PATHS


def test_every_wrong_field_is_told(service):
    raw = RawRequest(body={"n": 0, "seed": "x", "more": 1})
    problem = json.loads(service.answer("tzk_sample", [raw])[0].body)
    assert {one["pointer"] for one in problem["errors"]} == {"/n", "/seed", "/more"}


def test_nobody_foresaw(service, monkeypatch, caplog):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(type(service.model), "posterior", broken)
    [answer] = service.answer("tzk_posterior", [RawRequest(body=PNG)])
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert "secret" in caplog.text


def test_out_of_memory_is_507(service, monkeypatch):
    def full(*_args, **_kwargs):
        raise MemoryError

    monkeypatch.setattr(type(service.model), "posterior", full)
    [answer] = service.answer("tzk_posterior", [RawRequest(body=PNG)])
    assert answer.status == 507
