"""What is known of every image: e ∈ {1, 0, unknown} for each path (design, section 11).

Data-set kinds exclude each other across a mixture, unless the recipe says that they overlap; a
source that is named as none has images of which that is unknown: they train the t-flow alone. Class
kinds exclude each other within their source and are unknown elsewhere; attributes and binary digits
are as they are given, and unknown elsewhere; a child is unknown unless its parent is 1; a label of
−1 is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.images import Images
from ..data.names import slugs
from ..errors import UsageError
from .recipe import SourceConfig

__all__ = ["UNKNOWN", "Known", "binary_digits", "existence_of"]

UNKNOWN = -1


@dataclass
class Known:
    """The kinds that the data tell of, and which images have them."""

    labels: dict[str, str]  # path → label for display, parents first
    existence: dict[str, Tensor]  # path → int8 (N,)

    def subset(self, index: Tensor) -> Known:
        """The same of some of the images."""
        return Known(dict(self.labels), {path: e[index] for path, e in self.existence.items()})


def existence_of(sources: list[tuple[SourceConfig, Images]]) -> Known:
    """For images concatenated in the order of ``sources``.

    Raises:
        UsageError: a source's recipe asks for classes, binary digits or attributes that its images
            do not have, or for two kinds of one name.
    """
    total = sum(len(images) for _, images in sources)
    labels: dict[str, str] = {}
    existence: dict[str, Tensor] = {}

    def kind(path: str, label: str, fill: int) -> Tensor:
        if path not in existence:
            existence[path] = torch.full((total,), fill, dtype=torch.int8)
            labels[path] = label
        return existence[path]

    # Data sets first: an image of one is no image of the others.
    for source, _ in sources:
        if source.knowledge:
            kind(source.knowledge, source.knowledge, 0)
    start = 0
    for source, images in sources:
        span = slice(start, start + len(images))
        start += len(images)
        for name in _overlapping(source, [each for each, _ in sources]):
            existence[name][span] = UNKNOWN
        if source.knowledge:
            existence[source.knowledge][span] = 1
        own = {source.knowledge}
        for path, label, values in _kinds(source, images):
            if path in own:
                raise UsageError(
                    f"{source.source} has two kinds called {path!r}; name its attributes, its "
                    "classes or its knowledge differently"
                )
            own.add(path)
            kind(path, label, UNKNOWN)[span] = torch.as_tensor(values, dtype=torch.int8)
    return Known(labels, existence)


def binary_digits(images: Images) -> np.ndarray:
    """The binary digits of each label, the lowest first: int8, shape (N, digits), of 1, 0 and −1.

    A label that is an integer is that number; others are numbered in the order of their names
    (CIFAR-10's 3, cat, is 0011: paper, Section 4.4). There are as many digits as the largest of
    all labels has, whether or not an image has it.
    """
    names = images.label_names
    numbers = [int(name) if name.isdecimal() else None for name in names]
    values = np.array(range(len(names)) if None in numbers else numbers, dtype=np.int64)
    count = max(1, int(values.max()).bit_length()) if len(values) else 0
    known = images.labels >= 0
    own = np.where(known, values[images.labels] if len(values) else 0, 0)
    digits = (own[:, None] >> np.arange(count)) & 1
    return np.where(known[:, None], digits, UNKNOWN).astype(np.int8)


def _kinds(source: SourceConfig, images: Images) -> Iterator[tuple[str, str, np.ndarray]]:
    """(path, label, e of the source's images) of what is known below a data set, or beside it."""
    if (source.classes or source.binary_digits) and not images.label_names:
        asked = "classes" if source.classes else "binary_digits"
        raise UsageError(f"{source.source} has no labels, but its recipe says {asked}: true")
    below = f"{source.knowledge}/" if source.knowledge else ""
    if source.classes:
        for index, (name, label) in enumerate(
            zip(slugs(images.label_names), images.label_names, strict=True)
        ):
            yield below + name, label, np.where(images.labels < 0, UNKNOWN, images.labels == index)
    prefix = "" if source.at_root else below
    if source.attributes:
        for name, (label, values) in zip(
            slugs(images.attributes), images.attributes.items(), strict=True
        ):
            yield prefix + name, label, values
    if source.binary_digits:
        for digit, values in enumerate(binary_digits(images).T):
            yield f"{prefix}bit{digit}", f"bit {digit}", values


def _overlapping(source: SourceConfig, sources: list[SourceConfig]) -> set[str]:
    """The data sets that may apply to a source's images too: all, where it is none itself."""
    if not source.knowledge:
        return {other.knowledge for other in sources if other.knowledge}
    named = {other.knowledge for other in sources if source.knowledge in other.overlaps}
    return {name for name in {*source.overlaps, *named} if name}
