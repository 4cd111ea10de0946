"""Parts of a model as CUDA graphs.

A small flow is thousands of short kernels, and launching them takes a processor longer than running
them takes a GPU. Recorded once they are launched by one call, and the numbers are those of the same
kernels launched one by one (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .flows import Invertible

__all__ = ["Graphed", "GraphedEncode"]

RECORDED_AT = 2  # the call of a shape that records it: what is asked once is not worth a graph
SHAPES = 64  # that are recorded at most, since each keeps memory


class Graphed:
    """A function of tensors on a GPU without gradients, one CUDA graph for each shape of them.

    Args:
        function: of tensors, returning one or several, with no random numbers and no look at what
            is computed.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._asked: dict[tuple, int] = {}
        self._recorded: dict[tuple, _Recorded] = {}

    def __call__(self, *inputs: Tensor) -> Any:
        """What the function returns, in memory of its own."""
        key = tuple((one.shape, one.dtype) for one in inputs)
        recorded = self._recorded.get(key)
        if recorded is None:
            self._asked[key] = self._asked.get(key, 0) + 1
            if self._asked[key] < RECORDED_AT or len(self._recorded) >= SHAPES:
                return self.function(*inputs)
            recorded = self._recorded[key] = _Recorded(self.function, inputs)
        return recorded(*inputs)


class _Recorded:
    def __init__(self, function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> None:
        # What inference mode makes may not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            self.inputs = [torch.empty_like(one).copy_(one) for one in inputs]
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                function(*self.inputs)  # libraries choose and allocate before anything is recorded
            torch.cuda.current_stream().wait_stream(aside)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.outputs = function(*self.inputs)

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Any:
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self.graph.replay()
        if isinstance(self.outputs, Tensor):
            return self.outputs.clone()
        return tuple(one.clone() for one in self.outputs)


class GraphedEncode:
    """``flow.encode`` for batches of one shape on a GPU, with gradients for the flow's parameters.

    What it returns is overwritten by the next call: a step of training is done with it by then.

    Args:
        flow: on a CUDA device, its parameters' ``requires_grad`` as they will stay.
        like: a batch as they will come.
    """

    def __init__(self, flow: Invertible, like: Tensor) -> None:
        self.shape, self.dtype = like.shape, like.dtype
        self._encode = torch.cuda.make_graphed_callables(_Encode(flow), (like.clone(),))

    def fits(self, t: Tensor) -> bool:
        """Whether ``t`` is of the shape and dtype that was recorded."""
        return t.is_cuda and t.shape == self.shape and t.dtype == self.dtype

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(z, log|det ∂z/∂t|)."""
        return self._encode(t)


class _Encode(nn.Module):
    """``encode`` as the forward pass of a module, which is what can be recorded with parameters."""

    def __init__(self, flow: Invertible) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.encode(t)
