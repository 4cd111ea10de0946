"""An array of prepared images with their labels, and its division into training and held-out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

__all__ = ["Images", "split_holdout"]


@dataclass
class Images:
    """Prepared images in memory.

    Attributes:
        pixels: uint8, shape (N, C, H, W), contiguous.
        labels: int64, shape (N,): an index into ``label_names``, or −1 for unknown.
        label_names: as they are displayed; `names.slugs` makes names of knowledge of them.
        native_dims: int64, shape (N,): see `preparation.Prepared`.
        name: what they are called: the last step of their source.
        skipped: one line for each file or row that could not be read.
    """

    pixels: np.ndarray
    labels: np.ndarray
    label_names: list[str]
    native_dims: np.ndarray
    name: str
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.pixels)
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4:
            raise ValueError(
                f"pixels must be uint8 of shape (N, C, H, W), not {self.pixels.dtype} of shape "
                f"{self.pixels.shape}"
            )
        if self.labels.shape != (count,) or self.native_dims.shape != (count,):
            raise ValueError(
                f"{count} images need labels and native_dims of shape ({count},), not "
                f"{self.labels.shape} and {self.native_dims.shape}"
            )
        if count and not -1 <= self.labels.min() <= self.labels.max() < len(self.label_names):
            raise ValueError(f"labels must lie in −1…{len(self.label_names) - 1}")

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the pixels followed by the labels (int64, little endian), in hexadecimal."""
        digest = hashlib.sha256(np.ascontiguousarray(self.pixels).data)
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        return digest.hexdigest()

    def subset(self, index: np.ndarray | slice) -> Images:
        """The images of an index array, a mask or a slice, in its order."""
        return Images(
            pixels=np.ascontiguousarray(self.pixels[index]),
            labels=self.labels[index],
            label_names=self.label_names,
            native_dims=self.native_dims[index],
            name=self.name,
        )


def split_holdout(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    """Training and held-out images, about ``share`` of them held out.

    The side of an image follows from its pixels and the seed alone. So equal images fall on the
    same side, and an image stays on its side when the data grow, which matters to a model that is
    added to for years. If chance holds out none (or all) of a few images, the one whose hash is
    nearest to the threshold changes sides, with its equals.

    Args:
        share: in [0, 1).
        seed: any integer.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the held-out share must lie in [0, 1), not {share}")
    key = hashlib.sha256(str(seed).encode()).digest()
    place = np.array([_place(key, image) for image in images.pixels], dtype=np.float64)
    held = place < share
    if share > 0 and len(np.unique(place)) > 1:
        if not held.any():
            held = place == place.min()
        elif held.all():
            held = place < place.max()
    return images.subset(~held), images.subset(held)


def _place(key: bytes, image: np.ndarray) -> float:
    """Uniform on [0, 1), a function of the image's bytes."""
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8, key=key).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53
