"""A saved model is the same model, in a fresh process; what is not one is refused in a sentence."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import HELD_OUT, PATHS, SIDE, tiny_model

from tzk_core import hub
from tzk_core.config import FORMAT_VERSION
from tzk_core.errors import ModelUnavailable, WorkFailed
from tzk_core.hub import CONFIG, WEIGHTS, sha256
from tzk_core.model import TzK
from tzk_core.randomness import Rows


def answers(model: TzK) -> dict[str, str]:
    """The SHA-256 of the bytes of every answer."""
    t = torch.linspace(-0.5, 0.5, 3 * SIDE * SIDE).reshape(3, 1, SIDE, SIDE)
    said = {"log_prob": model.prior.log_prob(t), "samples": model.prior.draw(3, seed=5).images}
    for path in PATHS:
        said[f"log_prob {path}"] = model.given(path).log_prob(t, generator=Rows([1, 2, 3]))
        said[f"samples {path}"] = model.given(path).draw(3, seed=9).images
        said[f"posterior {path}"] = model.posterior(t, generator=Rows([1, 2, 3]))[path].joint
    return {
        key: hashlib.sha256(value.detach().numpy().tobytes()).hexdigest()
        for key, value in said.items()
    }


@pytest.fixture
def model():
    return tiny_model(seed=3)


@pytest.fixture
def folder(model, tmp_path) -> Path:
    model.save_pretrained(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """Whoever asks the hub fails the test."""

    def asked(*args, **kwargs):
        pytest.fail(f"the hub was asked: {args} {kwargs}")

    monkeypatch.setattr(hub, "hf_hub_download", asked)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", asked)


def test_a_fresh_process_gives_the_same_bytes(model, folder):
    code = (
        "import json, sys\n"
        "from model.test_saving import answers\n"
        "from tzk_core.model import TzK\n"
        "print(json.dumps(answers(TzK.from_pretrained(sys.argv[1]))))\n"
    )
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), str(tests.parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == answers(model)


def test_what_comes_back(model, folder):
    loaded = TzK.from_pretrained(folder)
    assert not loaded.training
    assert loaded.device == torch.device("cpu")
    assert loaded.config == model.config
    assert loaded.paths() == PATHS
    assert loaded.statistics == {"held_out_log_prob": HELD_OUT}
    assert loaded.preparation == model.preparation
    assert answers(TzK.from_pretrained(str(folder))) == answers(model)


def test_loading_leaves_the_global_generator_alone(folder):
    before = torch.random.get_rng_state()
    TzK.from_pretrained(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_after_knowledge_came_and_went(model, folder):
    model.remove_knowledge("fashion").add_knowledge("mnist/4").rename_knowledge("mnist", "digits")
    model.save_pretrained(folder)
    loaded = TzK.from_pretrained(folder)
    assert loaded.paths() == ["digits", "digits/3", "digits/4"]
    state, stored = model.state_dict(), loaded.state_dict()
    assert state.keys() == stored.keys()
    assert all(state[k].numpy().tobytes() == stored[k].numpy().tobytes() for k in state)


def test_float64_stays_float64(model, folder):
    model.double().save_pretrained(folder)
    loaded = TzK.from_pretrained(folder)
    assert loaded.reference.dtype == torch.float64
    assert answers_double(loaded) == answers_double(model)


def answers_double(model):
    return model.prior.draw(2, seed=1).images.numpy().tobytes()


def test_the_folder(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", CONFIG, WEIGHTS]
    stored = json.loads((folder / CONFIG).read_text())
    assert stored["format_version"] == FORMAT_VERSION
    assert stored["weights_sha256"] == sha256(folder / WEIGHTS)
    assert "library_name: tzk" in (folder / "README.md").read_text()


def test_saving_over_keeps_the_card(model, folder):
    (folder / "README.md").write_text("# Mine\n")
    model.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "# Mine\n"


def test_saving_where_it_cannot_be(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkFailed, match="cannot be saved"):
        model.save_pretrained(tmp_path / "file")


def test_a_save_that_fails_leaves_what_was_there(model, folder, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub, "save_file", full)
    with pytest.raises(WorkFailed, match="No space left"):
        model.save_pretrained(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


# -- what is refused -------------------------------------------------------------------------------


def change_config(folder: Path, **changes) -> None:
    stored = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(stored | changes))


def corrupt(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-5] ^= 1
    (folder / WEIGHTS).write_bytes(data)


def other_weights(folder: Path) -> None:
    """Sound weights with their right SHA-256, of a model with other shapes."""
    state = load_file(folder / WEIGHTS)
    state.pop(next(iter(state)))
    save_file(state, folder / WEIGHTS)
    change_config(folder, weights_sha256=sha256(folder / WEIGHTS))


def no_safetensors(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"not weights")
    change_config(folder, weights_sha256=sha256(folder / WEIGHTS))


BROKEN = {
    "corrupt weights": (corrupt, "SHA-256 differs"),
    "cut weights": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-100]),
        "SHA-256 differs",
    ),
    "missing weights": (lambda f: (f / WEIGHTS).unlink(), "has no model.safetensors"),
    "no weights at all": (no_safetensors, "cannot be loaded"),
    "weights of another model": (other_weights, "cannot be loaded"),
    "missing config": (lambda f: (f / CONFIG).unlink(), "is no run: there is no"),
    "config that is no JSON": (lambda f: (f / CONFIG).write_text("{"), "cannot be read"),
    "config that is a list": (lambda f: (f / CONFIG).write_text("[]"), "format_version None"),
    "another format": (lambda f: change_config(f, format_version=1), "has format_version 1"),
    "a format that is text": (lambda f: change_config(f, format_version="x"), "format_version 'x'"),
    "an unknown key": (lambda f: change_config(f, colour="red"), "is wrong at colour"),
    "a wrong value": (lambda f: change_config(f, observation=[0]), "is wrong at observation"),
    "a config of another size": (
        lambda f: change_config(f, observation=[1, 32, 32]),
        "cannot be loaded",
    ),
    "a size that cannot be": (
        lambda f: change_config(f, observation=[1, 6, 6]),
        "cannot be loaded",
    ),
    "a pickle": (lambda f: torch.save({"a": torch.ones(1)}, f / WEIGHTS), "SHA-256 differs"),
}


def test_whoever_may_read_the_configuration_may_read_the_weights(folder):
    assert (folder / WEIGHTS).stat().st_mode == (folder / CONFIG).stat().st_mode


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_refused_in_a_sentence(folder, what):
    breaking, reason = BROKEN[what]
    breaking(folder)
    with pytest.raises(ModelUnavailable) as caught:
        TzK.from_pretrained(folder)
    detail = caught.value.detail
    assert reason in detail
    assert str(folder) in detail
    assert "\n" not in detail
    assert len(detail) < 600
    assert caught.value.exit_code == 1
    assert caught.value.status == 503


LOCAL = [
    "runs",
    "./runs/x",
    "../x/y",
    "/nowhere/x",
    "~/x/y",
    "a/b/c",
    "runs/x/",
    "tests/nothing",
    Path("owner/name"),
]


@pytest.mark.parametrize("name", LOCAL, ids=str)
def test_what_looks_local_never_goes_to_the_hub(name, monkeypatch, tmp_path):
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelUnavailable, match=r"does not exist|is no run"):
        TzK.from_pretrained(name)


def test_a_hub_name_goes_to_the_hub(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path / "run")  # where nothing is called `owner`
    asked = []

    def download(repo_id, filename, **_):
        asked.append((repo_id, filename))
        return str(folder / filename)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
    assert TzK.from_pretrained("owner/name").paths() == PATHS
    assert ("owner/name", CONFIG) in asked
    assert ("owner/name", WEIGHTS) in asked


def test_a_hub_that_does_not_answer(monkeypatch, tmp_path):
    monkeypatch.undo()  # the real thing: HF_HUB_OFFLINE is set (conftest.py)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelUnavailable, match="owner/name cannot be had from the hub") as caught:
        TzK.from_pretrained("owner/name", cache_dir=tmp_path / "cache")
    assert "\n" not in caught.value.detail
