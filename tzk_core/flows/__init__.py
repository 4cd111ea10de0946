"""Invertible layers and the two flows made of them. Nothing here knows of knowledge."""

from .actnorm import ActNorm
from .coupling import Coupling, recompute_networks
from .image import ImageFlow
from .layer import Chain, Invertible
from .shuffle import Shuffle
from .squeeze import Squeeze
from .step import FlowStep, StepFlow
from .vector import VectorFlow

__all__ = [
    "ActNorm",
    "Chain",
    "Coupling",
    "FlowStep",
    "ImageFlow",
    "Invertible",
    "Shuffle",
    "Squeeze",
    "StepFlow",
    "VectorFlow",
    "recompute_networks",
]
