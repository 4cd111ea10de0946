"""Images of 16 bits a channel to 8 bits, rounded alike whatever their channels.

Pillow reads one channel as it is (its own conversion would clip it at 255), but of colours and of
grey with transparency the high bytes alone, which is up to one level darker than rounding, and grey
with transparency as three channels. Here such a file is opened once more and its rows are unpacked
in the other order of bytes: the high bytes of that reading are the low bytes of the file.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tzk_core.errors import UnsupportedMedia

__all__ = ["NOTES", "SCALED", "TRANSPARENT", "Low", "joined", "low_bytes", "to_eight"]

NOTES = "tzk_notes"  # key of `Image.info`: a list of what was done to the image, in words
SCALED = "16-bit levels scaled to 8 bits"
TRANSPARENT = "transparent parts laid over white"

_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_PLANES = 258, 262, 284
_WHITE_IS_ZERO, _SEPARATE = 0, 2
_NATIVE = "L" if sys.byteorder == "little" else "B"
_GREY_WITH_ALPHA = "LA;16B"
_ROWS = 256  # that are put together at a time: wide levels of a large image would fill the memory


class Low(NamedTuple):
    """How a file's low bytes are read."""

    tiles: list[tuple]  # for `Image.tile`
    grey: bool  # whether it is grey with transparency: all four bytes of a pixel are read


def low_bytes(image: Image.Image) -> Low | None:
    """How to read the low bytes of a file of several 16-bit channels; None for other files.

    Args:
        image: opened and not loaded.

    Raises:
        UnsupportedMedia: (415) 16-bit colours in separate planes, or multiplied by their alpha:
            Pillow gives no low bytes of these.
    """
    tiles, grey = [], False
    for decoder, box, offset, arguments in image.tile:
        several = isinstance(arguments, tuple)
        unpacker = arguments[0] if several else arguments
        other = _other_order(image, unpacker) if isinstance(unpacker, str) else None
        if other is None:
            return None
        grey = unpacker == _GREY_WITH_ALPHA
        tiles.append((decoder, box, offset, (other, *arguments[1:]) if several else other))
    return Low(tiles, grey) if tiles else None


def joined(high: Image.Image, low: Image.Image, grey: bool) -> Image.Image:
    """The 8-bit image of two readings of one file.

    Args:
        high: as Pillow reads it.
        low: the same file read by the tiles of :func:`low_bytes`.
        grey: see :class:`Low`.
    """
    first, second = np.asarray(high), np.asarray(low)
    if grey:
        first, second = second[..., 0::2], second[..., 1::2]
    transparent = high.info.get("transparency")  # 16-bit levels, so it is laid over white here
    levels, hides = np.empty_like(first), False
    for start in range(0, len(levels), _ROWS):
        rows = slice(start, start + _ROWS)
        wide = first[rows].astype(np.uint16) << 8 | second[rows]
        levels[rows] = _rounded(wide)
        if isinstance(transparent, tuple):
            hidden = (wide == transparent).all(-1)
            levels[rows][hidden] = 255
            hides |= bool(hidden.any())
    channels = [Image.fromarray(levels[..., channel]) for channel in range(levels.shape[-1])]
    plain = Image.merge("LA" if grey else high.mode, channels)
    plain.info = {NOTES: [*high.info.get(NOTES, []), SCALED] + [TRANSPARENT] * hides}
    return plain


def to_eight(image: Image.Image, source: Image.Image) -> Image.Image:
    """Levels 0…65535 of one channel scaled to 0…255, rounded.

    Args:
        image: of any mode; only the wide ones are changed.
        source: the file that it came from, whose header says how wide its levels are.

    Raises:
        UnsupportedMedia: (415) the levels have no fixed black and white.
    """
    mode = image.mode
    if not (mode in ("I", "F") or mode.startswith("I;16")):
        return image
    tags = getattr(source, "tag_v2", {})
    # Pillow < 11.3 reads a 16-bit PNG, and every version a 16-bit PGM, into 32-bit integers.
    sixteen = mode.startswith("I;16") or (mode == "I" and source.format in ("PNG", "PPM"))
    if not sixteen or tags.get(_TIFF_BITS, (16,))[0] != 16:
        raise UnsupportedMedia(
            f"images of mode {mode} have no fixed black and white; send 8- or 16-bit levels"
        )
    wide = np.asarray(image)
    levels = _rounded(wide)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts only up to 8 bits
        levels = 255 - levels
    notes = [*image.info.get(NOTES, []), SCALED]
    transparent = image.info.get("transparency")  # a 16-bit level, so it is laid over white here
    if isinstance(transparent, int) and (wide == transparent).any():
        levels[wide == transparent] = 255
        notes.append(TRANSPARENT)
    plain = Image.fromarray(levels)
    plain.info = {NOTES: notes}
    return plain


def _other_order(image: Image.Image, unpacker: str) -> str | None:
    if unpacker == _GREY_WITH_ALPHA:
        return "RGBA"  # the four bytes of a pixel as they are
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(_TIFF_BITS, ())
    several = len(bits) > 1 and bits[0] == 16
    if several and (tags.get(_TIFF_PLANES) == _SEPARATE or unpacker.startswith("RGBa")):
        raise UnsupportedMedia(
            "16-bit colours in separate planes, or multiplied by their alpha, are not read; send "
            "interleaved ones, or 8 bits"
        )
    channels, wide, order = unpacker.partition(";16")
    if not wide or channels not in ("RGB", "RGBA", "RGBX", "CMYK"):
        return None
    order = _NATIVE if order == "N" else order
    return f"{channels};16{'B' if order == 'L' else 'L'}"


def _rounded(wide: np.ndarray) -> np.ndarray:
    return ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)
