"""A recipe that trains on real images in a second."""

from __future__ import annotations

__all__ = ["tiny_values"]


def tiny_values(digits: str) -> dict:
    """A folder of digits with their classes and 80 garments, 8×8, both stages."""
    kind = {
        "code_dim": 3,
        "code_steps": 1,
        "code_width": 4,
        "encoder_width": 4,
        "decoder_stem": 4,
        "decoder_width": 4,
        "decoder_layers": 1,
        "z_steps": 1,
        "z_width": 4,
        "discriminator_width": 4,
    }
    return {
        "name": "tiny",
        "seed": 3,
        "data": {
            "preparation": {"size": 8, "padding": False},
            "sources": [
                {"source": digits, "knowledge": "mnist", "classes": True},
                {"source": "builtin/fashion_mnist", "knowledge": "fashion", "limit": 80},
            ],
        },
        "model": {
            "flow": {"levels": 2, "steps": 1, "width": 4},
            "knowledge": kind,
            "child_flow": {"steps": 1, "width": 4},
            "child_knowledge": kind | {"code_dim": 2},
        },
        "stages": [
            {"train": "flow", "steps": 10, "batch": 8, "checkpoint_every": 5, "ema": 0.9},
            {"train": "knowledge", "steps": 5, "batch": 16, "checkpoint_every": 4, "ema": 0.9},
        ],
        "watch": {"tensorboard": False},
        "evaluation": {"existence_draws": 1000, "held_out": 10, "draws": 2},
    }
