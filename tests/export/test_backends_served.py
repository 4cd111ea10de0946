"""The archives of every backend give the same answers, through the real server."""

from __future__ import annotations

import base64
import io
import json
import zipfile

import httpx
import numpy as np
import pytest
from PIL import Image
from tiny_model import SIDE, tiny_model

from tzk_core.data.decoding import encode_png
from tzk_core.data.preparation import Preparation
from tzk_core.data.sources import load
from tzk_core.errors import ModelUnavailable
from tzk_core.launcher import Server, Settings
from tzk_core.model import TzK
from tzk_core.service.backends import use_backend
from tzk_core.service.service import ENDPOINTS
from tzk_export.archive import archive

# Of design, section 8, between backends.
MOST_RELATIVE = 1e-5
MOST_PROBABILITY = 1e-4
MOST_LEVELS, MOST_PIXELS = 1, 1e-3


def digit(number: int) -> bytes:
    preparation = Preparation(size=SIDE, channels=1)
    pixels = load("builtin/mnist", split="test", preparation=preparation, limit=number + 1).pixels
    return encode_png(np.asarray(pixels[number]))


def asked() -> list[tuple[str, dict]]:
    image = base64.b64encode(digit(3)).decode()
    scored = [{"image": image, "seed": 7}, {"image": image, "seed": 8, "draws": 16}]
    drawn = {"n": 5, "seed": 11, "format": "json"}
    images = [base64.b64encode(digit(number)).decode() for number in (3, 4)]
    between = {"images": images, "steps": 4, "seed": 5, "format": "json"}
    return [
        ("tzk_nll", scored[0]),
        ("tzk_nll/1.0/mnist", scored[1]),
        ("tzk_nll/1.0/mnist/3", scored[0]),
        ("tzk_posterior", scored[0]),
        ("tzk_sample", drawn),
        ("tzk_sample/1.0/mnist", drawn),
        ("tzk_sample/1.0/mnist/3", drawn),
        ("tzk_interpolate", between),
        ("tzk_interpolate", between | {"method": "spherical"}),
        ("tzk_interpolate/1.0/mnist", between | {"space": "c"}),
    ]


SEVERAL = ("tzk_sample/1.0/mnist,fashion", {"n": 1, "seed": 11, "format": "json"})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends") / "run"
    tiny_model().save_pretrained(folder)
    return folder


def served(run, store, backend: str, asked: list[tuple[str, dict]]) -> list[dict]:
    """What a server of that backend's archives answers; its workers say that they run by it."""
    archive(run, store, backend=backend)
    settings = Settings(model_store=store, port=0, device="cpu", threads=1, start_timeout=1800)
    with (
        Server(settings) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=300) as http,
    ):
        answers = [http.post(f"/predictions/{where}", json=body) for where, body in asked]
        said = server.model_log.read_text()
    for name in ENDPOINTS:
        assert f"{name} serves by {backend} from cpu" in said
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    return [answer.json() for answer in answers]


@pytest.fixture(scope="module")
def wanted(run, tmp_path_factory):
    return served(run, tmp_path_factory.mktemp("torch"), "torch", [*asked(), SEVERAL])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnx", "compile"])
def test_answers_agree_with_those_by_torch(run, wanted, tmp_path, backend):
    both = [*asked(), SEVERAL]
    for (where, _), got, want in zip(
        both, served(run, tmp_path, backend, both), wanted, strict=True
    ):
        compare(got, want, where)


@pytest.mark.slow
def test_a_trained_model_is_served_by_onnxruntime(tmp_path):
    """Its flow makes rounding large where a tiny model with its first weights does not."""
    answers = [
        served("builtin", tmp_path / backend, backend, asked()) for backend in ("torch", "onnx")
    ]
    for (where, _), want, got in zip(asked(), *answers, strict=True):
        compare(got, want, where)


def compare(got, want, where: str) -> None:
    """Numbers to the tolerance, images to a few grey levels, all else equal."""
    if isinstance(want, dict):
        assert got.keys() == want.keys(), where
        for key in want:
            compare(got[key], want[key], f"{where}: {key}")
    elif isinstance(want, list):
        assert len(got) == len(want), where
        for number, (one, other) in enumerate(zip(got, want, strict=True)):
            compare(one, other, f"{where} {number}")
    elif where.endswith(": png"):
        a, b = (np.asarray(Image.open(io.BytesIO(base64.b64decode(x)))) for x in (got, want))
        apart = np.abs(a.astype(int) - b.astype(int))
        assert apart.max() <= MOST_LEVELS, where
        assert (apart > 0).mean() <= MOST_PIXELS, where
    elif isinstance(want, float):
        assert got == pytest.approx(want, rel=MOST_RELATIVE, abs=MOST_PROBABILITY), where
    else:
        assert got == want, where


def test_the_comparison_can_fail():
    level = np.zeros((1, 16, 16), np.uint8)
    other = level.copy()
    other[0, 0, 0] = 2
    right, wrong = (base64.b64encode(encode_png(x)).decode() for x in (level, other))
    compare({"a": [1.0, {"png": right}]}, {"a": [1.0, {"png": right}]}, "")
    for bad in ({"a": [1.0, {"png": wrong}]}, {"a": [1.1, {"png": right}]}, {"a": [1.0]}, {}):
        with pytest.raises(AssertionError):
            compare(bad, {"a": [1.0, {"png": right}]}, "")


def test_an_onnx_archive_is_not_served_with_changed_parts(run, tmp_path):
    model = TzK.from_pretrained(run)
    (tmp_path / "flow-encode.onnx").write_bytes(b"changed")
    told = {"backend": "onnx", "onnx": {"flow-encode.onnx": "0" * 64}}
    with pytest.raises(ModelUnavailable, match=r"flow-encode\.onnx is not what was archived"):
        use_backend(model, tmp_path, told)
    with pytest.raises(ModelUnavailable, match="names no ONNX files"):
        use_backend(model, tmp_path, {"backend": "onnx"})
    with pytest.raises(ModelUnavailable, match="asks for the backend 'jax'"):
        use_backend(model, tmp_path, {"backend": "jax"})
    assert use_backend(model, tmp_path, {}) == "torch"


@pytest.mark.slow
def test_an_onnx_archive_holds_all_that_serving_it_needs(run, tmp_path):
    [made] = archive(run, tmp_path, backend="onnx", names=["tzk_nll"])
    with zipfile.ZipFile(made) as whole:
        told = json.loads(whole.read("MAR-INF/MANIFEST.json"))["tzk"]
        assert told["backend"] == "onnx"
        assert set(told["onnx"]) < set(whole.namelist())
        assert {"flow-encode.onnx", "flow-decode.onnx", "parts.data"} <= set(told["onnx"])
