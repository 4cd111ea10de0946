"""The four endpoints of a real server: raw, multipart, JSON."""

from __future__ import annotations

import base64
import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image
from tiny_model import PATHS, SIDE, png

from tzk_core.client import Refused, TzkClient
from tzk_core.tour import tour

IMAGE = png()
B64 = base64.b64encode(IMAGE).decode()


def part(value):
    return (None, str(value))


def sizes(data):
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        return picture.size


def test_nll_by_every_way(http):
    raw = http.put("/predictions/tzk_nll", content=IMAGE)
    fields = {"image": ("x.png", IMAGE), "seed": part(7)}
    form = http.post("/predictions/tzk_nll/1.0/mnist", files=fields)
    as_json = http.post("/predictions/tzk_nll/1.0/mnist", json={"image": B64, "seed": 7})
    listed = http.post("/predictions/tzk_nll", json=[{"image": B64, "seed": 7, "given": "mnist"}])
    for answer in (raw, form, as_json, listed):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
    assert raw.json()["estimator"] == "prior"
    assert raw.headers["x-tzk-seed"] == str(raw.json()["seed"])
    assert form.json() == as_json.json() == listed.json()[0]
    assert form.json()["given"] == "mnist"


def test_sample_by_every_way(http):
    got = http.get("/predictions/tzk_sample/1.0/mnist/3")
    assert got.headers["content-type"] == "image/png"
    assert got.headers["x-tzk-path"] == "mnist/3"
    assert sizes(got.content) == (SIDE, SIDE)
    seed = got.headers["x-tzk-seed"]
    form = {"seed": part(seed), "given": part("mnist/3")}
    again = http.post("/predictions/tzk_sample", files=form)
    assert again.content == got.content
    asked = {"n": 4, "seed": 1}
    grid = http.post("/predictions/tzk_sample", json=asked)
    assert sizes(grid.content) == (38, 38)
    told = http.post("/predictions/tzk_sample", json=asked, headers={"Accept": "application/json"})
    assert [one["seed"] for one in told.json()["images"]] == [1, 2, 3, 4]
    raw = http.post("/predictions/tzk_sample", json=asked | {"format": "npy"})
    assert raw.headers["content-type"] == "application/x-npy"


def test_several_and_absent_kinds(http):
    form = {"absent": part("fashion"), "seed": part(1), "format": part("json")}
    told = http.post("/predictions/tzk_sample/1.0/mnist", files=form).json()
    assert told["path"] == "mnist,-fashion"
    assert told["effective_sample_size"] >= 1
    asked = {"given": ["mnist", "fashion"], "seed": 1, "n": 2}
    by_json = http.post("/predictions/tzk_sample", json=asked)
    by_url = http.post("/predictions/tzk_sample/1.0/mnist,fashion", json={"seed": 1, "n": 2})
    assert by_json.headers["x-tzk-path"] == by_url.headers["x-tzk-path"] == "mnist,fashion"
    assert by_json.content == by_url.content
    mixed = http.post("/predictions/tzk_sample", json={"given": ["mnist", "mnist/3"]})
    assert (mixed.status_code, mixed.json()["pointer"]) == (422, "/given")
    unknown = http.post("/predictions/tzk_sample", json={"absent": ["kanji"]})
    assert (unknown.status_code, unknown.json()["pointer"]) == (404, "/absent")


def test_posterior_by_every_way(http):
    raw = http.put("/predictions/tzk_posterior", content=IMAGE)
    form = http.post("/predictions/tzk_posterior/1.0/mnist", files={"image": ("x", IMAGE)})
    as_json = http.post("/predictions/tzk_posterior", json={"image": B64, "knowledge": ["fashion"]})
    assert list(raw.json()) == PATHS
    assert list(form.json()) == PATHS[:2]
    assert list(as_json.json()) == ["fashion"]


def test_interpolate_by_every_way(http):
    two = {"image1": ("a.png", IMAGE), "image2": ("b.png", png(seed=1))}
    form = http.post("/predictions/tzk_interpolate", files=two | {"steps": part(4)})
    assert sizes(form.content) == (4 * 18 + 2, 20)
    asked = {"images": [B64] * 4, "steps": [2, 3], "format": "json"}
    as_json = http.post("/predictions/tzk_interpolate", json=asked)
    assert len(as_json.json()["images"]) == 6


def test_many_clients_at_once(http, pids):
    """Strangers share batches; each gets its own answer."""
    before = pids()
    asked = [{"image": B64, "seed": i % 4} if i % 3 else {"image": "§"} for i in range(48)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda one: http.post("/predictions/tzk_nll", json=one), asked))
    by_seed = {}
    for one, answer in zip(asked, answers, strict=True):
        if "seed" not in one:
            assert answer.status_code == 422
            continue
        assert answer.json()["seed"] == one["seed"]
        by_seed.setdefault(one["seed"], []).append(answer.json()["nll_nats"])
    for values in by_seed.values():
        assert values == pytest.approx([values[0]] * len(values), rel=1e-5)
    assert pids() == before


def test_client(server):
    with TzkClient(server.url) as client:
        assert client.nll(IMAGE, seed=7, given="mnist").seed == 7
        assert client.sample("mnist", n=2, seed=1).images[1].seed == 2
        assert client.sample("mnist", absent=["fashion"]).path == "mnist,-fashion"
        assert sizes(client.sample_png("mnist", n=4)) == (38, 38)
        assert list(client.posterior(IMAGE)) == PATHS
        assert client.interpolate([IMAGE, IMAGE], steps=3).columns == 3
        assert sizes(client.interpolate_png([IMAGE, IMAGE], steps=2)) == (38, 20)
        with pytest.raises(Refused, match="there is mnist") as refused:
            client.sample("kanji")
        assert (refused.value.status, refused.value.pointer) == (404, "/given")


def test_the_tour_finds_all_well(server, tmp_path):
    steps = list(tour(server.url, PATHS, (SIDE, SIDE), tmp_path))
    assert [step.endpoint for step in steps] == [
        "tzk_nll",
        *["tzk_sample"] * 3,
        "tzk_posterior",
        "tzk_interpolate",
    ]
    assert not [step.wrong for step in steps if step.wrong]
    assert (tmp_path / "interpolation.png").is_file()


def test_the_tour_finds_what_is_wrong(server, tmp_path):
    steps = list(tour(server.url, ["mnist", "kanji"], (SIDE, SIDE + 1), tmp_path))
    said = " ".join(wrong for step in steps for wrong in step.wrong)
    assert "kanji is not in it" in said
    assert "the picture is 16×16, not 17×16" in said
    assert "no knowledge 'kanji'" in said


def test_only_loopback_listens_and_models_come_from_the_store_alone(
    server, store, tmp_path, batch_delay
):
    url = server.management_url
    outside = shutil.copy(store / "tzk_nll.mar", tmp_path / "outside.mar")
    places = ["http://x.invalid/x.mar", f"file://{outside}", str(outside), "../outside.mar"]
    for place in places:
        answer = httpx.post(f"{url}/models", params={"url": place}, trust_env=False, timeout=30)
        assert 400 <= answer.status_code < 500, (place, answer.text)
    listed = httpx.get(f"{url}/models", trust_env=False).json()["models"]
    assert sorted(one["modelName"] for one in listed) == sorted(server.models)
    described = httpx.get(f"{url}/models/tzk_nll", trust_env=False).json()[0]
    assert (described["minWorkers"], described["maxWorkers"]) == (1, 1)
    assert (described["batchSize"], described["maxBatchDelay"]) == (16, batch_delay)
    assert json.dumps(described["workers"])
