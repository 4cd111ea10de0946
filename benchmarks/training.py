"""What training costs: our t-flow beside normflows' Glow, data, resuming.

    pip install -c constraints.txt '.[bench]'
    python benchmarks/training.py --out runs/training
    python benchmarks/training.py --out runs/training --fitting runs/fitting/fitting.json --json

- steps/s of our t-flow and of normflows 1.7.3's multi-scale Glow (GlowBlock) of the same levels,
  steps and width, on the same batch with the same optimiser, in turn in one process, by pairs:
  forward, backward and an Adam step. Seconds are of CPU. normflows has invertible 1×1 convolutions
  (in LU form) where we have fixed shuffles, and leaky ReLU where we have SiLU: its defaults.
- peak memory of one step above what was there before it, each flow in a process of its own.
- images/s of reading a folder of PNGs for the first time, of finding them in the cache, and of
  drawing batches from it.
- a checkpoint's size, and seconds to write and to read it, and from `--resume` to the next step.
- what fitting knowledge costs: figures of benchmarks/fitting.py, if its report is given.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import click
import torch
from fitting import FITS
from peers import PEERS
from rich.console import Console
from rich.table import Table

from tzk_core.data.decoding import encode_png
from tzk_core.data.quantisation import dequantise
from tzk_core.data.sources import load
from tzk_core.files import write_aside
from tzk_core.randomness import derived, rows
from tzk_core.training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from tzk_core.training.dataset import load_data
from tzk_core.training.recipe import DataConfig, parse_recipe

__all__ = ["training"]

LIBRARIES = ("tzk", "normflows")

GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/training"))
@click.option("--levels", default=3)
@click.option("--steps", default=8, help="steps a level")
@click.option("--width", default=64, help="of the couplings")
@click.option("--batch", default=32)
@click.option("--channels", default=3)
@click.option("--pairs", default=12, help="of timed steps")
@click.option("--images", default=2000, help="of the folder that is read")
@click.option("--fitting", type=click.Path(path_type=Path, exists=True), help="fitting.json")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.option("--alone", type=click.Choice(["tzk", "normflows"]), hidden=True)
def training(out, levels, steps, width, batch, channels, pairs, images, fitting, as_json, alone):
    """Steps, memory, data, resuming and knowledge, in one table."""
    shape = (channels, 32, 32)
    if alone is not None:
        click.echo(json.dumps(_peak(alone, shape, levels, steps, width, batch)))
        return
    if util.find_spec("normflows") is None:
        raise click.UsageError(
            "the peer is missing: pip install -c constraints.txt '.[bench]' in the clone"
        )
    report: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": os.getloadavg()[0],
        "flow": {"shape": shape, "levels": levels, "steps": steps, "width": width, "batch": batch},
        "step": _steps(shape, levels, steps, width, batch, pairs),
        "data": _data(images),
        "resume": _resume(),
    }
    for name in ("tzk", "normflows"):
        command = [sys.executable, __file__, "--alone", name, "--levels", str(levels)]
        command += ["--steps", str(steps), "--width", str(width), "--batch", str(batch)]
        done = subprocess.run(
            [*command, "--channels", str(channels)],
            env=os.environ | GIVING_BACK,
            check=True,
            capture_output=True,
            text=True,
        )
        report["step"][name] |= json.loads(done.stdout)
    memories = [report["step"][name]["step_mb"] for name in ("tzk", "normflows")]
    report["step"]["memory_ratio"] = memories[0] / memories[1]
    if fitting is not None:
        report["fitting"] = json.loads(fitting.read_text())
    write_aside(out / "training.json", json.dumps(report, indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(report))
        return
    Console().print(_table(report))


# -- steps -----------------------------------------------------------------------------------------


class _Trainer:
    def __init__(self, name: str, *sizes: Any) -> None:
        self.model = PEERS[name](*sizes)
        self.optimiser = torch.optim.Adam(
            [p for p in self.model.parameters() if p.requires_grad], lr=1e-5
        )

    def step(self, t: torch.Tensor) -> float:
        began = time.process_time()
        self.optimiser.zero_grad(set_to_none=True)
        (-self.model.log_prob(t).mean()).backward()
        self.optimiser.step()
        return time.process_time() - began


def _images(shape: tuple[int, int, int], batch: int) -> torch.Tensor:
    """Real ones, grey copied to colour."""
    pixels = torch.from_numpy(load("builtin/mnist", split="test").pixels[:batch])
    pixels = pixels.expand(-1, shape[0], -1, -1)
    return dequantise(pixels, rows(derived(0, "bench"), len(pixels)).uniform(*shape))


def _steps(shape, levels, steps, width, batch, pairs) -> dict[str, Any]:
    t, sizes = _images(shape, batch), (shape, levels, steps, width)
    trainers = {name: _Trainer(name, *sizes) for name in LIBRARIES}
    for trainer in trainers.values():
        trainer.step(t)  # ActNorm of normflows starts here
        trainer.step(t)
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for pair in range(pairs):
        order = list(trainers) if pair % 2 == 0 else list(reversed(trainers))
        for name in order:
            seconds[name].append(trainers[name].step(t))
    ratios = [b / a for a, b in zip(seconds["tzk"], seconds["normflows"], strict=True)]
    report: dict[str, Any] = {
        name: {
            "seconds": statistics.median(times),
            "steps_per_s": 1 / statistics.median(times),
            "parameters": sum(
                p.numel() for p in trainers[name].model.parameters() if p.requires_grad
            ),
        }
        for name, times in seconds.items()
    }
    return report | {"times_as_fast": statistics.median(ratios), "ratios": ratios}


def _peak(name: str, shape, levels, steps, width, batch) -> dict[str, float]:
    trainer, t = _Trainer(name, shape, levels, steps, width), _images(shape, batch)
    trainer.step(t[:2])  # moments of the optimiser, gradients, the libraries' own buffers
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far does not count
    trainer.step(t)
    return {"before_mb": before, "step_mb": _status("VmHWM") - before}


def _status(name: str) -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) / 1024


# -- data ------------------------------------------------------------------------------------------


def _data(count: int) -> dict[str, Any]:
    source = load("builtin/mnist", split="train", limit=count)
    with tempfile.TemporaryDirectory() as place, _environment("TZK_CACHE", f"{place}/cache"):
        for number, (pixels, label) in enumerate(zip(source.pixels, source.labels, strict=True)):
            folder = Path(place, "images", str(label))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.png").write_bytes(encode_png(pixels))
        config = DataConfig.model_validate(
            {"sources": [{"source": f"{place}/images", "knowledge": "x", "classes": True}]}
        )
        first, (data, _) = _timed(lambda: load_data(config, 0))
        again, _ = _timed(lambda: load_data(config, 0))
        order, _ = data.order()

        def batches() -> None:
            for step in range(100):
                generator = derived(0, "step", step)
                data.observations(order.batch(64, step, 0, 0), generator)

        drawn, _ = _timed(batches)
        return {
            "images": len(source),
            "decoded_per_s": len(source) / first,
            "cached_per_s": len(source) / again,
            "batched_per_s": 100 * min(64, len(data)) / drawn,
        }


# -- resuming --------------------------------------------------------------------------------------


def _resume() -> dict[str, float]:
    recipe = parse_recipe(
        {
            "name": "resume",
            "data": {"sources": [{"source": "builtin/mnist"}]},
            "model": {"flow": {"levels": 3, "steps": 8, "width": 64}},
            "stages": [
                {"train": "flow", "steps": 100_000, "batch": 16, "checkpoint_every": 2}
                | {"measure_every": 0, "ema": 0.9}
            ],
            "watch": {"log_every": 1, "tensorboard": False},
        }
    )
    with tempfile.TemporaryDirectory() as place:
        file, out = Path(place, "recipe.yaml"), Path(place, "run")
        file.write_text(json.dumps(recipe.model_dump(mode="json")))
        _until(file, out, lambda: (out / "checkpoints" / "0-000004").exists())
        latest = latest_checkpoint(out / "checkpoints")
        read, kept = _timed(lambda: load_checkpoint(latest))
        optimiser = torch.optim.Adam(kept.model.flow.parameters())
        optimiser.load_state_dict(_one_group(kept.optimizer))
        write, _ = _timed(
            lambda: save_checkpoint(
                Path(place, "again"),
                kept.model,
                stage=0,
                step=4,
                optimizer=optimiser,
                averaged=kept.averaged,
            )
        )
        size = sum(path.stat().st_size for path in latest.iterdir())
        metrics, done = out / "metrics.jsonl", kept.step

        def went_on() -> bool:
            lines = metrics.read_text().splitlines()
            return bool(lines) and json.loads(lines[-1])["step"] >= done

        # Until rows are cut back to the checkpoint, those of before are there.
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        kept_lines = [json.dumps(line) for line in lines if line["step"] < done]
        metrics.write_text("".join(line + "\n" for line in kept_lines))
        seconds = _until(file, out, went_on, "--resume")
    return {
        "checkpoint_mb": size / 1e6,
        "write_s": write,
        "read_s": read,
        "to_next_step_s": seconds,
    }


def _one_group(state: dict) -> dict:
    groups = state["param_groups"]
    numbers = [number for group in groups for number in group["params"]]
    return {"state": state["state"], "param_groups": [groups[0] | {"params": numbers}]}


def _until(file: Path, out: Path, reached, *options: str) -> float:
    """Seconds of the wall from starting `tzk train` until something is reached; ends it then."""
    command = [sys.executable, "-m", "tzk_core.cli.main", "train", str(file), "--out", str(out)]
    began = time.monotonic()
    process = subprocess.Popen([*command, "--device", "cpu", *options], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not reached():
            time.sleep(0.01)
        return time.monotonic() - began
    finally:
        process.kill()
        process.wait()


# -- telling ---------------------------------------------------------------------------------------


def _timed(work) -> tuple[float, Any]:
    began = time.monotonic()
    result = work()
    return time.monotonic() - began, result


class _environment:
    """A variable of the environment within a block."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value

    def __enter__(self) -> None:
        self.before = os.environ.get(self.name)
        os.environ[self.name] = self.value

    def __exit__(self, *_) -> None:
        if self.before is None:
            del os.environ[self.name]
        else:
            os.environ[self.name] = self.before


def _table(report: dict[str, Any]) -> Table:
    step, data, resume = report["step"], report["data"], report["resume"]
    ours, theirs = step["tzk"], step["normflows"]
    table = Table("what", "tzk", "normflows 1.7.3", "ratio")
    rate = [f"{each['steps_per_s']:.2f} /s of CPU" for each in (ours, theirs)]
    table.add_row("steps", *rate, f"{step['times_as_fast']:.2f} × as fast")
    peak = [f"{each['step_mb']:,.0f} MB" for each in (ours, theirs)]
    table.add_row("peak memory of a step", *peak, f"{step['memory_ratio']:.2f}")
    count = [f"{each['parameters']:,}" for each in (ours, theirs)]
    table.add_row("parameters", *count, "")
    table.add_row("images decoded", f"{data['decoded_per_s']:,.0f} /s", "", "")
    table.add_row("images from the cache", f"{data['cached_per_s']:,.0f} /s", "", "")
    table.add_row("images in batches", f"{data['batched_per_s']:,.0f} /s", "", "")
    table.add_row("a checkpoint", f"{resume['checkpoint_mb']:.1f} MB", "", "")
    table.add_row("written in", f"{resume['write_s']:.2f} s", "", "")
    table.add_row("read in", f"{resume['read_s']:.2f} s", "", "")
    table.add_row("--resume to the next step", f"{resume['to_next_step_s']:.1f} s", "", "")
    for what, told in _cost(report.get("fitting", {}).get("cost")):
        table.add_row(what, told, "", "")
    return table


def _cost(cost: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """What benchmarks/fitting.py says of the t-flow and of a kind, by what was there before it."""
    if cost is None:
        return
    flow = cost["flow"]
    yield "the t-flow of a kind", f"{flow['steps']:,} steps, {flow['cpu_seconds']:,.0f} s of CPU"
    for name, title in FITS.items():
        if name not in cost:
            continue
        each = cost[name]
        told = f"{each['steps']:,} steps, {each['cpu_seconds']:,.0f} s of CPU, "
        told += f"{each['share_of_flow']:.3f} of the t-flow's"
        if "gap_bits_per_dim" in each:
            gap = f"{each['gap_bits_per_dim']:+.4f} ± {each['gap_standard_error']:.4f}"
            told += f", {gap} bits/dim to the long fit"
        yield f"a kind, {title}", told


if __name__ == "__main__":
    training()
