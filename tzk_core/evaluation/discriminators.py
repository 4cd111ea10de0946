"""How well p_enc(e = 1 ∣ t) tells which knowledge applies.

A probability averaged over ten one-against-rest classifiers is 0.90 for a model that always says
no. So the figures are top-1, balanced accuracy, AUROC and the calibration error (design,
section 5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..data.quantisation import dequantise
from ..errors import UsageError
from ..model import TzK
from ..randomness import derived, rows
from .auroc import auroc_of
from .figures import mean_of, mean_of_groups
from .held_out import Figure

__all__ = [
    "Among",
    "Binary",
    "among",
    "balanced_accuracy",
    "binary",
    "calibration_error",
    "logits_below",
    "root_logits",
]

BATCH = 250
BINS = 15


@dataclass(frozen=True)
class Binary:
    """One p(e = 1 ∣ t) against the truth; None where the images show one value of e only."""

    path: str
    positives: int
    negatives: int
    said_present: Figure  # the share of images with p > ½
    balanced_accuracy: Figure | None
    auroc: Figure | None
    calibration_error: Figure


@dataclass(frozen=True)
class Among:
    """The kinds below a knowledge, of which each image has one."""

    top_1: Figure
    balanced_accuracy: Figure  # mean over classes of the share of their images that are right
    calibration_error: Figure  # of the largest probability, normalised over the kinds
    each: list[Binary]  # every kind against the rest, on its own


@torch.no_grad()
def logits_below(
    model: TzK,
    paths: list[str],
    pixels: Tensor,
    *,
    draws: int = 16,
    seed: int,
    tick: Callable[[int], None] | None = None,
) -> Tensor:
    """Logits of p_enc(e = 1 ∣ parent, t) of several kinds below one parent, float64 (N, K).

    The probability is the average over ``draws`` of the parent's codes, which the kinds share, so
    that its encoder runs once. Both log p and log(1 − p) are averaged: 1 − p would be 0 in
    float32 where p is near 1, and several kinds would tie.
    """
    if len({path.rpartition("/")[0] for path in paths}) != 1:
        raise UsageError(f"{', '.join(paths)} are not kinds below one parent")
    lineages = [model.lineage(path) for path in paths]
    found = []
    for start, part in _batches(pixels):
        source = rows(derived(seed, "posterior", paths[0].rpartition("/")[0], start), len(part))
        t = _observations(model, part, source)
        x = lineages[0].observed(t, source, draws)
        logits = torch.stack([lineage.last.t_discriminator(x) for lineage in lineages], 1)
        logits = logits.double().reshape(len(t), -1, len(paths))
        # The logarithm of the number of draws cancels.
        found.append((logsigmoid(logits).logsumexp(1) - logsigmoid(-logits).logsumexp(1)).cpu())
        if tick is not None:
            tick(len(part))
    return torch.cat(found)


def root_logits(
    model: TzK,
    name: str,
    pixels: Tensor,
    *,
    seed: int,
    tick: Callable[[int], None] | None = None,
) -> Tensor:
    """Logits of p_enc(e = 1 ∣ t) of a root kind, float64 (N,)."""
    return logits_below(model, [name], pixels, draws=1, seed=seed, tick=tick)[:, 0]


def among(logits: Tensor, labels: Tensor, paths: list[str]) -> Among:
    """Figures of the kinds below a knowledge.

    Args:
        logits: (N, K).
        labels: which of the kinds each image has, (N,).
    """
    top, labels = logits.argmax(1), labels.cpu()
    right = top == labels
    # Of independent answers, given that exactly one is yes: odds, normalised.
    confidence = logits.softmax(1).max(1).values
    each = [binary(logits[:, k], labels == k, path) for k, path in enumerate(paths)]
    recalls = [mean_of(right[labels == k], paths[k], "share") for k in labels.unique()]
    return Among(
        top_1=mean_of(right, "top-1", "share"),
        balanced_accuracy=mean_of_groups(recalls, "balanced accuracy"),
        calibration_error=calibration_error(confidence, right),
        each=each,
    )


def binary(logits: Tensor, present: Tensor, path: str) -> Binary:
    """Figures of one kind: logits (N,) against e, bool (N,)."""
    said, positives = logits > 0, int(present.sum())
    both = 0 < positives < len(present)
    return Binary(
        path=path,
        positives=positives,
        negatives=len(present) - positives,
        said_present=mean_of(said, f"said to be {path}", "share"),
        balanced_accuracy=balanced_accuracy(said, present) if both else None,
        auroc=auroc_of(logits[~present], logits[present], "AUROC") if both else None,
        calibration_error=calibration_error(logits.double().sigmoid(), present),
    )


def balanced_accuracy(said: Tensor, present: Tensor) -> Figure:
    """The mean of the share of positives said to be, and of negatives said not to be."""
    hits = mean_of(said[present], "positives said to be", "share")
    passes = mean_of(~said[~present], "negatives said not to be", "share")
    return mean_of_groups([hits, passes], "balanced accuracy")


def calibration_error(probability: Tensor, happened: Tensor, bins: int = BINS) -> Figure:
    """Expected calibration error: Σ_b n_b/N |mean probability − share that happened|.

    Over ``bins`` bins of equal width on [0, 1] (Naeini, Cooper & Hauskrecht 2015). It is the mean
    over images of ±(p − y), the sign being that of the bin's sum; the standard error is of that
    mean, with the signs as they are (the delta method), so it is too small where a bin's sum may as
    well have had the other sign.
    """
    p, y = probability.double().cpu(), happened.double().cpu()
    index = (p * bins).long().clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, p - y)
    return mean_of(gap.sign()[index] * (p - y), "calibration error", "probability")


def _batches(pixels: Tensor):
    return ((start, pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH))


def _observations(model: TzK, pixels: Tensor, source) -> Tensor:
    return dequantise(pixels, source.uniform(*pixels.shape[1:], device=model.device))
