"""The parts of a model that an ONNX archive's workers run by onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tzk_core.errors import WorkFailed
from tzk_core.hub import sha256
from tzk_core.model import TzK
from tzk_core.randomness import generator
from tzk_core.service.backends import Part, parts

from .onnx_graphs import Field
from .onnx_trace import examples, traced
from .onnx_weights import SharedWeights

__all__ = ["write_parts"]

WEIGHTS = "parts.data"
CLOSE = 1e-3
"""Of the largest element: parts are checked on noise, far from where a model was trained."""


def write_parts(run: str | Path, folder: Path) -> dict[str, str]:
    """Writes an ONNX file for each part of a run's model, and the weights they share.

    Returns:
        The SHA-256 of each file by its name.

    Raises:
        WorkFailed: torch cannot export a part, or onnxruntime does not agree with it.
    """
    import onnx

    model = TzK.from_pretrained(run).float().requires_grad_(False)
    weights = SharedWeights(folder / WEIGHTS)
    written = [folder / WEIGHTS]
    for part in parts(model):
        inputs, outputs = _fields(part)
        module = _Method(part)
        proto = traced(module, inputs, outputs, part.name)
        weights.take_from(proto)
        file = folder / f"{part.name}.onnx"
        onnx.save_model(proto, str(file))
        _check(module, inputs, file)
        written.append(file)
    return {file.name: sha256(file) for file in written}


class _Method(nn.Module):
    """A part's method as a module's ``forward``."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.module, self.method = part.module, part.method

    def forward(self, *inputs):
        return getattr(self.module, self.method)(*inputs)


def _fields(part: Part) -> tuple[list[Field], list[Field]]:
    inputs = [
        Field(f"in_{i}", ("batch", *shape), "float32", "none", "")
        for i, shape in enumerate(part.inputs)
    ]
    outputs = [Field(f"out_{i}", ("batch",), "float32", "none", "") for i in range(part.outputs)]
    return inputs, outputs


@torch.no_grad()
def _check(module: nn.Module, inputs: list[Field], file: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for size in (1, 4):
        drawn = examples(inputs, generator(2), {"batch": size})
        fed = {one.name: x.numpy() for one, x in zip(inputs, drawn, strict=True)}
        wanted = module(*drawn)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for got, want in zip(session.run(None, fed), wanted, strict=True):
            apart = np.abs(got - want.numpy()).max()
            if got.shape != want.shape or not apart <= CLOSE * max(1.0, float(want.abs().max())):
                raise WorkFailed(f"{file.name}: onnxruntime and the library differ by {apart:.3g}")
