"""What activation checkpointing saves and costs, at the paper's size.

    python benchmarks/memory.py --out runs/memory
    python benchmarks/memory.py --out runs/memory --batch 4 --steps 8 --json

One forward and backward pass of a t-flow of 3 levels × 32 steps, width 512, on 3×32×32, on the CPU.
Memory: each way in a process of its own, whose weights and gradients are there before; activation
memory is the peak of its resident set less what it was before the pass, with an allocator that
gives back what is freed. Time: both ways in turn in one process, seconds of CPU, which other
processes on the machine change less than the wall's; the median of the pairs' ratios. Targets: at
most 1/5 of the activation memory, at most 1.4 × the time.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from tzk_core.files import write_aside
from tzk_core.flows import ImageFlow, recompute_networks

__all__ = ["memory"]

SHAPE, LEVELS = (3, 32, 32), 3
MEMORY, TIME = 1 / 5, 1.4  # the targets
# glibc then maps every larger block by itself, and unmaps it when it is freed.
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/memory"))
@click.option("--batch", default=10, help="images  [default: 10, the paper's]")
@click.option("--steps", default=32, help="steps a level  [default: 32]")
@click.option("--width", default=512, help="of the couplings  [default: 512]")
@click.option("--pairs", default=5, help="of timed passes  [default: 5]")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.option("--alone", type=click.Choice(["kept", "recomputed"]), hidden=True)
def memory(out, batch, steps, width, pairs, as_json, alone) -> None:
    """Peak memory and time with and without activation checkpointing."""
    if alone is not None:
        click.echo(json.dumps(_peak(batch, steps, width, alone == "recomputed")))
        return
    report: dict[str, Any] = {
        "shape": SHAPE,
        "levels": LEVELS,
        "steps": steps,
        "width": width,
        "batch": batch,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    for way in ("kept", "recomputed"):
        command = [sys.executable, __file__, "--alone", way]
        command += ["--batch", str(batch), "--steps", str(steps), "--width", str(width)]
        done = subprocess.run(
            command, env=os.environ | GIVING_BACK, check=True, capture_output=True, text=True
        )
        report[way] = json.loads(done.stdout)
    report |= _times(batch, steps, width, pairs)
    # The same ground for both, the lower one: what a first pass left behind counts as activations.
    ground = min(report[way]["before_mb"] for way in ("kept", "recomputed"))
    for way in ("kept", "recomputed"):
        report[way]["activations_mb"] = report[way]["peak_mb"] - ground
    report["memory_ratio"] = (
        report["recomputed"]["activations_mb"] / report["kept"]["activations_mb"]
    )
    write_aside(out / "memory.json", json.dumps(report, indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(report))
        return
    table = Table("", "kept", "recomputed", "ratio", "target")
    kept, again = report["kept"], report["recomputed"]
    cells = [f"{way['activations_mb']:,.0f} MB" for way in (kept, again)]
    table.add_row("activations", *cells, f"{report['memory_ratio']:.3f}", f"≤ {MEMORY:.2f}")
    cells = [f"{way['before_mb']:,.0f} MB" for way in (kept, again)]
    table.add_row("before the pass", *cells, "", "")
    cells = [f"{report[key]:.2f} s" for key in ("seconds_kept", "seconds_recomputed")]
    table.add_row("a pass", *cells, f"{report['time_ratio']:.2f}", f"≤ {TIME}")
    Console().print(table)


def _flow(batch: int, steps: int, width: int) -> tuple[ImageFlow, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    flow = ImageFlow(SHAPE, levels=LEVELS, steps=steps, width=width, generator=generator)
    for parameter in flow.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return flow, torch.rand(batch, *SHAPE, generator=generator) - 0.5


def _pass(flow: ImageFlow, t: torch.Tensor) -> float:
    began = time.process_time()
    z, log_det = flow.encode(t)
    (z.square().sum() / 2 - log_det.sum()).backward()
    return time.process_time() - began


def _peak(batch: int, steps: int, width: int, recompute: bool) -> dict[str, float]:
    flow, t = _flow(batch, steps, width)
    recompute_networks(flow, recompute)
    _pass(flow, t[:1])  # the libraries' own buffers
    before = _resident()
    # The peak so far does not count.
    Path("/proc/self/clear_refs").write_text("5")
    _pass(flow, t)
    peak = int(_status("VmHWM")) / 1024
    return {"before_mb": before, "peak_mb": peak}


def _resident() -> float:
    return int(_status("VmRSS")) / 1024


def _status(name: str) -> str:
    text = Path("/proc/self/status").read_text()
    return text.split(f"{name}:")[1].split()[0]


def _times(batch: int, steps: int, width: int, pairs: int) -> dict[str, Any]:
    flow, t = _flow(batch, steps, width)
    times: dict[bool, list[float]] = {False: [], True: []}
    _pass(flow, t)
    for _ in range(pairs):
        for recompute in (False, True):
            recompute_networks(flow, recompute)
            times[recompute].append(_pass(flow, t))
    ratios = [b / a for a, b in zip(times[False], times[True], strict=True)]
    return {
        "seconds_kept": statistics.median(times[False]),
        "seconds_recomputed": statistics.median(times[True]),
        "time_ratios": ratios,
        "time_ratio": statistics.median(ratios),
    }


if __name__ == "__main__":
    memory()
