"""Writing so that nothing is lost: to the side, then renamed into place."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import WorkFailed

__all__ = ["folder_aside", "must_be_writable", "write_aside"]


def write_aside(path: Path, data: str | bytes) -> None:
    """Writes a whole file or leaves what was there.

    Raises:
        WorkFailed: the place cannot be written.
    """
    data = data.encode() if isinstance(data, str) else data
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with _writing(path):
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink()


def must_be_writable(path: Path) -> None:
    """Raises unless a file can be written at ``path``; leaves nothing there.

    Raises:
        WorkFailed: the place cannot be written, or is a folder.
    """
    with _writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass


@contextlib.contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """A private folder that becomes ``path`` when the block ends well, and vanishes if not.

    Raises:
        WorkFailed: the place cannot be written; what was at ``path`` stays.
    """
    aside = None
    try:
        with _writing(path):
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
            yield aside
            for file in aside.rglob("*"):
                if file.is_file():
                    _to_disk(file)
            if path.exists():
                shutil.rmtree(path)
            os.replace(aside, path)
            _to_disk(path.parent)
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, would survive the power's going off."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Makes the folder above ``path``; tells of ``path`` whatever the system refuses within."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise WorkFailed(f"{path} cannot be written: {error.strerror or error}") from error
