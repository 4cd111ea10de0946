"""How any image becomes one of the size and channels that a model takes.

A model stores its preparation in config.json and applies the same one when it serves, so that a
score means the same thing in both places; what was done is echoed in words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from tzk_core.data.decoding import NOTES, to_plain

__all__ = ["GREYED", "Preparation", "Prepared"]

GREYED = "colour turned to grey"  # a note of a :class:`Prepared`

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Prepared:
    """An image as a model takes it.

    Attributes:
        pixels: uint8, shape (C, H, W), contiguous.
        native_dims: how many of the C·H·W elements the image itself gave: padding and channels
            copied from one do not count (design, section 11). 28×28 grey on 32×32 gives 784.
        notes: what was done, in words.
    """

    pixels: np.ndarray
    native_dims: int
    notes: list[str] = field(default_factory=list)


class Preparation(BaseModel):
    """What is done to an image, in this order: channels, inversion, then size.

    Attributes:
        size: height and width that the model takes.
        channels: 1 (colour is turned to grey, by ITU-R 601 luma) or 3 (grey is copied).
        filter: of the resizing. It is antialiased when it shrinks, except ``nearest``.
        fit: what becomes of an image that is not square: ``crop`` its centre, ``stretch`` it, or
            ``pad`` its shorter side.
        invert: swap black and white, for models of light ink on dark shown dark ink on light.
        padding: centre an image that is not larger than ``size`` in either dimension on a
            ground of ``pad_value`` instead of resizing it, so that no pixel is made up.
        pad_value: the level of the ground, not inverted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(default=32, ge=1, le=4096, description="height and width of what comes out")
    channels: Literal[1, 3] = Field(
        default=1, description="1: colour is turned to grey; 3: grey is copied to all three"
    )
    filter: Literal["nearest", "box", "bilinear", "bicubic", "lanczos"] = Field(
        default="lanczos", description="of the resizing, antialiased when it shrinks"
    )
    fit: Literal["crop", "stretch", "pad"] = Field(
        default="crop",
        description="of an image that is not square: crop its centre, stretch it, or pad it",
    )
    invert: bool = Field(default=False, description="whether black and white are swapped")
    padding: bool = Field(
        default=True,
        description="whether an image not larger than `size` is centred on a ground, not resized",
    )
    pad_value: int = Field(default=0, ge=0, le=255, description="level of the ground")

    def apply(self, image: Image.Image) -> Prepared:
        """The image as the model takes it.

        Args:
            image: of any mode that `decoding.to_plain` reads.

        Raises:
            UnsupportedMedia: (415) of another mode.
        """
        if image.mode not in ("L", "RGB") or "transparency" in image.info:
            image = to_plain(image)
        notes = list(image.info.get(NOTES, []))
        grey = image.mode == "L"
        if not grey and self.channels == 1:
            image, grey = image.convert("L"), True
            notes.append(GREYED)
        if self.invert:
            image = ImageOps.invert(image)
            notes.append("inverted")
        image, (width, height) = self._fit(image, notes)
        pixels = np.asarray(image)
        if grey:
            pixels = np.broadcast_to(pixels, (self.channels, self.size, self.size))
            if self.channels == 3:
                notes.append("grey copied to three channels")
        else:
            pixels = pixels.transpose(2, 0, 1)
        native = width * height * (1 if grey else 3)
        return Prepared(np.array(pixels, dtype=np.uint8, order="C"), native, notes)

    def _fit(self, image: Image.Image, notes: list[str]) -> tuple[Image.Image, tuple[int, int]]:
        """The image at size × size, and the width and height of it that are not padding."""
        width, height = image.size
        side = self.size
        if (width, height) == (side, side):
            return image, (side, side)
        if self.padding and width <= side and height <= side:
            notes.append(f"padded from {width}×{height} to {side}×{side}")
            return self._pad(image), (width, height)
        square = width == height
        how = {"crop": "centre crop", "stretch": "stretched", "pad": "padded"}[self.fit]
        how = self.filter if square else f"{self.filter}, {how}"
        notes.append(f"resized from {width}×{height} to {side}×{side} ({how})")
        resample = _FILTERS[self.filter]
        if self.fit == "pad" and not square:
            scale = side / max(width, height)
            inner = (max(1, round(width * scale)), max(1, round(height * scale)))
            return self._pad(image.resize(inner, resample)), inner
        box = (0, 0, width, height)
        if self.fit == "crop":
            short = min(width, height)
            left, top = (width - short) / 2, (height - short) / 2
            box = (left, top, left + short, top + short)
        return image.resize((side, side), resample, box=box), (side, side)

    def _pad(self, image: Image.Image) -> Image.Image:
        level = self.pad_value if image.mode == "L" else (self.pad_value,) * 3
        ground = Image.new(image.mode, (self.size, self.size), level)
        ground.paste(image, ((self.size - image.width) // 2, (self.size - image.height) // 2))
        return ground
