"""An array of prepared images with their labels, and its division into training and held-out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property

import numpy as np

__all__ = ["Images", "content_keys", "held_out", "split_holdout"]


@dataclass
class Images:
    """Prepared images, in memory or as a memory map.

    Attributes:
        pixels: uint8, shape (N, C, H, W). A memory map is read-only.
        labels: int64, shape (N,): an index into ``label_names``, or −1 for unknown.
        label_names: as they are displayed; `names.slugs` makes names of knowledge of them.
        native_dims: int64, shape (N,): see `preparation.Prepared`.
        name: what they are called: the last step of their source.
        skipped: one line for each file or row that could not be read.
        attributes: for each attribute int8 of shape (N,), 1, 0, or −1 for unknown.
        notes: what is worth telling of how they were read, in words.
        known_fingerprint: ``fingerprint`` where it was worked out before.
    """

    pixels: np.ndarray
    labels: np.ndarray
    label_names: list[str]
    native_dims: np.ndarray
    name: str
    skipped: list[str] = field(default_factory=list)
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    known_fingerprint: InitVar[str | None] = None

    def __post_init__(self, known_fingerprint: str | None) -> None:
        if known_fingerprint is not None:
            self.__dict__["fingerprint"] = known_fingerprint
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
        for name, values in self.attributes.items():
            if values.shape != (count,) or not np.isin(values, (-1, 0, 1)).all():
                raise ValueError(f"the attribute {name!r} must be 1, 0 or −1 for each image")

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the pixels followed by the labels (int64, little endian), in hexadecimal."""
        digest = hashlib.sha256(np.ascontiguousarray(self.pixels).data)
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        return digest.hexdigest()

    def subset(self, index: np.ndarray | slice) -> Images:
        """The images of an index array, a mask or a slice, in its order, copied into memory."""
        return Images(
            pixels=np.ascontiguousarray(self.pixels[index]),
            labels=self.labels[index],
            label_names=self.label_names,
            native_dims=self.native_dims[index],
            name=self.name,
            attributes={name: values[index] for name, values in self.attributes.items()},
        )


def content_keys(pixels: np.ndarray, seed: int) -> np.ndarray:
    """A key of each image's bytes, uint64, shape (N,): equal images have equal keys.

    Two of a million different images share one with a probability of 3 in 10⁸.

    Args:
        pixels: uint8, shape (N, C, H, W).
        seed: makes other keys.
    """
    key = hashlib.sha256(str(seed).encode()).digest()
    keys = np.empty(len(pixels), dtype=np.uint64)
    for number, image in enumerate(pixels):
        data = np.ascontiguousarray(image).data
        digest = hashlib.blake2b(data, digest_size=8, key=key).digest()
        keys[number] = int.from_bytes(digest, "little")
    return keys


def held_out(keys: Sequence[np.ndarray], share: float) -> list[np.ndarray]:
    """Which images of several sources are held out, about ``share`` of them.

    The side of an image follows from its key alone, so equal images fall on the same side whichever
    source they are in, and an image stays on its side when the data grow, which matters to a model
    that is added to for years. If chance holds out none (or all) of a source with few images, the
    one whose key is nearest to the threshold changes sides, with its equals in every source.

    Args:
        keys: of the images of each source, from `content_keys` with one seed.
        share: in [0, 1).

    Returns:
        A mask for each source, True for what is held out.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the held-out share must lie in [0, 1), not {share}")
    places = [_place(each) for each in keys]
    out: set[float] = set()
    kept: set[float] = set()
    for place in places if share > 0 else ():
        held = place < share
        if len(place) and (place != place[0]).any():
            if not held.any():
                out.add(place.min())
            elif held.all():
                kept.add(place.max())
    return [
        ((place < share) | np.isin(place, list(out))) & ~np.isin(place, list(kept))
        for place in places
    ]


def split_holdout(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    """Training and held-out images, by the rule of `held_out`.

    Args:
        share: in [0, 1).
        seed: any integer.
    """
    [held] = held_out([content_keys(images.pixels, seed)], share)
    return images.subset(~held), images.subset(held)


def _place(keys: np.ndarray) -> np.ndarray:
    """Uniform on [0, 1), float64."""
    return (keys >> np.uint64(11)).astype(np.float64) / 2**53
