"""Where images come from: built-in data, folders, parquet files, and the Hugging Face hub.

Whatever the source, one image takes one way: its bytes through `decoding.decode_image`, then the
model's `Preparation`. So training sees exactly the pixels that serving would see. Tables (built-in,
parquet, hub) have the hub's image schema, as `datasets` writes it; a folder of folders is walked
here, so that a file that cannot be read is named by its path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tzk_core.data.decoding import decode_image
from tzk_core.data.images import Images, split_holdout
from tzk_core.data.preparation import Preparation, Prepared
from tzk_core.errors import NotAnImage, TzkError, UsageError, WorkFailed

__all__ = ["BUILTIN", "HUB", "Images", "Progress", "Split", "load", "split_holdout", "splits"]

Split = Literal["train", "test"]
Progress = Callable[[int, int], None]

BUILTIN = ("builtin/mnist", "builtin/fashion_mnist")

# Short names of well-known data sets: where the hub has them, and in which configuration.
HUB: dict[str, tuple[str, str | None]] = {
    "mnist": ("ylecun/mnist", None),
    "fashion_mnist": ("zalando-datasets/fashion_mnist", None),
    "cifar10": ("uoft-cs/cifar10", None),
    "cifar100": ("uoft-cs/cifar100", None),
    "svhn": ("ufldl-stanford/svhn", "cropped_digits"),
    "celeba": ("flwrlabs/celeba", None),
    "imagenet": ("ILSVRC/imagenet-1k", None),
}

_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
_SPLIT_NAMES = {"train": ("train",), "test": ("test", "validation", "valid", "val")}
_IMAGE_COLUMNS = ("image", "img", "picture", "pixels")
_LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_CHUNK = 256


@dataclass(frozen=True)
class _Item:
    """One image that has not been read: what to call it, its label, and how to get its bytes."""

    title: str
    label: Any
    read: Callable[[], bytes]


@dataclass(frozen=True)
class _Table:
    """A source that has been found: how many images, which labels, and the images in order.

    ``label_names`` is None where only the labels themselves tell which there are.
    """

    name: str
    count: int
    label_names: list[str] | None
    items: Callable[[], Iterable[_Item]]


def load(
    source: str | os.PathLike[str],
    *,
    split: Split = "train",
    preparation: Preparation | None = None,
    limit: int | None = None,
    max_bad_share: float = 0.01,
    progress: Progress | None = None,
) -> Images:
    """The images of a source, prepared, in memory.

    Args:
        source: ``builtin/mnist`` or ``builtin/fashion_mnist``; a folder of class folders, or of
            images without classes, either of them perhaps below ``train`` and ``test``; a parquet
            file, or a folder of ``train*.parquet`` and ``test*.parquet``; or a name on the hub,
            ``owner/name`` or a short one of `HUB`. What exists here is never sought on the hub.
        split: ``test`` falls back on a validation split where there is no test split.
        preparation: size and channels (32×32 grey by default).
        limit: at most so many, evenly spaced through the source, so that a source in the order of
            its classes gives some of each.
        max_bad_share: the largest share of images that may be unreadable. They are skipped, and
            named in ``Images.skipped``.
        progress: called with (images read, images in all), now and then and at the end.

    Raises:
        UsageError: there is no such source, it holds no images, or it lacks the split.
        WorkFailed: more images than ``max_bad_share`` are unreadable, or the hub does not answer.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit on images must be at least 1, not {limit}")
    table = _find(source, split)
    preparation = preparation or Preparation()
    return _read(table, preparation, limit, max_bad_share, progress)


def splits(source: str | os.PathLike[str]) -> list[Split]:
    """Which of ``train`` and ``test`` a source has.

    Raises:
        UsageError: there is no such source.
        WorkFailed: the hub does not answer.
    """
    name = os.fspath(source)
    if name in BUILTIN:
        return ["train", "test"]
    path = Path(name).expanduser()
    if path.is_dir():
        return [split for split in _SPLIT_NAMES if _in_folder(path, split) is not None]
    if path.is_file():
        return ["train"]
    import datasets

    repository, configuration = _hub_name(name)
    there = _asking_hub(
        repository, lambda: datasets.get_dataset_split_names(repository, configuration)
    )
    return [split for split, known in _SPLIT_NAMES.items() if any(k in there for k in known)]


def _find(source: str | os.PathLike[str], split: Split) -> _Table:
    name = os.fspath(source)
    if split not in _SPLIT_NAMES:
        raise UsageError(f"a split is 'train' or 'test', not {split!r}")
    if name in BUILTIN:
        short = name.partition("/")[2]
        return _parquet([Path(__file__).parent / "builtin" / short / f"{split}.parquet"], short)
    path = Path(name).expanduser()
    title = path.resolve().stem if path.is_file() else path.resolve().name
    if path.is_dir():
        found = _in_folder(path, split)
        if found is None:
            raise UsageError(
                f"{name} has no {split} split: it would be a folder or parquet files called "
                f"{split!r} in it"
            )
        return _parquet(found, title) if isinstance(found, list) else _folder(found, title)
    if path.is_file():
        if path.suffix != ".parquet":
            raise UsageError(f"{name} is neither a folder nor a .parquet file")
        if split != "train":
            raise UsageError(f"{name} is one file without a {split} split; name the {split} file")
        return _parquet([path], title)
    return _hub(name, split)


# --- folders ------------------------------------------------------------------------------------


def _in_folder(path: Path, split: Split) -> Path | list[Path] | None:
    """What of a folder is a split: a folder of images, parquet files, or None if it has it not."""
    parquet = [file for where in (path, path / "data") for file in sorted(where.glob("*.parquet"))]
    for name in _SPLIT_NAMES[split]:
        # `train.parquet`, or the shards that the hub writes: `train-00000-of-00002.parquet`
        files = [file for file in parquet if re.fullmatch(rf"{name}(-.*)?", file.stem)]
        if files:
            return files
    if parquet:  # one unnamed lot is for training, unless the other split has a name
        return parquet if split == "train" and _in_folder(path, "test") is None else None
    divided = (path / "train").is_dir()
    for name in _SPLIT_NAMES[split]:
        if divided and (path / name).is_dir():
            return path / name
    return path if split == "train" and not divided else None


def _folder(path: Path, name: str) -> _Table:
    """A folder whose folders are the classes; images beside them, or alone, have no label."""
    top = sorted(entry for entry in path.iterdir() if not entry.name.startswith((".", "__")))
    found: list[tuple[Path, int]] = []
    classes: list[str] = []
    for entry in top:
        if entry.is_dir():
            files = list(_images_below(entry))
            found += [(file, len(classes)) for file in files]
            classes += [entry.name] if files else []
        elif entry.suffix.lower() in _SUFFIXES:
            found.append((entry, -1))
    if not found:
        raise UsageError(f"{path} holds no images ({', '.join(sorted(_SUFFIXES))})")
    items = [_Item(str(file), label, file.read_bytes) for file, label in found]
    return _Table(name, len(items), classes, lambda: items)


def _images_below(folder: Path) -> Iterator[Path]:
    """Image files below a folder, sorted; links are followed, but no folder is entered twice."""
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__")))
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for file in sorted(files):
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in _SUFFIXES:
                yield Path(where, file)


# --- tables -------------------------------------------------------------------------------------


def _parquet(files: Sequence[Path], name: str) -> _Table:
    """Parquet files in the hub's image schema, read a batch at a time.

    `datasets` knows what the columns mean; its own readers would first copy the files into a
    cache (docs/decisions.md), so the rows are read with the library that it reads them with.
    """
    import datasets
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(files[0])
        count = sum(pyarrow.parquet.read_metadata(file).num_rows for file in files)
    except (OSError, pyarrow.ArrowException) as error:
        raise WorkFailed(f"{files[0]} cannot be read as parquet: {error}") from error
    image, label, label_names = _columns(datasets.Features.from_arrow_schema(schema), files[0])
    if not count:
        raise UsageError(f"{files[0]} holds no images")
    columns = [image] if label is None else [image, label]

    def rows() -> Iterator[_Item]:
        for file in files:
            number = 0
            try:
                with pyarrow.parquet.ParquetFile(file) as opened:
                    for batch in opened.iter_batches(_CHUNK, columns=columns):
                        for row in batch.to_pylist():
                            title = f"{file}, row {number}"
                            yield _row(row[image], row.get(label), title, file.parent)
                            number += 1
            except (OSError, pyarrow.ArrowException) as error:
                raise WorkFailed(f"{file} cannot be read after row {number}: {error}") from error

    return _Table(name, count, label_names, rows)


def _hub(name: str, split: Split) -> _Table:
    """A data set of the hub, through `datasets` and its cache."""
    import datasets

    repository, configuration = _hub_name(name)
    # All splits at once: one that is asked for alone fetches the others too, and without a network
    # only this finds what is in the cache.
    there = _asking_hub(repository, lambda: datasets.load_dataset(repository, configuration))
    wanted = next((known for known in _SPLIT_NAMES[split] if known in there), None)
    if wanted is None:
        raise UsageError(f"{name} has no {split} split on the hub, only {', '.join(there)}")
    table = there[wanted]
    image, label, label_names = _columns(table.features, repository)
    table = table.select_columns([image] if label is None else [image, label])
    table = table.cast_column(image, datasets.Image(decode=False))

    def rows() -> Iterator[_Item]:
        for number, row in enumerate(table):
            title = f"{repository}, {wanted}, row {number}"
            yield _row(row[image], row.get(label), title, Path())

    return _Table(repository.partition("/")[2], len(table), label_names, rows)


def _hub_name(name: str) -> tuple[str, str | None]:
    """Repository and configuration of a name that is no path here."""
    if name in HUB:
        return HUB[name]
    looks_local = name.startswith((".", "~")) or name.endswith(".parquet")
    if _HUB_NAME.fullmatch(name) and not looks_local and not Path(name).parent.exists():
        if name.startswith("builtin/"):
            raise UsageError(f"there is no {name}; built in are {' and '.join(BUILTIN)}")
        return name, None
    raise UsageError(
        f"there is no file or folder {name}; built in are {' and '.join(BUILTIN)}, and the hub's "
        f"data sets are named owner/name or {', '.join(HUB)}"
    )


def _asking_hub(repository: str, question: Callable[[], Any]) -> Any:
    import datasets
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return question()
    except (RepositoryNotFoundError, datasets.exceptions.DatasetNotFoundError) as error:
        raise UsageError(
            f"there is no file or folder {repository}, and no such data set on the hub"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise WorkFailed(
            f"the hub did not give {repository} ({error}); without a network there are "
            f"{' and '.join(BUILTIN)}, folders and parquet files"
        ) from error


def _columns(features: Any, where: object) -> tuple[str, str | None, list[str] | None]:
    """The image column, the label column if there is one, and its label names if it tells them."""
    import datasets

    image = [c for c in _IMAGE_COLUMNS if c in features]
    image += [c for c, feature in features.items() if isinstance(feature, datasets.Image)]
    if not image:
        raise UsageError(
            f"{where} has no column of images: it would be called 'image', as on the hub; there "
            f"are {', '.join(features)}"
        )
    label = [c for c in _LABEL_COLUMNS if c in features and _is_label(features[c])]
    label += [c for c, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if not label:
        return image[0], None, []
    names = getattr(features[label[0]], "names", None)
    return image[0], label[0], None if names is None else list(names)


def _is_label(feature: Any) -> bool:
    """Whether a column holds one class an image: a ClassLabel, a text, an integer or a boolean."""
    kind = str(getattr(feature, "dtype", ""))
    return kind in ("string", "large_string", "bool") or kind.startswith(("int", "uint"))


def _row(image: Any, label: Any, title: str, folder: Path) -> _Item:
    """An image as the hub's schema has it: its bytes, or the path of a file that holds them."""

    def read() -> bytes:
        data, path = image, None
        if isinstance(image, dict):
            data, path = image.get("bytes"), image.get("path")
        if data is None and path is not None:
            return (folder / path).read_bytes()
        if data is not None and not isinstance(data, bytes):
            raise NotAnImage(f"it holds {type(data).__name__}, not the bytes of an image file")
        return data or b""

    return _Item(title, label, read)


# --- reading ------------------------------------------------------------------------------------


def _read(
    table: _Table,
    preparation: Preparation,
    limit: int | None,
    max_bad_share: float,
    progress: Progress | None,
) -> Images:
    total = table.count if limit is None else min(limit, table.count)
    side = preparation.size
    pixels = np.empty((total, preparation.channels, side, side), dtype=np.uint8)
    native = np.empty(total, dtype=np.int64)
    labels: list[Any] = []
    skipped: list[str] = []
    items = _evenly(table.items(), table.count, total)
    # Threads, as Pillow decodes outside the interpreter's lock; order and result do not depend on
    # how many there are.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while chunk := list(islice(items, _CHUNK)):
            for item, outcome in zip(chunk, pool.map(_prepare, chunk, [preparation] * len(chunk))):
                if isinstance(outcome, str):
                    skipped.append(f"{item.title}: {outcome}")
                    continue
                pixels[len(labels)], native[len(labels)] = outcome.pixels, outcome.native_dims
                labels.append(item.label)
            if len(skipped) > max_bad_share * total:
                raise WorkFailed(_too_many_bad(table.name, skipped, total, max_bad_share))
            if progress is not None:
                progress(len(labels) + len(skipped), total)
    count = len(labels)
    numbers, label_names = _numbered(labels, table.label_names)
    return Images(
        pixels=pixels[:count],
        labels=numbers,
        label_names=label_names,
        native_dims=native[:count],
        name=table.name,
        skipped=skipped,
    )


def _prepare(item: _Item, preparation: Preparation) -> Prepared | str:
    """The prepared image, or why it cannot be read."""
    try:
        return preparation.apply(decode_image(item.read()))
    except TzkError as error:
        return error.detail
    except OSError as error:
        return error.strerror or str(error)


def _evenly(items: Iterable[_Item], count: int, wanted: int) -> Iterator[_Item]:
    """``wanted`` of ``count`` items, evenly spaced."""
    return (
        item
        for number, item in enumerate(items)
        if number * wanted // count != (number - 1) * wanted // count
    )


def _numbered(labels: list[Any], names: list[str] | None) -> tuple[np.ndarray, list[str]]:
    """Labels as indices into names; names made of the labels where the source has none."""
    if names is not None:
        known = range(len(names))
        return np.array([x if x in known else -1 for x in labels], dtype=np.int64), names
    unknown = {x for x in set(labels) if x is None or (isinstance(x, (int, float)) and x < 0)}
    distinct = sorted(set(labels) - unknown)
    index = {label: number for number, label in enumerate(distinct)}
    numbers = np.array([index.get(label, -1) for label in labels], dtype=np.int64)
    return numbers, [str(label) for label in distinct]


def _too_many_bad(name: str, skipped: list[str], total: int, share: float) -> str:
    shown = "; ".join(skipped[:3]) + (" …" if len(skipped) > 3 else "")
    return (
        f"{name}: {len(skipped)} of {total} images cannot be read, more than the {share:.2%} that "
        f"may be skipped: {shown}; remove them, or allow more (max_bad_share, which a recipe has "
        "below data)"
    )
