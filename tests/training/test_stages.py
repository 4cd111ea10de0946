"""Training modes: stages after one another, and parts that stay as they are."""

from __future__ import annotations

import json
import signal

import pytest
import torch

from tzk_core.data.quantisation import dequantise
from tzk_core.data.sources import load
from tzk_core.errors import TzkError, UsageError, WorkFailed
from tzk_core.flows import ActNorm
from tzk_core.model import TzK
from tzk_core.training.dataset import load_data
from tzk_core.training.latents import Latents
from tzk_core.training.loop import Stage
from tzk_core.training.run import train


def changed(before: dict, after: dict) -> set[str]:
    """The parameters that are not the same bit for bit."""
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


@pytest.fixture
def parameters(monkeypatch):
    """Those of the model at the start and the end of every stage, in order."""
    seen: list[dict] = []
    plain_loop = Stage._loop

    def watched(self):
        for moment in ("before", "after"):
            if moment == "after":
                plain_loop(self)
            seen.append({n: p.detach().clone() for n, p in self.model.named_parameters()})

    monkeypatch.setattr(Stage, "_loop", watched)
    return seen


def stage(what: str, **more) -> dict:
    return {"train": what, "steps": 3, "batch": 8} | more


def test_parts_of_a_stage_can_be_frozen(tmp_path, tiny_recipe, parameters):
    """Any subset: here a parent with its children, or the t-flow and one child."""
    recipe = tiny_recipe(
        f"stages={[stage('all', freeze=['mnist']), stage('all', freeze=['flow', 'mnist/1'])]}"
    )
    train(recipe, out=tmp_path / "run", device="cpu", quiet=True)
    first, second = changed(*parameters[:2]), changed(*parameters[2:])
    assert not [name for name in first if name.startswith("knowledge.k_mnist")]
    assert [name for name in first if name.startswith("knowledge.k_fashion")]
    assert [name for name in first if name.startswith("flow.")]
    assert not [
        name
        for name in second
        if name.startswith(("flow.", "knowledge.k_mnist.child.knowledge.k_1."))
    ]
    assert [name for name in second if name.startswith("knowledge.k_mnist.child.knowledge.k_0.")]
    assert [name for name in second if name.startswith("knowledge.k_mnist.encoders.1.")]


def test_a_second_stage_goes_on_with_the_flow_of_the_first(tmp_path, tiny_recipe, parameters):
    """ActNorm is set from data once: setting it again would undo what the first stage learned."""
    recipe = tiny_recipe(f"stages={[stage('flow'), stage('all')]}")
    train(recipe, out=tmp_path / "run", device="cpu", quiet=True)
    end, start = parameters[1], parameters[2]
    assert not changed(end, {name: value for name, value in start.items() if name in end})


def test_children_alone_can_train(tmp_path, tiny_recipe, parameters):
    """The TzKs over the codes of frozen knowledge, as knowledge trains on a frozen t-flow."""
    recipe = tiny_recipe(f"stages={[stage('knowledge'), stage('children', batch=16)]}")
    out = tmp_path / "run"
    model = train(recipe, out=out, device="cpu", quiet=True)
    moved = changed(*parameters[2:])
    assert moved
    assert all(name.startswith("knowledge.k_mnist.child.") for name in moved)
    for part in ("child.flow.", "child.knowledge.k_0.decoders.1.", "child.knowledge.k_1.encoders."):
        assert [name for name in moved if name.startswith("knowledge.k_mnist." + part)], part
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["stage"] == 1]
    assert any("mnist/child_log_prob" in row for row in last)
    assert any("held_out_loss" in row for row in last)
    assert not any("mnist/kl" in row for row in last)
    assert model.given("mnist/0").sample((2,)).isfinite().all()


def test_no_children_to_train(tmp_path, tiny_recipe):
    recipe = tiny_recipe("data.sources.0.classes=false", f"stages={[stage('children')]}")
    with pytest.raises(UsageError, match=r"stages.0.train is children, but no knowledge has any"):
        train(recipe, out=tmp_path / "run", device="cpu", quiet=True)


@pytest.mark.parametrize(
    ("freeze", "error", "says"),
    [
        (["flow"], UsageError, "freezes all that it would train"),
        (["kanji"], TzkError, "there is mnist"),
    ],
)
def test_what_cannot_be_frozen(tmp_path, tiny_recipe, freeze, error, says):
    first = stage("flow", freeze=freeze) if freeze == ["flow"] else stage("all", freeze=freeze)
    with pytest.raises(error, match=says) as raised:
        train(tiny_recipe(f"stages={[first]}"), out=tmp_path / "run", device="cpu", quiet=True)
    assert raised.value.exit_code == 2


def test_ctrl_c_while_latent_states_are_worked_out(tmp_path, tiny_recipe, monkeypatch):
    """It takes minutes on a large data set: what was trained is kept, and the run goes on."""
    out, plain = tmp_path / "run", Latents.encode

    def interrupted(model, data, draws, seed, tick, **more):
        signal.raise_signal(signal.SIGINT)
        return plain(model, data, draws, seed, tick, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Latents, "encode", interrupted)
        with pytest.raises(WorkFailed, match=r"interrupted before step 1 .*--resume"):
            train(tiny_recipe(), out=out, device="cpu", quiet=True)
    train(tiny_recipe(), out=out, resume=True, device="cpu", quiet=True)
    assert TzK.from_pretrained(out).paths()


@pytest.mark.parametrize(
    ("room", "says"),
    [(3, None), (1.5, "1 kept, so that each image"), (0.5, "none kept, so that every step")],
)
def test_latent_states_that_do_not_fit_are_told(
    tmp_path, tiny_recipe, monkeypatch, capsys, room, says
):
    """The room is for so many draws of the images, where two are asked for."""
    recipe = tiny_recipe(f"stages={[stage('knowledge', latent_draws=2)]}")
    data, _ = load_data(recipe.data, recipe.seed)
    monkeypatch.setattr("tzk_core.training.loop.LATENT_BYTES", int(room * len(data) * 64 * 4))
    train(recipe, out=tmp_path / "run", device="cpu")
    told = [line for line in capsys.readouterr().err.splitlines() if "(latent_draws)" in line]
    assert len(told) == (0 if says is None else 1)
    if says is not None:
        assert told[0].startswith(f"2 noise draws of {len(data)} images")
        assert says in told[0]
        assert "tzk fit-knowledge" in told[0]


@pytest.mark.parametrize("what", ["knowledge", "all"])
def test_balanced_stages_end_with_logits_for_the_true_rate(tmp_path, tiny_recipe, what):
    """20 garments among 100 images, seen half and half: what is said of them is not a half.

    In a few steps the discriminators learn little more than the balanced rate, so that what they
    say is about the correction alone.
    """
    recipe = tiny_recipe(
        "data.balance=true", "data.sources.1.limit=20", f"stages={[stage(what, batch=16)]}"
    )
    model = train(recipe, out=tmp_path / "run", device="cpu", quiet=True)
    images = load("builtin/fashion_mnist", limit=50, preparation=model.preparation)
    t = dequantise(torch.from_numpy(images.pixels.copy()), torch.full((50, 1, 8, 8), 0.5))
    kind = model.find("fashion")
    with torch.no_grad():
        said = kind.t_discriminator(t).sigmoid().mean()
    assert 0.1 < float(said) < 0.35


def test_what_is_frozen_is_not_corrected(tmp_path, tiny_recipe):
    """A balanced stage shifts the logits of what it trained, and of nothing else."""
    frozen = stage("knowledge", freeze=["mnist", "fashion"], batch=16)
    some = stage("knowledge", freeze=["mnist"], batch=16)
    values = ("data.balance=true", f"stages={[stage('knowledge', batch=16), some]}")
    model = train(tiny_recipe(*values), out=tmp_path / "two", device="cpu", quiet=True)
    one = train(
        tiny_recipe(values[0], f"stages={[stage('knowledge', batch=16)]}"),
        out=tmp_path / "one",
        device="cpu",
        quiet=True,
    )
    before, after = (m.find("mnist").t_discriminator.trunk.last.bias for m in (one, model))
    assert torch.equal(before, after)
    with pytest.raises(UsageError, match="freezes all"):
        train(tiny_recipe(f"stages={[frozen]}"), out=tmp_path / "none", device="cpu", quiet=True)


def test_recomputing_with_several_classes(tmp_path, tiny_recipe):
    """Kinds side by side on a code do not recompute, and the result is the same."""
    plain, again = (
        train(
            tiny_recipe(f"stages={[stage('knowledge', recompute=recompute)]}"),
            out=tmp_path / str(recompute),
            device="cpu",
            quiet=True,
        ).state_dict()
        for recompute in (False, True)
    )
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, rtol=1e-5, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("data.sources.0.knowledge=MNIST", "did you mean 'mnist'"),
        ("stages.1.freeze=[nope]", "no knowledge 'nope'"),
        ("stages.1.objective={name: tzk, encoder_fraction: 1}", "rewards"),
        ("data.sources.0={source: S, classes: true, exclusive: true}", "adds others there"),
    ],
)
def test_what_is_wrong_with_a_later_stage_is_found_before_the_first(
    tmp_path, tiny_recipe, parameters, change, says
):
    with pytest.raises(TzkError, match=says) as raised:
        train(tiny_recipe(change), out=tmp_path / "run", device="cpu", quiet=True)
    assert raised.value.exit_code == 2
    assert parameters == []


@pytest.mark.parametrize("change", ["stages.1.freeze=[nope]", "stages.0.freeze=[flow]"])
def test_a_wrong_recipe_does_not_block_its_folder(tmp_path, tiny_recipe, change):
    out = tmp_path / "run"
    with pytest.raises(TzkError):
        train(tiny_recipe(change), out=out, device="cpu", quiet=True)
    assert not out.exists() or list(out.iterdir()) == []
    train(tiny_recipe(), out=out, device="cpu", quiet=True)
    assert TzK.from_pretrained(out).paths()


def test_a_kind_that_few_images_have(tmp_path, tiny_recipe, monkeypatch):
    """Three among hundreds, in two classes: every ActNorm starts all the same, from few or many."""
    monkeypatch.setattr("tzk_core.training.initialise.IMAGES", 8)
    recipe = tiny_recipe("data.sources.0.limit=3", "data.holdout=0.05")
    model = train(recipe, out=tmp_path / "run", device="cpu", quiet=True)
    assert "mnist/0" in model.paths()
    started = [m.initialized for m in model.modules() if isinstance(m, ActNorm)]
    assert started
    assert all(started)


def test_the_best_of_a_balanced_stage_can_be_served(tmp_path, tiny_recipe):
    """Its logits are corrected and its p(e = 1) fitted; what goes on training is not touched."""
    recipe = tiny_recipe(
        "data.balance=true",
        "data.sources.1.limit=20",
        f"stages={[stage('knowledge', batch=16, measure_every=3, steps=3)]}",
    )
    model = train(recipe, out=tmp_path / "run", device="cpu", quiet=True)
    best = TzK.from_pretrained(tmp_path / "run" / "checkpoints" / "best-0")
    for name in ("mnist", "fashion"):
        own, other = (m.find(name).t_discriminator.trunk.last.bias for m in (model, best))
        torch.testing.assert_close(own, other)
        assert float(best.find(name).existence) != 0.5
