"""How good our t-flow gets beside normflows 1.7.3's Glow, for the same images and the same time.

    pip install -c constraints.txt '.[bench]'
    python benchmarks/quality.py --out runs/quality --data mnist

Both have the same levels and steps, and normflows the width whose parameters come closest to ours.
Both are trained with Adam at the same rate, a linear rise over 50 steps and a cosine to 1 % of it,
on the same batches with the same noise, from ActNorms that the same 512 images set; one step of
ours, one of theirs, so that both see the same machine. Each budget is a training of its own. Rates
are chosen for each library alone, on images held out of the training set; bits/dim are of test
images, D as the images are prepared (32×32), ± a standard error over images.

How far ours is ahead is the mean difference ± its standard error, paired by image. After the last
budget normflows is trained once more, for as many steps as it has time for while ours has all of
them: the comparison at equal time.

`recipe` is ours once more with what our recipes add: ActNorm's log scales learn twenty times
faster, and an average of the weights.
"""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from peers import PEERS, Ours, made
from torch import Tensor

from tzk_core.data.quantisation import dequantise
from tzk_core.data.sources import load
from tzk_core.files import write_aside
from tzk_core.flows import ActNorm
from tzk_core.randomness import derived
from tzk_core.training.optimisers import Average

__all__ = ["quality"]

RATES = (1e-3, 2e-3, 4e-3)
OURS, PEER = "tzk", "normflows"
CONTESTANTS = ("tzk", "normflows", "tzk recipe")
WARMUP, LAST = 50, 0.01
HELD_OUT, INITIAL, AT_ONCE = 1000, 512, 100


@click.command()
@click.option("--data", default="mnist", show_default=True, help="images, grey or in colour")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/quality"))
@click.option("--steps", type=int, multiple=True, default=(250, 500, 1000, 2000), help="budgets")
@click.option("--choosing", default=250, show_default=True, help="steps to choose a rate by")
@click.option("--batch", default=32, show_default=True)
@click.option("--size", "flow", default="3,8,64", show_default=True, help="levels,steps,width")
@click.option("--test-images", default=2000, show_default=True)
@click.option("--seed", default=1, show_default=True)
def quality(data, out, steps, choosing, batch, flow, test_images, seed) -> None:
    """Test bits/dim of ours and of normflows' at each budget, and at equal time."""
    levels, depth, width = (int(n) for n in flow.split(","))
    train = _pixels(data, "train", None)
    test = _pixels(data, "test", test_images)
    order = torch.randperm(len(train), generator=derived(seed, "held out"))
    held_out, train = train[order[:HELD_OUT]], train[order[HELD_OUT:]]
    shape = tuple(train.shape[1:])
    sizes = (levels, depth, width), (levels, depth, _matching(shape, levels, depth, width))
    report: dict[str, Any] = {
        "data": Path(data).name,
        "images": {"training": len(train), "held_out": len(held_out), "test": len(test)},
        "batch": batch,
        "seed": seed,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "widths": {"tzk": width, "normflows": sizes[1][2]},
        "parameters": {},
        "budgets": [],
    }

    def contestants(rates: dict[str, float], budget: int) -> list[_Run]:
        runs = []
        for name in rates:
            library = name.split()[0]
            model = made(library, shape, *sizes[library == "normflows"], seed=seed)
            runs.append(_Run(name, model, rates[name], budget, recipe="recipe" in name))
            count = sum(p.numel() for p in model.parameters() if p.requires_grad)
            report["parameters"][library] = count
        return runs

    def trained(rates: dict[str, float], budget: int) -> list[_Run]:
        runs = contestants(rates, budget)
        first = _observed(train[:INITIAL], derived(seed, "initial"))
        for run in runs:
            run.start(first)
        for step in range(budget):
            pick = derived(seed, "step", budget, step)
            index = torch.randint(len(train), (batch,), generator=pick)
            t = _observed(train[index], pick)
            for run in runs[step % len(runs) :] + runs[: step % len(runs)]:
                run.step(t, step)
        for run in runs:
            run.finish()
        return runs

    chosen: dict[str, float] = {}
    found: dict[str, dict[float, float]] = {name: {} for name in CONTESTANTS}
    for rate in RATES:
        for run in trained(dict.fromkeys(CONTESTANTS, rate), choosing):
            found[run.name][rate] = float(run.bits(held_out, seed).mean())
            print(f"{run.name} at {rate}: {found[run.name][rate]:.4f} held out", file=sys.stderr)
    for name, each in found.items():
        sound = {rate: bits for rate, bits in each.items() if math.isfinite(bits)}
        chosen[name] = min(sound, key=sound.get)
    report["rates"], report["chosen"] = found, chosen
    for budget in steps:
        row: dict[str, Any] = {"steps": budget}
        runs = trained(chosen, budget)
        bits = {run.name: run.bits(test, seed) for run in runs}
        for run in runs:
            row[run.name] = _told(bits[run.name], run.seconds, bits[PEER])
            print(f"{budget} steps: {run.name} {row[run.name]}", file=sys.stderr)
        report["budgets"].append(row)
        write_aside(out / "quality.json", json.dumps(report, indent=2) + "\n")
    last, count = report["budgets"][-1], steps[-1]
    fewer = max(1, round(count * last[OURS]["seconds"] / last[PEER]["seconds"]))
    [peer] = trained({PEER: chosen[PEER]}, fewer)
    at_equal = peer.bits(test, seed)
    report["equal_time"] = {
        "steps": {OURS: count, PEER: fewer},
        PEER: _told(at_equal, peer.seconds, at_equal),
        OURS: _told(bits[OURS], last[OURS]["seconds"], at_equal),
    }
    write_aside(out / "quality.json", json.dumps(report, indent=2) + "\n")
    write_aside(out / "quality.md", _markdown(report))
    click.echo(_markdown(report))


def _told(bits: Tensor, seconds: float, peer: Tensor) -> dict[str, float]:
    """A contestant's figures, and how far it is ahead of normflows on the same images."""
    ahead = peer - bits
    root = math.sqrt(len(bits))
    return {
        "bits_per_dim": float(bits.mean()),
        "standard_error": float(bits.std() / root),
        "seconds": seconds,
        "ahead": float(ahead.mean()),
        "ahead_standard_error": float(ahead.std() / root),
    }


@dataclass
class _Run:
    """One contestant in training."""

    name: str
    model: torch.nn.Module
    rate: float
    budget: int
    recipe: bool
    seconds: float = 0.0

    def start(self, first: Tensor) -> None:
        """Sets ActNorms from data, as each library does, and makes the optimiser."""
        with torch.no_grad():
            if isinstance(self.model, Ours):
                self.model.flow.initialize(first)
            else:
                self.model.log_prob(first)
        scales = {
            id(m.log_scale) for m in self.model.modules() if self.recipe and isinstance(m, ActNorm)
        }
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in self.parameters if id(p) not in scales], "times": 1.0},
            {"params": [p for p in self.parameters if id(p) in scales], "times": 20.0},
        ]
        groups = [group for group in groups if group["params"]]
        self.optimiser = torch.optim.Adam(groups, lr=self.rate, fused=True)
        self.average = (
            Average(self.parameters, max(0.0, 1 - 10 / self.budget)) if self.recipe else None
        )

    def step(self, t: Tensor, step: int) -> None:
        began = time.perf_counter()
        left = 1 - max(0, step - WARMUP) / max(1, self.budget - WARMUP)
        fall = LAST + (1 - LAST) * 0.5 * (1 - math.cos(math.pi * left))
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * group["times"] * min(1.0, (step + 1) / WARMUP) * fall
        self.optimiser.zero_grad(set_to_none=True)
        loss = -self.model.log_prob(t).mean() / t[0].numel()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 100.0)
        if bool(loss.isfinite() & norm.isfinite()):
            self.optimiser.step()
            if self.average is not None:
                self.average.update(step + 1)
        self.seconds += time.perf_counter() - began

    def finish(self) -> None:
        if self.average is not None:
            self.average.put_in_place()

    @torch.no_grad()
    def bits(self, pixels: Tensor, seed: int) -> Tensor:
        """Bits/dim of each image, the noise the same for every contestant."""
        t, dims = _observed(pixels, derived(seed, "measured")), pixels[0].numel()
        log_p = torch.cat([self.model.log_prob(part) for part in t.split(AT_ONCE)])
        if not _whole(self.name):
            log_p = log_p - 0.5 * dims * math.log(2 * math.pi)
        return 8 - log_p.double() / (dims * math.log(2))


def _whole(name: str) -> bool:
    """Whether a contestant's log p has the constant of its N(0, I)."""
    return name == PEER


def _pixels(data: str, split: str, limit: int | None) -> Tensor:
    return torch.from_numpy(load(data, split=split, limit=limit).pixels.copy())


def _observed(pixels: Tensor, generator: torch.Generator) -> Tensor:
    return dequantise(pixels, torch.rand(pixels.shape, generator=generator))


def _matching(shape, levels: int, steps: int, width: int) -> int:
    """normflows' width whose number of parameters comes closest to ours."""

    def count(library: str, width: int) -> int:
        model = PEERS[library](shape, levels, steps, width)
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    ours = count("tzk", width)
    near = range(max(2, width - width // 3), width + width // 3 + 1)
    return min(near, key=lambda w: abs(count("normflows", w) - ours))


def _markdown(report: dict[str, Any]) -> str:
    told = ", ".join(f"{name} {rate:g}" for name, rate in report["chosen"].items())
    lines = [
        f"{report['data']}, {report['images']['training']:,} training images, batches of "
        f"{report['batch']}, {report['images']['test']:,} test images; parameters: ours "
        f"{report['parameters']['tzk']:,} (width {report['widths']['tzk']}), normflows "
        f"{report['parameters']['normflows']:,} (width {report['widths']['normflows']}); rates "
        f"{told}; {report['threads']} threads, torch {report['torch']}, seed {report['seed']}.",
        "",
        "| steps | "
        + " | ".join(f"{n}, bits/dim | s" for n in CONTESTANTS)
        + " | "
        + " | ".join(f"{n} ahead of normflows" for n in CONTESTANTS if n != PEER)
        + " |",
        "|---|" + "---|---|" * len(CONTESTANTS) + "---|" * (len(CONTESTANTS) - 1),
    ]
    for row in report["budgets"]:
        cells = [
            f"{row[n]['bits_per_dim']:.4f} ± {row[n]['standard_error']:.4f} | "
            f"{row[n]['seconds']:.0f}"
            for n in CONTESTANTS
        ]
        cells += [_ahead(row[n]) for n in CONTESTANTS if n != PEER]
        lines.append(f"| {row['steps']:,} | " + " | ".join(cells) + " |")
    if "equal_time" in report:
        equal = report["equal_time"]
        lines += [
            "",
            f"At equal time: ours after {equal['steps'][OURS]:,} steps, "
            f"{equal[OURS]['bits_per_dim']:.4f} bits/dim in {equal[OURS]['seconds']:.0f} s, and "
            f"normflows after {equal['steps'][PEER]:,}, {equal[PEER]['bits_per_dim']:.4f} in "
            f"{equal[PEER]['seconds']:.0f} s; ours is {_ahead(equal[OURS])} ahead.",
        ]
    return "\n".join(lines) + "\n"


def _ahead(figures: dict[str, float]) -> str:
    return f"{figures['ahead']:+.4f} ± {figures['ahead_standard_error']:.4f}"


if __name__ == "__main__":
    quality()
