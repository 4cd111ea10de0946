"""Same seed, same image, and neighbours that change nothing: with real servers and workers."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tiny_model import png

from tzk_core.launcher import Server, Settings
from tzk_core.launcher.settings import CONFIG_FILE

ASKED = [
    ("tzk_sample", {"seed": 7}),
    ("tzk_sample/1.0/mnist", {"seed": 7}),
    ("tzk_sample/1.0/mnist/3", {"seed": 8, "n": 3}),
    ("tzk_nll", {"seed": 7, "image": ("x.png", png())}),
    ("tzk_nll/1.0/mnist", {"seed": 7, "image": ("x.png", png())}),
    ("tzk_posterior", {"seed": 7, "image": ("x.png", png())}),
    ("tzk_sample", {"seed": 7, "n": 2, "given": "mnist,fashion"}),
    (
        "tzk_interpolate",
        {"seed": 7, "image1": ("x.png", png()), "image2": ("y.png", png(seed=1)), "steps": 5},
    ),
]


def send(http, where, fields):
    parts = {k: v if isinstance(v, tuple) else (None, str(v)) for k, v in fields.items()}
    return http.post(f"/predictions/{where}", files=parts)


def strangers(number):
    """Requests that share batches with those of ``ASKED``, every sixth of them bad."""
    where, _ = ASKED[number % len(ASKED)]
    seed = 1000 + number
    if "interpolate" in where:
        images = {"image1": ("x.png", png(seed=number)), "image2": ("y.png", png())}
        return where, {"seed": seed, "steps": 200 if number % 6 == 5 else 3} | images
    if "sample" in where:
        return where, {"seed": seed, "temperature": -1 if number % 6 == 1 else 1}
    image = b"no image" if number % 6 == 3 else png(seed=number)
    return where, {"seed": seed, "image": ("x.png", image)}


def among_strangers(http):
    """The bytes of ``ASKED``, sixteen requests in flight at any time."""
    load = [strangers(number) for number in range(15 * len(ASKED))]
    for place, one in enumerate(ASKED):
        load[12 * place + 7 : 12 * place + 7] = [one] * 3
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda one: send(http, *one), load))
    assert {answer.status_code for answer in answers} == {200, 400, 422}
    found = {}
    for one, answer in zip(load, answers, strict=True):
        if one in ASKED:
            found.setdefault(ASKED.index(one), set()).add(answer.content)
    return [found[place] for place in range(len(ASKED))]


@pytest.fixture(scope="module")
def alone(http):
    answers = [send(http, *one) for one in ASKED]
    assert {answer.status_code for answer in answers} == {200}
    return [{answer.content} for answer in answers]


def test_among_strangers_and_bad_items(http, alone):
    assert among_strangers(http) == alone


def test_another_worker_after_a_restart(store, alone, tmp_path):
    """A server started anew, with two workers a model: both give those very bytes."""
    text = Settings(model_store=store).config_file().read_text()
    two = re.sub(r'"(min|max)Workers": 1', r'"\1Workers": 2', text)
    config = Path(tmp_path) / CONFIG_FILE
    config.write_text(two)
    settings = Settings(
        model_store=store, port=0, device="cpu", threads=1, config=config, start_timeout=300
    )
    with (
        Server(settings) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http,
    ):
        described = httpx.get(f"{server.management_url}/models/tzk_sample", trust_env=False)
        assert len(described.json()[0]["workers"]) == 2
        for _ in range(3):
            assert among_strangers(http) == alone
