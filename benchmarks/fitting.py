"""What knowledge costs on a frozen t-flow, and what a second worker saves.

    python benchmarks/fitting.py --out runs/fitting
    python benchmarks/fitting.py --out runs/fitting --scale full --part cost --data FOLDER
    python benchmarks/fitting.py --out runs/fitting --scale long --part cost --data FOLDER \
        --flow-steps 20000

``cost``: a t-flow of MNIST and Fashion-MNIST is trained; then one kind is fitted in a tenth of that
time: from nothing, so that latent states of all images are worked out too, and as one more kind of
a run that has those of the other source already, so that only its own images' are. Told is the
held-out importance bound of both, and of a fit of ten times the steps of the longer one, on the
same images with the same noise. Targets: 1/10 of the time, within 0.005 bits/dim. --flow-steps
trains the t-flow for other than the scale's steps; a tenth of its time changes with it.

``parallel``: the ten digits as kinds of the first level, fitted by one worker of one thread, two
workers of one thread and one worker of two threads, in turn, several rounds; each begins with no
latent states and no kinds. Target: two workers 1.7 times as fast as one.

Times of ``cost`` are seconds of one thread's CPU, which other processes on the machine hardly
change; those of ``parallel`` are of the wall, so they mean something on a quiet machine only: the
load is written beside them. Results go to OUT/fitting.json and OUT/fitting.md.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from tzk_core._version import __version__
from tzk_core.config import TzKConfig
from tzk_core.files import write_aside
from tzk_core.model import TzK
from tzk_core.randomness import derived
from tzk_core.training.dataset import Dataset
from tzk_core.training.fit import FOLDER, Fitted, fit_kinds, knowledge_stage
from tzk_core.training.fit_artefact import merge
from tzk_core.training.fit_workers import Context, InProcess, Never, Processes
from tzk_core.training.latents import LATENTS, part_keys
from tzk_core.training.loop import Stage
from tzk_core.training.progress import Reporter
from tzk_core.training.recipe import Recipe, StageConfig, parse_recipe
from tzk_core.training.run import read_data

__all__ = ["fitting"]

SHARE, WITHIN, FASTER = 0.1, 0.005, 1.7  # the targets
KIND = "fashion"
DRAWS = 64  # codes of the importance bound
FITS = {
    "nothing": "from nothing",
    "added": "added to a run with the other source's latent states",
    "long": "long, all latent states there",
}

SCALES = {
    # Steps of the t-flow; steps of each of the ten kinds; held-out images.
    "tiny": (30, 5, 40),
    "small": (1000, 60, 400),
    "full": (6500, 400, 1000),
    "long": (42_000, 400, 1000),  # with --data: every image some twelve times
}
FLOW = {"levels": 3, "steps": 6, "width": 40}
SIZES = {"code_dim": 10, "decoder_layers": 1, "encoder_width": 32, "discriminator_width": 32}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder of the results")
@click.option("--scale", type=click.Choice(list(SCALES)), default="small", show_default=True)
@click.option("--part", type=click.Choice(["cost", "parallel", "all"]), default="all")
@click.option(
    "--flow-steps",
    type=click.IntRange(min=1),
    help="Steps of the t-flow of `cost`; those of the scale by default.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder with all of mnist and fashion_mnist, for `cost` instead of the built-in images.",
)
@click.option("--json", "as_json", is_flag=True, help="print the JSON instead of the table")
def fitting(
    out: Path,
    scale: str,
    part: str,
    flow_steps: int | None,
    rounds: int,
    data: Path | None,
    as_json: bool,
) -> None:
    """Measure the fitting of knowledge."""
    torch.set_num_threads(1)
    report: dict[str, Any] = {
        "scale": scale,
        "tzk": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg(),
    }
    reporter = Reporter()
    with reporter.live(), tempfile.TemporaryDirectory() as scratch:
        if part in ("cost", "all"):
            report["cost"] = cost(Path(scratch, "cost"), scale, flow_steps, data, reporter)
            _write(out, report)
        if part in ("parallel", "all"):
            report["parallel"] = parallel(Path(scratch, "parallel"), scale, rounds, reporter)
    report["load_after"] = os.getloadavg()
    _write(out, report)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    console = Console()
    for title, header, rows in _tables(report):
        table = Table(*header, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    click.echo(f"{out / 'fitting.json'}\n{out / 'fitting.md'}")


# -- what a kind costs -----------------------------------------------------------------------------


def cost(
    folder: Path, scale: str, flow_steps: int | None, whole: Path | None, reporter: Reporter
) -> dict[str, Any]:
    """One kind in a tenth of the t-flow's time, both ways, against ten times the steps."""
    own_steps, _, images = SCALES[scale]
    flow_steps = flow_steps or own_steps
    place = "builtin" if whole is None else str(whole)
    recipe = _recipe(flow_steps, f"{place}/mnist:mnist", f"{place}/fashion_mnist:{KIND}")
    data, held_out = read_data(recipe, reporter)
    model, flow_seconds = _flow(folder, recipe, data, reporter)
    stage, _ = knowledge_stage(recipe)
    parts = part_keys(model, data, stage.latent_draws, recipe.seed)
    assert len(parts) == len(recipe.data.sources)  # each source stands in one piece, KIND's last
    new = int((data.origin == len(parts) - 1).sum()) / len(data)

    def fit(steps: int, missing: list[str]) -> tuple[TzK, float]:
        """The kind from so many steps, with the latent states that are not ``missing``."""
        for part in missing:
            shutil.rmtree(folder / LATENTS / part, ignore_errors=True)
        with _cpu() as spent:
            fitted = _fit(folder, model, data, recipe, stage, steps, [KIND], _here())
        return _merged(model, fitted), spent[0]

    # Short fits tell what a step costs, what latent states do, and everything else.
    _, all_missing = fit(20, parts)
    _, few = fit(20, [])
    _, more = fit(120, [])
    a_step = max((more - few) / 100, 1e-6)
    start, latents = few - 20 * a_step, max(all_missing - few, 0.0)

    def within(share: float) -> int:
        """Steps of a tenth of the t-flow's time, where so much of the latents is to be made."""
        return max(10, math.floor((SHARE * flow_seconds - start - share * latents) / a_step))

    reporter.say(
        f"t-flow: {flow_seconds:.0f} s; a step of a kind {1000 * a_step:.0f} ms; "
        f"latent states of all images {latents:.0f} s"
    )
    fits = {"nothing": (within(1), parts), "added": (within(new), parts[-1:])}
    fits["long"] = 10 * max(steps for steps, _ in fits.values()), []
    told, bits = {}, {}
    for name, (steps, missing) in fits.items():
        kind, seconds = fit(steps, missing)
        bits[name] = _bound(kind, held_out, images, recipe.seed)
        told[name] = _told(steps, seconds, flow_seconds, bits[name])
        reporter.say(f"{name}: {steps:,} steps, {seconds:.0f} s")
    for name in ("nothing", "added"):
        gap = bits[name] - bits["long"]
        told[name] |= {
            "gap_bits_per_dim": float(gap.mean()),
            "gap_standard_error": float(gap.std() / math.sqrt(len(gap))),
        }
    return {
        "flow": {"steps": flow_steps, "cpu_seconds": flow_seconds},
        "kind": KIND,
        "data": "built in" if whole is None else "all of mnist and fashion_mnist",
        "images": {"training": len(data), "of_the_kind": new, "held_out": len(bits["long"])},
        "latents_cpu_seconds": latents,
        "start_cpu_seconds": start,
        "step_cpu_seconds": a_step,
        **told,
        "prior_bits_per_dim": float(_bound(model, held_out, images, recipe.seed).mean()),
        "target": {"share": SHARE, "gap_bits_per_dim": WITHIN},
    }


def _told(steps: int, seconds: float, flow_seconds: float, bits: torch.Tensor) -> dict[str, Any]:
    return {
        "steps": steps,
        "cpu_seconds": seconds,
        "share_of_flow": seconds / flow_seconds,
        "importance_bits_per_dim": float(bits.mean()),
    }


@torch.no_grad()
def _bound(model: TzK, held_out: Dataset, count: int, seed: int) -> torch.Tensor:
    """Bits/dim of held-out images of the kind: importance bound, or the prior without the kind."""
    own = (held_out.known.existence[KIND] == 1).nonzero().squeeze(1)[:count]
    t = held_out.observations(own, derived(seed, "bench", "noise"))
    if KIND in model.kinds():
        given = model.given(KIND)
        log_p = given.log_prob(t, draws=DRAWS, generator=derived(seed, "bench", "codes"))
    else:
        log_p = model.prior.log_prob(t)
    return 8 - log_p / (math.prod(model.observation_shape) * math.log(2))


# -- what a second worker saves --------------------------------------------------------------------


def parallel(folder: Path, scale: str, rounds: int, reporter: Reporter) -> dict[str, Any]:
    """Ten kinds by one worker, by two, and by one of two threads, in turn."""
    flow_steps, steps, _ = SCALES[scale]
    # How good the t-flow is changes no time.
    recipe = _recipe(min(flow_steps, 50), "builtin/mnist")
    data, _ = read_data(recipe, reporter)
    model, _ = _flow(folder, recipe, data, reporter)
    stage, _ = knowledge_stage(recipe)
    names = list(data.known.labels)
    ways = {"1 × 1": (1, 1), "2 × 1": (2, 1), "1 × 2": (1, 2)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    weights: dict[str, set[bytes]] = {way: set() for way in ways}

    def measured(way: str, steps: int) -> float:
        processes, threads = ways[way]
        place = folder / "fit"
        shutil.rmtree(place, ignore_errors=True)
        began = time.monotonic()
        workers = Processes(processes, threads)
        fitted = _fit(place, model, data, recipe, stage, steps, names, workers)
        spent = time.monotonic() - began
        weights[way].add(b"".join(fitted[name].weights for name in names))
        return spent

    measured("2 × 1", 1)  # the server that workers come from starts with the first
    for each in weights.values():
        each.clear()
    for number in range(rounds):
        order = list(ways)[number % 3 :] + list(ways)[: number % 3]
        for way in order:
            seconds[way].append(measured(way, steps))
            reporter.say(f"round {number + 1}: {way}: {seconds[way][-1]:.1f} s")
    ratios = {
        way: [a / b for a, b in zip(seconds["1 × 1"], seconds[way], strict=True)] for way in ways
    }
    return {
        "kinds": len(names),
        "steps": steps,
        "rounds": rounds,
        "seconds": seconds,
        "median_seconds": {way: statistics.median(found) for way, found in seconds.items()},
        "faster": {way: statistics.median(found) for way, found in ratios.items()},
        "same_weights_by_one_and_two": weights["1 × 1"] == weights["2 × 1"],
        "target": {"2 × 1": FASTER},
    }


# -- what both need --------------------------------------------------------------------------------


def _recipe(flow_steps: int, *sources: str) -> Recipe:
    """``SOURCE:NAME`` is a data set as knowledge, a bare source one whose classes are."""
    told = []
    for source in sources:
        name, _, knowledge = source.partition(":")
        told.append({"source": name, "knowledge": knowledge or None, "classes": not knowledge})
    return parse_recipe(
        {
            "name": "fitting",
            "seed": 1,
            "data": {"sources": told},
            "model": {"flow": FLOW, "knowledge": SIZES},
            "stages": [
                {
                    "train": "flow",
                    "steps": flow_steps,
                    "batch": 32,
                    "learning_rate": 5e-3,
                    "ema": 0.995 if flow_steps > 500 else 0,
                },
                {
                    "train": "knowledge",
                    "steps": 1,
                    "batch": 32,
                    "learning_rate": 2e-3,
                    "scale_rate": 2,
                    "warmup": 10,
                    "latent_draws": 1,
                },
            ],
        }
    )


def _flow(folder: Path, recipe: Recipe, data: Dataset, reporter: Reporter) -> tuple[TzK, float]:
    """A trained t-flow without knowledge, and the seconds of CPU that its training took."""
    folder.mkdir(parents=True, exist_ok=True)
    config = TzKConfig(
        observation=tuple(data.pixels.shape[1:]),
        flow=recipe.model.flow,
        preparation=recipe.data.preparation,
    )
    model = TzK(config, generator=derived(recipe.seed, "weights"))
    with _cpu() as spent:
        Stage(
            model,
            data,
            recipe.stages[0],
            0,
            seed=recipe.seed,
            folder=folder,
            reporter=reporter,
            interrupt=Never,
            resumable=False,
        ).run()
    return model, spent[0]


def _fit(
    folder: Path,
    model: TzK,
    data: Dataset,
    recipe: Recipe,
    stage: StageConfig,
    steps: int,
    names: list[str],
    workers: InProcess | Processes,
) -> Fitted:
    """Kinds from nothing, on the latent states that the folder has and those it still lacks."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    # Long fits end by averaged weights that remember as great a share of their steps as short ones.
    own = stage.model_copy(update={"steps": steps, "ema": max(0.0, 1 - 20 / steps)})
    quiet = Reporter(quiet=True)
    return fit_kinds(folder, model, data, recipe, own, 1, names, workers, quiet, "cpu")


def _here() -> InProcess:
    return InProcess(Context(Reporter(quiet=True), Never))


def _merged(model: TzK, fitted: Fitted) -> TzK:
    own = TzK(model.config, generator=derived(0))
    own.load_state_dict(model.state_dict())
    for artefact in fitted.values():
        merge(own, artefact)
    return own.eval()


@contextmanager
def _cpu() -> Iterator[list[float]]:
    """Seconds of CPU of this process within the block."""
    spent, began = [], time.process_time()
    yield spent
    spent.append(time.process_time() - began)


# -- what is told ----------------------------------------------------------------------------------


def _tables(report: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    found = []
    if "cost" in report:
        c = report["cost"]
        prior = f"{c['prior_bits_per_dim']:.4f} (p(t))"
        seconds = f"{c['flow']['cpu_seconds']:.1f}"
        rows = [["t-flow", f"{c['flow']['steps']:,}", seconds, "1", prior, ""]]
        for name, title in FITS.items():
            each = c[name]
            gap = ""
            if "gap_bits_per_dim" in each:
                gap = f"{each['gap_bits_per_dim']:+.4f} ± {each['gap_standard_error']:.4f}"
            rows.append(
                [
                    f"{c['kind']}, {title}",
                    f"{each['steps']:,}",
                    f"{each['cpu_seconds']:.1f}",
                    f"{each['share_of_flow']:.3f}",
                    f"{each['importance_bits_per_dim']:.4f}",
                    gap,
                ]
            )
        header = ["what", "steps", "CPU s", "share", f"bits/dim, {DRAWS} draws", "to the long fit"]
        title = f"What a kind costs (target: a share of {SHARE}, within {WITHIN} bits/dim)"
        found.append((title, header, rows))
    if "parallel" in report:
        p = report["parallel"]
        rows = [
            [
                way,
                f"{p['median_seconds'][way]:.1f}",
                f"{p['faster'][way]:.2f}",
                ", ".join(f"{s:.1f}" for s in p["seconds"][way]),
            ]
            for way in p["seconds"]
        ]
        header = ["workers × threads", "median s", "times as fast", "each round, s"]
        title = f"{p['kinds']} kinds of {p['steps']} steps (target 1.7 for 2 × 1)"
        found.append((title, header, rows))
    return found


def _write(out: Path, report: dict[str, Any]) -> None:
    write_aside(out / "fitting.json", json.dumps(report, indent=2) + "\n")
    load = f"{report['load_before'][0]:.1f}"
    if "load_after" in report:
        load += f" before, {report['load_after'][0]:.1f} after"
    lines = [
        "# Fitting knowledge\n",
        f"Scale {report['scale']}, {report['cores']} cores ({report['processor']}), load {load}, "
        f"tzk {__version__}, torch {report['torch']}, Python {report['python']}.\n",
    ]
    for title, header, rows in _tables(report):
        table = [header, ["---"] * len(header), *rows]
        lines += [f"## {title}\n", *("| " + " | ".join(row) + " |" for row in table), ""]
    write_aside(out / "fitting.md", "\n".join(lines))


if __name__ == "__main__":
    fitting()
