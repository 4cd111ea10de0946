"""The images that a model is measured on, and what is known of them.

A source of images has training images, which the model may have seen, and test images, which it
has not: the source's test split, or, where there is none, the images that training held out by
their content.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ...data.images import Images, content_keys, held_out
from ...data.names import slugs
from ...data.preparation import Preparation
from ...data.sources import load, splits
from ...errors import UsageError
from ...training.labels import Known, existence_of
from ...training.recipe import SourceConfig

__all__ = [
    "Classes",
    "Source",
    "classes_of",
    "data_sets",
    "in_memory",
    "known",
    "read_source",
    "tensors",
]


@dataclass(eq=False)
class Source:
    """One source's images."""

    name: str  # of its data set as knowledge, or of the source
    config: SourceConfig
    train: Images
    test: Images
    chosen: str  # which images the test images are, in words

    @property
    def pixels(self) -> Tensor:
        """The test images, uint8 (N, C, H, W)."""
        return torch.from_numpy(self.test.pixels)

    @property
    def facts(self) -> dict:
        """What a report says of it."""
        return {
            "name": self.name,
            "source": self.config.source,
            "kind": self.config.knowledge,
            "test_images": self.chosen,
            "images": {"training": len(self.train), "test": len(self.test)},
            "fingerprints": {"training": self.train.fingerprint, "test": self.test.fingerprint},
        }


@dataclass(eq=False)
class Classes:
    """Kinds of which every image has exactly one, with training and test images."""

    name: str
    paths: list[str]  # all below one parent, or all of the first level
    pixels: Tensor  # test images, uint8 (N, C, H, W)
    labels: Tensor  # int64 (N,): index into paths
    native_dims: Tensor  # int64 (N,)
    index: Tensor  # int64 (N,): which of its source's test images, or of all sources', these are
    fingerprint: str  # of the training images and labels
    read_training: Callable[[], tuple[Tensor, Tensor]]  # like pixels and labels

    @cached_property
    def training(self) -> tuple[Tensor, Tensor]:
        """Training images and labels, copied into memory when they are first asked for."""
        return self.read_training()

    @property
    def parent(self) -> str | None:
        """The kind above; None for the first level."""
        return self.paths[0].rpartition("/")[0] or None


def read_source(
    config: SourceConfig,
    name: str,
    preparation: Preparation | None,
    *,
    test_images: int,
    seed: int,
    holdout: float,
    cache: bool = True,
) -> Source:
    """Training and test images of a source, prepared as the model does.

    Args:
        test_images: at most so many, evenly spaced.
        seed, holdout: of the training's rule for what is held out, where there is no test split.

    Raises:
        UsageError: no such source, or no test images.
    """
    preparation = preparation or Preparation()
    if config.invert:
        preparation = preparation.model_copy(update={"invert": not preparation.invert})

    def read(split, limit: int | None) -> Images:
        return load(
            config.source,
            split=split,
            preparation=preparation,
            columns=config.columns,
            limit=limit,
            cache=cache,
        )

    if config.split == "train" and splits(config.source) == ["train", "test"]:
        train = read("train", config.limit)
        test = _relabelled(read("test", test_images), train.label_names)
        chosen = "its test split"
    else:
        every = read(config.split, config.limit)
        [held] = held_out([content_keys(every.pixels, seed)], holdout)
        index = np.flatnonzero(held)
        if not len(index):
            raise UsageError(
                f"{config.source} has no test split, and of its {len(every)} images none is held "
                "out: name a source with test images"
            )
        if len(index) > test_images:
            index = index[np.linspace(0, len(index) - 1, test_images).round().astype(int)]
        train, test = every.subset(~held), every.subset(index)
        chosen = f"held out of training by their content ({holdout:.3g}, seed {seed})"
    return Source(name, config, train, in_memory(test), chosen)


def known(sources: list[Source]) -> Known:
    """e of every path for the test images of all sources, laid end to end."""
    return existence_of([(source.config, source.test) for source in sources])


def classes_of(source: Source, paths: list[str]) -> Classes | None:
    """The classes of a source that is said to have some, as far as a model knows them.

    Args:
        paths: of the model.

    Returns:
        None where there are not two of them.
    """
    if not source.config.classes:
        return None
    below = f"{source.config.knowledge}/" if source.config.knowledge else ""
    every = [below + name for name in slugs(source.train.label_names)]
    there = [path for path in every if path in paths]
    if len(there) < 2:
        return None
    # Index into `there` of each label; the last is that of the label −1.
    number = np.array([there.index(p) if p in there else -1 for p in every] + [-1])

    def labelled(images: Images) -> tuple[np.ndarray, Tensor]:
        labels = number[images.labels]
        return np.flatnonzero(labels >= 0), torch.from_numpy(labels[labels >= 0])

    def training() -> tuple[Tensor, Tensor]:
        index, labels = labelled(source.train)
        return torch.from_numpy(source.train.pixels[index]), labels

    index, labels = labelled(source.test)
    whole = there == every and (source.train.labels >= 0).all()
    return Classes(
        name=source.name,
        paths=there,
        pixels=torch.from_numpy(source.test.pixels[index]),
        labels=labels,
        native_dims=torch.from_numpy(source.test.native_dims[index]),
        index=torch.from_numpy(index),
        fingerprint=source.train.fingerprint if whole else _hashed(source.train, *there),
        read_training=training,
    )


def data_sets(sources: list[Source], kinds: Collection[str]) -> Classes | None:
    """The data sets themselves as kinds, where several exclude each other.

    Those that may overlap with others are left out.

    Args:
        kinds: of the model's first level.
    """
    named = {name for source in sources for name in source.config.overlaps}
    own = [
        source
        for source in sources
        if source.config.knowledge in kinds
        and not source.config.overlaps
        and source.config.knowledge not in named
    ]
    paths = list(dict.fromkeys(source.config.knowledge for source in own))
    if len(paths) < 2:
        return None

    def joined(images: list[Images]) -> tuple[Tensor, Tensor]:
        labels = [
            torch.full((len(each),), paths.index(source.config.knowledge))
            for source, each in zip(own, images, strict=True)
        ]
        pixels = np.concatenate([each.pixels for each in images])
        return torch.from_numpy(pixels), torch.cat(labels)

    pixels, labels = joined([source.test for source in own])
    mine = [
        torch.full((len(source.test),), any(source is each for each in own)) for source in sources
    ]
    return Classes(
        name="data sets",
        paths=paths,
        pixels=pixels,
        labels=labels,
        native_dims=torch.from_numpy(np.concatenate([s.test.native_dims for s in own])),
        index=torch.cat(mine).nonzero().squeeze(1),
        fingerprint=_hashed(*(part for source in own for part in (source.train, source.name))),
        read_training=lambda: joined([source.train for source in own]),
    )


def tensors(images: Images) -> tuple[Tensor, Tensor]:
    """Pixels, uint8 (N, C, H, W), and labels, int64 (N,)."""
    return torch.from_numpy(images.pixels), torch.from_numpy(images.labels)


def in_memory(images: Images) -> Images:
    """A copy of what may be a memory map, which torch would not take as it is read-only."""
    return dataclasses.replace(images, pixels=np.array(images.pixels))


def _relabelled(images: Images, names: list[str]) -> Images:
    """With labels as numbers into the training images' names; −1 for others."""
    if images.label_names == names:
        return images
    place = {name: number for number, name in enumerate(names)}
    of = np.array([place.get(name, -1) for name in images.label_names] + [-1], dtype=np.int64)
    return dataclasses.replace(images, labels=of[images.labels], label_names=names)


def _hashed(*parts: Images | str) -> str:
    """SHA-256, in hexadecimal, of images' fingerprints and of names."""
    text = "\n".join(part if isinstance(part, str) else part.fingerprint for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()
