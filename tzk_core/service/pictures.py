"""Image files to what the model takes, and pixels to what a client takes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tzk_core.data.decoding import decode_image, encode_png
from tzk_core.data.decoding import grid as grid_of
from tzk_core.data.preparation import Preparation, Prepared
from tzk_core.errors import TzkError
from tzk_core.service.metrics.stages import stage

__all__ = ["base64_png", "grid_png", "npy", "prepared", "stacked"]


def prepared(data: bytes, preparation: Preparation, pointer: str) -> Prepared:
    """The image in a file's bytes as the model takes it.

    Raises:
        TzkError: 400, 413 or 415, with ``pointer`` to the field that holds it.
    """
    try:
        with stage("decode"):
            return preparation.apply(decode_image(data))
    except TzkError as error:
        error.pointer = error.pointer or pointer
        raise


def stacked(pictures: Sequence[Prepared]) -> Tensor:
    """The pixels of several, uint8, (B, C, H, W)."""
    return torch.from_numpy(np.stack([picture.pixels for picture in pictures]))


def base64_png(pixels: np.ndarray) -> str:
    """One image (C, H, W) as PNG in base64."""
    return base64.b64encode(encode_png(pixels)).decode()


def grid_png(pixels: np.ndarray, columns: int | None = None) -> bytes:
    """Images (N, C, H, W) as one PNG, row by row."""
    return encode_png(grid_of(pixels, columns=columns))


def npy(pixels: np.ndarray) -> bytes:
    """Images (N, C, H, W) as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return buffer.getvalue()
