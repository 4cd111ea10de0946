"""The images of a recipe, in memory or as memory maps, and what is known of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..data.images import Images, content_keys, held_out
from ..data.quantisation import dequantise
from ..data.sources import load, splits
from ..errors import UsageError
from ..randomness import rows
from .labels import Known, existence_of
from .mixing import Balance, Order
from .recipe import DataConfig, SourceConfig

__all__ = ["Dataset", "Pixels", "load_data"]


class Pixels:
    """Images of several sources as one uint8 array (N, C, H, W) that is never put together.

    Rows are copied out of the sources, which may be memory maps, when they are asked for.

    Args:
        sources: uint8, each (N_s, C, H, W).
        index: which images of the sources laid end to end these are, int64 (N,); None for all.
    """

    dtype = torch.uint8
    ndim = 4

    def __init__(self, sources: Sequence[np.ndarray], index: np.ndarray | None = None) -> None:
        self._sources = list(sources)
        self._ends = np.cumsum([len(source) for source in self._sources])
        self._index = np.arange(self._ends[-1]) if index is None else index
        self.shape = torch.Size((len(self._index), *self._sources[0].shape[1:]))

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: Tensor | np.ndarray | slice) -> Tensor | Pixels:
        """A tensor of the rows of an index or a mask; for a slice again what copies nothing."""
        if isinstance(index, slice):
            return Pixels(self._sources, self._index[index])
        return torch.from_numpy(self._rows(np.asarray(index)))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """All of them, in memory."""
        return self._rows(slice(None)).astype(dtype or np.uint8, copy=False)

    def _rows(self, index: np.ndarray | slice) -> np.ndarray:
        numbers = self._index[index]
        which = np.searchsorted(self._ends, numbers, side="right")
        if not len(which) or (which == which[0]).all():
            source = int(which[0]) if len(which) else 0
            return self._sources[source][numbers - self._start(source)]
        taken = np.empty((len(numbers), *self.shape[1:]), dtype=np.uint8)
        for source in np.unique(which):
            own = which == source
            taken[own] = self._sources[source][numbers[own] - self._start(source)]
        return taken

    def _start(self, source: int) -> int:
        return int(self._ends[source - 1]) if source else 0


@dataclass
class Dataset:
    """Prepared images of all sources, with what is known of each."""

    pixels: Tensor | Pixels  # uint8 (N, C, H, W)
    native_dims: Tensor  # int64 (N,)
    known: Known
    names: list[str]  # of the sources
    origin: Tensor  # int64 (N,), index into names
    fingerprints: dict[str, str]  # "sources.NUMBER SPLIT SOURCE" → SHA-256, of test splits too
    skipped: list[str]  # one line for each image of the sources that could not be read
    shares: Tensor | None = None  # float64 (N,): how often each is drawn; None for equally often
    flips: bool = False  # whether half of what is observed is mirrored
    balance: bool = False  # whether stages of knowledge balance positives and negatives
    duplicates: dict[str, int] = field(default_factory=dict)  # see `_duplicates`
    notes: list[str] = field(default_factory=list)  # what is worth telling of how they were read

    def __len__(self) -> int:
        return len(self.pixels)

    def observations(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """t of some images, dequantised with fresh noise, (B, C, H, W)."""
        x = self.pixels[index]
        noise = rows(generator, len(x))
        if self.flips:
            mirrored = noise.uniform() < 0.5
            x = torch.where(mirrored.reshape(-1, 1, 1, 1), x.flip(3), x)
        return dequantise(x, noise.uniform(*x.shape[1:]))

    def order(
        self, existence: dict[str, Tensor] | None = None, *, rows: bool = True
    ) -> tuple[Order, Balance | None]:
        """What says which images a step sees (``order.batch``), and what its balance asks for.

        Args:
            existence: of the paths that a stage of knowledge trains; None for a stage that is not
                balanced. The balance is None where there is nothing to balance, or the recipe does
                not ask for it.
            rows: whether the draws are balanced, or only the weights: where the t-flow trains too,
                its p(t) would become that of the balanced batches.
        """
        if not self.balance or existence is None:
            return Order(len(self), self.shares), None
        balance = Balance(existence, self.shares, rows)
        if not balance.rates:
            return Order(len(self), self.shares), None
        return Order(len(self), balance.draws), balance


def load_data(config: DataConfig, seed: int, progress=None) -> tuple[Dataset, Dataset]:
    """(training images, held-out images) of a recipe's sources.

    The split depends on each image's content and the seed, so equal images fall on one side,
    whichever sources they are in. With ``config.test`` the held-out images are those of the test
    splits that are no training images.

    Raises:
        UsageError: a source cannot be found, or lacks what the recipe asks of it.
        WorkFailed: too many of its images cannot be read.
    """
    parts = [(source, _load(source, source.split, config, progress)) for source in config.sources]
    keys = [content_keys(images.pixels, seed) for _, images in parts]
    prints = {
        _title(number, source.split, source): images.fingerprint
        for number, (source, images) in enumerate(parts)
    }
    tests: list[tuple[SourceConfig, Images]] = []
    if config.test:
        for number, (source, images) in enumerate(parts):
            if source.split == "train" and "test" in splits(source.source):
                found = _load(source, "test", config, progress)
                prints[_title(number, "test", source)] = found.fingerprint
                tests.append((source, _relabelled(found, images.label_names)))
        if not tests:
            raise UsageError(
                "data.test is true, but none of the sources has a test split beside its training "
                "images"
            )
        masks = [np.zeros(len(each), dtype=bool) for each in keys]
    else:
        masks = held_out(keys, config.holdout)
    held = np.concatenate(masks)
    known = existence_of([*parts, *tests])
    train = _dataset(parts, known, np.flatnonzero(~held), prints)
    every = np.concatenate(keys)
    if config.test:
        other = np.concatenate([content_keys(images.pixels, seed) for _, images in tests])
        seen = np.isin(other, every)
        rest = _dataset(tests, _shifted(known, len(every)), np.flatnonzero(~seen), prints)
        train.duplicates = _duplicates(every, train.origin, int(seen.sum()))
    else:
        rest = _dataset(parts, known, np.flatnonzero(held), prints)
        train.duplicates = _duplicates(every[~held], train.origin, 0)
    train.shares = _shares(config, train.origin)
    train.flips, train.balance = config.flips, config.balance
    # What cannot be read is on neither side: the training images tell of it.
    both = [images for _, images in (*parts, *tests)]
    train.skipped = [line for images in both for line in images.skipped]
    train.notes = [note for images in both for note in images.notes]
    train.notes += _told(train.duplicates)
    if train.skipped:
        train.notes.append(f"{len(train.skipped):,} images could not be read and were skipped")
    return train, rest


def _title(number: int, split: str, source: SourceConfig) -> str:
    """What tells a source from all others: one may be there twice, with either split."""
    return f"sources.{number} {split} {source.source}"


def _load(source: SourceConfig, split, config: DataConfig, progress) -> Images:
    preparation = config.preparation
    if source.invert:
        preparation = preparation.model_copy(update={"invert": not preparation.invert})
    return load(
        source.source,
        split=split,
        preparation=preparation,
        columns=source.columns,
        limit=source.limit,
        max_bad_share=config.max_bad_share,
        progress=progress,
        cache=config.cache,
    )


def _relabelled(images: Images, names: list[str]) -> Images:
    """The images with their labels as numbers into the training images' names; −1 for others."""
    if images.label_names == names:
        return images
    place = {name: number for number, name in enumerate(names)}
    of = np.array([place.get(name, -1) for name in images.label_names] + [-1], dtype=np.int64)
    return dataclasses.replace(images, labels=of[images.labels], label_names=names)


def _dataset(
    parts: list[tuple[SourceConfig, Images]],
    known: Known,
    index: np.ndarray,
    fingerprints: dict[str, str],
) -> Dataset:
    """The images ``index`` of all parts laid end to end."""
    images = [each for _, each in parts]
    chosen = torch.from_numpy(index)
    origin = torch.cat([torch.full((len(each),), k) for k, each in enumerate(images)])
    native = torch.from_numpy(np.concatenate([each.native_dims for each in images]))
    return Dataset(
        pixels=Pixels([each.pixels for each in images], index),
        native_dims=native[chosen],
        known=known.subset(chosen),
        names=[source.knowledge or each.name for source, each in parts],
        origin=origin[chosen],
        fingerprints=fingerprints,
        skipped=[],
    )


def _shifted(known: Known, start: int) -> Known:
    """What is known of the images from ``start`` on."""
    return Known(known.labels, {path: e[start:] for path, e in known.existence.items()})


def _shares(config: DataConfig, origin: Tensor) -> Tensor | None:
    """How often each image is drawn, by the weights of the sources."""
    weights = [source.weight for source in config.sources]
    if weights[0] is None:
        return None
    counts = torch.bincount(origin, minlength=len(weights)).clamp(min=1)
    shares = (torch.tensor(weights, dtype=torch.float64) / counts)[origin]
    return shares / shares.sum()


def _duplicates(keys: np.ndarray, origin: Tensor, held: int) -> dict[str, int]:
    """How many training images repeat an earlier one (``within`` a source, or ``across`` sources),
    and how many ``held_out`` images were left out, being training images too."""
    sources = origin.numpy()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    repeats = first[inverse] != np.arange(len(keys))
    across = repeats & (sources[first[inverse]] != sources)
    return {
        "within": int(repeats.sum() - across.sum()),
        "across": int(across.sum()),
        "held_out": held,
    }


def _told(duplicates: dict[str, int]) -> list[str]:
    within, across, held = (duplicates[key] for key in ("within", "across", "held_out"))
    lines = []
    if within or across:
        lines.append(
            f"{within + across:,} training images are copies of another ({within:,} within a "
            f"source, {across:,} across sources)"
        )
    if held:
        lines.append(f"{held:,} images of the test splits are training images too: left out")
    return lines
