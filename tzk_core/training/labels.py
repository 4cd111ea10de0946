"""What is known of every image: e ∈ {1, 0, unknown} for each path (design, section 11).

Data-set kinds exclude each other across a mixture; class kinds exclude each other within their
source and are unknown elsewhere; a child is unknown unless its parent is 1; a label of −1 is
unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.images import Images
from ..data.names import slugs
from ..errors import UsageError
from .recipe import SourceConfig

__all__ = ["UNKNOWN", "Known", "existence_of"]

UNKNOWN = -1


@dataclass
class Known:
    """The kinds that the data tell of, and which images have them."""

    labels: dict[str, str]  # path → label for display, parents first
    existence: dict[str, Tensor]  # path → int8 (N,)


def existence_of(sources: list[tuple[SourceConfig, Images]]) -> Known:
    """For images concatenated in the order of ``sources``.

    Raises:
        UsageError: two sources ask for the same class kinds below the same knowledge, but call
            them differently.
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
        if source.knowledge:
            existence[source.knowledge][span] = 1
        if not source.classes:
            continue
        if not images.label_names:
            raise UsageError(f"{source.source} has no labels, but its recipe says classes: true")
        prefix = f"{source.knowledge}/" if source.knowledge else ""
        own = torch.as_tensor(images.labels)
        for index, (name, label) in enumerate(
            zip(slugs(images.label_names), images.label_names, strict=True)
        ):
            e = kind(prefix + name, label, UNKNOWN)
            e[span] = torch.where(own < 0, UNKNOWN, (own == index).to(torch.int64)).to(torch.int8)
    return Known(labels, existence)
