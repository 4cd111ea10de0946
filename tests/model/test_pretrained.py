"""The model that comes with tzk: it is small, it loads in float32, and it knows what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import tiny_model

import tzk_core.pretrained as pretrained
from tzk_core.data.quantisation import dequantise
from tzk_core.data.sources import load
from tzk_core.hub import CONFIG, WEIGHTS, sha256
from tzk_core.model import TzK
from tzk_core.pretrained import BUILTIN, compact, run_folder
from tzk_core.randomness import generator

CLASSES = [f"mnist/{n}" for n in range(10)]


@pytest.fixture(scope="module")
def model():
    return TzK.from_pretrained(BUILTIN)


def observed(model, name: str):
    images = load(f"builtin/{name}", split="test", preparation=model.preparation)
    pixels = torch.from_numpy(images.pixels.copy())
    return dequantise(pixels, torch.rand(pixels.shape, generator=generator(0))), images


def test_it_takes_at_most_12_megabytes():
    folder = run_folder(BUILTIN)
    files = [
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in str(path)
    ]
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    assert {WEIGHTS, CONFIG, "README.md", "recipe.yaml"} <= {path.name for path in files}


def test_it_knows_two_data_sets_and_their_classes(model):
    assert [path for path in model.paths() if "/" not in path] == ["mnist", "fashion"]
    assert {path for path in model.paths() if path.startswith("mnist/")} == set(CLASSES)
    assert sum(path.startswith("fashion/") for path in model.paths()) == 10
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert model.statistics["typicality"]


@torch.no_grad()
def test_it_reads_test_images(model):
    """Of 500 digits at most 5 % wrong: with the card's rate less than one run in 10⁶ would be."""
    t, images = observed(model, "mnist")
    base = model.find("mnist").encoders[1].base(t)
    c = model.find("mnist").encoders[1].sample(base, torch.zeros_like(base[0]))[0]
    logits = torch.stack([model.find(path).t_discriminator(c) for path in CLASSES])
    right = logits.argmax(0) == torch.as_tensor(images.labels)
    assert right.float().mean() > 0.95
    garment, _ = observed(model, "fashion_mnist")
    kinds = [model.find(name).t_discriminator for name in ("mnist", "fashion")]
    for own, other, x in ((kinds[0], kinds[1], t), (kinds[1], kinds[0], garment)):
        assert ((own(x) > 0) & (other(x) < 0)).float().mean() > 0.95


@torch.no_grad()
def test_its_samples_are_finite_and_repeat(model):
    for path in ("mnist/3", "fashion/0"):
        if path not in model.paths():
            path = next(each for each in model.paths() if each.startswith("fashion/"))
        drawn = model.given(path, temperature=0.7).draw(4, seed=1)
        assert drawn.images.isfinite().all()
        again = model.given(path, temperature=0.7).draw(1, seed=2)
        torch.testing.assert_close(again.images[0], drawn.images[1], rtol=1e-4, atol=1e-4)


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_folder(BUILTIN) == Path(pretrained.__file__).parent
    tiny_model().save_pretrained(tmp_path / BUILTIN)
    assert run_folder(BUILTIN) == Path(BUILTIN)
    assert TzK.from_pretrained(BUILTIN).paths() == tiny_model().paths()


def test_half_of_the_size_is_nearly_the_same_model(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator(1))
    model.save_pretrained(tmp_path)
    before = (tmp_path / WEIGHTS).stat().st_size
    save_file(compact(model), tmp_path / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(
        json.dumps(config | {"weights_sha256": sha256(tmp_path / WEIGHTS)})
    )
    assert (tmp_path / WEIGHTS).stat().st_size < before
    stored = load_file(tmp_path / WEIGHTS)
    assert {v.dtype for v in stored.values() if v.is_floating_point()} == {
        torch.float16,
        torch.float32,
    }
    loaded = TzK.from_pretrained(tmp_path)
    t = torch.randn(8, *model.observation_shape, generator=generator(2))
    mine, theirs = (each.prior.log_prob(t).detach() for each in (model, loaded))
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    assert not torch.equal(mine, theirs)
    torch.testing.assert_close(theirs, mine, rtol=2e-3, atol=0.5)
