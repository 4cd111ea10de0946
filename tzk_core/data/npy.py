"""An array written to a .npy file a few rows at a time, to be read as a memory map."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

__all__ = ["NpyWriter"]


class NpyWriter:
    """Rows are written as bytes and not through a map: a full disk is then an error, not a SIGBUS.

    Args:
        path: of the file, which is made anew.
        shape: of the whole array.
        row: how many of the first dimensions count rows.

    Raises:
        OSError: here and in every method, where the system refuses.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: np.dtype | type, row: int = 1
    ) -> None:
        dtype = np.dtype(dtype)
        self._row = dtype.itemsize * math.prod(shape[row:])
        self._size = dtype.itemsize * math.prod(shape)
        self._file = path.open("wb")
        header = {"descr": dtype.str, "fortran_order": False, "shape": tuple(map(int, shape))}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._head = self._file.tell()

    def write(self, first: int, rows: np.ndarray) -> None:
        """Writes rows of the array's dtype from row ``first`` on."""
        self._file.seek(self._head + first * self._row)
        self._file.write(np.ascontiguousarray(rows).data)

    def finish(self) -> None:
        """The file is whole and on the disk; rows that were not written are zero."""
        self._file.flush()
        if self._file.seek(0, os.SEEK_END) < self._head + self._size:
            self._file.truncate(self._head + self._size)
        os.fsync(self._file.fileno())
        self._file.close()

    def close(self) -> None:
        """Lets go of a file that is not whole."""
        self._file.close()
