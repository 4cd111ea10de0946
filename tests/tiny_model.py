"""A model so small that the service's tests cost nothing, and images for it."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
from tzk_core.data.preparation import Preparation
from tzk_core.model import TzK

PATHS = ["mnist", "mnist/3", "fashion"]
SIDE = 16
HELD_OUT = [float(log_prob) for log_prob in range(-400, 0, 4)]


def tiny_model(seed: int = 0) -> TzK:
    """1×16×16, with ``PATHS``; its last layers are not zero, so that every number matters."""
    source = torch.Generator().manual_seed(seed)
    config = TzKConfig(
        observation=(1, SIDE, SIDE),
        flow=FlowConfig(levels=2, steps=1, width=8),
        preparation=Preparation(size=SIDE, channels=1),
        statistics={"held_out_log_prob": HELD_OUT},
    )
    model = TzK(config, generator=source)
    small = KnowledgeConfig(
        code_dim=4,
        code_steps=1,
        code_width=8,
        encoder_width=8,
        decoder_stem=8,
        decoder_width=8,
        z_steps=1,
        z_width=8,
        discriminator_width=8,
    )
    for path in PATHS:
        kind = small.model_copy(update={"code_dim": 2}) if "/" in path else small
        model.add_knowledge(path, kind, generator=source)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=source)
    return model.eval()


def png(side: int = SIDE, seed: int = 0, mode: str = "L") -> bytes:
    """A PNG of noise."""
    shape = (side, side) if mode == "L" else (side, side, 3)
    levels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


def bomb(side: int = 20_000) -> bytes:
    """A PNG of side×side black pixels in a few kilobytes."""
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG", optimize=False, compress_level=9)
    return buffer.getvalue()
