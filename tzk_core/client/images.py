"""Images in, as the bytes of a file; images out, as Pillow images or arrays."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tzk_core.errors import UsageError, WorkFailed
from tzk_core.service.answers import InterpolateAnswer, SampleAnswer

__all__ = ["array_of", "image_bytes", "opened", "pixels_of"]


def image_bytes(image: Any) -> bytes:
    """The bytes of an image file, from bytes, a path, a Pillow image or a uint8 array.

    Arrays are (H, W) or (H, W, 3).

    Raises:
        UsageError: an array of another shape or type, or something that is no image.
        WorkFailed: a file that cannot be read.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | Path):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise WorkFailed(f"{image} cannot be read: {error.strerror or error}") from error
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if not isinstance(image, Image.Image):
        raise UsageError(
            "an image is bytes, a path, a Pillow image or a numpy array, "
            f"not {type(image).__name__}"
        )
    out = io.BytesIO()
    try:
        image.save(out, "PNG")
    except OSError as error:
        raise UsageError(f"the Pillow image cannot be sent as a PNG: {error}") from error
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    """The picture of a PNG's bytes."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.load()
        return image


def array_of(data: bytes) -> np.ndarray:
    """The images of a .npy file's bytes, uint8 (n, C, H, W).

    Raises:
        ValueError: it holds anything else.
    """
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype != np.uint8 or array.ndim != 4:
        raise ValueError(f"{array.dtype} of shape {array.shape} is no uint8 (n, C, H, W)")
    return array


def pixels_of(answer: SampleAnswer | InterpolateAnswer) -> np.ndarray:
    """The images of a typed answer, uint8 (n, C, H, W) with C 1 or 3."""
    pictures = [np.asarray(opened(base64.b64decode(one.png))) for one in answer.images]
    grey = pictures[0].ndim == 2
    return np.stack([one[None] if grey else one.transpose(2, 0, 1) for one in pictures])


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8:
        raise UsageError(f"an image array holds uint8 from 0 to 255, not {array.dtype}")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3 and array.shape[0] != 3):
        return Image.fromarray(array)
    raise UsageError(
        f"an image array is (H, W) or (H, W, 3), with H other than 3, not {array.shape}; "
        "turn (C, H, W) round with array.transpose(1, 2, 0)"
    )
