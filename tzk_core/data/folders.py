"""Folders of images: class folders, or a metadata file as the hub's imagefolder has it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tzk_core.data.columns import LABEL_COLUMNS
from tzk_core.data.hub_names import SPLIT_NAMES
from tzk_core.data.names import shown
from tzk_core.data.table import Columns, Item, Table, truth
from tzk_core.errors import UsageError

__all__ = ["METADATA", "SUFFIXES", "folder_table", "split_folders"]

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
# Images too, which are not read: said, so that nobody trains on half of a folder unknowingly.
_UNREAD = frozenset(
    (".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jpe", ".apng", ".svg", ".psd", ".tga",
     ".pbm", ".pnm", ".dib", ".ico", ".pcx", ".exr", ".hdr", ".qoi",
     ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2")
)  # fmt: skip
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def split_folders(path: Path) -> list[str]:
    """Names of the folders in a folder that are its splits; none where they are its classes.

    It is divided if every folder in it with images is called like a split. Beside others, one that
    is called so and holds images itself is a class: ``train`` beside ``car`` and ``plane``.

    Raises:
        UsageError: they can be read both ways.
    """
    called = {name for names in SPLIT_NAMES.values() for name in names}
    folders = [entry for entry in _visible(path) if entry.is_dir()]
    # Most data sets have none, and their images need not be looked for.
    if not any(folder.name in called for folder in folders):
        return []
    full = [folder for folder in folders if next(_images_below(folder, path), None) is not None]
    found = [folder for folder in full if folder.name in called]
    others = [folder for folder in full if folder.name not in called]
    if not others:
        return [folder.name for folder in found]
    if len(found) > 1 or (found and not _holds_images(found[0])):
        named = " and ".join(repr(folder.name) for folder in found)
        raise UsageError(
            f"{shown(path)} has {named}, called like splits, beside {shown(others[0].name)!r}: "
            "name the folder of one split as the source, or move or rename what is not meant"
        )
    return []


def folder_table(path: Path, name: str, columns: Columns, root: Path | None = None) -> Table:
    """A folder whose folders are the classes; images beside them, or alone, have no label.

    A metadata file in it (or in ``root``, the folder of the splits) names images in the column
    ``file_name`` and says what is known of them. Its label column, if it has one, goes before the
    class folders; an image that it does not name is unknown to it.

    Args:
        path: the folder.
        name: what to call it.
        columns: which columns of the metadata say what.

    Raises:
        UsageError: there are no images, the metadata cannot be read, or it lacks a column that
            was asked for.
    """
    # A million names are kept as strings, not as objects: about 100 bytes each.
    unread: Counter[str] = Counter()
    files, labels, classes = _walk(path, unread)
    known = _metadata(path, root)
    label, attributes = _columns_of(known, columns, path)
    if known:
        there = set(files)
        absent = sorted(file for file in known.rows if file not in there)
        files, labels = files + absent, labels + [-1] * len(absent)
    if not files:
        told = f"; {_told(unread)}" if unread else ""
        raise UsageError(f"{path} holds no images ({', '.join(sorted(SUFFIXES))}){told}")
    nothing: dict[str, Any] = {}

    def items() -> Iterator[Item]:
        for file, number in zip(files, labels):
            whole = path / file
            row = known.rows.get(file, nothing) if known else nothing
            yield Item(
                shown(whole),
                number if label is None else _value(row.get(label)),
                whole.read_bytes,
                tuple(truth(row.get(a), a, known.file) for a in attributes),
            )

    def identity() -> str:
        digest = hashlib.sha256(json.dumps([str(path.resolve()), label, attributes]).encode())
        stamped = [path / file for file in files] + ([known.file] if known else [])
        for file in stamped:  # names may hold bytes that are no UTF-8, as lone surrogates
            digest.update(f"\n{file}\0{_stamp(file)}".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    names = [shown(each) for each in classes] if label is None else None
    notes = [f"{name}: {_told(unread)}"] if unread else []
    return Table(name, len(files), names, items, identity, list(attributes), label, notes)


def _told(unread: Counter[str]) -> str:
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in unread.most_common())
    return (
        f"{unread.total():,} files look like images and are not read ({kinds}): save them as PNG "
        "or JPEG"
    )


def _walk(path: Path, unread: Counter[str]) -> tuple[list[str], list[int], list[str]]:
    """Names below ``path`` of its images, their class numbers, and the names of the classes."""
    files: list[str] = []
    labels: list[int] = []
    classes: list[str] = []
    for entry in _visible(path):
        if entry.is_dir():
            before = len(files)
            files += _images_below(entry, path, unread)
            if len(files) > before:
                labels += [len(classes)] * (len(files) - before)
                classes.append(entry.name)
        elif _is_read(entry.name, unread):
            files.append(entry.name)
            labels.append(-1)
    return files, labels, classes


def _visible(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if not entry.name.startswith((".", "__")))


def _holds_images(folder: Path) -> bool:
    return any(e.suffix.lower() in SUFFIXES and not e.is_dir() for e in _visible(folder))


def _is_read(file: str, unread: Counter[str]) -> bool:
    """Whether its name says that it is an image of a kind that is read; counts others."""
    suffix = os.path.splitext(file)[1].lower()
    if suffix in _UNREAD:
        unread[suffix] += 1
    return suffix in SUFFIXES


def _images_below(folder: Path, root: Path, unread: Counter[str] | None = None) -> Iterator[str]:
    """Image files below a folder, sorted; links are followed, but no folder is entered twice.

    Args:
        unread: counts images of kinds that are not read, by suffix.
    """
    unread = Counter() if unread is None else unread
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__")))
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        here = os.path.relpath(where, root)
        for file in sorted(files):
            if not file.startswith(".") and _is_read(file, unread):
                yield os.path.join(here, file)


def _value(label: Any) -> Any:
    return None if label == "" else label


def _stamp(file: Path) -> str:
    try:
        stat = file.stat()
    except OSError:  # it will be skipped, and named, when it is read
        return "-"
    return f"{stat.st_size} {stat.st_mtime_ns}"


# --- metadata -----------------------------------------------------------------------------------


class _Metadata:
    """The rows of a metadata file, by the name of the image below the folder."""

    def __init__(self, file: Path, names: list[str], rows: dict[str, dict[str, Any]]) -> None:
        self.file, self.names, self.rows = file, names, rows

    def __bool__(self) -> bool:
        return True

    def booleans(self) -> list[str]:
        """Columns that hold true or false wherever they hold anything."""
        return [name for name in self.names if self._is_boolean(name)]

    def _is_boolean(self, name: str) -> bool:
        values = [row.get(name) for row in self.rows.values()]
        words = {str(value).lower() for value in values if value not in (None, "")}
        return bool(words) and words <= {"true", "false"}


def _metadata(path: Path, root: Path | None) -> _Metadata | None:
    for where in (path, root):
        found = [where / name for name in METADATA if where and (where / name).is_file()]
        if len(found) > 1:
            raise UsageError(f"{where} has {found[0].name} and {found[1].name}; keep one of them")
        if found:
            return _parsed(found[0], path)
    return None


def _parsed(file: Path, path: Path) -> _Metadata:
    try:
        rows = _rows(file)
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{file} cannot be read as metadata: {error}") from error
    names = list(dict.fromkeys(name for row in rows for name in row))
    if "file_name" not in names:
        raise UsageError(
            f"{file} has no column 'file_name' that names the images; it has "
            f"{', '.join(map(str, names)) or 'none'}"
        )
    by_name: dict[str, dict[str, Any]] = {}
    below = os.path.relpath(path, file.parent)
    for number, row in enumerate(rows):
        title = row.pop("file_name")
        if not isinstance(title, str) or not title:
            raise UsageError(f"{file}, row {number}: there is no file_name")
        name = os.path.relpath(os.path.normpath(title), below)
        if name.startswith(os.pardir) and below != os.curdir:
            continue  # of another split
        if name in by_name:
            raise UsageError(f"{file} names {title} twice")
        by_name[name] = row
    return _Metadata(file, [n for n in names if n != "file_name"], by_name)


def _rows(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".csv":
        with file.open(newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
        if any(None in row or None in row.values() for row in rows):
            raise ValueError("a row has more or fewer fields than the header")
        return rows
    if file.suffix == ".jsonl":
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is not an object")
        return rows
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(file).to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def _columns_of(
    known: _Metadata | None, columns: Columns, path: Path
) -> tuple[str | None, tuple[str, ...]]:
    """The label column of the metadata, and its attributes."""
    names = known.names if known else []
    where = known.file if known else f"{path}, which has no metadata.csv or metadata.jsonl,"
    asked = columns.attributes if isinstance(columns.attributes, tuple) else ()
    for column in (*([columns.label] if columns.label else []), *asked):
        if column not in names:
            raise UsageError(
                f"{where} has no column {column!r}; it has {', '.join(names) or 'none'}"
            )
    if columns.attributes is True:
        asked = tuple(known.booleans()) if known else ()
        if not asked:
            raise UsageError(f"{where} has no columns of true and false to take as attributes")
    label = columns.label or next((c for c in LABEL_COLUMNS if c in names), None)
    return label, tuple(a for a in asked if a != label)
