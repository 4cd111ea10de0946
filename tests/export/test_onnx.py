"""ONNX files say what the library says, and any runtime can find out how to ask them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_model import tiny_model

from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
from tzk_core.data.preparation import Preparation
from tzk_core.data.quantisation import dequantise, to_pixels
from tzk_core.data.sources import load
from tzk_core.errors import ModelUnavailable, UnknownKnowledge, UsageError, WorkFailed
from tzk_core.hub import WEIGHTS, sha256
from tzk_core.model import TzK
from tzk_core.randomness import Rows, generator
from tzk_export import onnx_check, onnx_graphs
from tzk_export.onnx import REPORT, SHARED, export
from tzk_export.onnx_graphs import CANDIDATES
from tzk_export.onnx_page import document
from tzk_export.onnx_pieces import Pieces

NAMES = ("encoder", "joint", "logit")  # what a posterior says of each kind
PAGE = Path(__file__).parents[2] / "docs" / "onnx.md"


SMALL = {
    "code_dim": 3,
    "code_steps": 1,
    "code_width": 8,
    "encoder_width": 8,
    "decoder_stem": 8,
    "decoder_width": 8,
    "decoder_layers": 1,
    "z_width": 8,
    "discriminator_width": 8,
}


def model_of(channels: int, levels: int, kinds: dict[str, KnowledgeConfig]) -> TzK:
    """C×8×8; its last layers are not zero, so that every number matters."""
    source = generator(3)
    config = TzKConfig(
        observation=(channels, 8, 8),
        flow=FlowConfig(levels=levels, steps=1, width=8),
        preparation=Preparation(size=8, channels=channels),
    )
    model = TzK(config, generator=source)
    for name, kind in kinds.items():
        model.add_knowledge(name, kind, generator=source)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=source)
    return model.eval()


def colour_model() -> TzK:
    """RGB, with a z-flow blind to the code, an anchored prior, and a kind without a z-flow."""
    blind = KnowledgeConfig(
        **SMALL, z_steps=1, z_context=False, code_prior="volume_preserving", trunk="paper"
    )
    plain = KnowledgeConfig(**SMALL, z_steps=0, discriminator_head="flatten")
    return model_of(3, 2, {"blind": blind, "plain": plain})


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """The tiny model's run, its export of mnist/3 with e = 0 too, and the report."""
    folder = tmp_path_factory.mktemp("grey")
    tiny_model().save_pretrained(folder / "run")
    report = export(folder / "run", folder / "onnx", paths=["mnist", "mnist/3"], absent=True)
    return folder, report


def real(channels: int, size: int, count: int) -> torch.Tensor:
    """uint8 digits, (count, channels, size, size)."""
    preparation = Preparation(size=size, channels=channels)
    found = load("builtin/mnist", split="test", preparation=preparation, limit=count)
    return torch.from_numpy(np.asarray(found.pixels))


def run(file: Path, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def test_a_whole_export_and_its_answers(tmp_path):
    """All six kinds of file, the smallest there are: what takes time is torch's tracing."""
    model = model_of(1, 1, {"mnist": KnowledgeConfig(**SMALL, z_steps=1)})
    model.save_pretrained(tmp_path / "run")
    report = export(tmp_path / "run", tmp_path / "onnx")
    of_path = ("sampler.mnist", "encoder.mnist", "conditional.mnist")
    for file in ("density", "decoder", "posterior", *of_path):
        entry = report["files"].pop(f"{file}.onnx")
        assert entry["check"], file
        inputs = onnx.load(str(tmp_path / f"onnx/{file}.onnx")).graph.input
        assert [one.name for one in inputs] == [one["name"] for one in entry["inputs"]]
    assert not report["files"]

    # What the check said of itself, said again without it.
    images = real(1, 8, 12)
    noise = torch.rand(images.shape, generator=generator(5))
    out = run(tmp_path / "onnx/density.onnx", image=images.numpy(), noise=noise.numpy())
    t = dequantise(images, noise)
    with torch.no_grad():
        wanted = model.prior.log_prob(t).numpy()
        codes = model.find("mnist").encoders[1].base(t)[0]
        given = model.given("mnist").log_prob_given_code(t, codes).numpy()
        z = torch.randn(4, *model.latent_shape, generator=generator(6))
        decoded = to_pixels(model.flow.decode(z)[0]).numpy()
    assert np.ptp(wanted) > 1
    assert np.abs(out["log_prob"] - wanted).max() <= 1e-3 * 64 / 1000
    out = run(
        tmp_path / "onnx/conditional.mnist.onnx",
        image=images.numpy(),
        noise=noise.numpy(),
        code_1=codes.numpy(),
    )
    assert np.abs(out["log_prob"] - given).max() <= 1e-3 * 64 / 1000
    # Encoder and conditional density together are the weights of the importance bound.
    epsilon = torch.randn(len(t), 3, generator=generator(7))
    drawn = run(
        tmp_path / "onnx/encoder.mnist.onnx",
        image=images.numpy(),
        noise=noise.numpy(),
        code_noise_1=epsilon.numpy(),
    )
    weighed = run(
        tmp_path / "onnx/conditional.mnist.onnx",
        image=images.numpy(),
        noise=noise.numpy(),
        code_1=drawn["code_1"],
    )
    assert weighed["log_encoder"] == pytest.approx(drawn["log_encoder"], abs=1e-3)
    lineage = model.lineage("mnist")
    with torch.no_grad():
        [c] = lineage.encode(t, [epsilon])
        z, log_det = model.flow.encode(t)
        bound = (
            lineage.decoder.log_prob(z, c)
            + log_det
            + lineage.log_prior([c])
            + lineage.log_exists(c)
            - lineage.log_encoder([c], t)
        )
    said = weighed["log_prob"] + weighed["log_prior"] + weighed["log_exists"] - drawn["log_encoder"]
    assert said == pytest.approx(bound.numpy(), abs=5e-3)
    z = torch.randn(4, *model.latent_shape, generator=generator(6))
    out = run(tmp_path / "onnx/decoder.onnx", z=z.numpy())
    assert (np.abs(out["image"].astype(int) - decoded.astype(int)) <= 1).all()


def test_what_a_file_is_checked_against_has_its_noise():
    """Kinds of codes that tell one draw from another: else any codes would do."""
    model = tiny_model()
    with torch.no_grad():
        for parameter in model.find("mnist/3").t_discriminator.parameters():
            parameter += torch.randn(parameter.shape, generator=generator(4))
    checker = onnx_check.Checker(model, real(1, 16, 6))
    graph = onnx_graphs.posterior(model)
    reference = onnx_check.REFERENCES["posterior"]
    inputs = checker.inputs(graph, checker.pixels)
    others = inputs | {"code_noise:mnist": inputs["code_noise:mnist"].flip(1) + 1}
    with torch.no_grad():
        said, moved = (
            dict(zip(NAMES, graph.pieces[0].module(*i.values()))) for i in (inputs, others)
        )
        for each, given in ((said, inputs), (moved, others)):
            wanted = reference(model, graph, given)
            for name in NAMES:
                torch.testing.assert_close(each[name], wanted[name])
    assert (said["encoder"] - moved["encoder"]).abs().max() > 0.01


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_no_answer_that_is_not_finite_passes_a_check(tmp_path, value):
    """A file that is right but for one image, whose density is not the library's."""
    model = model_of(1, 1, {})
    graph = onnx_graphs.density(model)
    pixels = real(1, 8, 4)
    file = tmp_path / "density.onnx"
    onnx.save_model(Pieces().model_of(graph), str(file))
    figures = onnx_check.Checker(model, pixels)(graph, file)
    assert figures["log_prob_nats_per_1000_dims"] < 1e-3
    with torch.no_grad():
        model.flow.levels[0].layers[0].layers[0].bias += value
    with pytest.raises(WorkFailed, match="differ by"):
        onnx_check.Checker(model, pixels)(graph, file)


class Doubled(torch.nn.Module):
    def forward(self, x):
        return 2 * x


class Added(torch.nn.Module):
    def forward(self, x, y):
        return x + y


def test_pieces_share_inputs_and_what_one_takes_can_go_out_too():
    x, y, total = (
        onnx_graphs.Field(name, ("batch", 3), "float32", "none", "") for name in ("x", "y", "total")
    )
    pieces = (
        onnx_graphs.Piece(Doubled(), (x,), (y,)),
        onnx_graphs.Piece(Added(), (x, y), (total,)),
    )
    graph = onnx_graphs.Graph("sum", "sum", pieces, (x,), (total, y))
    made = Pieces().model_of(graph)
    onnx.checker.check_model(made, full_check=True)
    session = onnxruntime.InferenceSession(made.SerializeToString())
    given = np.arange(6, dtype=np.float32).reshape(2, 3)
    found, doubled = session.run(["total", "y"], {"x": given})
    assert [one.name for one in session.get_outputs()] == ["total", "y"]
    assert np.array_equal(found, 3 * given)
    assert np.array_equal(doubled, 2 * given)


@pytest.mark.slow
def test_every_file_agrees_with_the_library(grey):
    _, report = grey
    kinds = {entry["kind"] for entry in report["files"].values()}
    assert kinds == {"density", "decoder", "posterior", "sampler", "encoder", "conditional"}
    for name, entry in report["files"].items():
        assert entry["check"], name
    assert report["files"]["density.onnx"]["check"]["log_prob_nats_per_1000_dims"] < 1e-3


@pytest.mark.slow
def test_colour_and_other_structures(tmp_path):
    colour_model().save_pretrained(tmp_path / "run")
    report = export(tmp_path / "run", tmp_path / "onnx")
    assert {name for name in report["files"] if name.startswith("sampler")} == {
        "sampler.blind.onnx",
        "sampler.plain.onnx",
    }
    assert all(entry["check"] for entry in report["files"].values())


@pytest.mark.slow
def test_terms_add_up(grey):
    folder, _ = grey
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (5, 1, 16, 16), np.uint8)
    out = run(folder / "onnx/density.onnx", image=image, noise=draw.random(image.shape, np.float32))
    together = out["level_terms"].sum(1) + out["log_det"]
    np.testing.assert_allclose(out["log_prob"], together, rtol=1e-5)
    base = -0.5 * (out["z"].astype(float) ** 2 + np.log(2 * np.pi)).sum((1, 2, 3))
    np.testing.assert_allclose(out["log_prob"], base + out["log_det"], rtol=1e-5)


class Recorded(Rows):
    """What one row draws, kept."""

    def __init__(self, seed: int) -> None:
        super().__init__([seed])
        self.normals, self.uniforms = [], []

    def __getitem__(self, index):
        return self

    def normal(self, *shape, **kwargs):
        self.normals.append(super().normal(*shape, **kwargs))
        return self.normals[-1]

    def uniform(self, *shape, **kwargs):
        self.uniforms.append(super().uniform(*shape, **kwargs))
        return self.uniforms[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "steps"), [("mnist", 1), ("mnist/3", 2)])
def test_sampler_gives_the_image_that_a_seed_gives(grey, path, steps):
    folder, _ = grey
    model = TzK.from_pretrained(folder / "run")
    seen = 0
    for seed in range(8):
        rows = Recorded(seed)
        drawn = model.given(path).sample((1,), generator=rows)
        rounds = len(rows.uniforms)
        if rounds * 16 > CANDIDATES:
            continue
        seen += 1
        tried = torch.cat(rows.normals[:rounds], 1)
        # The lineage draws for the deepest code too, and does not use it.
        above = rows.normals[rounds : rounds + steps - 1]
        inputs = {
            "candidate_noise": torch.nn.functional.pad(
                tried, (0, 0, 0, CANDIDATES - tried.shape[1])
            ).numpy(),
            "candidate_uniform": torch.nn.functional.pad(
                torch.cat(rows.uniforms, 1), (0, CANDIDATES - tried.shape[1]), value=0.99
            ).numpy(),
            "resample_uniform": np.zeros(1, np.float32),
            "latent_noise": rows.normals[-1].numpy(),
        }
        inputs |= {f"code_noise_{i}": noise.numpy() for i, noise in enumerate(above, 1)}
        out = run(folder / f"onnx/sampler.{path.replace('/', '.')}.onnx", **inputs)
        assert out["accepted"].all()
        assert out["finite"].all()
        apart = np.abs(out["image"].astype(int) - to_pixels(drawn).numpy().astype(int))
        assert apart.max() <= 1
        assert (apart > 0).mean() <= 1e-3
    assert seen


@pytest.mark.slow
def test_sampler_resamples_where_none_is_accepted(grey):
    folder, _ = grey
    model = TzK.from_pretrained(folder / "run")
    draw = np.random.default_rng(1)
    noise = draw.standard_normal((4, CANDIDATES, 4)).astype(np.float32)
    spare = np.array([0.0, 0.25, 0.6, 1 - 1e-7], np.float32)
    out = run(
        folder / "onnx/sampler.mnist.onnx",
        candidate_noise=noise,
        # log u < log p never holds for a uniform of 1.
        candidate_uniform=np.ones((4, CANDIDATES), np.float32),
        resample_uniform=spare,
        latent_noise=np.zeros((4, *model.latent_shape), np.float32),
    )
    assert not out["accepted"].any()
    logits = model.find("mnist").c_discriminator(torch.from_numpy(noise).flatten(0, 1))
    weights = torch.sigmoid(logits.detach().double()).reshape(4, CANDIDATES).numpy()
    shares = np.cumsum(weights / weights.sum(1, keepdims=True), 1)
    wanted = [int(np.searchsorted(row, u)) for row, u in zip(shares, spare, strict=True)]
    wanted = np.minimum(wanted, CANDIDATES - 1)
    np.testing.assert_allclose(out["code_1"], noise[np.arange(4), wanted], atol=1e-6)


@pytest.mark.slow
def test_a_file_tells_what_it_is(grey):
    folder, report = grey
    for name, entry in report["files"].items():
        model = onnx.load(str(folder / "onnx" / name), load_external_data=False)
        told = {one.key: one.value for one in model.metadata_props}
        assert told["weights_sha256"] == sha256(folder / "run" / WEIGHTS)
        assert json.loads(told["knowledge"]) == ["mnist", "mnist/3", "fashion"]
        assert json.loads(told["inputs"]) == entry["inputs"]
        assert [one.name for one in model.graph.input] == [one["name"] for one in entry["inputs"]]
        assert [one.name for one in model.graph.output] == [one["name"] for one in entry["outputs"]]
        assert told["kind"] == entry["kind"]
        assert sha256(folder / "onnx" / name) == entry["sha256"]
        assert max(one.version for one in model.opset_import if not one.domain) >= 18
    kept = json.loads((folder / "onnx" / REPORT).read_text())
    assert kept == report
    # The t-flow lies there once and not once a file.
    shared = (folder / "onnx" / SHARED).stat().st_size
    assert shared < 2 * (folder / "run" / WEIGHTS).stat().st_size


@pytest.mark.slow
def test_a_difference_that_is_too_large_leaves_nothing(grey, tmp_path, monkeypatch):
    folder, _ = grey
    right = onnx_graphs.standard_normal
    # On 256 dimensions a quarter of it is allowed.
    monkeypatch.setattr(onnx_graphs, "standard_normal", lambda z: right(z) + 1e-3)
    with pytest.raises(WorkFailed, match="differ by"):
        export(folder / "run", tmp_path / "onnx", paths=[])
    assert list(tmp_path.iterdir()) == []


def test_what_it_refuses(tmp_path):
    with pytest.raises(ModelUnavailable, match="does not exist"):
        export(tmp_path / "none", tmp_path / "onnx")
    tiny_model().save_pretrained(tmp_path / "run")
    with pytest.raises(UsageError, match="not of an export"):
        export(tmp_path / "run", tmp_path)
    with pytest.raises(UnknownKnowledge, match="mnist/3"):
        export(tmp_path / "run", tmp_path / "onnx", paths=["mnist/4"])
    assert not (tmp_path / "onnx").exists()


def test_the_page_is_what_the_export_writes():
    assert PAGE.read_text() == document(), "run: python -m tzk_export.onnx_page > docs/onnx.md"
