"""The independent classifier that reads samples, kept on file, and others that learn from them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...randomness import derived
from ...training.progress import Reporter
from ..classifier import (
    ImageClassifier,
    load_classifier,
    save_classifier,
    train_classifier,
)
from ..settings import SHOWN
from .data import Classes

__all__ = ["Judge", "judge_of", "trained"]


class Judge(NamedTuple):
    """A classifier trained on real training images."""

    classifier: ImageClassifier
    seconds: float  # that its training took, when it was trained


def judge_of(
    classes: Classes,
    file: Path,
    *,
    seed: int,
    device: torch.device,
    reporter: Reporter,
    shown: int = SHOWN,
) -> Judge:
    """From its file, if it was trained on these images, or trained and written there."""
    facts = {"images": classes.fingerprint, "seed": str(seed), "shown": str(shown)}
    if file.exists():
        found, kept = load_classifier(file)
        if facts.items() <= kept.items():
            return Judge(found.to(device), float(kept["seconds"]))
        reporter.say(f"{file} was trained otherwise: training it anew")
    began = time.monotonic()
    found = trained(
        "classifier",
        *classes.training,
        len(classes.paths),
        seed=seed,
        device=device,
        reporter=reporter,
        shown=shown,
    )
    seconds = time.monotonic() - began
    save_classifier(found, file, facts | {"seconds": f"{seconds:.1f}"})
    return Judge(found, seconds)


def trained(
    title: str,
    images: Tensor,
    labels: Tensor,
    classes: int,
    *,
    seed: int,
    device: torch.device,
    reporter: Reporter,
    shown: int = SHOWN,
) -> ImageClassifier:
    """A classifier that is shown about ``shown`` images, however many different ones there are.

    Of more images than that, a seeded choice.
    """
    if len(images) > shown:
        index = torch.randperm(len(images), generator=derived(seed, "shown"))[:shown]
        images, labels = images[index], labels[index]
    epochs = max(1, round(shown / len(images)))
    task = reporter.task(title, epochs * len(images))
    return train_classifier(
        images,
        labels,
        classes=classes,
        epochs=epochs,
        seed=seed,
        device=device,
        tick=task.advance,
    )
