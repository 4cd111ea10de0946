"""Samples of classes under an independent judge: the figures, tables and pictures of one group."""

from __future__ import annotations

import math
from typing import Any

import torch

from ...data.quantisation import LEVELS
from ...model import TzK
from ...randomness import derived
from ...training.progress import Reporter
from ..classifier import accuracy
from ..conditional_samples import (
    ClassSamples,
    class_grid,
    draw_classes,
    pixel_variance,
    read_as_asked,
)
from ..settings import SHOWN
from .data import Classes
from .judge import Judge, trained
from .result import Picture, Result, Table, share

__all__ = ["judged", "learned_from", "sampled"]


def judged(judge: Judge, classes: Classes) -> Result:
    """How often the judge itself is right on real test images."""
    figure = accuracy(judge.classifier, classes.pixels, classes.labels, "classifier on test images")
    return Result(
        {"classifier": {"accuracy": figure, "training_seconds": round(judge.seconds, 1)}},
        [Table("Classifier", ["figure", "value"], [[figure.name, share(figure)]])],
    )


def sampled(
    model: TzK,
    classes: Classes,
    judge: Judge,
    n: int,
    temperature: float,
    *,
    name: str,
    seed: int,
    reporter: Reporter,
) -> tuple[Result, ClassSamples]:
    """``n`` samples of each class at one temperature: read by the judge, and their variance.

    Args:
        name: of the picture, to which the temperature is added.
    """
    title = f"samples of {classes.name} at temperature {temperature:g}"
    task = reporter.task(title, n * len(classes.paths))
    drawn = draw_classes(
        model, classes.paths, n, temperature=temperature, seed=seed, tick=task.advance
    )
    mean, each = read_as_asked(judge.classifier, drawn)
    ours, real = (
        pixel_variance(pixels, labels, len(classes.paths))
        for pixels, labels in ((drawn.pixels, drawn.labels), (classes.pixels, classes.labels))
    )
    picture = Picture(
        f"{name}-{temperature:g}",
        class_grid(drawn),
        f"One class a row, temperature {temperature:g}: {', '.join(map(model.label, drawn.paths))}",
    )
    figures: dict[str, Any] = {
        "temperature": temperature,
        "samples_a_class": n,
        "acceptance_rates": drawn.acceptance_rates,
        "resampled": drawn.resampled,
        "lost": int(drawn.lost.sum()),
        "read_as_asked": mean,
        "each": each,
        "pixel_variance": ours.tolist(),
        "pixel_variance_of_test_images": real.tolist(),
        "grid": f"{picture.name}.png",
    }
    rows = [
        [figure.name, share(figure), *_variances(a, b), f"{rate:.3f}"]
        for figure, a, b, rate in zip(
            each, ours.tolist(), real.tolist(), drawn.acceptance_rates, strict=True
        )
    ]
    together = _variances(ours.nanmean().item(), real.nanmean().item())
    rows.append(["mean", share(mean), *together, ""])
    table = Table(
        f"{n:,} samples of each class at temperature {temperature:g}; pixel variance within a "
        f"class, {LEVELS} levels being 1; {figures['lost']} were not finite, and count as wrong",
        ["kind", "read as asked", "variance", "real", "ratio", "accepted codes"],
        rows,
    )
    return Result(figures, [table], [picture]), drawn


def learned_from(
    drawn: ClassSamples,
    classes: Classes,
    *,
    seed: int,
    device: torch.device,
    reporter: Reporter,
    shown: int = SHOWN,
) -> Result:
    """A classifier that sees samples alone, beside one that sees as many real images."""
    pixels, labels = classes.training
    order = torch.randperm(len(labels), generator=derived(seed, "as many"))
    few = order[: len(drawn.pixels)]
    figures = []
    real = f"trained on {'as many' if len(few) == len(drawn.pixels) else 'all'} real images"
    for title, images, own in (
        ("trained on samples alone", drawn.pixels, drawn.labels),
        (real, pixels[few], labels[few]),
    ):
        learner = trained(
            title,
            images,
            own,
            len(classes.paths),
            seed=seed,
            device=device,
            reporter=reporter,
            shown=shown,
        )
        name = f"{title} ({len(images):,})"
        figures.append(accuracy(learner, classes.pixels, classes.labels, name))
    keys = ("trained_on_samples", "trained_on_as_many_real_images")
    return Result(
        dict(zip(keys, figures)),
        [
            Table(
                "Classifiers on real test images",
                ["classifier", "accuracy"],
                [[figure.name, share(figure)] for figure in figures],
            )
        ],
    )


def _variances(ours: float, real: float) -> list[str]:
    ratio = ours / real if real else math.nan
    return [f"{ours:.4f}", f"{real:.4f}", f"{ratio:.2f}"]
