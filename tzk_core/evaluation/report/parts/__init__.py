"""The parts of an evaluation, each in a module of its own."""

from . import (
    consistency,
    discriminators,
    information,
    interpolation,
    likelihoods,
    neighbours,
    round_trip,
    samples,
    typicality,
)

__all__ = ["PARTS"]

# In the order of settings.PARTS: what is quick first.
PARTS = [
    round_trip.PART,
    likelihoods.PART,
    discriminators.PART,
    consistency.PART,
    typicality.PART,
    information.PART,
    interpolation.PART,
    neighbours.PART,
    samples.PART,
]
