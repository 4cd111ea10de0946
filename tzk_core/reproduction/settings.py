"""How much is measured, by scale."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SCALES", "Settings"]


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurements; the standard errors beside the figures follow from them."""

    prior_images: int  # test images for p(t)
    images: int  # test images for p(t|k), each with all draws
    draws: tuple[int, ...]  # N of the importance estimates
    accuracy_images: int  # test images for discriminators
    samples: int  # of each class, for the classifier
    shown: int  # images that the classifier is shown while it learns
    pairs: int  # of images between which is interpolated
    points: int  # on each way, ends included
    side: int  # of a sheet between four images
    grid: int  # samples in a picture, a multiple of 16
    timed_steps: int  # of training, in each round
    rounds: int  # of timing


SCALES = {
    "small": Settings(
        prior_images=1000,
        images=150,
        draws=(16, 256),
        accuracy_images=2000,
        samples=100,
        shown=60_000,
        pairs=400,
        points=9,
        side=7,
        grid=32,
        timed_steps=8,
        rounds=9,
    ),
    "full": Settings(
        prior_images=10_000,
        images=1000,
        draws=(16, 256),
        accuracy_images=10_000,
        samples=1000,
        shown=180_000,
        pairs=400,
        points=9,
        side=9,
        grid=32,
        timed_steps=4,
        rounds=5,
    ),
}
