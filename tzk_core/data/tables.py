"""Tables of images in the hub's schema: parquet files, and data sets of the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tzk_core.data.columns import Found, find_columns
from tzk_core.data.hub_names import BUILTIN, HUB, SPLIT_NAMES, HubSource
from tzk_core.data.names import shown
from tzk_core.data.table import Columns, Item, Split, Table, truth
from tzk_core.errors import NotAnImage, UsageError, WorkFailed

__all__ = ["hub_source", "hub_splits", "hub_table", "parquet_table"]

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_CHUNK = 256


def parquet_table(files: Sequence[Path], name: str, columns: Columns) -> Table:
    """Parquet files, read a batch at a time.

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
    found = find_columns(datasets.Features.from_arrow_schema(schema), columns, files[0])
    if not count:
        raise UsageError(f"{files[0]} holds no images")

    def rows() -> Iterator[Item]:
        for file in files:
            number = 0
            try:
                with pyarrow.parquet.ParquetFile(file) as opened:
                    for batch in opened.iter_batches(_CHUNK, columns=found.all):
                        for row in batch.to_pylist():
                            yield _row(row, found, f"{shown(file)}, row {number}", file.parent)
                            number += 1
            except (OSError, pyarrow.ArrowException) as error:
                raise WorkFailed(f"{file} cannot be read after row {number}: {error}") from error

    return Table(
        name,
        count,
        found.label_names,
        rows,
        lambda: _identity(found, files),
        found.attributes,
        found.label,
    )


def hub_table(name: str, split: Split, columns: Columns) -> Table:
    """A data set of the hub, through `datasets` and its cache.

    Raises:
        UsageError: it has no such split or column.
        WorkFailed: the hub does not answer.
    """
    import datasets

    source = hub_source(name)
    repository = source.repository
    # All splits at once: one that is asked for alone fetches the others too, and without a network
    # only this finds what is in the cache.
    there = _asking_hub(repository, lambda: datasets.load_dataset(repository, source.configuration))
    wanted = next((known for known in source.splits[split] if known in there), None)
    if wanted is None:
        raise UsageError(f"{name} has no {split} split on the hub, only {', '.join(there)}")
    table = there[wanted]
    found = find_columns(table.features, _merged(columns, source.columns), repository)
    if not len(table):
        raise UsageError(f"{name} holds no images")
    table = table.select_columns(found.all)
    table = table.cast_column(found.image, datasets.Image(decode=False))
    files = [Path(part["filename"]) for part in there[wanted].cache_files]

    def rows() -> Iterator[Item]:
        for number, row in enumerate(table):
            yield _row(row, found, f"{repository}, {wanted}, row {number}", Path())

    return Table(
        repository.rpartition("/")[2],
        len(table),
        found.label_names,
        rows,
        # In memory there are no files, and what `datasets` takes for its own fingerprint tells.
        lambda: _identity(found, files) if files else f"{found.all} {table._fingerprint}",
        found.attributes,
        found.label,
    )


def hub_splits(name: str) -> list[Split]:
    """Which of ``train`` and ``test`` a data set of the hub has."""
    import datasets

    source = hub_source(name)
    # Without a network only loading finds what is in the cache.
    ask = datasets.get_dataset_split_names
    ask = datasets.load_dataset if datasets.config.HF_HUB_OFFLINE else ask
    there = _asking_hub(source.repository, lambda: ask(source.repository, source.configuration))
    return [split for split, known in source.splits.items() if any(k in there for k in known)]


def hub_source(name: str) -> HubSource:
    """What is meant by a name that is no path here.

    Raises:
        UsageError: nothing is.
    """
    if name in HUB:
        return HUB[name]
    looks_local = name.startswith((".", "~")) or name.endswith(".parquet")
    if _HUB_NAME.fullmatch(name) and not looks_local and not Path(name).parent.exists():
        if name.startswith("builtin/"):
            raise UsageError(f"there is no {name}; built in are {' and '.join(BUILTIN)}")
        known = [source for source in HUB.values() if source.repository == name]
        return known[0] if known else HubSource(name, splits=SPLIT_NAMES)
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


def _merged(asked: Columns, known: Columns) -> Columns:
    return Columns(
        asked.image or known.image,
        asked.label or known.label,
        asked.attributes or known.attributes,
    )


def _identity(found: Found, files: Sequence[Path]) -> str:
    stats = [(str(file.resolve()), os.stat(file)) for file in files]
    told = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
    return "\n".join([*found.all, *told])


def _row(row: dict[str, Any], found: Found, title: str, folder: Path) -> Item:
    """An image as the hub's schema has it: its bytes, or the path of a file that holds them."""
    image = row[found.image]

    def read() -> bytes:
        data, path = image, None
        if isinstance(image, dict):
            data, path = image.get("bytes"), image.get("path")
        if data is None and path is not None:
            return (folder / path).read_bytes()
        if data is not None and not isinstance(data, bytes):
            raise NotAnImage(f"it holds {type(data).__name__}, not the bytes of an image file")
        return data or b""

    label = row.get(found.label) if found.label else None
    attributes = tuple(truth(row[a], a, title) for a in found.attributes)
    # A file that a row names may change while the table's own does not.
    elsewhere = isinstance(image, dict) and image.get("bytes") is None and image.get("path")
    return Item(title, label, read, attributes, lasting=not elsewhere)
