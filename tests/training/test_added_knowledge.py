"""Knowledge added to a finished run, against what else may happen to the run meanwhile."""

from __future__ import annotations

import torch
import yaml

from tzk_core.model import TzK
from tzk_core.training import extend
from tzk_core.training.checkpoint import latest_checkpoint, load_latest, save_checkpoint
from tzk_core.training.extend import add_knowledge
from tzk_core.training.run import train

MORE = {"source": "builtin/fashion_mnist", "limit": 12, "steps": 2, "device": "cpu", "quiet": True}


def test_what_the_last_stage_froze_does_not_matter(tmp_path, tiny_recipe):
    """The job of a new kind knows nothing of the others, frozen or not."""
    run = tmp_path / "run"
    train(tiny_recipe("stages.1.freeze=[mnist/0]"), out=run, device="cpu", quiet=True)
    model = add_knowledge(run, name="more", **MORE)
    assert "more" in model.paths()


def test_two_that_are_added_at_once_are_both_in_the_recipe(tmp_path, tiny_recipe, monkeypatch):
    run, plain = tmp_path / "run", extend.fit_kinds
    train(tiny_recipe(), out=run, device="cpu", quiet=True)

    def meanwhile(*arguments):
        monkeypatch.setattr(extend, "fit_kinds", plain)
        add_knowledge(run, name="first", **MORE)
        return plain(*arguments)

    monkeypatch.setattr(extend, "fit_kinds", meanwhile)
    add_knowledge(run, name="second", **MORE)
    assert {"first", "second"} <= set(TzK.from_pretrained(run).paths())
    sources = yaml.safe_load((run / "recipe.yaml").read_text())["data"]["sources"]
    assert {"first", "second"} <= {source["knowledge"] for source in sources}


def test_a_corrupt_checkpoint_does_not_push_out_a_good_one(tmp_path, tiny_recipe):
    run = tmp_path / "run"
    model = train(tiny_recipe(), out=run, device="cpu", quiet=True)

    def save(step: int, keep: int):
        optimizer = torch.optim.Adam(model.parameters())
        return save_checkpoint(
            run / "checkpoints",
            model,
            stage=1,
            step=step,
            optimizer=optimizer,
            averaged=None,
            keep=keep,
        )

    good = latest_checkpoint(run / "checkpoints")
    newer = good.with_name("1-000020")
    good.rename(newer)
    weights = newer / "model.safetensors"
    older = save(10, keep=5)
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    found, reasons = load_latest(run / "checkpoints")
    assert (found.step, len(reasons)) == (10, 1)
    latest = save(15, keep=1)
    assert latest_checkpoint(run / "checkpoints") == latest
    assert not older.exists()
    assert load_latest(run / "checkpoints")[0].step == 15
