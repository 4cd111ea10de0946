"""`typicality` of tzk_nll: a number where the model can tell, a reason where it cannot."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_model import SIDE, png, tiny_model

from tzk_core.data.quantisation import dequantise
from tzk_core.randomness import Rows
from tzk_core.service.service import Service
from tzk_core.service.wire import RawRequest
from tzk_core.typicality import Typicality, stored_typicality
from tzk_core.typicality_statistics import forward, png_probe, statistic_names, statistics


@torch.no_grad()
def values_of(model, seeds) -> torch.Tensor:
    """Statistics of pictures of noise, as `png` makes them."""
    pixels = torch.from_numpy(
        np.stack(
            [
                np.random.default_rng(seed).integers(0, 256, (1, SIDE, SIDE), dtype=np.uint8)
                for seed in seeds
            ]
        )
    )
    t = dequantise(pixels, Rows(seeds).uniform(1, SIDE, SIDE))
    return statistics(forward(model, t), pixels)


@pytest.fixture(scope="module")
def service():
    model = tiny_model()
    names = statistic_names(model)
    first, second = values_of(model, range(1000, 1200)), values_of(model, range(2000, 2400))
    found = Typicality.fit(names, first, second)
    model.statistics["typicality"] = found.model_dump(mode="json")
    return Service(model)


def nll(service, **asked):
    [answer] = service.answer("tzk_nll", [RawRequest(**asked)])
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def test_it_is_the_stored_tail_of_the_image(service):
    told = nll(service, fields={"image": png(seed=7), "seed": b"7"})
    expected = stored_typicality(service.model).tail(values_of(service.model, [7]))
    assert told["typicality"] == pytest.approx(float(expected), abs=0.01)
    assert told["reasons"] == {}
    given = nll(service, fields={"image": png(seed=7), "seed": b"7"}, url_path="mnist")
    assert given["typicality"] == told["typicality"]  # of p(t), whatever is given


def test_it_is_repeatable_and_the_same_among_strangers(service):
    asked = RawRequest(fields={"image": png(seed=7), "seed": b"7"})
    strangers = [RawRequest(fields={"image": png(seed=i)}) for i in range(8)]
    [alone] = service.answer("tzk_nll", [asked])
    together = service.answer("tzk_nll", [*strangers, asked])[-1]
    assert json.loads(alone.body)["typicality"] == json.loads(together.body)["typicality"]
    many = nll(service, fields={"image": png(seed=7), "seed": b"7", "draws": b"16"})
    assert many["typicality"] == json.loads(alone.body)["typicality"]


def test_a_flat_image_is_unusual_among_noise(service):
    from tzk_core.data.decoding import encode_png

    flat = encode_png(np.full((1, SIDE, SIDE), 128, dtype=np.uint8))
    assert nll(service, body=flat)["typicality"] == pytest.approx(1 / 401)


def test_a_model_without_it_says_so():
    told = nll(Service(tiny_model()), body=png())
    assert told["typicality"] is None
    assert "stored" in told["reasons"]["typicality"]


def test_another_zlib_is_told(service):
    model = tiny_model()
    stored = service.model.statistics["typicality"]
    model.statistics["typicality"] = stored | {"png_probe": [2 * n for n in png_probe()]}
    told = nll(Service(model), body=png())
    assert told["typicality"] is None
    assert "zlib" in told["reasons"]["typicality"]
    assert told["nll_nats"] is not None
