"""Writing so that nothing is lost: to the side, then renamed into place."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import WorkFailed

__all__ = ["folder_aside", "write_aside"]


def write_aside(path: Path, data: str | bytes) -> None:
    """Writes a whole file or leaves what was there.

    Raises:
        WorkFailed: the place cannot be written.
    """
    data = data.encode() if isinstance(data, str) else data
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.write_bytes(data)
        os.replace(aside, path)
    except OSError as error:
        raise WorkFailed(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """A private folder that becomes ``path`` when the block ends well, and vanishes if not.

    Raises:
        WorkFailed: the place cannot be written; what was at ``path`` stays.
    """
    aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        yield aside
        if path.exists():
            shutil.rmtree(path)
        os.replace(aside, path)
    except OSError as error:
        raise WorkFailed(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
