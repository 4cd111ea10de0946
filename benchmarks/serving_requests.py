"""The model and the requests that the serving benchmarks use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from serving_load import Request

from tzk_core.config import FlowConfig, TzKConfig
from tzk_core.data.decoding import encode_png
from tzk_core.data.images import Images
from tzk_core.data.preparation import Preparation
from tzk_core.data.quantisation import dequantise
from tzk_core.data.sources import load
from tzk_core.errors import UsageError
from tzk_core.model import TzK
from tzk_core.randomness import derived, rows

__all__ = ["ENDPOINT_OF", "flow_of", "images_of", "model_for", "requests_of", "url_path"]

ENDPOINT_OF = {"score": "tzk_nll", "sample": "tzk_sample"}
"""The endpoint of each kind of work."""

SMALL = FlowConfig(levels=3, steps=8, width=64)
"""0.3 million parameters on 1×32×32, the size that the targets are of."""
TINY = FlowConfig(levels=2, steps=1, width=8)
ACTNORM_IMAGES = 512
NOISE = 0.02
"""So that no layer is the identity, and none stretches so much that images overflow."""


def model_for(
    run: Path | None, folder: Path, options: dict[str, Any]
) -> tuple[Path, Images, dict[str, Any]]:
    """The run's folder, the images for it, and what to say of the model.

    Args:
        run: ``None`` makes one in ``folder``.
        options: ``data``, ``images``, ``seed``, and ``quick`` for a tiny one on small images.

    Raises:
        UsageError: there is no such run.
    """
    if run is None:
        size = Preparation(size=16) if options["quick"] else None
        images = images_of(options["data"], options["images"], size)
        run = folder / "run"
        made = flow_of(images, run, options["seed"], TINY if options["quick"] else SMALL)
        source = f"made with seed {options['seed']}"
    else:
        if not run.is_dir():
            raise UsageError(f"there is no run {run}")
        made, source = TzK.from_pretrained(run), run.name
        images = images_of(options["data"], options["images"], made.preparation)
    count = sum(parameter.numel() for parameter in made.parameters())
    about = {"source": source, "parameters": count, "shape": list(images.pixels.shape[1:])}
    return run.resolve(), images, about


def url_path(endpoint: str) -> str:
    return f"/predictions/{endpoint}/1.0"


def images_of(source: str, count: int, preparation: Preparation | None = None) -> Images:
    """Real test images."""
    return load(source, split="test", preparation=preparation, limit=count)


def flow_of(images: Images, folder: Path, seed: int, flow: FlowConfig) -> TzK:
    """A flow without knowledge, saved to ``folder``; not trained, as speed does not depend on that.

    Its ActNorms are set from the images, and no parameter stays zero.
    """
    _, channels, side, _ = images.pixels.shape
    config = TzKConfig(
        observation=(channels, side, side),
        flow=flow,
        preparation=Preparation(size=side, channels=channels),
    )
    source = derived(seed, "flow")
    model = TzK(config, generator=source)
    with torch.no_grad():
        pixels = torch.from_numpy(images.pixels[:ACTNORM_IMAGES].copy())
        noise = rows(source, len(pixels)).uniform(*pixels.shape[1:])
        model.flow.initialize(dequantise(pixels, noise))
        for parameter in model.parameters():
            parameter += NOISE * torch.randn(parameter.shape, generator=source)
    model.eval().save_pretrained(folder)
    return model


def requests_of(kind: str, images: Images) -> list[Request]:
    """One request an image: the image to be scored as the raw body, or a seed to sample with."""
    path = url_path(ENDPOINT_OF[kind])
    if kind == "score":
        pictures = (encode_png(pixels) for pixels in images.pixels)
        return [Request(path, png, {"Content-Type": "image/png"}) for png in pictures]
    return [
        Request(path, json.dumps({"seed": seed}).encode(), {"Content-Type": "application/json"})
        for seed in range(len(images))
    ]
