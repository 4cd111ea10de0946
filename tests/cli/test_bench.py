"""tzk bench: rows of every backend, what cannot run, which is recommended."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_model import tiny_model

from tzk_core.benchmark import measuring, variants
from tzk_core.benchmark.bench import recommended
from tzk_core.benchmark.cases import Case
from tzk_core.benchmark.measuring import apart
from tzk_core.cli.bench import NAMES
from tzk_core.cli.main import cli
from tzk_core.config import FlowConfig, TzKConfig
from tzk_core.data.decoding import encode_png
from tzk_core.data.preparation import Preparation
from tzk_core.errors import ModelUnavailable
from tzk_core.model import TzK
from tzk_core.randomness import generator
from tzk_core.service.wire import RawAnswer

QUICK = ["--seconds", "0.01", "--device", "cpu"]
PLAIN = ("tzk_nll", "tzk_sample")
# "mnist" is the first path of tiny_model.
WITH_KNOWLEDGE = (*PLAIN, "tzk_nll given=mnist", "tzk_sample given=mnist", "tzk_posterior")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "run"
    tiny_model().save_pretrained(folder)
    return folder


@pytest.fixture
def call(run):
    def call(*arguments, code=0):
        result = CliRunner().invoke(cli, ["bench", *map(str, arguments or [run])])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return call


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run without knowledge."""
    config = TzKConfig(
        observation=(1, 16, 16),
        flow=FlowConfig(levels=2, steps=1, width=8),
        preparation=Preparation(size=16, channels=1),
    )
    source = generator(0)
    model = TzK(config, generator=source)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=source)
    folder = tmp_path_factory.mktemp("plain") / "run"
    model.save_pretrained(folder)
    return folder


def keys(report) -> set:
    return {(row["backend"], row["endpoint"], row["batch"]) for row in report["rows"]}


def test_every_backend_has_a_row_for_all_that_is_asked_and_each_batch(run, call):
    asked = ["--backend", "bf16", "--batch", 1, "--batch", 3, "--json", *QUICK]
    report = json.loads(call(run, *asked).stdout)
    assert keys(report) == {
        (name, endpoint, batch)
        for name in ("torch", "bf16")
        for endpoint in WITH_KNOWLEDGE
        for batch in (1, 3)
    }
    for row in report["rows"]:
        assert row["images_per_s"] == pytest.approx(1e3 * row["batch"] / row["ms"])
        drawn = row["endpoint"].startswith("tzk_sample")
        assert (row["log_p_apart_nats"] is not None) != drawn
        assert (row["pixels_apart"] is not None) == drawn
        if row["backend"] == "torch":
            assert row["agrees"]
            assert not row["log_p_apart_nats"]
            assert row["times_as_fast"] == 1
    # The networks did run in another precision.
    assert any(row["log_p_apart_nats"] for row in report["rows"] if row["backend"] == "bf16")
    agreeing = {row["backend"] for row in report["rows"]} - {
        row["backend"] for row in report["rows"] if not row["agrees"]
    }
    assert report["recommended"] in agreeing
    for start in report["starts"].values():
        for endpoint in WITH_KNOWLEDGE:
            assert len(start[endpoint]["ms"]) == 10
            assert start[endpoint]["first_ms"] == start[endpoint]["ms"][0] > 0
    assert report["left_out"] == {}


def test_without_knowledge_none_is_asked_for(plain, call):
    report = json.loads(call(plain, "--backend", "torch", "--batch", 1, "--json", *QUICK).stdout)
    assert keys(report) == {("torch", endpoint, 1) for endpoint in PLAIN}
    assert set(report["starts"]["torch"]) == {"ready_s", *PLAIN}


def test_requests_name_the_knowledge_given(run):
    ready = variants.made_ready("torch", run, torch.device("cpu"), run)
    raws = measuring.requests(ready)
    assert {case.name for case in raws} == set(WITH_KNOWLEDGE)
    for case, asked in raws.items():
        assert len({raw.fields["seed"] for raw in asked}) == len(asked)
        for raw in asked:
            assert raw.fields.get("given") == (case.given and case.given.encode())
            assert ("image" in raw.fields) == (case.endpoint != "tzk_sample")
    [told] = measuring.checked(ready, "tzk_nll", raws[Case("tzk_nll", "mnist")][:1])
    assert json.loads(told.body)["given"] == "mnist"
    [judged] = measuring.checked(ready, "tzk_posterior", raws[Case("tzk_posterior")][:1])
    assert set(json.loads(judged.body)) == {"mnist", "mnist/3", "fashion"}


def test_an_endpoint_takes_its_seconds_with_and_without_knowledge(run, call, monkeypatch):
    real, taken = measuring.timed, dict.fromkeys((*PLAIN, "tzk_posterior"), 0.0)

    def timed(ready, endpoint, raws, batch, seconds):
        taken[endpoint] += seconds
        return real(ready, endpoint, raws, batch, 0.01)

    monkeypatch.setattr(measuring, "timed", timed)
    call(run, "--backend", "torch", "--batch", 1, "--seconds", 3, "--device", "cpu")
    assert taken == pytest.approx(dict.fromkeys(taken, 3.0))


def test_what_cannot_run_is_named_and_stops_nothing(run, call, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "onnxscript" else find(name, *a),
    )
    monkeypatch.setattr(variants, "bfloat16_if_close", lambda model: False)
    asked = [f"--backend={name}" for name in ("graphs", "bf16", "compile", "onnx")]
    result = call(run, *asked, "--batch", 2, "--json", *QUICK)
    report = json.loads(result.stdout)
    assert keys(report) == {("torch", endpoint, 2) for endpoint in WITH_KNOWLEDGE}
    assert "CUDA" in report["left_out"]["graphs"]
    assert "bfloat16 is too far" in report["left_out"]["bf16"]
    assert "C++ compiler" in report["left_out"]["compile"]
    assert "it needs onnxscript" in report["left_out"]["onnx"]
    assert "compile: left out, the backend compile needs" in result.stderr
    assert report["recommended"] == "torch"


def test_an_error_of_any_kind_leaves_a_backend_out(run, call, monkeypatch):
    real = variants.use_backend

    def broken(model, folder, archived):
        if archived["backend"] == "compile":
            raise RuntimeError("the compiler\nfell over")
        return real(model, folder, archived)

    monkeypatch.setattr(variants, "use_backend", broken)
    result = call(run, "--backend", "compile", "--batch", 1, *QUICK)
    assert "compile left out: RuntimeError: the compiler fell over" in result.stdout
    lines = result.stdout.strip().splitlines()
    assert lines[-1].startswith("pick torch: ")
    assert lines[-1].endswith(f"tzk archive {run} --backend torch")
    for endpoint in ("tzk_nll given=mnist", "tzk_posterior"):
        assert sum(endpoint in line for line in lines) == 2  # its times, and its first requests


def test_the_calls_that_are_wrong(run, call, tmp_path):
    assert "none does not exist" in call(tmp_path / "none", code=1).output
    assert "jax" in call(run, "--backend", "jax", code=2).output
    assert "--batch" in call(run, "--batch", 0, code=2).output
    assert "--seconds" in call(run, "--seconds", 0, code=2).output
    assert "cpu" in call(run, "--device", "tpu9", code=2).output


def test_a_model_of_codes_is_refused(call, tmp_path):
    config = TzKConfig(observation=(4,), flow=FlowConfig(steps=1, width=4))
    model = TzK(config, generator=generator(0))
    model.save_pretrained(tmp_path / "codes")
    assert "not a model of images" in call(tmp_path / "codes", code=1).output
    with pytest.raises(ModelUnavailable):
        variants.made_ready("torch", tmp_path / "codes", torch.device("cpu"), tmp_path)


def test_the_command_offers_what_the_library_has():
    assert NAMES == variants.NAMES


def test_answers_agree_within_the_tolerance_and_no_further():
    def scored(nats):
        return [RawAnswer(json.dumps({"nll_nats": nats}).encode())]

    def drawn(changed: int, by: int):
        pixels = np.full((1, 64, 64), 100, np.uint8)
        pixels.reshape(-1)[:changed] += by
        return [RawAnswer(encode_png(pixels))]

    assert apart("tzk_nll", scored(1000.009), scored(1000.0)).agrees
    assert not apart("tzk_nll", scored(1000.011), scored(1000.0)).agrees
    assert apart("tzk_nll", scored(1001.0), scored(1000.0)).nats == pytest.approx(1)
    assert apart("tzk_nll", scored(None), scored(None)).agrees
    assert not apart("tzk_nll", scored(None), scored(1.0)).agrees
    assert apart("tzk_sample", drawn(4, 1), drawn(0, 0)).agrees
    assert not apart("tzk_sample", drawn(5, 1), drawn(0, 0)).agrees
    judged = {"encoder": 0.5, "logit": 2.0, "joint": 0.5, "normalised": None}

    def told(**changed):
        return [RawAnswer(json.dumps({"a": judged, "b": judged | changed}).encode())]

    assert apart("tzk_posterior", told(logit=2.00009), told()).agrees
    found = apart("tzk_posterior", told(logit=2.5), told())
    assert (found.nats, found.agrees) == (0.5, False)
    assert not apart("tzk_posterior", told(joint=0.5002), told()).agrees
    assert not apart("tzk_posterior", told(normalised=0.5), told()).agrees
    found = apart("tzk_sample", drawn(1, 2), drawn(0, 0))
    assert (found.levels, found.pixels, found.agrees) == (2, 1 / 4096, False)


def row(backend: str, fast: float, agrees: bool = True) -> dict:
    return {"backend": backend, "times_as_fast": fast, "agrees": agrees}


def test_the_fastest_that_agrees_is_recommended():
    torchs = [row("torch", 1.0), row("torch", 1.0)]
    onnx = [row("onnx", 3.0), row("onnx", 1.0)]  # 1.73 over both
    best, why = recommended([*torchs, *onnx, row("compile", 1.5), row("compile", 1.5)], "cpu")
    assert best == "onnx"
    assert "1.73 times as fast" in why
    assert "tzk archive RUN --backend onnx" in why
    # One answer that is too far is enough to lose, and what is faster is told all the same.
    wrong = [row("bf16", 4.0), row("bf16", 4.0, False)]
    best, why = recommended([*torchs, *onnx, *wrong], "cpu")
    assert best == "onnx"
    assert "bf16 is 4.00 times as fast as torch, but its answers differ" in why
    assert "TZK_NETWORKS=bfloat16" in why
    # Hardly faster is not faster.
    assert recommended([*torchs, row("onnx", 1.04)], "cpu")[0] == "torch"
    # On a GPU torch is served by graphs.
    best, why = recommended([*torchs, row("graphs", 0.9)], "cuda")
    assert best == "graphs"
    assert "--backend torch" in why


@pytest.mark.slow
def test_compile_and_onnx_agree_with_torch(call, plain):
    report = json.loads(call(plain, "--json", *QUICK).stdout)
    assert {row["backend"] for row in report["rows"]} == {"torch", "bf16", "compile", "onnx"}
    assert all(r["agrees"] for r in report["rows"] if r["backend"] in ("compile", "onnx"))
