"""Bytes to pixels and back: every kind of image file is read rightly, or refused.

The header is checked before anything is decoded, so a bomb costs nothing. Transparency, palettes,
16-bit levels, CMYK and the camera's orientation are turned into what a viewer would show; what has
no one right reading (several frames, floating point, 32-bit integers) is refused by name.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import ExifTags, Image, ImageOps

from tzk_core.data import sixteen
from tzk_core.data.sixteen import NOTES
from tzk_core.errors import NotAnImage, TooLarge, UnsupportedMedia

__all__ = ["MAX_PIXELS", "NOTES", "decode_image", "encode_png", "grid", "to_plain"]

MAX_PIXELS = 64_000_000

# Pillow's other readers are rare, and each is one more parser for hostile bytes to reach.
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture that a file of these bytes shows.

    Args:
        data: the whole file.
        max_pixels: the most width × height that is decoded. Pillow has a limit of its own at
            178,956,970, which a larger value here does not lift.

    Returns:
        An image of mode ``L`` or ``RGB``, upright. ``image.info[NOTES]`` says in words what was
        changed on the way.

    Raises:
        NotAnImage: (400) no bytes, no image, or one that is cut off or damaged.
        TooLarge: (413) more pixels than ``max_pixels``, known from the header alone.
        UnsupportedMedia: (415) several frames, or a mode that has no one right reading.
    """
    if not data:
        raise NotAnImage("there are no bytes where an image was expected")
    image = _open(bytes(data), max_pixels)
    width, height = image.size
    if width * height > max_pixels:
        raise TooLarge(
            f"the image is {width}×{height}, {width * height / 1e6:.0f} megapixels; at most "
            f"{max_pixels / 1e6:g} are taken"
        )
    # A phone's JPEG that carries a preview or a depth map (MPO) has a first picture: it is that.
    frames = 1 if image.format == "MPO" else _frames(image)
    if frames > 1:
        raise UnsupportedMedia(
            f"the {image.format} has {frames} frames; send the one that is meant"
        )
    notes = []
    try:
        low = sixteen.low_bytes(image)  # first: to look for EXIF may load the image
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            notes.append("turned upright as its EXIF says")
        image.load()
        upright = ImageOps.exif_transpose(image)
        if low is not None:
            again = _open(bytes(data), max_pixels)
            again.tile = low.tiles
            again.load()
            upright = sixteen.joined(upright, ImageOps.exif_transpose(again), low.grey)
    except (MemoryError, UnsupportedMedia):
        raise
    # Pillow's readers answer damaged bytes with anything from struct.error to IndexError.
    except Exception as error:
        raise _damaged(image, error) from error
    return to_plain(sixteen.to_eight(upright, image), notes)


def _frames(image: Image.Image) -> int:
    """How many; to count them, Pillow reads on in a file that may end or mislead there."""
    try:
        return image.n_frames if getattr(image, "is_animated", False) else 1
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(image, error) from error


def _damaged(image: Image.Image, error: Exception) -> NotAnImage:
    return NotAnImage(f"the {image.format} is damaged or cut off ({error})")


def to_plain(image: Image.Image, notes: list[str] | None = None) -> Image.Image:
    """An image of mode ``L`` or ``RGB`` that looks like this one.

    Transparent parts are laid over white, as viewers show them (docs/decisions.md). A palette of
    greys gives ``L``, so that grey images are grey whatever their file holds.

    Raises:
        UnsupportedMedia: (415) the mode has no one right reading.
    """
    notes = [*image.info.get(NOTES, []), *(notes or [])]
    mode = image.mode
    if mode in ("I", "F", "I;16", "I;16L", "I;16B", "I;16N"):
        image, mode = sixteen.to_eight(image, image), "L"
    if _has_transparency(image):
        image = image.convert("LA" if mode in ("1", "L", "LA", "La") else "RGBA")
        alpha = image.getchannel("A")
        plain = image.convert("L" if image.mode == "LA" else "RGB")
        if alpha.getextrema()[0] < 255:
            white = Image.new(plain.mode, plain.size, "white")
            plain = Image.composite(plain, white, alpha)
            notes.append(sixteen.TRANSPARENT)
    elif mode in ("L", "RGB"):
        plain = image.copy()
    elif mode in ("1", "P", "CMYK", "YCbCr", "RGBX", "HSV"):
        plain = image.convert("L" if mode == "1" else "RGB")
    else:
        raise UnsupportedMedia(f"images of mode {mode} are not read; send 8-bit grey or RGB")
    if mode in ("P", "PA") and _is_grey(plain):
        plain = plain.convert("L")
    plain.info = {NOTES: notes}
    return plain


def encode_png(pixels: np.ndarray) -> bytes:
    """A PNG file of ``pixels``, uint8 of shape (C, H, W) with C 1 or 3."""
    _check(pixels, 3)
    picture = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG")
    return buffer.getvalue()


def grid(
    pixels: np.ndarray, columns: int | None = None, margin: int = 2, background: int = 255
) -> np.ndarray:
    """One picture of many, row by row.

    Args:
        pixels: uint8, shape (N, C, H, W), N ≥ 1.
        columns: how many a row (⌈√N⌉ for ``None``).
        margin: pixels between and around them, of level ``background``.

    Returns:
        uint8, shape (C, rows·(H + margin) + margin, columns·(W + margin) + margin).
    """
    _check(pixels, 4)
    count, channels, height, width = pixels.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else min(columns, count)
    if columns < 1:
        raise ValueError("a grid has at least one column and one image")
    rows = math.ceil(count / columns)
    cells = np.full((rows * columns, channels, height + margin, width + margin), background, "u1")
    cells[:count, :, margin:, margin:] = pixels
    picture = cells.reshape(rows, columns, channels, height + margin, width + margin)
    picture = picture.transpose(2, 0, 3, 1, 4).reshape(channels, rows * (height + margin), -1)
    edge = ((0, 0), (0, margin), (0, margin))
    return np.pad(picture, edge, constant_values=background)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """The image with its header read and nothing decoded."""
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(
            f"the image has more than the {max_pixels / 1e6:g} megapixels that are taken"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # see decode_image
        kinds = ", ".join(_FORMATS)
        raise NotAnImage(f"the {len(data)} bytes are no image that is read ({kinds})") from error


def _has_transparency(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _is_grey(image: Image.Image) -> bool:
    """Whether the three channels of an RGB image are the same."""
    red, green, blue = (channel.tobytes() for channel in image.split())
    return red == green == blue


def _check(pixels: np.ndarray, dimensions: int) -> None:
    shape = "(C, H, W)" if dimensions == 3 else "(N, C, H, W)"
    if pixels.dtype != np.uint8 or pixels.ndim != dimensions or pixels.shape[-3] not in (1, 3):
        raise ValueError(
            f"pixels must be uint8 of shape {shape} with 1 or 3 channels, "
            f"not {pixels.dtype} of shape {pixels.shape}"
        )
