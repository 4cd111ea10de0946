"""Prepared images kept as memory maps, so that no image is decoded twice or fills the memory.

An entry is a folder ``$TZK_CACHE/images/KEY`` with ``pixels.npy`` (uint8, N × C × H × W) and what
is known of the images beside it. The key is made of the files' names, sizes and times, the columns
that were read, the preparation and the limit: what changes any of them makes a new entry, and an
entry is never changed. It is written aside and renamed. A lock lets one process decode while the
others wait for it; it dies with its process. What a process that was killed had written aside is
swept by the next one that writes an entry, of whatever key: nobody holds its lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from filelock import FileLock

from tzk_core.data.npy import NpyWriter
from tzk_core.data.preparation import Preparation
from tzk_core.data.reading import Described
from tzk_core.data.table import Table

__all__ = ["CacheUnusable", "Entry", "Kept", "Writer", "cache_folder", "entry_for"]

# Goes up whenever decoding or preparation give other pixels for the same file, or entries change.
_FORMAT = 3
_PIXELS, _FACTS = "pixels.npy", "facts.json"
_ARRAYS = ("labels", "native_dims", "attributes")
_TOLD = ("label_names", "skipped", "greyed")  # in the facts


class CacheUnusable(Exception):
    """The cache cannot be written; the images must be kept in memory."""


@dataclass(frozen=True)
class Kept:
    """What an entry holds: the pixels are a memory map."""

    pixels: np.ndarray
    described: Described
    fingerprint: str


def cache_folder() -> Path | None:
    """Where prepared images are kept: ``$TZK_CACHE``, or the platform's place; None for ``off``."""
    asked = os.environ.get("TZK_CACHE", "")
    if asked.lower() in ("off", "0", "no"):
        return None
    if asked:
        return Path(asked).expanduser()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "tzk"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tzk"


def entry_for(root: Path, table: Table, preparation: Preparation, limit: int | None) -> Entry:
    """The entry of a table's images as they are now, whether or not it is there."""
    parts = {
        "format": _FORMAT,
        "pillow": PIL.__version__,  # its JPEG and resizing may differ in a level
        "source": table.identity(),
        "name": table.name,
        "attributes": table.attributes,
        "label_names": table.label_names,
        "preparation": preparation.model_dump(mode="json"),
        "limit": limit,
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    return Entry(root / "images" / key)


class Entry:
    """One folder of the cache."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Kept | None:
        """What it holds, or None if it is not there or cannot be read."""
        try:
            facts = json.loads((self.path / _FACTS).read_text())
            # A plain array over the map: a subclass would be carried into everything made of it.
            pixels = np.asarray(np.load(self.path / _PIXELS, mmap_mode="r"))[: facts["count"]]
            arrays = {name: np.load(self.path / f"{name}.npy") for name in _ARRAYS}
            if {len(pixels), *map(len, arrays.values())} != {facts["count"]}:
                return None
            told = {name: facts[name] for name in _TOLD}
        except (OSError, EOFError, ValueError, KeyError):
            return None
        described = Described(**told, **arrays)
        return Kept(pixels, described, facts["fingerprint"])

    def forget(self) -> None:
        """Nobody finds it any more; who has loaded it keeps it. The caller holds the lock."""
        with contextlib.suppress(OSError):
            (self.path / _FACTS).unlink()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time.

        Raises:
            CacheUnusable: the cache cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(_lock_file(self.path.parent, self.path.name))
            lock.acquire()
        except (OSError, NotImplementedError) as error:
            raise CacheUnusable(str(error)) from error
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def writer(self, shape: tuple[int, int, int, int]) -> Iterator[Writer]:
        """A new entry of so many images, which vanishes unless :meth:`Writer.finish` is called.

        The caller holds the lock.

        Raises:
            CacheUnusable: the cache cannot be written.
        """
        _sweep(self.path.parent, self.path.name)
        try:
            aside = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=f".{self.path.name}-"))
        except OSError as error:
            raise CacheUnusable(str(error)) from error
        writer = None
        try:
            writer = Writer(aside, self.path, shape)
            yield writer
        finally:
            if writer is not None:
                writer.close()
            shutil.rmtree(aside, ignore_errors=True)


def _lock_file(folder: Path, key: str) -> Path:
    return folder / f".{key}.lock"


def _sweep(folder: Path, held: str) -> None:
    """Removes what killed processes left in a cache's folder: gigabytes that nothing else finds.

    Args:
        held: the key whose lock this process has.
    """
    for aside in folder.iterdir():
        found = re.fullmatch(r"\.([0-9a-f]{32})-\w+", aside.name)
        if found is None:
            continue
        key = found[1]
        lock = FileLock(_lock_file(folder, key))
        try:
            # Who writes an entry holds its lock all the while.
            with contextlib.nullcontext() if key == held else lock.acquire(timeout=0):
                shutil.rmtree(aside, ignore_errors=True)
        except (OSError, NotImplementedError):  # it is being written, or is another user's
            continue


class Writer:
    """Fills an entry, a few images at a time."""

    def __init__(self, aside: Path, path: Path, shape: tuple[int, int, int, int]) -> None:
        self.aside, self.path = aside, path
        self._count = 0
        self._digest = hashlib.sha256()
        self._file: NpyWriter | None = None
        with _writing():
            self._file = NpyWriter(aside / _PIXELS, shape, np.uint8)

    def write(self, pixels: np.ndarray) -> None:
        """Adds images, uint8 (n, C, H, W)."""
        pixels = np.ascontiguousarray(pixels)
        self._digest.update(pixels.data)
        with _writing():
            self._file.write(self._count, pixels)
        self._count += len(pixels)

    def finish(self, described: Described, source: str) -> None:
        """Puts the entry into its place, unless another process did so first."""
        self._digest.update(np.ascontiguousarray(described.labels, dtype="<i8").data)
        facts = {
            "source": source,
            "count": len(described.labels),
            **{name: getattr(described, name) for name in _TOLD},
            "fingerprint": self._digest.hexdigest(),
        }
        with _writing():
            self._file.finish()
            for name in _ARRAYS:
                np.save(self.aside / f"{name}.npy", getattr(described, name))
            (self.aside / _FACTS).write_text(json.dumps(facts))
            self.aside.chmod(0o755)  # mkdtemp makes it private
            if self.path.exists():  # one that could not be loaded: it is in the way
                shutil.rmtree(self.path)
            self.aside.rename(self.path)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.close()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheUnusable(str(error)) from error
