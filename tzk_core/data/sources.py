"""Where images come from: built-in data, folders, parquet files, and the Hugging Face hub.

Whatever the source, one image takes one way: its bytes through `decoding.decode_image`, then the
model's `Preparation`. So training sees exactly the pixels that serving would see. Tables (built-in,
parquet, hub) have the hub's image schema, as `datasets` writes it; a folder of folders is walked
here, so that a file that cannot be read is named by its path.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np

from tzk_core.data.folders import METADATA, folder_table, split_folders
from tzk_core.data.hub_names import BUILTIN, HUB, SPLIT_NAMES
from tzk_core.data.images import Images, split_holdout
from tzk_core.data.names import shown
from tzk_core.data.preparation import Preparation
from tzk_core.data.reading import Described, Progress, check_share, numbered, read_table
from tzk_core.data.table import Columns, Split, Table
from tzk_core.data.tables import hub_splits, hub_table, parquet_table
from tzk_core.errors import UsageError

__all__ = [
    "BUILTIN",
    "HUB",
    "Columns",
    "Images",
    "Progress",
    "Split",
    "class_names",
    "load",
    "split_holdout",
    "splits",
]


def load(
    source: str | os.PathLike[str],
    *,
    split: Split = "train",
    preparation: Preparation | None = None,
    columns: Columns | None = None,
    limit: int | None = None,
    max_bad_share: float = 0.01,
    progress: Progress | None = None,
    cache: bool = False,
) -> Images:
    """The images of a source, prepared.

    Args:
        source: ``builtin/mnist`` or ``builtin/fashion_mnist``; a folder of class folders, of images
            without classes, or of images and a metadata file, each of them perhaps below ``train``
            and ``test`` if there are no other folders of images beside these; a parquet file, or a
            folder of ``train*.parquet`` and ``test*.parquet``; or a name on the hub, ``owner/name``
            or a short one of `HUB`. What exists here is never sought on the hub.
        split: ``test`` falls back on a validation split where there is no test split.
        preparation: size and channels (32×32 grey by default).
        columns: which columns of a table say what, where their names do not.
        limit: at most so many, evenly spaced through the source, so that a source in the order of
            its classes gives some of each.
        max_bad_share: the largest share of images that may be unreadable. They are skipped, and
            named in ``Images.skipped``.
        progress: called with (images read, images in all), now and then and at the end.
        cache: keep what was prepared as a memory map (`cache`), and take it from there the next
            time; otherwise the images are in memory.

    Raises:
        UsageError: there is no such source, it holds no images, or it lacks the split or a column.
        WorkFailed: more images than ``max_bad_share`` are unreadable, or the hub does not answer.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit on images must be at least 1, not {limit}")
    table = _find(source, split, columns or Columns())
    preparation = preparation or Preparation()
    total = table.count if limit is None else min(limit, table.count)
    if cache:
        from tzk_core.data.cache import CacheUnusable, cache_folder

        root = cache_folder()
        if root is not None:
            try:
                return _through_cache(
                    root, table, preparation, limit, total, max_bad_share, progress
                )
            except CacheUnusable as error:
                why = f"the images of {table.name} are kept in memory: {root} ({error})"
                images = _in_memory(table, preparation, total, max_bad_share, progress)
                images.notes.insert(0, f"{why}; TZK_CACHE names another folder")
                return images
    return _in_memory(table, preparation, total, max_bad_share, progress)


def class_names(
    source: str | os.PathLike[str], *, split: Split = "train", columns: Columns | None = None
) -> list[str]:
    """The names of a source's labels, without reading its images.

    Raises:
        UsageError, WorkFailed: as :func:`load`.
    """
    table = _find(source, split, columns or Columns())
    if table.label_names is not None:
        return table.label_names
    return numbered([item.label for item in table.items()], table)[1]


def splits(source: str | os.PathLike[str]) -> list[Split]:
    """Which of ``train`` and ``test`` a source has.

    Raises:
        UsageError: there is no such source, or its folders may be splits or classes.
        WorkFailed: the hub does not answer.
    """
    name = os.fspath(source)
    if name in BUILTIN:
        return ["train", "test"]
    path = Path(name).expanduser()
    if path.is_dir():
        return [split for split in SPLIT_NAMES if _in_folder(path, split) is not None]
    return ["train"] if path.is_file() else hub_splits(name)


def _find(source: str | os.PathLike[str], split: Split, columns: Columns) -> Table:
    name = os.fspath(source)
    if split not in SPLIT_NAMES:
        raise UsageError(f"a split is 'train' or 'test', not {split!r}")
    if name in BUILTIN:
        short = name.partition("/")[2]
        file = Path(__file__).parent / "builtin" / short / f"{split}.parquet"
        return parquet_table([file], short, columns)
    path = Path(name).expanduser()
    title = shown(path.resolve().stem if path.is_file() else path.resolve().name)
    if path.is_dir():
        found = _in_folder(path, split)
        if found is None:
            other = " (it has a test split)" if split == "train" and splits(path) else ""
            raise UsageError(
                f"{name} has no {split} split{other}: it would be a folder or parquet files called "
                f"{split!r} in it"
            )
        if isinstance(found, list):
            return parquet_table(found, title, columns)
        return folder_table(found, title, columns, root=path)
    if path.is_file():
        if path.suffix != ".parquet":
            raise UsageError(f"{name} is neither a folder nor a .parquet file")
        if split != "train":
            raise UsageError(f"{name} is one file without a {split} split; name the {split} file")
        return parquet_table([path], title, columns)
    return hub_table(name, split, columns)


def _in_folder(path: Path, split: Split) -> Path | list[Path] | None:
    """What of a folder is a split: a folder of images, parquet files, or None if it has it not."""
    parquet = [
        file
        for where in (path, path / "data")
        for file in sorted(where.glob("*.parquet"))
        if file.name not in METADATA
    ]
    for name in SPLIT_NAMES[split]:
        # `train.parquet`, or the shards that the hub writes: `train-00000-of-00002.parquet`
        files = [file for file in parquet if re.fullmatch(rf"{name}(-.*)?", file.stem)]
        if files:
            return files
    if parquet:  # one unnamed lot is for training, unless the other split has a name
        return parquet if split == "train" and _in_folder(path, "test") is None else None
    divided = split_folders(path)
    for name in SPLIT_NAMES[split]:
        if name in divided:
            return path / name
    return path if split == "train" and not divided else None


def _in_memory(
    table: Table,
    preparation: Preparation,
    total: int,
    max_bad_share: float,
    progress: Progress | None,
) -> Images:
    pixels = np.empty(_shape(total, preparation), dtype=np.uint8)
    filled = 0

    def write(more: np.ndarray) -> None:
        nonlocal filled
        pixels[filled : filled + len(more)] = more
        filled += len(more)

    began = time.monotonic()
    described = read_table(table, preparation, total, max_bad_share, progress, write)
    return _images(table, pixels[:filled], described, _rate(table.name, filled, began))


def _through_cache(
    root: Path,
    table: Table,
    preparation: Preparation,
    limit: int | None,
    total: int,
    max_bad_share: float,
    progress: Progress | None,
) -> Images:
    from tzk_core.data.cache import CacheUnusable, entry_for

    began = time.monotonic()
    entry = entry_for(root, table, preparation, limit)
    kept = entry.load()
    if kept is None:
        with entry.locked():
            kept = entry.load()  # another process may have made it while this one waited
            if kept is None:
                with entry.writer(_shape(total, preparation)) as writer:
                    described = read_table(
                        table, preparation, total, max_bad_share, progress, writer.write
                    )
                    writer.finish(described, table.name)
                kept = entry.load()
                if kept is None:
                    raise CacheUnusable(f"{entry.path} cannot be read back")
                if not described.lasting:
                    entry.forget()
                note = _rate(table.name, len(kept.pixels), began)
                return _images(table, kept.pixels, kept.described, note, kept.fingerprint)
    check_share(table.name, kept.described.skipped, total, max_bad_share)
    if progress is not None:
        progress(total, total)
    seconds = time.monotonic() - began
    note = f"{table.name}: {len(kept.pixels):,} prepared images found in the cache, {seconds:.2f} s"
    return _images(table, kept.pixels, kept.described, note, kept.fingerprint)


def _images(
    table: Table,
    pixels: np.ndarray,
    described: Described,
    note: str,
    fingerprint: str | None = None,
) -> Images:
    return Images(
        pixels=pixels,
        labels=described.labels,
        label_names=described.label_names,
        native_dims=described.native_dims,
        name=table.name,
        skipped=described.skipped,
        attributes={
            name: np.ascontiguousarray(values)
            for name, values in zip(table.attributes, described.attributes.T)
        },
        notes=[note, *table.notes, *_greyed(table.name, described)],
        known_fingerprint=fingerprint,
    )


def _greyed(name: str, described: Described) -> list[str]:
    if not described.greyed:
        return []
    return [
        f"{name}: {described.greyed:,} of {len(described.labels):,} images have colour channels "
        "and are turned to grey; --set data.preparation.channels=3 keeps colour"
    ]


def _rate(name: str, count: int, began: float) -> str:
    seconds = max(time.monotonic() - began, 1e-9)
    return f"{name}: {count:,} images decoded in {seconds:.1f} s ({count / seconds:,.0f} images/s)"


def _shape(total: int, preparation: Preparation) -> tuple[int, int, int, int]:
    return (total, preparation.channels, preparation.size, preparation.size)
