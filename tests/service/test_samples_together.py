"""Samples of many requests come from few draws, and each is what it is alone, to the byte."""

from __future__ import annotations

import base64
import json

import pytest
from tiny_model import tiny_model

from tzk_core import lineage
from tzk_core.conditional import Conditional
from tzk_core.service.service import ENDPOINTS, Service
from tzk_core.service.sizes import using
from tzk_core.service.warm import agreeing_sizes
from tzk_core.service.wire import RawRequest


@pytest.fixture(scope="module")
def loaded():
    """A service, and the sizes of batch that its worker would find."""
    model = tiny_model()
    found = [set(agreeing_sizes(model, name).kinds) for name in ENDPOINTS]
    return Service(model), set.intersection(*found)


@pytest.fixture
def service(loaded):
    made, sizes = loaded
    with using(sizes):
        yield made


@pytest.fixture
def drawn(monkeypatch):
    """How many images each call of ``draw`` was asked for, of one kind."""
    counts, real = [], Conditional.draw

    def draw(self, n, **options):
        counts.append(n)
        return real(self, n, **options)

    monkeypatch.setattr(Conditional, "draw", draw)
    return counts


def sampled(service, asked):
    return service.answer("tzk_sample", [RawRequest(body=one) for one in asked])


def alone(service, asked):
    return [sampled(service, [one])[0] for one in asked]


@pytest.mark.parametrize("given", ["mnist", "mnist/3", None])
def test_strangers_get_what_they_would_get_alone(service, given):
    formats = ["json", "png", "json", "npy", "json", "grid"]
    asked = [
        {"seed": 100 * i, "n": 1 + i % 3, "format": formats[i % 6]}
        | ({"given": given} if given else {})
        for i in range(16)
    ]
    for expected, got in zip(alone(service, asked), sampled(service, asked), strict=True):
        assert got.status == 200
        assert got.body == expected.body
        assert got.headers == expected.headers


def test_json_is_drawn_with_the_others(service, drawn):
    asked = [{"given": "mnist", "seed": i, "format": "json"} for i in range(8)]
    asked += [{"given": "mnist", "seed": i} for i in range(8)]
    sampled(service, asked)
    assert drawn == [16]


def test_a_json_list_is_one_draw(service, drawn):
    listed = [{"given": "mnist", "seed": i} for i in range(16)]
    [answer] = service.answer("tzk_sample", [RawRequest(body=listed)])
    assert drawn == [16]
    singles = alone(service, [one | {"format": "json"} for one in listed])
    assert json.loads(answer.body) == [json.loads(one.body) for one in singles]


@pytest.mark.parametrize(
    ("other", "draws"),
    [
        ({"given": "fashion"}, 2),
        ({"temperature": 0.5}, 2),
        ({"code_temperature": 0.5}, 2),
        ({"paper_sampler": True}, 2),
        ({"given": ["mnist", "fashion"]}, 1),  # and one each of the product
    ],
)
def test_other_options_are_another_draw(service, drawn, other, draws):
    asked = [{"given": "mnist", "seed": i, "format": "json"} for i in range(4)]
    mixed = [asked[0], asked[1] | other, asked[2], asked[3] | other]
    together = sampled(service, mixed)
    assert len(drawn) == draws
    assert [one.body for one in together] == [one.body for one in alone(service, mixed)]


def test_a_rate_is_of_the_requests_own_seeds(service):
    asked = [{"given": "mnist", "seed": seed, "format": "json"} for seed in range(16)]
    told = [json.loads(one.body)["acceptance_rate"] for one in sampled(service, asked)]
    kind = service.model.given("mnist")
    assert told == pytest.approx([kind.draw(1, seed=seed).acceptance_rate for seed in range(16)])
    assert len(set(told)) > 1  # so that the seeds can be told apart


def test_a_request_whose_code_was_resampled_says_so_and_its_neighbours_do_not(service, monkeypatch):
    monkeypatch.setattr(lineage, "ROUNDS", 1)
    monkeypatch.setattr(lineage, "TRIES_A_ROUND", 1)
    asked = [{"given": "mnist", "seed": seed, "format": "json"} for seed in range(16)]
    kind = service.model.given("mnist")
    exact = [kind.draw(1, seed=seed).exact for seed in range(16)]
    assert 0 < sum(exact) < 16
    together = sampled(service, asked)
    for answer, expected, own in zip(together, alone(service, asked), exact, strict=True):
        told = json.loads(answer.body)
        assert told["exact"] is own
        assert (told["effective_sample_size"] is None) is own
        assert (answer.body, answer.headers) == (expected.body, expected.headers)
    pictures = [one | {"format": "png"} for one in asked]
    for answer, expected in zip(sampled(service, pictures), alone(service, pictures), strict=True):
        assert answer.headers == expected.headers


def test_likelihoods_are_those_of_scoring(service):
    """The picture as sent, scored with its seed, from another endpoint's code."""
    asked = [{"given": "mnist", "seed": seed, "n": 2, "format": "json"} for seed in (3, 30, 300)]
    for answer in sampled(service, [*asked, {"given": "mnist", "seed": 9}])[:3]:
        for image in json.loads(answer.body)["images"]:
            scored = RawRequest(
                fields={
                    "image": base64.b64decode(image["png"]),
                    "seed": str(image["seed"]).encode(),
                }
            )
            [nll] = service.answer("tzk_nll", [scored])
            assert json.loads(nll.body)["nll_nats"] == image["nll_nats"]
