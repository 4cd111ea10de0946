"""What the endpoints answer when all is well."""

from __future__ import annotations

import base64
import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_model import PATHS, SIDE, png

from tzk_core.data.quantisation import dequantise, to_pixels
from tzk_core.randomness import Rows
from tzk_core.service.negotiation import accepted
from tzk_core.service.requests import SampleRequest
from tzk_core.service.wire import JSON, NPY, PNG, RawRequest, header_text, normalised


def one(service, endpoint, **raw):
    [answer] = service.answer(endpoint, [RawRequest(**raw)])
    assert answer.status == 200, answer.body
    return answer


def body(answer):
    assert answer.content_type == JSON
    return json.loads(answer.body)


def size(data):
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert picture.format == "PNG"
        return picture.size


# -- tzk_nll ---------------------------------------------------------------------------------------


def test_nll_is_the_models_own(service, image):
    told = body(one(service, "tzk_nll", fields={"image": image, "seed": b"7"}))
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(image))))[None, None]
    t = dequantise(pixels, Rows([7]).uniform(1, SIDE, SIDE))
    log_prob = service.model.prior.log_prob(t).item()
    assert told["nll_nats"] == pytest.approx(SIDE**2 * math.log(256) - log_prob, rel=1e-6)
    assert told["bits_per_dim"] == pytest.approx(told["nll_nats"] / SIDE**2 / math.log(2))
    assert told["estimator"] == "prior"
    assert told["seed"] == 7
    assert told["typicality"] is None
    assert told["reasons"]["typicality"]
    assert 0 <= told["percentile"] <= 100


def test_nll_counts_native_dims(service):
    told = body(one(service, "tzk_nll", body=png(8)))
    assert (told["dims"], told["dims_native"]) == (256, 64)
    assert told["bits_per_dim_native"] == pytest.approx(4 * told["bits_per_dim"])
    assert "padded" in told["notes"][0]


def test_raw_multipart_and_json_agree(service, image):
    encoded = base64.b64encode(image).decode()
    ways = [
        {"fields": {"image": image, "seed": b"7"}},
        {"body": {"image": encoded, "seed": 7}},
        {"body": {"image": "data:image/png;base64," + encoded, "seed": 7}},
        {
            "body": json.dumps({"image": encoded, "seed": 7}).encode(),
            "headers": {"content-type": "application/json; charset=utf-8"},
        },
    ]
    answers = [body(one(service, "tzk_nll", **way)) for way in ways]
    assert all(answer == answers[0] for answer in answers)
    assert body(one(service, "tzk_nll", body=image))["dims"] == answers[0]["dims"]


@pytest.mark.parametrize("way", ["url", "field"])
def test_nll_given(service, image, way):
    raw = {"url_path": "mnist/3"} if way == "url" else {}
    fields = {"image": image, "seed": b"7"} | ({} if raw else {"given": b"mnist/3"})
    told = body(one(service, "tzk_nll", fields=fields, **raw))
    assert (told["given"], told["estimator"], told["draws"]) == ("mnist/3", "importance", 16)


def test_more_draws_of_noise_average_likelihoods(service, image):
    alone, many = (
        body(one(service, "tzk_nll", fields={"image": image, "seed": b"7", "draws": draws}))
        for draws in (b"1", b"16")
    )
    assert many["draws"] == 16
    assert alone["percentile"] == many["percentile"]
    assert 0 < abs(alone["nll_nats"] - many["nll_nats"]) < 1


def test_numbers_that_are_not_finite_are_null(service, image, monkeypatch):
    from tzk_core.service import nll

    real = nll.forward
    monkeypatch.setattr(
        nll,
        "forward",
        lambda model, t: real(model, t)._replace(log_prob=torch.full((len(t),), math.nan)),
    )
    told = body(one(service, "tzk_nll", body=image))
    assert told["nll_nats"] is None
    assert "nan" in told["reasons"]["nll_nats"]


# -- tzk_sample ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "asked", "kind"),
    [
        ("*/*", {}, PNG),
        ("", {"n": 4}, PNG),
        ("application/json", {}, JSON),
        ("application/json", {"format": "png"}, PNG),
        ("image/png, application/json;q=0.5", {}, PNG),
        ("image/png;q=0.1, application/json", {}, JSON),
        ("application/x-npy", {"n": 2}, NPY),
        ("text/html", {}, PNG),
        ("", {"format": "npy"}, NPY),
    ],
)
def test_sample_formats(service, accept, asked, kind):
    answer = one(service, "tzk_sample", headers={"accept": accept}, body=asked)
    assert answer.content_type == kind


def test_sample_pictures(service):
    assert size(one(service, "tzk_sample", url_path="mnist").body) == (SIDE, SIDE)
    assert size(one(service, "tzk_sample", body={"n": 5}).body) == (3 * 18 + 2, 2 * 18 + 2)
    assert size(one(service, "tzk_sample", body={"format": "grid"}).body) == (20, 20)
    array = np.load(io.BytesIO(one(service, "tzk_sample", body={"n": 3, "format": "npy"}).body))
    assert (array.dtype, array.shape) == (np.uint8, (3, 1, SIDE, SIDE))


def test_sample_headers(service):
    answer = one(service, "tzk_sample", url_path="mnist/3", body={"seed": 2**63 - 1})
    assert answer.headers == {"X-Tzk-Seed": str(2**63 - 1), "X-Tzk-Path": "mnist/3"}
    assert "X-Tzk-Path" not in one(service, "tzk_sample").headers


def test_fresh_seeds_differ(service):
    seeds = {one(service, "tzk_sample").headers["X-Tzk-Seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_image_i_is_the_image_of_seed_plus_i(service):
    asked = {"given": "mnist", "n": 3, "seed": 2**63 - 2, "format": "json"}
    told = body(one(service, "tzk_sample", body=asked))
    assert [one["seed"] for one in told["images"]] == [2**63 - 2, 2**63 - 1, 0]
    assert 0 < told["acceptance_rate"] <= 1
    assert told["exact"]
    for image in told["images"]:
        alone = one(service, "tzk_sample", url_path="mnist", body={"seed": image["seed"]})
        assert base64.b64decode(image["png"]) == alone.body


@pytest.mark.parametrize(
    ("url_path", "asked"),
    [
        ("", {"given": ["mnist", "fashion"]}),
        ("", {"given": "mnist, fashion"}),
        ("mnist,fashion", {}),
    ],
)
def test_several_kinds_at_once(service, url_path, asked):
    """The product of the kinds: its images are not those of either alone."""
    answer = one(service, "tzk_sample", url_path=url_path, body=asked | {"seed": 1, "n": 2})
    assert answer.headers["X-Tzk-Path"] == "mnist,fashion"
    drawn = service.model.given("mnist", "fashion").draw(2, seed=1)
    pictures = to_pixels(drawn.images).numpy()
    raw = one(
        service,
        "tzk_sample",
        url_path=url_path,
        body=asked | {"seed": 1, "n": 2, "format": "npy"},
    )
    np.testing.assert_array_equal(np.load(io.BytesIO(raw.body)), pictures)


def test_absent_kinds(service):
    told = body(
        one(
            service,
            "tzk_sample",
            url_path="mnist",
            body={"absent": ["fashion"], "seed": 1, "format": "json"},
        )
    )
    assert told["path"] == "mnist,-fashion"
    assert told["exact"] is False
    drawn = service.model.given("mnist", absent=["fashion"]).draw(1, seed=1)
    assert told["effective_sample_size"] == pytest.approx(drawn.effective_sample_size, rel=1e-4)
    alone = body(one(service, "tzk_sample", body={"absent": "fashion", "format": "json"}))
    assert alone["path"] == "-fashion"
    assert alone["exact"] is True
    assert alone["effective_sample_size"] is None


def test_kinds_that_hardly_overlap_come_with_a_warning(service, monkeypatch):
    monkeypatch.setattr("tzk_core.composition.LOW_SAMPLE_SIZE", 1e9)
    monkeypatch.setattr("tzk_core.service.sample.LOW_SAMPLE_SIZE", 1e9)
    asked = {"given": ["mnist", "fashion"], "seed": 1}
    told = body(one(service, "tzk_sample", body=asked | {"format": "json"}))
    assert "hardly overlap" in told["notes"][0]
    answer = one(service, "tzk_sample", body=asked)
    assert "effective sample size of mnist,fashion" in answer.headers["X-Tzk-Notes"]


def test_sampled_nll_is_what_tzk_nll_says(service):
    [image] = body(one(service, "tzk_sample", body={"format": "json", "seed": 5}))["images"]
    told = body(one(service, "tzk_nll", body={"image": image["png"], "seed": 5}))
    assert told["nll_nats"] == pytest.approx(image["nll_nats"], rel=1e-6)


def test_more_images_than_go_at_once(service, monkeypatch):
    from tzk_core.service import seeds

    asked = {"given": "mnist", "n": 7, "seed": 3, "format": "npy"}
    whole = one(service, "tzk_sample", body=asked).body
    monkeypatch.setattr(seeds, "ROWS_AT_ONCE", 3)
    assert _close(whole, one(service, "tzk_sample", body=asked).body)


def _close(a: bytes, b: bytes) -> bool:
    first, second = (np.load(io.BytesIO(data)).astype(int) for data in (a, b))
    return np.abs(first - second).max() <= 1


# -- tzk_posterior ---------------------------------------------------------------------------------


def test_posterior_names_all(service, image):
    answer = one(service, "tzk_posterior", fields={"image": image, "seed": b"3"})
    told = body(answer)
    assert list(told) == PATHS
    for existence in told.values():
        assert 0 < existence["encoder"] < 1
        logit = math.log(existence["encoder"] / (1 - existence["encoder"]))
        assert existence["logit"] == pytest.approx(logit, abs=1e-4)
        assert existence["decoder"] is None
        assert existence["reasons"]["decoder"]
    assert told["mnist/3"]["joint"] == pytest.approx(
        told["mnist"]["encoder"] * told["mnist/3"]["encoder"]
    )
    assert answer.headers["X-Tzk-Seed"] == "3"


def test_posterior_of_some(service, image):
    assert list(body(one(service, "tzk_posterior", body=image, url_path="mnist"))) == PATHS[:2]
    fields = {"image": image, "knowledge": b"fashion,mnist/3"}
    assert list(body(one(service, "tzk_posterior", fields=fields))) == ["fashion", "mnist/3"]


def test_posterior_decoder_on_request(service, image):
    fields = {"image": image, "knowledge": b"mnist", "decoder_draws": b"256"}
    told = body(one(service, "tzk_posterior", fields=fields))
    assert 0 < told["mnist"]["decoder"] < 1
    assert told["mnist"]["reasons"] == {}


# -- tzk_interpolate -------------------------------------------------------------------------------


def test_interpolate_pictures(service):
    fields = {f"image{i}": png(seed=i) for i in range(1, 5)}
    two = {name: fields[name] for name in ("image1", "image2")}
    assert size(one(service, "tzk_interpolate", fields=two).body) == (8 * 18 + 2, 18 + 2)
    assert size(one(service, "tzk_interpolate", fields=fields).body) == (146, 146)
    asked = fields | {"steps": b"2x3"}
    assert size(one(service, "tzk_interpolate", fields=asked).body) == (3 * 18 + 2, 2 * 18 + 2)


@pytest.mark.parametrize("space", ["z", "c"])
@pytest.mark.parametrize("method", ["linear", "spherical"])
def test_interpolation_keeps_its_corners(service, space, method):
    corners = [png(seed=1), png(seed=2)]
    asked = {
        "images": [base64.b64encode(corner).decode() for corner in corners],
        "steps": 3,
        "method": method,
        "space": space,
        "given": "mnist",
        "format": "json",
    }
    told = body(one(service, "tzk_interpolate", body=asked))
    assert (told["rows"], told["columns"], len(told["images"])) == (1, 3, 3)
    assert all(math.isfinite(image["nll_nats"]) for image in told["images"])
    for corner, image in zip(corners, (told["images"][0], told["images"][-1])):
        wanted, got = (
            np.array(Image.open(io.BytesIO(data))).astype(int)
            for data in (corner, base64.b64decode(image["png"]))
        )
        assert np.abs(wanted - got).max() <= 1


# -- many at once ----------------------------------------------------------------------------------


def test_a_json_list_gets_a_list(service, image):
    encoded = base64.b64encode(image).decode()
    items = [{"image": encoded, "seed": 1}, {"image": "§"}, {"image": encoded, "seed": 2}]
    answer = one(service, "tzk_nll", body=items)
    first, second, third = body(answer)
    assert (first["seed"], third["seed"]) == (1, 2)
    assert second["status"] == 422
    assert answer.headers["X-Tzk-Seed"] == "1,,2"
    assert first == body(one(service, "tzk_nll", body=items[0]))


def test_strangers_change_nothing(service, image):
    alone = RawRequest(url_path="mnist", fields={"image": image, "seed": b"7"})
    strangers = [RawRequest(fields={"image": png(seed=i)}) for i in range(5)]
    batch = [*strangers, RawRequest(body=b"bad"), alone, *strangers, RawRequest("no", body=image)]
    together = service.answer("tzk_nll", batch)
    assert [answer.status for answer in together] == [200] * 5 + [400, 200] + [200] * 5 + [404]
    [single] = service.answer("tzk_nll", [alone])
    expected, got = (json.loads(answer.body) for answer in (single, together[6]))
    assert got.pop("nll_nats") == pytest.approx(expected.pop("nll_nats"), rel=1e-5)
    assert got["percentile"] == expected["percentile"]


def test_strangers_change_no_acceptance_rate(service):
    asked = RawRequest(body={"given": "mnist", "n": 2, "seed": 5, "format": "json"})
    strangers = [RawRequest(body={"given": "mnist", "n": 9, "seed": i}) for i in range(3)]
    [alone] = service.answer("tzk_sample", [asked])
    together = service.answer("tzk_sample", [*strangers, asked])[-1]
    expected, got = (json.loads(answer.body) for answer in (alone, together))
    assert got["acceptance_rate"] == expected["acceptance_rate"]
    assert [one["png"] for one in got["images"]] == [one["png"] for one in expected["images"]]


def test_a_group_that_fails_is_tried_one_by_one(service, image, monkeypatch):
    real = type(service.model).posterior

    def only_one(self, t, **options):
        if len(t) > 4:  # one image goes through in a batch of four
            raise RuntimeError("too many")
        return real(self, t, **options)

    monkeypatch.setattr(type(service.model), "posterior", only_one)
    answers = service.answer("tzk_posterior", [RawRequest(body=image)] * 5)
    assert [answer.status for answer in answers] == [200] * 5


def test_one_model_call_a_group(service, image, monkeypatch):
    from tzk_core.service import nll

    calls, real = [], nll.forward
    monkeypatch.setattr(nll, "forward", lambda m, t: calls.append(len(t)) or real(m, t))
    service.answer("tzk_nll", [RawRequest(body=image)] * 16)
    assert calls == [16]


def test_the_global_generator_is_left_alone(service, image):
    before = torch.get_rng_state()
    one(service, "tzk_nll", body=image, url_path="mnist")
    one(service, "tzk_sample", body={"n": 3, "given": "mnist/3", "format": "json"})
    assert torch.equal(before, torch.get_rng_state())


# -- small things ----------------------------------------------------------------------------------


def test_typed_calls(service):
    [drawn] = service.sample([SampleRequest(given="mnist", n=2, seed=1)])
    assert drawn.pixels.shape == (2, 1, SIDE, SIDE)


def test_headers_are_normalised():
    assert normalised({"Accept": "a", "image": {"content-type": "x"}}) == {"accept": "a"}
    assert header_text("20×20\n→ é") == "20x20 ? ?"


def test_accept_is_ordered():
    assert accepted("a/b;q=0.2, c/d , e/f;q=0, g/h;q=x") == ["c/d", "a/b"]


def test_every_request_field_is_described():
    from tzk_core.service.service import ENDPOINTS

    for endpoint in ENDPOINTS.values():
        for name, field in endpoint.request.model_fields.items():
            assert field.description, name
        assert endpoint.request.model_json_schema()
