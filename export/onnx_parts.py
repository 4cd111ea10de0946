"""The parts of a model that an ONNX archive's workers run by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tzk_core.errors import WorkFailed
from tzk_core.hub import sha256
from tzk_core.model import TzK
from tzk_core.randomness import generator
from tzk_core.service.backends import Part, parts

from .onnx_graphs import Field
from .onnx_trace import traced
from .onnx_weights import SharedWeights

__all__ = ["write_parts"]

WEIGHTS = "parts.data"
CLOSE, CLOSE_SUMS = 1e-3, 1e-5
"""Of the largest element: of images and latent states, and of what is one number a row (sums of log
densities, logits). Of the model in the box they are apart by 2e-5 and 5e-7."""

TEMPERATURE = 0.7
"""Of the samples that parts are checked on: far from what it was trained on, a flow makes rounding
large, in the file and in the library alike."""


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
        _check(module, file, [_drawn(model, part, size) for size in (1, 4)])
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
def _drawn(model: TzK, part: Part, size: int) -> list[Tensor]:
    """Inputs of a part as the model's own samples give them."""
    noise = generator(2)
    z = TEMPERATURE * torch.randn(size, *model.latent_shape, generator=noise)
    if part.method == "decode":
        return [z]
    if len(part.inputs) == 1:
        return [model.flow.decode(z)[0]]
    _, code_shape = part.inputs
    c = torch.randn(size, *code_shape, generator=noise)
    return [part.module.transform(z, c) if part.method == "log_prob" else z, c]


@torch.no_grad()
def _check(module: nn.Module, file: Path, batches: Iterable[Sequence[Tensor]]) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    for drawn in batches:
        fed = {name: x.numpy() for name, x in zip(names, drawn, strict=True)}
        wanted = module(*drawn)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for got, want in zip(session.run(None, fed), wanted, strict=True):
            if got.shape != want.shape:
                raise WorkFailed(f"{file.name}: onnxruntime gives {got.shape}, not {want.shape}")
            most = (CLOSE_SUMS if want.ndim == 1 else CLOSE) * max(1.0, float(want.abs().max()))
            apart = np.abs(got - want.numpy()).max()
            if not apart <= most:
                raise WorkFailed(
                    f"{file.name}: onnxruntime and the library differ by {apart:.3g}, more than "
                    f"{most:.3g}"
                )
