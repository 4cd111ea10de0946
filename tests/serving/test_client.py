"""The clients and ``tzk call`` against a real server behind its front, with a key."""

from __future__ import annotations

import asyncio
import base64
import io
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from serving.stub_torchserve import until
from tiny_model import PATHS, SIDE, png

from tzk_core.cli.main import cli
from tzk_core.client import (
    AsyncTzkClient,
    Invalid,
    NotFound,
    TzkClient,
    Unauthorized,
    pixels_of,
)
from tzk_core.front.keys import new_key
from tzk_core.launcher import Serving, Settings
from tzk_core.ports import free_port

IMAGE = png()
KEY = new_key()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A key, images, and a file that is none."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "keys").write_text(f"# ours\n{KEY}\n")
    for i in range(3):
        (folder / f"{i}.png").write_bytes(png(seed=i))
    (folder / "bad.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def serving(store, folder):
    settings = Settings(
        model_store=store, port=0, device="cpu", threads=1, keys_file=folder / "keys"
    )
    with Serving(settings) as serving:
        yield serving


@pytest.fixture(scope="module")
def client(serving):
    with TzkClient(serving.url, key=KEY) as client:
        yield client


@pytest.fixture
def call(serving, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TZK_API_KEY", raising=False)

    def run(*arguments, code=0, key="keys", url=None):
        words = ["call", *arguments, "--url", url or serving.url]
        words += ["--key-file", key] if key else []
        result = CliRunner().invoke(cli, [str(one) for one in words])
        assert result.exit_code == code, result.output
        return result

    return run


def test_images_go_in_by_every_form(client, folder):
    array = np.asarray(Image.open(io.BytesIO(IMAGE)))
    forms = [IMAGE, folder / "0.png", str(folder / "0.png"), Image.fromarray(array), array]
    told = [client.nll(form, seed=1).nll_nats for form in forms]
    assert told == pytest.approx([told[0]] * len(told), rel=1e-5)


def test_images_come_out_as_arrays_and_pictures(client):
    array = client.samples("mnist/3", 4, seed=1)
    assert (array.dtype, array.shape) == (np.uint8, (4, 1, SIDE, SIDE))
    answer = client.sample("mnist/3", n=4, seed=1)
    assert [one.seed for one in answer.images] == [1, 2, 3, 4]
    assert np.array_equal(pixels_of(answer), array)
    [alone] = client.samples("mnist/3", seed=3)
    assert np.array_equal(alone, array[2])
    picture = client.sample_image("mnist/3", seed=3)
    assert np.array_equal(np.asarray(picture), alone[0])
    assert client.sample_image(n=4).size == (38, 38)
    assert client.interpolate_image([IMAGE, png(seed=1)], steps=3).size == (56, 20)
    assert client.samples(["mnist", "fashion"], seed=1).shape == (1, 1, SIDE, SIDE)


def test_many_images_are_scored_in_order(client):
    images = [png(seed=i) for i in range(5)]
    images.insert(3, b"no image")
    images.insert(1, "none.png")
    answers = list(client.nll_many(images, seed=10, given="mnist", batch=2))
    assert "none.png" in answers[1].detail
    assert isinstance(answers[4], Invalid)
    assert (answers[4].status, answers[4].pointer) == (400, "/image")
    assert answers[4].request_id
    for i in (0, 2, 3, 5, 6):
        one = client.nll(images[i], seed=10 + i, given="mnist")
        assert answers[i].seed == one.seed == 10 + i
        assert answers[i].nll_nats == pytest.approx(one.nll_nats, rel=1e-5)


def test_errors_say_which_kind_and_which_request(client, serving):
    with pytest.raises(NotFound, match="there is mnist") as error:
        client.sample("kanji")
    assert (error.value.status, error.value.pointer) == (404, "/given")
    assert "mnist/3" in error.value.extensions["known"]
    # The line is written once the answer has left.
    until(lambda: error.value.request_id in (serving.logs / "access.log").read_text())
    with pytest.raises(Invalid) as error:
        client.sample(n=0)
    assert (error.value.status, error.value.pointer, error.value.exit_code) == (422, "/n", 2)
    with pytest.raises(Invalid) as error:
        client.nll(b"no image")
    assert (error.value.status, error.value.exit_code) == (400, 1)
    with TzkClient(serving.url) as stranger, pytest.raises(Unauthorized) as error:
        stranger.nll(IMAGE)
    assert error.value.request_id


def test_the_async_client_answers_alike(client, serving):
    images = [IMAGE, b"no image", png(seed=1)]

    async def ask():
        async with AsyncTzkClient(serving.url, key=KEY) as twin:
            told = await asyncio.gather(
                twin.nll(IMAGE, seed=1),
                twin.posterior(IMAGE, seed=1),
                twin.samples("mnist", 2, seed=1),
                twin.sample("mnist", seed=1),
                twin.sample_png("mnist", seed=1),
                twin.sample_image("mnist", seed=1),
                twin.interpolate([IMAGE, IMAGE], steps=2, seed=1),
                twin.interpolate_png([IMAGE, IMAGE], steps=2, seed=1),
                twin.interpolate_image([IMAGE, IMAGE], steps=2, seed=1),
            )
            with pytest.raises(NotFound):
                await twin.nll(IMAGE, given="kanji")
            return told, [one async for one in twin.nll_many(images, seed=1, batch=2)]

    told, many = asyncio.run(ask())
    assert told[0].nll_nats == pytest.approx(client.nll(IMAGE, seed=1).nll_nats, rel=1e-5)
    assert list(told[1]) == PATHS
    assert np.array_equal(told[2], client.samples("mnist", 2, seed=1))
    assert np.array_equal(pixels_of(told[3]), told[2][:1])
    assert told[4] == client.sample_png("mnist", seed=1)
    assert told[5].size == (SIDE, SIDE)
    assert told[6].columns == 2
    assert Image.open(io.BytesIO(told[7])).size == told[8].size == (38, 20)
    assert [getattr(one, "status", 200) for one in many] == [200, 400, 200]


def test_call_nll(call):
    result = call("nll", "0.png", "bad.png", "1.png", "--given", "mnist/3", "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["file"] for row in rows if row["error"]] == ["bad.png"]
    assert [row["seed"] for row in rows] == [0, None, 2]
    assert rows[0]["given"] == "mnist/3"
    assert "1 of 3 files could not be scored" in result.stderr
    assert "bits/dim on D = 256" in call("nll", "0.png").stdout


def test_call_sample(call, folder):
    said = call("sample", "mnist/3", "-n", 4, "--temperature", 0.7, "--seed", 1, "--out", "g.png")
    assert "seed 1, acceptance " in said.stderr
    assert Image.open(folder / "g.png").size == (38, 38)
    call("sample", "mnist/3", "-n", 4, "--temperature", 0.7, "--seed", 1, "--out", "g.npy")
    array = np.load(folder / "g.npy")
    assert array.shape == (4, 1, SIDE, SIDE)
    told = call("sample", "mnist/3", "-n", 1, "--temperature", 0.7, "--seed", 2, "--json").stdout
    alone = base64.b64decode(json.loads(told)["images"][0]["png"])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(alone))), array[1, 0])


def test_call_posterior(call):
    output = call("posterior", "0.png").stdout
    assert all(path in output for path in PATHS)
    told = json.loads(call("posterior", "0.png", "--seed", 5, "--json").stdout)
    assert (list(told["posterior"]), told["seed"]) == (PATHS, 5)


def test_call_interpolate(call, folder):
    said = call("interpolate", "0.png", "1.png", "--steps", 8, "--seed", 3, "--out", "x.png")
    assert "seed 3" in said.stderr
    assert Image.open(folder / "x.png").size == (8 * (SIDE + 2) + 2, SIDE + 4)
    told = json.loads(call("interpolate", "0.png", "1.png", "--json").stdout)
    assert told["columns"] == 8


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nll", "none.png"], 2, "there is no none.png"),
        (["nll", "bad.png"], 1, "bad.png"),
        (["nll", "0.png", "--draws", 3], 2, "1, 16 or 256"),
        (["nll", "0.png", "--given", "kanji"], 2, "there is mnist"),
        (["posterior", "0.png", "--knowledge", "kanji"], 2, "there is mnist"),
        (["posterior", "bad.png"], 1, "none of the files"),
        (["sample", "kanji"], 2, "there is mnist"),
        (["sample", "-n", 0], 2, "1 to 256"),
        (["sample", "--out", "x.jpg"], 2, ".npy"),
        (["interpolate", "0.png"], 2, "2 or 4"),
        (["interpolate", "0.png", "bad.png"], 1, "bad.png: the"),
    ],
)
def test_what_is_wrong_is_one_sentence(call, arguments, code, said):
    output = call(*arguments, code=code).output
    assert said in output
    assert output.strip().splitlines()[-1].startswith("Error: ")


def test_call_without_a_key_or_a_server(call, monkeypatch):
    assert "a key" in call("nll", "0.png", code=2, key=None).output
    monkeypatch.setenv("TZK_API_KEY", KEY)
    call("nll", "0.png", key=None)
    url = f"http://127.0.0.1:{free_port()}"
    told = call("nll", "0.png", code=1, url=url).output
    assert f"no server answers at {url}" in told
