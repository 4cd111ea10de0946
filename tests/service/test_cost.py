"""What one HTTP request may cost, and that a batch's memory does not grow with what it asks for."""

from __future__ import annotations

import base64
import json
import weakref

import pytest
import torch
from tiny_model import png

from tzk_core.errors import InvalidRequest
from tzk_core.service import sample as sampling
from tzk_core.service.fields import MOST_IMAGES
from tzk_core.service.openapi_schemas import REQUESTS
from tzk_core.service.parsing import parse
from tzk_core.service.requests import SampleRequest
from tzk_core.service.seeds import ROWS_AT_ONCE
from tzk_core.service.wire import RawRequest

B64 = base64.b64encode(png()).decode()
SCORED, BETWEEN = {"image": B64}, {"images": [B64] * 4, "steps": [8, 16]}
SEVERAL = {"given": ["mnist", "fashion"]}

MAY = {
    "a list of images": ("tzk_sample", [{"n": 4}] * 64),
    "several kinds": ("tzk_sample", SEVERAL | {"n": 16}),
    "one kind by two names": ("tzk_sample", {"given": "mnist", "path": "mnist", "n": 256}),
    "sheets": ("tzk_interpolate", [BETWEEN] * 2),
    "a list of pictures": ("tzk_nll", [SCORED] * 64),
    "pictures given a kind": ("tzk_nll", [SCORED | {"given": "mnist"}] * 64),
    "draws of noise": ("tzk_nll", SCORED | {"draws": 256}),
    "draws of codes": ("tzk_nll", [SCORED | {"given": "mnist", "draws": 256}] * 16),
    "posteriors": ("tzk_posterior", [SCORED] * 64),
    "posteriors by the decoder": ("tzk_posterior", [SCORED | {"decoder_draws": 256}] * 16),
    "what is wrong costs nothing": ("tzk_sample", [{"n": 200}, {"n": 257}, {"n": 56}]),
}
MAY_NOT = {
    "a list of images": ("tzk_sample", [{"n": 4}] * 63 + [{"n": 5}], "/63/n"),
    "two": ("tzk_sample", [{"n": 1}, {"n": 256}, {"n": 256}], "/1/n"),
    "several kinds": ("tzk_sample", SEVERAL | {"n": 17}, "/n"),
    "one absent": ("tzk_sample", {"given": "mnist", "absent": "fashion", "n": 17}, "/n"),
    "sheets": ("tzk_interpolate", [BETWEEN, BETWEEN, BETWEEN | {"steps": 2}], "/2/steps"),
    "draws of noise": ("tzk_nll", [SCORED, SCORED | {"draws": 256}], "/1/draws"),
    "draws of codes": ("tzk_nll", [SCORED | {"given": "mnist", "draws": 256}] * 17, "/16/draws"),
    "posteriors": ("tzk_posterior", [SCORED | {"draws": 256}] * 17, "/16/draws"),
    "posteriors by the decoder": (
        "tzk_posterior",
        [SCORED | {"decoder_draws": 256}] * 17,
        "/16/decoder_draws",
    ),
}


@pytest.mark.parametrize("name", MAY)
def test_what_may_be_asked_at_once(name):
    endpoint, body = MAY[name]
    parsed = parse(RawRequest(body=body), REQUESTS[endpoint])
    assert len(parsed.items) == (len(body) if parsed.listed else 1)
    wrong = [one for one in parsed.items if isinstance(one, Exception)]
    assert len(wrong) == (1 if name.startswith("what is wrong") else 0)


@pytest.mark.parametrize("name", MAY_NOT)
def test_what_is_too_much(service, name):
    endpoint, body, pointer = MAY_NOT[name]
    [answer] = service.answer(endpoint, [RawRequest(body=body)])
    assert answer.status == 422
    told = json.loads(answer.body)  # the request's own problem, not a list with one item wrong
    assert told["pointer"] == pointer
    assert f"{MOST_IMAGES} is the most" in told["detail"]


def test_names_in_the_url_count_too():
    raw = RawRequest(url_path="mnist,fashion", fields={"n": b"17"})
    [found] = parse(raw, REQUESTS["tzk_sample"]).items
    assert isinstance(found, InvalidRequest)
    assert found.pointer == "/n"


def test_one_batch_is_in_memory_at_a_time(service, monkeypatch):
    """Of many large requests together: the last batch's images are gone when the next is drawn."""
    alive, sizes, real = [], [], sampling._draw

    def draw(distribution, seeds):
        assert [one for one in alive if one() is not None] == []
        drawn = real(distribution, seeds)
        sizes.append(len(drawn.images))
        alive[:] = [weakref.ref(drawn.images), *map(weakref.ref, drawn.codes)]
        return drawn

    monkeypatch.setattr(sampling, "_draw", draw)
    asked = [SampleRequest(n=100, seed=1000 * i, given=["mnist"], format="npy") for i in range(4)]
    together = service.sample(asked)
    assert len(sizes) == 7
    assert max(sizes) == ROWS_AT_ONCE
    alive.clear()
    for one, expected in zip(together, [service.sample([one])[0] for one in asked], strict=True):
        assert torch.equal(torch.from_numpy(one.pixels), torch.from_numpy(expected.pixels))
        assert one.seeds == expected.seeds
