"""Parts of a model as CUDA graphs.

A small flow is thousands of short kernels, and launching them takes a processor longer than running
them takes a GPU. Recorded once they are launched by one call, and the numbers are those of the same
kernels launched one by one (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Graphed", "GraphedStep"]

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


class GraphedStep:
    """A function of tensors on a GPU with gradients for some parameters: two CUDA graphs.

    What it returns is overwritten by the next call: a step of training is done with it by then.

    Args:
        function: of tensors, returning a mapping of tensors; as :class:`Graphed` takes them.
        parameters: those that it has gradients for, on the GPU and staying where they are.
        like: inputs as they will come.
    """

    def __init__(
        self,
        function: Callable[..., dict[str, Tensor]],
        parameters: Iterable[Tensor],
        like: tuple[Tensor, ...],
    ) -> None:
        self.shapes = [(one.shape, one.dtype) for one in like]
        # What autograd keeps of gradients is made in the stream of the recording; that the steps
        # run in another is meant.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        self._call = torch.cuda.make_graphed_callables(
            _Step(function, parameters),
            tuple(one.clone() for one in like),
            allow_unused_input=True,
        )

    def fits(self, inputs: tuple[Tensor, ...]) -> bool:
        """Whether the inputs are of the shapes and dtypes that were recorded."""
        return [(one.shape, one.dtype) for one in inputs] == self.shapes

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        return self._call(*inputs)


class _Step(nn.Module):
    """A function as a module, which is what can be recorded with parameters."""

    def __init__(self, function: Callable[..., Any], parameters: Iterable[Tensor]) -> None:
        super().__init__()
        self.function = function
        self.trained = nn.ParameterList(parameters)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)
