"""A module as an ONNX model, any size of batch."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from onnxscript import opset18 as op
from torch import Tensor, nn

from tzk_core.errors import WorkFailed
from tzk_core.randomness import generator

if TYPE_CHECKING:
    import onnx

    from .onnx_graphs import Field

__all__ = ["OPSET", "examples", "traced"]

OPSET = 18

# Sizes to trace with: none is 0 or 1, which an export takes for fixed, and no two are alike.
SIZES = {"batch": 3, "draws": 5}


def examples(
    fields: Sequence[Field], generator: torch.Generator, sizes: Mapping[str, int] = SIZES
) -> tuple[Tensor, ...]:
    """Random inputs: levels, U[0, 1) or N(0, 1), as the fields say."""
    drawn = []
    for one in fields:
        shape = [sizes[size] if isinstance(size, str) else size for size in one.shape]
        if one.dtype == "uint8":
            drawn.append(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))
        elif one.unit.startswith("U"):
            drawn.append(torch.rand(shape, generator=generator))
        else:
            drawn.append(torch.randn(shape, generator=generator))
    return tuple(drawn)


def traced(
    module: nn.Module, inputs: Sequence[Field], outputs: Sequence[Field], name: str
) -> onnx.ModelProto:
    """The module as an ONNX model with those names of inputs and outputs.

    Raises:
        WorkFailed: torch cannot export it.
    """
    dims = {size: torch.export.Dim(size) for size in SIZES}
    shapes = [
        {axis: dims[size] for axis, size in enumerate(one.shape) if isinstance(size, str)}
        for one in inputs
    ]
    example = examples(inputs, generator(0))
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module.eval(),
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=[one.name for one in inputs],
                output_names=[one.name for one in outputs],
                dynamic_shapes=_by_parameter(module, shapes),
                custom_translation_table={torch.ops.aten.log_sigmoid.default: _log_sigmoid},
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise WorkFailed(f"torch cannot export {name} to ONNX: {reason}") from error
    return program.model_proto


def _log_sigmoid(x):
    """log σ(x) = −log(1 + e⁻ˣ).

    torch.onnx's own is the logarithm of ONNX's Sigmoid, which onnxruntime works out to 1e-7
    absolutely: of a scale of e⁻⁶ that is 1e-4, and a deep flow makes 0.1 nats of it.
    """
    return op.Neg(op.Softplus(op.Neg(x)))


def _by_parameter(module: nn.Module, shapes: list) -> tuple:
    """The inputs' shapes as the parameters of ``forward`` take them, ``*rest`` as one.

    Where nothing is left for ``*rest``, torch.export does not count it as a parameter.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    named = sum(one.kind is not one.VAR_POSITIONAL for one in parameters)
    rest = shapes[named:]
    return (*shapes[:named], tuple(rest)) if rest else tuple(shapes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it, torch.onnx keeps to itself what concerns only its own developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
