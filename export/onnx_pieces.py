"""Files of several pieces, each traced once.

What takes the time of an export is tracing the t-flow, which is in nearly every file.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import compose

from .onnx_graphs import Field, Graph, Piece
from .onnx_trace import traced

__all__ = ["Pieces"]


class Pieces:
    """Makes graphs into ONNX models, and keeps the pieces that are in several of them."""

    def __init__(self) -> None:
        self._kept: dict[str, onnx.ModelProto] = {}

    def model_of(self, graph: Graph) -> onnx.ModelProto:
        """A graph's ONNX model, with its inputs and outputs in their order.

        Raises:
            WorkFailed: torch cannot export a piece.
        """
        whole, names = None, {}
        for number, piece in enumerate(graph.pieces):
            prefix = f"piece_{number}/"
            # A copy with names of its own, and what goes in and out by the fields' names.
            own = compose.add_prefix(self._traced(piece, graph.name), prefix)
            taken = [
                (names[one.name], prefix + one.name) for one in piece.inputs if one.name in names
            ]
            whole = own if whole is None else compose.merge_models(whole, own, io_map=taken)
            names |= {one.name: prefix + one.name for one in piece.outputs}
            for one in piece.inputs:
                names.setdefault(one.name, prefix + one.name)
        _rename(whole.graph, {names[one.name]: one.name for one in (*graph.inputs, *graph.outputs)})
        _in_order(whole.graph.input, graph.inputs)
        _in_order(whole.graph.output, graph.outputs)
        whole.graph.name, whole.graph.doc_string = graph.name, ""
        return whole

    def _traced(self, piece: Piece, name: str) -> onnx.ModelProto:
        if not piece.name:
            return traced(piece.module, piece.inputs, piece.outputs, name)
        if piece.name not in self._kept:
            model = traced(piece.module, piece.inputs, piece.outputs, piece.name)
            self._kept[piece.name] = model
        return self._kept[piece.name]


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Gives values other names; the graphs here have none within them."""
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
    for one in (*graph.input, *graph.output, *graph.value_info):
        one.name = names.get(one.name, one.name)


def _in_order(values, fields: Sequence[Field]) -> None:
    by_name = {one.name: one for one in values}
    ordered = [by_name[one.name] for one in fields]
    del values[:]
    values.extend(ordered)
