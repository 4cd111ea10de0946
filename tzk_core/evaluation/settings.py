"""How much an evaluation looks at: what sets the time that it takes, and its errors.

Nothing here needs torch, so that ``tzk evaluate --help`` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import UsageError

__all__ = ["DRAWS", "PARTS", "QUICK", "SHOWN", "Settings"]

DRAWS = (1, 16, 256)  # N of the importance estimates
SHOWN = 180_000  # images that a classifier is shown while it learns: three passes over MNIST

# In the order in which they are measured.
PARTS = (
    "round-trip",
    "likelihoods",
    "discriminators",
    "consistency",
    "typicality",
    "information",
    "interpolation",
    "neighbours",
    "samples",
)


@dataclass(frozen=True)
class Settings:
    """Sizes, each of one source of images unless it says otherwise.

    Raises:
        UsageError: a value that it cannot have.
    """

    test_images: int = 10_000  # that are read, evenly spaced through the source
    round_trip_images: int = 500
    likelihood_images: int = 500
    draws: tuple[int, ...] = DRAWS  # N of the importance estimates
    encoder_rate_draws: int = 100_000  # of p(t), where none is stored; 0: no `encoder` estimator
    existence_draws: int = 0  # codes to fit p(e = 1) anew, for a checkpoint; 0 takes what is stored
    consistency_images: int = 100
    consistency_draws: int = 256
    typicality_images: int = 2000
    information_images: int = 10_000
    interpolation_side: int = 8
    neighbour_images: int = 500  # samples, and as many test images
    samples: int = 1000  # of each class
    temperatures: tuple[float, ...] = (0.7, 1.0)
    shown: int = SHOWN  # images that each classifier is shown

    def __post_init__(self) -> None:
        least = {
            "encoder_rate_draws": 0,
            "existence_draws": 0,
            "consistency_draws": 16,
            "interpolation_side": 3,
            "test_images": 4,
        }
        for field in fields(self):
            value = getattr(self, field.name)
            smallest = least.get(field.name, 2)
            if isinstance(value, int) and value < smallest:
                raise UsageError(f"{field.name} must be at least {smallest}, not {value}")
        if not self.draws or min(self.draws) < 1:
            raise UsageError(f"draws must be numbers of at least 1, not {self.draws}")
        if not self.temperatures or not all(0 <= t < float("inf") for t in self.temperatures):
            raise UsageError(
                f"temperatures must be finite numbers of at least 0, not {self.temperatures}"
            )


# About a minute on two cores for a model of the size of the recipe `quick`.
QUICK = Settings(
    test_images=300,
    round_trip_images=50,
    likelihood_images=20,
    encoder_rate_draws=1000,
    consistency_images=6,
    typicality_images=300,
    information_images=300,
    interpolation_side=5,
    neighbour_images=40,
    samples=10,
    shown=6000,
)
