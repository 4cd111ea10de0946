"""How good our t-flow gets beside normflows 1.7.3's Glow, for the same images and the same time.

    pip install -c constraints.txt '.[bench]'
    python benchmarks/quality.py --out runs/quality --data mnist

Both have the same levels and steps, and normflows the width whose parameters come closest to ours.
Both are trained with Adam, a linear rise over 50 steps and a cosine to 1 % of the rate, on the same
batches with the same noise, from ActNorms that the same 512 images set. Each budget is a training
of its own. Bits/dim are of test images, D as the images are prepared (32×32), ± a standard error
over images; how far a contestant is ahead is the mean difference, paired by image.

Rates are chosen for each contestant and budget alone, by whole trainings of that budget, on images
held out of the training set: from 4e-3 by factors of two, until the best has a worse one on either
side of it.

`tzk recipe` is ours with what our recipes add: ActNorm's log scales learn twenty times faster, and
an average of the weights. `normflows, tzk's time` is normflows with as many steps as it has time
for while tzk has all of the budget's, by the ratio of their steps while rates were chosen. All
contestants train in turn, a step of each, so that all see the same machine, and the seconds of the
two say how equal their time was.
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

Rates = dict[str, dict[float, float]]  # bits/dim held out, by contestant and rate

FIRST_RATE, SLOWEST, FASTEST = 4e-3, 2.5e-4, 6.4e-2
OURS, PEER, RECIPE = "tzk", "normflows", "tzk recipe"
CONTESTANTS = (OURS, PEER, RECIPE)
EQUAL_TIME = "normflows, tzk's time"
WARMUP, LAST = 50, 0.01
HELD_OUT, INITIAL, AT_ONCE = 1000, 512, 100


@click.command()
@click.option("--data", default="mnist", show_default=True, help="images, grey or in colour")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/quality"))
@click.option("--steps", type=int, multiple=True, default=(250, 500, 1000, 2000), help="budgets")
@click.option("--batch", default=32, show_default=True)
@click.option("--size", "flow", default="3,8,64", show_default=True, help="levels,steps,width")
@click.option("--test-images", default=2000, show_default=True)
@click.option("--seed", default=1, show_default=True)
def quality(data, out, steps, batch, flow, test_images, seed) -> None:
    """Test bits/dim of ours and of normflows' at each budget, for equal images and equal time."""
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

    def trained(wanted: list[tuple[str, float, int]]) -> list[_Run]:
        """Contestants with their rates and steps, trained in turn."""
        runs = []
        first = _observed(train[:INITIAL], derived(seed, "initial"))
        for name, rate, budget in wanted:
            library = PEER if _is_peer(name) else OURS
            model = made(library, shape, *sizes[library == PEER], seed=seed)
            run = _Run(name, model, rate, budget)
            run.start(first)
            runs.append(run)
            count = sum(p.numel() for p in model.parameters() if p.requires_grad)
            report["parameters"][library] = count
        longest = max(run.budget for run in runs)
        for turn in range(longest):
            shift = turn % len(runs)
            for run in runs[shift:] + runs[:shift]:
                if is_ahead(run.done, run.budget, turn, longest):
                    continue
                pick = derived(seed, "step", run.done)
                index = torch.randint(len(train), (batch,), generator=pick)
                run.step(_observed(train[index], pick))
        for run in runs:
            run.finish()
        return runs

    def best(budget: int, start: dict[str, float]) -> tuple[dict[str, float], float, Rates]:
        """(best rates, seconds of ours over normflows' for a step, bits/dim held out by rate)."""
        found: Rates = {name: {} for name in CONTESTANTS}
        seconds = {OURS: 0.0, PEER: 0.0}
        chosen = dict(start)
        while missing := _missing(found, chosen):
            runs = trained([(name, rate, budget) for name, rate in missing])
            for run in runs:
                bits = float(run.bits(held_out, seed).mean())
                found[run.name][run.rate] = bits if math.isfinite(bits) else math.inf
                print(f"{budget} steps: {run.name} at {run.rate:g}: {bits:.4f}", file=sys.stderr)
            if {run.name for run in runs} == set(CONTESTANTS):  # all saw the same machine
                for name in seconds:
                    mine = [run.seconds for run in runs if run.name == name]
                    seconds[name] += sum(mine) / len(mine)
            chosen = {name: min(each, key=each.get) for name, each in found.items()}
        return chosen, seconds[OURS] / seconds[PEER], found

    chosen = dict.fromkeys(CONTESTANTS, FIRST_RATE)
    for budget in steps:
        chosen, ratio, found = best(budget, chosen)
        wanted = [(name, chosen[name], budget) for name in CONTESTANTS]
        wanted.append((EQUAL_TIME, chosen[PEER], max(1, round(ratio * budget))))
        runs = trained(wanted)
        bits = {run.name: run.bits(test, seed) for run in runs}
        row: dict[str, Any] = {"steps": budget, "held_out": found}
        for run in runs:
            row[run.name] = _told(run, bits)
            print(f"{budget} steps: {run.name} {row[run.name]}", file=sys.stderr)
        report["budgets"].append(row)
        write_aside(out / "quality.json", json.dumps(report, indent=2) + "\n")
    write_aside(out / "quality.md", _markdown(report))
    click.echo(_markdown(report))


def is_ahead(done: int, budget: int, turn: int, longest: int) -> bool:
    """Whether a run of fewer steps than the longest leaves a turn out, to take them evenly."""
    return done * longest > turn * budget


def _is_peer(name: str) -> bool:
    return name in (PEER, EQUAL_TIME)


def _missing(found: Rates, chosen: dict[str, float]) -> list[tuple[str, float]]:
    """Rates that are still to be tried: the best ones so far, and those beside them."""
    return [
        (name, rate)
        for name in CONTESTANTS
        for rate in (chosen[name] / 2, chosen[name], 2 * chosen[name])
        if rate not in found[name] and SLOWEST <= rate <= FASTEST
    ]


def _told(run: _Run, bits: dict[str, Tensor]) -> dict[str, float]:
    """A contestant's figures, and how far it is ahead of normflows on the same images."""
    own = bits[run.name]
    root = math.sqrt(len(own))
    told = {
        "rate": run.rate,
        "steps": run.budget,
        "bits_per_dim": float(own.mean()),
        "standard_error": float(own.std() / root),
        "seconds": run.seconds,
    }
    for other in (PEER, EQUAL_TIME):
        ahead = bits[other] - own
        told[f"ahead of {other}"] = float(ahead.mean())
        told[f"ahead of {other}, standard error"] = float(ahead.std() / root)
    return told


@dataclass
class _Run:
    """One contestant in training."""

    name: str
    model: torch.nn.Module
    rate: float
    budget: int
    seconds: float = 0.0
    done: int = 0

    def start(self, first: Tensor) -> None:
        """Sets ActNorms from data, as each library does, and makes the optimiser."""
        with torch.no_grad():
            if isinstance(self.model, Ours):
                self.model.flow.initialize(first)
            else:
                self.model.log_prob(first)
        recipe = self.name == RECIPE
        scales = {
            id(m.log_scale) for m in self.model.modules() if recipe and isinstance(m, ActNorm)
        }
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in self.parameters if id(p) not in scales], "times": 1.0},
            {"params": [p for p in self.parameters if id(p) in scales], "times": 20.0},
        ]
        groups = [group for group in groups if group["params"]]
        self.optimiser = torch.optim.Adam(groups, lr=self.rate, fused=True)
        decay = max(0.0, 1 - 10 / self.budget)
        self.average = Average(self.parameters, decay) if recipe else None

    def step(self, t: Tensor) -> None:
        began, step = time.perf_counter(), self.done
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
        self.done += 1

    def finish(self) -> None:
        if self.average is not None:
            self.average.put_in_place()

    @torch.no_grad()
    def bits(self, pixels: Tensor, seed: int) -> Tensor:
        """Bits/dim of each image, the noise the same for every contestant."""
        t, dims = _observed(pixels, derived(seed, "measured")), pixels[0].numel()
        log_p = torch.cat([self.model.log_prob(part) for part in t.split(AT_ONCE)])
        if not _is_peer(self.name):  # normflows' log p has the constant of its N(0, I)
            log_p = log_p - 0.5 * dims * math.log(2 * math.pi)
        return 8 - log_p.double() / (dims * math.log(2))


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
    lines = [
        f"{report['data']}, {report['images']['training']:,} training images, batches of "
        f"{report['batch']}, {report['images']['test']:,} test images; parameters: ours "
        f"{report['parameters']['tzk']:,} (width {report['widths']['tzk']}), normflows "
        f"{report['parameters']['normflows']:,} (width {report['widths']['normflows']}); "
        f"{report['threads']} threads, torch {report['torch']}, seed {report['seed']}.",
        "",
        f"| trained | rate | steps | s | bits/dim | ahead of normflows | ahead of {EQUAL_TIME} |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["budgets"]:
        for name in (*CONTESTANTS, EQUAL_TIME):
            each = row[name]
            ahead = [
                f"{each[key]:+.4f} ± {each[f'{key}, standard error']:.4f}" if other != name else ""
                for other in (PEER, EQUAL_TIME)
                for key in [f"ahead of {other}"]
            ]
            lines.append(
                f"| {name} | {each['rate']:g} | {each['steps']:,} | {each['seconds']:.0f} | "
                f"{each['bits_per_dim']:.4f} ± {each['standard_error']:.4f} | {ahead[0]} | "
                f"{ahead[1]} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    quality()
