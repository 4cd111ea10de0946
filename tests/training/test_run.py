"""A real, tiny training run: what it leaves, and that an interrupted one ends the same."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml

from tzk_core.errors import ModelUnavailable, UsageError, WorkFailed
from tzk_core.model import TzK
from tzk_core.training import run
from tzk_core.training.checkpoint import latest_checkpoint, load_checkpoint
from tzk_core.training.interrupt import Interrupt
from tzk_core.training.labels import existence_of
from tzk_core.training.latents import LATENTS
from tzk_core.training.loop import Stage
from tzk_core.training.recipe import parse_recipe
from tzk_core.training.run import train

WEIGHTS = "model.safetensors"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_recipe) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(tiny_recipe(), out=out, device="cpu", quiet=True)
    return out


def interrupt_at(monkeypatch, stage: int, step: int, times: int = 1) -> None:
    """Ctrl-C (a real signal to this process) while that step works."""
    plain = Stage._step

    def step_with_signal(self, number, *args):
        done = plain(self, number, *args)
        if (self.index, number) == (stage, step):
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return done

    monkeypatch.setattr(Stage, "_step", step_with_signal)


# -- what a run leaves -----------------------------------------------------------------------------


def test_the_run_folder(whole, tiny_recipe):
    found = {path.name for path in whole.iterdir()}
    assert {
        "config.json",
        WEIGHTS,
        "README.md",
        "recipe.yaml",
        "metrics.jsonl",
        "checkpoints",
        "samples",
    } <= found
    assert not [name for name in found if name.startswith(".")]
    stored = parse_recipe(yaml.safe_load((whole / "recipe.yaml").read_text()))
    assert stored == tiny_recipe()
    assert not list(whole.rglob("*.pt"))
    assert not list(whole.rglob("*.pkl"))


def test_the_model(whole, tiny_recipe):
    model = TzK.from_pretrained(whole)
    assert set(model.paths()) == {"mnist", "mnist/0", "mnist/1", "fashion"}
    assert model.observation_shape == (1, 8, 8)
    assert model.preparation == tiny_recipe().data.preparation
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    held_out = model.statistics["held_out_log_prob"]
    assert held_out == sorted(held_out)
    assert len(held_out) == 10
    assert 0 < float(model.find("mnist").existence) < 1
    assert model.given("mnist/1").draw(2, seed=0).images.isfinite().all()


def test_every_actnorm_was_started_from_data(whole):
    state = TzK.from_pretrained(whole).state_dict()
    flags = {key: bool(value) for key, value in state.items() if key.endswith(".initialized")}
    assert flags
    assert [key for key, value in flags.items() if not value and "encoders.0" not in key] == []


def test_metrics(whole):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {0, 1}
    assert [row["step"] for row in rows if row["stage"] == 0 and "loss" in row] == [0, 9]
    measured = [row for row in rows if "held_out_bits_per_dim" in row]
    assert [(row["stage"], row["step"]) for row in measured] == [(0, 9)]
    assert 0 < measured[0]["held_out_bits_per_dim"] < 20
    assert [row["step"] for row in rows if "held_out_loss" in row] == [4]
    assert all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))
    last = [row for row in rows if "loss" in row][-1]
    assert "mnist/t_accuracy" in last
    assert "mnist/1/t_accuracy" in last
    assert last["bad_steps"] == 0


def test_the_round_trip_on_real_images_after_training(whole, mnist):
    from tzk_core.data.quantisation import dequantise
    from tzk_core.randomness import Rows

    model = TzK.from_pretrained(whole)
    x = torch.from_numpy(mnist.pixels[:32, :, ::4, ::4].copy())
    t = dequantise(x, Rows.from_seed(0, 32).uniform(1, 8, 8))
    with torch.no_grad():
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
            z, log_det = model.to(dtype).flow.encode(t.to(dtype))
            back, inverse = model.flow.decode(z)
            assert float((back - t.to(dtype)).abs().max()) <= tolerance
            assert float((log_det + inverse).abs().max()) <= tolerance * 100


def test_training_a_flow_helps(tmp_path, tiny_recipe):
    """Against the density of the same flow after its data-dependent start."""
    out = tmp_path / "run"
    recipe = tiny_recipe("stages=[{train: flow, steps: 81, learning_rate: 1e-2, warmup: 5}]")
    train(recipe, out=out, device="cpu", quiet=True)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    bits = [row["bits_per_dim"] for row in rows if "bits_per_dim" in row]
    assert bits[-1] < bits[0] - 0.3


def test_the_same_recipe_gives_the_same_bytes(whole, tmp_path, tiny_recipe):
    before = torch.random.get_rng_state()
    train(tiny_recipe(), out=tmp_path / "again", device="cpu", quiet=True)
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert torch.equal(torch.random.get_rng_state(), before)
    train(tiny_recipe("seed=4"), out=tmp_path / "other", device="cpu", quiet=True)
    assert (tmp_path / "other" / WEIGHTS).read_bytes() != (whole / WEIGHTS).read_bytes()


@pytest.mark.parametrize("objective", ["{name: tzk}", "{name: tzk, prior_codes: conditional}"])
def test_end_to_end_with_the_paper_s_objective(tmp_path, objective, tiny_recipe):
    recipe = tiny_recipe(
        "stages=[{train: all, steps: 3, batch: 16}]", f"stages.0.objective={objective}"
    )
    train(recipe, out=tmp_path / "run", device="cpu", quiet=True)
    assert "mnist" in TzK.from_pretrained(tmp_path / "run").paths()


# -- interrupted and resumed -----------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "step"), [(0, 6), (0, 9), (1, 0), (1, 4)])
def test_a_resumed_run_ends_bit_for_bit_the_same(
    whole, tmp_path, monkeypatch, stage, step, tiny_recipe
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_at(patch, stage, step)
        with pytest.raises(WorkFailed, match="interrupted after step") as caught:
            train(tiny_recipe(), out=out, device="cpu", quiet=True)
    assert f"after step {step + 1} of" in caught.value.detail
    assert "--resume" in caught.value.detail
    assert not (out / WEIGHTS).exists()
    place = load_checkpoint(latest_checkpoint(out / "checkpoints"))
    assert (place.stage, place.step) == (stage, step + 1)
    with pytest.raises(UsageError, match="holds an interrupted run; go on with --resume"):
        train(tiny_recipe(), out=out, quiet=True)
    train(tiny_recipe(), out=out, resume=True, device="cpu", quiet=True)
    assert (out / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_latent_states_are_kept_until_their_stage_is_done(
    whole, tmp_path, monkeypatch, tiny_recipe
):
    """A run that goes on in a stage of knowledge passes no image through the flow again."""
    assert not (whole / LATENTS).exists()
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1, 2)
        with pytest.raises(WorkFailed, match="interrupted"):
            train(tiny_recipe(), out=out, device="cpu", quiet=True)
    assert (out / LATENTS).is_dir()
    with monkeypatch.context() as patch:
        patch.setattr("tzk_core.training.latents.encode_block", None)
        train(tiny_recipe(), out=out, resume=True, device="cpu", quiet=True)
    assert not (out / LATENTS).exists()
    assert (out / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_latent_states_are_found_again_before_the_first_checkpoint_of_their_stage(
    whole, tmp_path, monkeypatch, tiny_recipe
):
    out, plain = tmp_path / "run", Stage._step

    def killed(self, number, *args):
        if (self.index, number) == (1, 1):
            raise KeyboardInterrupt
        return plain(self, number, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_recipe(), out=out, device="cpu", quiet=True)
    assert latest_checkpoint(out / "checkpoints").name.startswith("0-")
    with monkeypatch.context() as patch:
        patch.setattr("tzk_core.training.latents.encode_block", None)
        train(tiny_recipe(), out=out, resume=True, device="cpu", quiet=True)
    assert not (out / LATENTS).exists()
    assert (out / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_latent_states_that_do_not_fit_the_disk_are_kept_in_memory(
    whole, tmp_path, monkeypatch, tiny_recipe, capsys
):
    class Full:
        def __init__(self, *_):
            raise WorkFailed("latent states cannot be kept: no space left")

    monkeypatch.setattr("tzk_core.training.latents._OnDisk", Full)
    out = tmp_path / "run"
    train(tiny_recipe(), out=out, device="cpu")
    assert "kept in memory: latent states cannot be kept" in capsys.readouterr().err
    assert (out / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_other_labels_than_a_run_began_with_are_refused(tmp_path, monkeypatch, tiny_recipe):
    out, plain = tmp_path / "run", existence_of
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1, 2)
        with pytest.raises(WorkFailed):
            train(tiny_recipe(), out=out, device="cpu", quiet=True)

    def changed(*args):
        known = plain(*args)
        known.existence["fashion"] = 1 - known.existence["fashion"]
        return known

    monkeypatch.setattr("tzk_core.training.dataset.existence_of", changed)
    with pytest.raises(UsageError, match="labels or attributes are not those"):
        train(tiny_recipe(), out=out, resume=True, device="cpu", quiet=True)


def test_interrupted_twice_on_the_way(whole, tmp_path, monkeypatch, tiny_recipe):
    out, resume = tmp_path / "run", False
    for stage, step in ((0, 2), (0, 3), (1, 1)):
        with monkeypatch.context() as patch:
            interrupt_at(patch, stage, step)
            with pytest.raises(WorkFailed, match="interrupted"):
                train(tiny_recipe(), out=out, resume=resume, device="cpu", quiet=True)
        resume = True
    train(tiny_recipe(), out=out, resume=True, device="cpu", quiet=True)
    assert (out / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_a_second_ctrl_c_ends_it_at_once_and_the_last_checkpoint_holds(
    whole, tmp_path, monkeypatch, tiny_recipe
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 0, 7, times=2)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_recipe(), out=out, device="cpu", quiet=True)
    assert load_checkpoint(latest_checkpoint(out / "checkpoints")).step == 5
    train(tiny_recipe(), out=out, resume=True, device="cpu", quiet=True)
    assert (out / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_killed_before_the_first_checkpoint(whole, tmp_path, monkeypatch, tiny_recipe):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 0, 1, times=2)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_recipe(), out=out, device="cpu", quiet=True)
    assert latest_checkpoint(out / "checkpoints") is None
    train(tiny_recipe(), out=out, resume=True, device="cpu", quiet=True)
    assert (out / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_ctrl_c_while_the_model_is_measured_ends_it_at_once(
    whole, tmp_path, monkeypatch, tiny_recipe
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(run, "measure", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        with pytest.raises(WorkFailed, match=r"after training.*--resume"):
            train(tiny_recipe(), out=out, device="cpu", quiet=True)
    assert not (out / WEIGHTS).exists()
    train(tiny_recipe(), out=out, resume=True, device="cpu", quiet=True)
    assert (out / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_interrupt_is_a_question():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt:
        assert not interrupt.asked
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.asked
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_interrupt_outside_the_main_thread_leaves_signals_alone():
    seen = []

    def work():
        with Interrupt() as interrupt:
            seen.append((signal.getsignal(signal.SIGINT), interrupt.asked))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


@pytest.mark.slow
def test_ctrl_c_on_the_command_line(tmp_path, values):
    """A process, a real SIGINT from outside, ``--resume``, and the bytes of a run left alone."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(values()))
    options = ["--set", "stages.0.steps=300", "--set", "stages.0.checkpoint_every=20"]
    command = [sys.executable, "-m", "tzk_core.cli.main", "train", str(recipe), *options]
    where = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    process = {
        "env": os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": where},
        "text": True,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    out = tmp_path / "run"
    started = subprocess.Popen([*command, "--out", str(out), "--device", "cpu"], **process)
    deadline = time.monotonic() + 60
    while not (out / "checkpoints" / "0-000020").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    stdout, stderr = started.communicate(timeout=60)
    assert started.returncode == 1, stderr
    assert "interrupted after step" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    done = subprocess.run(
        [*command, "--out", str(out), "--device", "cpu", "--resume"],
        check=False,
        timeout=120,
        **process,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n"
    alone = tmp_path / "alone"
    done = subprocess.run(
        [*command, "--out", str(alone), "--device", "cpu"], check=False, timeout=120, **process
    )
    assert done.returncode == 0, done.stderr
    assert (out / WEIGHTS).read_bytes() == (alone / WEIGHTS).read_bytes()


# -- what is refused -------------------------------------------------------------------------------


def test_a_finished_run_is_not_touched(whole, tiny_recipe):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    with pytest.raises(UsageError, match="holds a finished run; name another folder"):
        train(tiny_recipe(), out=whole, quiet=True)
    with pytest.raises(UsageError, match="is finished; there is nothing to resume"):
        train(tiny_recipe(), out=whole, resume=True, quiet=True)
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before


def test_nothing_to_resume(tmp_path, tiny_recipe):
    with pytest.raises(UsageError, match="holds no run to resume"):
        train(tiny_recipe(), out=tmp_path / "none", resume=True, quiet=True)
    assert not (tmp_path / "none").exists()


def test_resuming_with_another_recipe(tmp_path, monkeypatch, tiny_recipe):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 0, 2)
        with pytest.raises(WorkFailed):
            train(tiny_recipe(), out=out, quiet=True)
    with pytest.raises(UsageError, match="was started with another recipe"):
        train(tiny_recipe("stages.0.steps=13"), out=out, resume=True, quiet=True)


def test_places_that_cannot_be_written(tmp_path, tiny_recipe):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file; --out names a folder"):
        train(tiny_recipe(), out=tmp_path / "file", quiet=True)
    with pytest.raises(WorkFailed, match="cannot be written"):
        train(tiny_recipe(), out=tmp_path / "file" / "run", quiet=True)
    # /proc is read-only, for root too.
    with pytest.raises(WorkFailed, match="cannot be written"):
        train(tiny_recipe(), out=Path("/proc/tzk/run"), quiet=True)
    assert (tmp_path / "file").read_text() == "mine"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "harm",
    [
        lambda p: flip(p / WEIGHTS),
        lambda p: flip(p / "optimizer.safetensors"),
        lambda p: flip(p / "averaged.safetensors"),
        lambda p: (p / "averaged.safetensors").unlink(),
        lambda p: (p / "optimizer.safetensors").write_bytes(b""),
        lambda p: (p / "config.json").unlink(),
        lambda p: (p / "state.json").write_text("{"),
        lambda p: (p / "state.json").write_text("{}"),
    ],
    ids=["weights", "optimizer", "averaged", "no averaged", "empty", "config", "state", "no keys"],
)
def test_a_corrupt_checkpoint_is_refused(tmp_path, monkeypatch, harm, tiny_recipe):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 0, 2)
        with pytest.raises(WorkFailed):
            train(tiny_recipe(), out=out, quiet=True)
    harm(latest_checkpoint(out / "checkpoints"))
    with pytest.raises(ModelUnavailable) as caught:
        train(tiny_recipe(), out=out, resume=True, quiet=True)
    assert str(out) in caught.value.detail
    assert "\n" not in caught.value.detail


def test_a_checkpoint_that_was_cut_off_is_no_checkpoint(tmp_path, monkeypatch, tiny_recipe):
    """One without its state.json was never finished: the one before it counts."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 0, 6)
        with pytest.raises(WorkFailed):
            train(tiny_recipe(), out=out, quiet=True)
    places = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert places == ["0-000005", "0-000007"]
    (out / "checkpoints" / "0-000007" / "state.json").unlink()
    assert latest_checkpoint(out / "checkpoints").name == "0-000005"


def test_checkpoints_are_in_the_order_of_steps(tmp_path):
    for name in ("0-999500", "0-1000000", "10-000500", "9-000500", "x-y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text("{}")
    assert latest_checkpoint(tmp_path).name == "10-000500"
    shutil.rmtree(tmp_path / "10-000500")
    shutil.rmtree(tmp_path / "9-000500")
    assert latest_checkpoint(tmp_path).name == "0-1000000"


@pytest.mark.parametrize("device", ["tpu", "mps", "cuda:999"])
def test_a_device_that_is_not_there_leaves_nothing(tmp_path, tiny_recipe, device):
    with pytest.raises(UsageError, match=device):
        train(tiny_recipe(), out=tmp_path / "run", device=device, quiet=True)
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_read_is_told(tmp_path, class_folder, tiny_recipe, capsys):
    (class_folder / "0" / "bad.png").write_bytes(b"no image")
    recipe = tiny_recipe(
        f"data.sources=[{{source: {class_folder}, knowledge: digits}}]",
        "stages=[{train: flow, steps: 1, batch: 4}]",
    )
    with pytest.raises(WorkFailed, match=r"1 of 13 images .*bad\.png.*\(max_bad_share"):
        train(recipe, out=tmp_path / "run", device="cpu")
    recipe.data.max_bad_share = 0.1
    train(recipe, out=tmp_path / "run", device="cpu")
    told = capsys.readouterr().err
    assert told.count(f"skipped {class_folder}") == 1
    assert "bad.png: the 8 bytes are no image" in told


def test_data_that_is_not_there(tmp_path, tiny_recipe):
    with pytest.raises(UsageError, match="nowhere"):
        train(tiny_recipe("data.sources.0.source=./nowhere"), out=tmp_path / "run", quiet=True)


def test_too_little_data(tmp_path, tiny_recipe):
    recipe = tiny_recipe("data.sources.0.limit=1", "data.sources.1.limit=1")
    with pytest.raises(UsageError, match="too few"):
        train(recipe, out=tmp_path / "run", quiet=True)


def test_an_objective_that_has_no_maximum_is_refused(tmp_path, tiny_recipe):
    recipe = tiny_recipe(
        "stages.1.objective.name=tzk", "model.knowledge.code_prior=flow", "stages.0.steps=1"
    )
    with pytest.raises(UsageError, match="rewards shrinking c for ever"):
        train(recipe, out=tmp_path / "run", device="cpu", quiet=True)


def test_knowledge_where_the_data_tell_of_none(tmp_path, tiny_recipe):
    recipe = tiny_recipe(
        "data.sources=[{source: builtin/mnist, limit: 60}]", "stages.0.steps=1", "stages.1.steps=1"
    )
    with pytest.raises(UsageError, match="knowledge"):
        train(recipe, out=tmp_path / "run", device="cpu", quiet=True)


def test_a_batch_of_which_nothing_is_known(tmp_path, tiny_recipe):
    """Images without labels train no knowledge, and are no error either (semi-supervised)."""
    recipe = tiny_recipe(
        "data.sources.0.knowledge=null",
        "data.sources.1.knowledge=null",
        "stages=[{train: knowledge, steps: 12, batch: 2}]",
    )
    model = train(recipe, out=tmp_path / "run", device="cpu", quiet=True)
    assert model.paths() == ["0", "1"]
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_too_few_held_out_images_leave_no_typicality(whole):
    assert "typicality" not in TzK.from_pretrained(whole).statistics


def test_enough_held_out_images_give_typicality(tiny_recipe, tmp_path):
    recipe = tiny_recipe("data.sources.1.limit=400", "data.holdout=0.5", "stages.0.steps=3")
    train(recipe, out=tmp_path / "run", quiet=True)
    stored = TzK.from_pretrained(tmp_path / "run").statistics["typicality"]
    assert len(stored["calibration"]) > 80
    assert stored["statistics"][-1] == "png_bits_per_dim"
    assert "| typicality |" in (tmp_path / "run" / "README.md").read_text()
    figures = json.loads((tmp_path / "run" / "run.json").read_text())["figures"]
    assert 0 < figures[-1]["mean"] < 0.4
