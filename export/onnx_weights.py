"""One file of weights that many ONNX files share.

Every file of an export holds the t-flow, whose weights are nearly all there are. They lie once in a
file of raw bytes beside them, as ONNX's external data, each tensor found by its content.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx

__all__ = ["SharedWeights"]

SMALLEST = 1024
"""Bytes from which a tensor is worth a place in the shared file."""

ALIGNED = 4096
"""Where tensors begin, so that runtimes can map the file into memory."""


class SharedWeights:
    """Takes tensors out of models and into one file.

    Args:
        path: the file, beside the models that will refer to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[bytes, int] = {}
        path.write_bytes(b"")

    def take_from(self, model: onnx.ModelProto) -> None:
        """Moves the model's large tensors into the file, where they are not there already."""
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) >= SMALLEST:
                place = self._place_of(tensor.raw_data)
                length = len(tensor.raw_data)
                tensor.ClearField("raw_data")
                tensor.data_location = onnx.TensorProto.EXTERNAL
                entries = {"location": self.path.name, "offset": place, "length": length}
                for key, value in entries.items():
                    tensor.external_data.add(key=key, value=str(value))

    def _place_of(self, data: bytes) -> int:
        key = hashlib.sha256(data).digest()
        if key not in self._places:
            with self.path.open("ab") as file:
                file.write(bytes(-file.tell() % ALIGNED))
                self._places[key] = file.tell()
                file.write(data)
        return self._places[key]
