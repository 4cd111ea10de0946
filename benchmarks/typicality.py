"""How well a model tells other data sets from its own: AUROC, one model a training set.

    python benchmarks/typicality.py --models runs/typicality \\
        --train mnist=mnist --train fashion_mnist=fashion_mnist --train cifar10=cifar10 \\
        --train omniglot=DIR/omniglot --other notmnist=DIR/notmnist --other svhn_gray=DIR/svhn_gray

A model that is not in --models is trained there by recipes/typicality.yaml. Each scores the test
images of its own set against those of all others: typicality as `tzk_nll` answers it, raw
likelihood, the length of the PNG file, and the input complexity score of Serrà et al. (2020,
https://arxiv.org/abs/1909.11480), all of the same forward pass and the same PNG. A two-sided score
is the tail 2·min(r, 1 − r) of the rank r among the same held-out training images that typicality is
calibrated on. Results go to OUT/typicality.json and OUT/typicality.md.

With --validation it is measured on images that are no test images: the third part of the held-out
ones against the others' training images. What the score is made of was chosen by these.
"""

from __future__ import annotations

import json
import math
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
import yaml
from torch import Tensor

from tzk_core._version import __version__
from tzk_core.cli.script import Script
from tzk_core.data.quantisation import bits_per_dim, dequantise, nll_nats
from tzk_core.data.sources import load, splits
from tzk_core.errors import UsageError, WorkFailed
from tzk_core.files import write_aside
from tzk_core.model import TzK
from tzk_core.randomness import derived
from tzk_core.service.usual import HELD_OUT
from tzk_core.training.dataset import Dataset
from tzk_core.training.progress import Reporter
from tzk_core.training.recipe import load_recipe, parse_recipe
from tzk_core.training.run import is_finished, read_data, train
from tzk_core.typicality import Typicality, held_out_parts, ks_uniform
from tzk_core.typicality_statistics import forward, statistic_names, statistics

__all__ = ["auroc", "bootstrap", "typicality"]

BATCH = 128
FRESH = 1500
SCORES = {
    "typicality": "typicality",
    "likelihood": "low log p(t)",
    "likelihood_two_sided": "log p(t), two-sided",
    "png": "long PNG",
    "png_two_sided": "PNG, two-sided",
    "complexity": "NLL − PNG",
    "complexity_two_sided": "NLL − PNG, two-sided",
}
TARGETS = ("likelihood", "likelihood_two_sided", "png", "png_two_sided")


class Own(NamedTuple):
    """A model with what its scores are compared with."""

    model: TzK
    fitted: Typicality
    calibration: Tensor  # statistics of the second part of the held-out images
    report: Tensor  # of the third
    held_out: np.ndarray  # log p(t) in nats that the model has stored, sorted
    fresh: np.ndarray  # that of other held-out images


@click.command(cls=Script)
@click.option("--models", required=True, type=click.Path(path_type=Path), help="folder of the runs")
@click.option("--train", "trained", multiple=True, required=True, help="NAME=SOURCE, trained on")
@click.option("--other", "others", multiple=True, help="NAME=SOURCE, only told from those")
@click.option("--recipe", default="typicality", show_default=True)
@click.option("--set", "overrides", multiple=True, help="change a key of the recipe")
@click.option("--limit", type=click.IntRange(min=2), default=10_000, show_default=True)
@click.option("--resamples", type=click.IntRange(min=10), default=1000, show_default=True)
@click.option("--validation", is_flag=True, help="on images that are no test images")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="[default: the folder of --models]")
def typicality(
    models: Path,
    trained: tuple[str, ...],
    others: tuple[str, ...],
    recipe: str,
    overrides: tuple[str, ...],
    limit: int,
    resamples: int,
    validation: bool,
    seed: int,
    device: str,
    out: Path | None,
) -> None:
    """AUROC of typicality and of simpler scores, with 95 % bootstrap intervals."""
    sets, known = _named(trained), _named(trained) | _named(others)
    for name, source in sets.items():
        if not validation and "test" not in splits(source):
            raise UsageError(f"{name}: {source} has no test images; name it with --other")
    began, out = time.monotonic(), out or models
    report: dict[str, Any] = {
        "tzk": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device,
        "threads": torch.get_num_threads(),
        "seed": seed,
        "validation": validation,
        "resamples": resamples,
        "models": {},
        "pairs": [],
    }
    for name, source in sets.items():
        folder = models / name
        if not is_finished(folder):
            sources = [*overrides, f"data.sources.0.source={source}"]
            train(load_recipe(recipe, sources), out=folder, device=device)
    name = "typicality-validation" if validation else "typicality"
    for own_name in sets:
        own = _own(models / own_name, device)
        scored = {}
        for other, source in known.items():
            click.echo(f"{own_name}: scoring {other}", err=True)
            values = _values(own, own_name, other, source, limit, validation, seed)
            if values is not None:
                scored[other] = scores(own, values)
        report["models"][own_name] = _uniform(own, scored[own_name], validation)
        for other in scored:
            if other != own_name:
                generator = np.random.default_rng([seed, len(report["pairs"])])
                figures = compare(scored[own_name], scored[other], resamples, generator)
                count = [len(scored[own_name]["typicality"]), len(scored[other]["typicality"])]
                pair = {"trained": own_name, "other": other, "images": count, "scores": figures}
                report["pairs"].append(pair)
        report["seconds"] = round(time.monotonic() - began)
        # After each model, so that what is done is kept if the rest fails.
        write_aside(out / f"{name}.json", json.dumps(report, indent=2) + "\n")
        write_aside(out / f"{name}.md", markdown(report))
    click.echo(markdown(report))


def _named(pairs: tuple[str, ...]) -> dict[str, str]:
    """Sources by name.

    Raises:
        UsageError: one is not NAME=SOURCE.
    """
    found = {}
    for pair in pairs:
        name, equals, source = pair.partition("=")
        if not (name and equals and source):
            raise UsageError(f"a data set is NAME=SOURCE, not {pair!r}")
        found[name] = source
    return found


def _own(folder: Path, device: str) -> Own:
    """The model of a run, with its held-out images looked at again as at the end of training."""
    model = TzK.from_pretrained(folder).to(device)
    recipe = parse_recipe(yaml.safe_load((folder / "recipe.yaml").read_text()))
    _, held_out = read_data(recipe, Reporter(quiet=True))
    first, second, third = held_out_parts(model, held_out, seed=recipe.seed)
    try:
        fitted = Typicality.fit(statistic_names(model), first, second)
    except ValueError as error:
        raise WorkFailed(f"{folder}: {error}") from error
    stored = np.sort(model.statistics[HELD_OUT])
    fresh = _fresh(model, held_out, len(stored), recipe.seed)
    return Own(model, fitted, second, third, stored, fresh)


@torch.no_grad()
def _fresh(model: TzK, held_out: Dataset, stored: int, seed: int) -> np.ndarray:
    """log p(t) of held-out images that are not among those whose log p(t) the model has stored."""
    index = torch.randperm(len(held_out), generator=derived(seed, "held out"))[stored:][:FRESH]
    noise = derived(seed, "percentile")
    log_p = [
        model.prior.log_prob(held_out.observations(part, noise).to(model.device)).cpu()
        for part in index.split(BATCH)
    ]
    return torch.cat(log_p or [torch.empty(0)]).numpy()


@torch.no_grad()
def _values(
    own: Own, own_name: str, other: str, source: str, limit: int, validation: bool, seed: int
) -> Tensor | None:
    """Statistics of a set's images, or None where it has no images of the split."""
    if validation and other == own_name:
        return own.report
    split = "train" if validation else "test"
    if split not in splits(source):
        return None
    images = load(source, split=split, preparation=own.model.preparation, limit=limit, cache=True)
    like, parts = own.model.reference, []
    for start in range(0, len(images), BATCH):
        pixels = torch.from_numpy(np.array(images.pixels[start : start + BATCH]))
        noise = torch.rand(pixels.shape, generator=derived(seed, own_name, other, start))
        t = dequantise(pixels, noise).to(like)
        parts.append(statistics(forward(own.model, t), pixels))
    return torch.cat(parts)


def scores(own: Own, values: Tensor) -> dict[str, np.ndarray]:
    """Every score of images by name, higher for what is odder."""
    simple, reference = _simple(own, values), _simple(own, own.calibration)
    found = {"typicality": -own.fitted.tail(values).numpy()}
    for name, score in simple.items():
        ordered = np.sort(reference[name])
        below = np.searchsorted(ordered, score, side="left")
        above = len(ordered) - np.searchsorted(ordered, score, side="right")
        found[name] = score
        # Conformal ranks of either side, as those of typicality.
        found[f"{name}_two_sided"] = -2 * (1 + np.minimum(below, above)) / (len(ordered) + 1)
    return found


def _simple(own: Own, values: Tensor) -> dict[str, np.ndarray]:
    """Bits/dim of log p, of the PNG, and their difference, from the statistics."""
    levels = (values.shape[1] - 1) // 2
    dims = math.prod(own.model.observation_shape)
    squares, log_dets = values[:, :levels], values[:, levels : 2 * levels]
    log_p = (log_dets - 0.5 * squares).sum(1) - 0.5 * dims * math.log(2 * math.pi)
    bits, png = bits_per_dim(nll_nats(log_p, dims), dims), values[:, -1]
    parts = {"likelihood": bits, "png": png, "complexity": bits - png}
    return {name: part.numpy() for name, part in parts.items()}


def auroc(ranks: tuple[np.ndarray, np.ndarray], own: np.ndarray, other: np.ndarray) -> float:
    """P(an image of the other set scores higher than an own one), ties half.

    Args:
        ranks: of own and other images among all, equal for equal scores.
        own, other: how often each image counts.
    """
    size = 1 + max(int(part.max()) for part in ranks)
    a, b = (np.bincount(r, w, size) for r, w in zip(ranks, (own, other), strict=True))
    return float((b * (np.cumsum(a) - a / 2)).sum() / (own.sum() * other.sum()))


def bootstrap(
    own: dict[str, np.ndarray],
    other: dict[str, np.ndarray],
    resamples: int,
    generator: np.random.Generator,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """AUROC of every score, and of resamples of both sets that are the same for all scores."""
    ranks, sizes = {}, (len(own["typicality"]), len(other["typicality"]))
    for name in SCORES:
        every = np.unique(np.concatenate((own[name], other[name])), return_inverse=True)[1]
        ranks[name] = (every[: sizes[0]], every[sizes[0] :])
    whole = {name: auroc(each, *(np.ones(n) for n in sizes)) for name, each in ranks.items()}
    drawn = {name: np.empty(resamples) for name in SCORES}
    for i in range(resamples):
        weights = [generator.multinomial(n, np.full(n, 1 / n)).astype(float) for n in sizes]
        for name, each in ranks.items():
            drawn[name][i] = auroc(each, *weights)
    return whole, drawn


def compare(
    own: dict[str, np.ndarray],
    other: dict[str, np.ndarray],
    resamples: int,
    generator: np.random.Generator,
) -> dict[str, dict[str, Any]]:
    """AUROC, its interval, and the interval of typicality's lead over it."""
    whole, drawn = bootstrap(own, other, resamples, generator)
    found = {}
    for name in SCORES:
        lead = drawn["typicality"] - drawn[name]
        found[name] = {
            "auroc": round(whole[name], 4),
            "interval": np.percentile(drawn[name], (2.5, 97.5)).round(4).tolist(),
            "lead": np.percentile(lead, (2.5, 97.5)).round(4).tolist(),
        }
    return found


def _uniform(own: Own, scored: dict[str, np.ndarray], validation: bool) -> dict[str, Any]:
    """How uniform typicality and percentile are on held-out and on test images."""
    calibration, stored = len(own.calibration), len(own.held_out)
    found = {
        "calibration": calibration,
        "held_out": _distance(own.fitted.tail(own.report).numpy(), calibration),
        "percentile": {"stored": stored},
    }
    if len(own.fresh):
        found["percentile"]["held_out"] = _distance(percentiles(own, own.fresh), stored)
    if not validation:
        found["test"] = _distance(-scored["typicality"], calibration)
        dims = math.prod(own.model.observation_shape)
        log_p = -nats_of_bits(scored["likelihood"], dims)
        found["percentile"]["test"] = _distance(percentiles(own, log_p), stored)
    return found


def percentiles(own: Own, log_p: np.ndarray) -> np.ndarray:
    """The share of the stored log p(t) at or below each, as `tzk_nll` answers it, /100."""
    return np.searchsorted(own.held_out, log_p, side="right") / len(own.held_out)


def nats_of_bits(bits: np.ndarray, dims: int) -> np.ndarray:
    """−log p(t) in nats of bits/dim of the 256-level image."""
    return (bits - 8) * dims * math.log(2)


def _distance(ranks: np.ndarray, reference: int) -> dict[str, Any]:
    """From uniform, with what chance alone would give.

    Args:
        ranks: in [0, 1].
        reference: images that they are ranks among: the 95 % point is that of two samples.
    """
    return {
        "images": len(ranks),
        "distance": round(ks_uniform(torch.from_numpy(ranks)), 4),
        "chance": round(1.358 * math.sqrt(1 / len(ranks) + 1 / reference), 4),
    }


def markdown(report: dict[str, Any]) -> str:
    """The tables."""
    lines = [
        "AUROC with its 95 % bootstrap interval; bold where typicality's lead over a score that it "
        "should not fall behind has an interval that ends below 0.\n",
        "| trained on | told from | images | " + " | ".join(SCORES.values()) + " |",
        "|---|---|---|" + "---|" * len(SCORES),
    ]
    behind = []
    for pair in report["pairs"]:
        cells = []
        for name, figure in pair["scores"].items():
            low, high = figure["interval"]
            cell = f"{figure['auroc']:.3f} ({low:.3f}–{high:.3f})"
            if name in TARGETS and figure["lead"][1] < 0:
                behind.append(f"{pair['trained']} → {pair['other']}: {SCORES[name]}")
                cell = f"**{cell}**"
            cells.append(cell)
        counts = " / ".join(f"{count:,}" for count in pair["images"])
        lines.append(f"| {pair['trained']} | {pair['other']} | {counts} | {' | '.join(cells)} |")
    lines.append(
        f"\nTypicality falls behind on {len(behind)} of {len(report['pairs'])} pairs × "
        f"{len(TARGETS)} scores (log p(t) and the length of the PNG, one- and two-sided)"
        f"{': ' if behind else ''}{'; '.join(behind)}.\n"
    )
    lines += [
        "Kolmogorov–Smirnov distance from uniform (what chance alone exceeds once in 20 times), of "
        "typicality and of the percentile, on images that neither is ranked among:\n",
        "| trained on | typicality, held-out images | test images | percentile, held-out images | "
        "test images |",
        "|---|---|---|---|---|",
    ]
    for name, model in report["models"].items():
        cells = [
            f"{of[part]['distance']:.3f} ({of[part]['chance']:.3f}), {of[part]['images']:,} images"
            if part in of
            else "–"
            for of in (model, model["percentile"])
            for part in ("held_out", "test")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typicality()
