"""A small classifier of images that knows nothing of flows: an independent judge of samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, max_pool2d, pad, relu

from ..data.quantisation import LEVELS
from ..errors import ModelUnavailable, UsageError
from ..files import write_aside
from ..networks import convolution, linear
from ..randomness import derived
from .figures import mean_of
from .held_out import Figure

__all__ = [
    "ImageClassifier",
    "accuracy",
    "load_classifier",
    "save_classifier",
    "shifted",
    "train_classifier",
]

FORMAT = "tzk-classifier-1"
WIDTHS = (16, 32, 64)
SHIFT = 2
BATCH = 128
PEAK_RATE = 4e-3


class ImageClassifier(nn.Module):
    """Three convolutions.

    ::

        (B, C, H, W) uint8 ── /256 − ½ ── [3×3, batch norm, ReLU, 2×2 max] × 3
            (B, 64, H/8, W/8) ── linear ── (B, classes)

    Args:
        shape: (C, H, W); H and W at least 8.
        classes: how many.
        generator: draws first weights.
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        if min(height, breadth) < 2 ** len(WIDTHS):
            raise UsageError(f"the classifier needs images of at least 8×8, not {height}×{breadth}")
        self.shape, self.classes = tuple(shape), classes
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for width in WIDTHS:
            self.convolutions.append(convolution(channels, width, 3, generator))
            self.norms.append(nn.BatchNorm2d(width))
            channels = width
        positions = (height >> len(WIDTHS)) * (breadth >> len(WIDTHS))
        self.last = linear(channels * positions, classes, generator)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, classes) of levels, uint8 (B, C, H, W)."""
        hidden = pixels.to(self.last.weight.dtype) / LEVELS - 0.5
        for layer, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = max_pool2d(relu(norm(layer(hidden))), 2)
        return self.last(hidden.flatten(1))

    @torch.no_grad()
    def classify(self, pixels: Tensor) -> Tensor:
        """The class of each image, int64 (B,) on the CPU; the mode is left as it was."""
        training, device = self.training, self.last.weight.device
        self.eval()
        found = [self(part.to(device)).argmax(1).cpu() for part in pixels.split(500)]
        self.train(training)
        return torch.cat(found)


def train_classifier(
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    epochs: int,
    seed: int,
    device: str | torch.device = "cpu",
    tick: Callable[[int], None] | None = None,
) -> ImageClassifier:
    """A classifier, the same for the same arguments on the same machine.

    Adam with one cycle of the step size, every image shifted by up to ±2 pixels anew each time.

    Args:
        images: levels, uint8 (N, C, H, W).
        labels: int64 (N,), each in 0…classes−1.
        epochs: passes over the images; what does not fill a batch is left for the next pass.
        seed: of first weights, order and shifts.
        tick: called with the number of images of each step.

    Raises:
        UsageError: no images, or labels that are unknown or out of range.
    """
    if len(images) < 2 or len(images) != len(labels):
        raise UsageError(f"{len(images)} images with {len(labels)} labels cannot be learned from")
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise UsageError(f"labels must lie in 0…{classes - 1}; leave unknown ones out")
    shape = tuple(images.shape[1:])
    model = ImageClassifier(shape, classes, derived(seed, "classifier", "weights")).to(device)
    batch = min(BATCH, len(images))
    a_pass = len(images) // batch
    optimizer = torch.optim.Adam(model.parameters(), lr=PEAK_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, total_steps=max(2, epochs * a_pass)
    )
    model.train()
    for epoch in range(epochs):
        source = derived(seed, "classifier", "epoch", epoch)
        order = torch.randperm(len(images), generator=source)
        for step in range(a_pass):
            index = order[step * batch : (step + 1) * batch]
            inputs = shifted(images[index], source).to(device)
            loss = cross_entropy(model(inputs), labels[index].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            if tick is not None:
                tick(batch)
    return model.eval()


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (B, C, H, W) moved by −2…2 pixels each way; what comes in from outside is 0."""
    count, _, height, breadth = images.shape
    wide = pad(images, (SHIFT,) * 4)
    down, right = torch.randint(2 * SHIFT + 1, (2, count, 1), generator=generator)
    rows = down + torch.arange(height)
    columns = right + torch.arange(breadth)
    which = torch.arange(count)[:, None, None]
    # An index on either side of a slice puts the indexed axes first.
    return wide[which, :, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def accuracy(classifier: ImageClassifier, images: Tensor, labels: Tensor, name: str) -> Figure:
    """The share of images that are read as labelled."""
    return mean_of(classifier.classify(images) == labels.cpu(), name, "share")


def save_classifier(classifier: ImageClassifier, path: Path, facts: dict[str, str]) -> None:
    """Writes one safetensors file; ``facts`` (how it was trained) go into its metadata.

    Raises:
        WorkFailed: it cannot be written.
    """
    metadata = facts | {
        "format": FORMAT,
        "shape": json.dumps(classifier.shape),
        "classes": str(classifier.classes),
    }
    state = {key: value.cpu().contiguous() for key, value in classifier.state_dict().items()}
    write_aside(Path(path), save(state, metadata))


def load_classifier(path: Path) -> tuple[ImageClassifier, dict[str, str]]:
    """The classifier, ready to classify, and its file's metadata.

    Raises:
        ModelUnavailable: no such file, or not one that :func:`save_classifier` wrote.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            facts = opened.metadata() or {}
            state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        if facts.get("format") != FORMAT:
            raise ModelUnavailable(f"{path} is not a classifier of the format {FORMAT}")
        shape, classes = tuple(json.loads(facts["shape"])), int(facts["classes"])
        model = ImageClassifier(shape, classes, derived(0, "classifier", "unused"))
        model.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ModelUnavailable(f"the classifier {path} cannot be read: {error}") from error
    return model.eval(), facts
