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
    assert 0 < nll(service, body=flat)["typicality"] < 1 / 401


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


def far(found: Typicality, distances) -> torch.Tensor:
    """Statistics at the given distances, found by going out along the first of them."""
    middle = torch.tensor([[row[len(row) // 2] for row in found.knots]], dtype=torch.float64)
    out = torch.zeros_like(middle)
    out[0, 0] = found.knots[0][-1] - found.knots[0][0]
    places = []
    for wanted in distances:
        low, high = 0.0, 1e6
        for _ in range(100):
            half = (low + high) / 2
            low, high = (
                (half, high) if found.distance(middle + half * out) < wanted else (low, half)
            )
        places.append(middle + high * out)
    return torch.cat(places)


def test_beyond_all_calibration_images_it_goes_on_falling(service):
    found = stored_typicality(service.model)
    farthest, least = found.calibration[-1], 1 / 401
    places = far(found, [farthest * factor for factor in (1.000001, 1.5, 2, 10, 1e4)])
    tails = found.tail(places).tolist()
    assert tails[0] == pytest.approx(least, rel=1e-3)  # it joins on without a step
    assert tails == sorted(tails, reverse=True)
    assert len(set(tails)) == 5
    assert 0 < tails[-1] < tails[0] < least
    assert tails[2] == pytest.approx(least * (1 + farthest) / (1 + 2 * farthest), rel=1e-6)


def test_at_every_level_that_the_calibration_can_tell_it_is_the_rank_alone(service):
    """So it is a p-value there: at most a share α of images like the held-out ones is below α."""
    found = stored_typicality(service.model)
    fresh = values_of(service.model, range(5000, 5400))
    odd = fresh.clone()
    odd[:, 0] += torch.linspace(0, 30, len(odd)) * fresh[:, 0].std()
    distances, calibration = found.distance(odd), torch.tensor(found.calibration).double()
    beyond = (calibration[None] >= distances[:, None]).sum(1)
    rank = (1 + beyond).double() / (len(calibration) + 1)
    tails = found.tail(odd)
    assert (beyond == 0).sum() > 100
    for level in range(1, 402):
        assert torch.equal(tails <= level / 401, rank <= level / 401)
    # Nothing is tied beyond, which is what AUROC wants, and nothing changes before.
    assert len(tails[beyond == 0].unique()) == (beyond == 0).sum()
    assert torch.equal(tails[beyond > 0], rank[beyond > 0])
    order = distances.argsort()
    assert (tails[order].diff() <= 0).all()


def test_what_is_stored_is_checked_once_for_each_model(service, monkeypatch):
    from tzk_core.service import usual

    calls, real = [], usual.stored_typicality
    monkeypatch.setattr(usual, "stored_typicality", lambda m: calls.append(m) or real(m))
    stored, one, other = service.model.statistics["typicality"], tiny_model(), tiny_model()
    one.statistics["typicality"] = stored
    loaded = Service(one), Service(other)
    told = [[nll(each, body=png(seed=i))["typicality"] for i in range(3)] for each in loaded]
    assert calls == [one, other]
    assert None not in told[0]
    assert told[1] == [None] * 3  # though its neighbour could tell
    # What training stores later counts from then on.
    other.statistics["typicality"] = stored
    assert nll(loaded[1], body=png())["typicality"] is not None
    other.statistics["held_out_log_prob"] = [-1e6, 1e6]
    assert nll(loaded[1], body=png())["percentile"] == 50
    assert calls == [one, other, other, other]
