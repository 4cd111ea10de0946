"""Files of several pieces, each traced once.

What takes the time of an export is tracing the t-flow, which is in nearly every file.
"""

from __future__ import annotations

import onnx
from onnx import compose

from tzk_core.errors import WorkFailed

from .onnx_graphs import Graph, Piece
from .onnx_trace import traced

__all__ = ["Pieces"]


class Pieces:
    """Makes graphs into ONNX models, and keeps the pieces that are in several of them."""

    def __init__(self) -> None:
        self._kept: dict[str, onnx.ModelProto] = {}

    def model_of(self, graph: Graph) -> onnx.ModelProto:
        """A graph's ONNX model, with its inputs and outputs in their order.

        Raises:
            WorkFailed: torch cannot export a piece, or the pieces do not fit.
        """
        whole, names, made = None, {}, {}
        for number, piece in enumerate(graph.pieces):
            prefix = f"piece_{number}/"
            # A copy whose values have names of its own; `names` has the fields' by them.
            own = compose.add_prefix(self._traced(piece, graph.name), prefix)
            taken = [
                (made[one.name], prefix + one.name) for one in piece.inputs if one.name in made
            ]
            whole = own if whole is None else _merged(whole, own, taken)
            names |= {prefix + one.name: one.name for one in (*piece.inputs, *piece.outputs)}
            made |= {one.name: prefix + one.name for one in piece.outputs}
        _rename(whole.graph, names)
        inner = {one.name: one for one in whole.graph.value_info}
        # An output that a later piece takes is no output of what is merged.
        known = inner | {one.name: one for one in (*whole.graph.input, *whole.graph.output)}
        for values, fields in (
            (whole.graph.input, graph.inputs),
            (whole.graph.output, graph.outputs),
        ):
            _put(values, [known[one.name] for one in fields])
        outer = {one.name for one in (*whole.graph.input, *whole.graph.output)}
        _put(whole.graph.value_info, [one for name, one in inner.items() if name not in outer])
        whole.graph.name, whole.graph.doc_string = graph.name, ""
        return whole

    def _traced(self, piece: Piece, name: str) -> onnx.ModelProto:
        if not piece.name:
            return traced(piece.module, piece.inputs, piece.outputs, name)
        if piece.name not in self._kept:
            model = traced(piece.module, piece.inputs, piece.outputs, piece.name)
            self._kept[piece.name] = model
        return self._kept[piece.name]


def _merged(
    first: onnx.ModelProto, second: onnx.ModelProto, taken: list[tuple[str, str]]
) -> onnx.ModelProto:
    try:
        return compose.merge_models(first, second, io_map=taken)
    except (ValueError, onnx.checker.ValidationError) as error:
        raise WorkFailed(f"pieces of an ONNX file cannot be merged: {error}") from error


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Gives values other names; the graphs here have none within them."""
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
    for one in (*graph.input, *graph.output, *graph.value_info):
        one.name = names.get(one.name, one.name)


def _put(values, ordered: list[onnx.ValueInfoProto]) -> None:
    kept = [onnx.ValueInfoProto.FromString(one.SerializeToString()) for one in ordered]
    del values[:]
    values.extend(kept)
