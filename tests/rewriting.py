"""An archive with other content, as an accident or somebody's hand makes it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["rewritten"]


def rewritten(archive: Path, target: Path, contents: Mapping[str, bytes | str]) -> Path:
    """``archive`` at ``target`` (which may be the same), with other ``contents`` of some files."""
    with zipfile.ZipFile(archive) as old:
        files = {name: old.read(name) for name in old.namelist()}
    assert contents.keys() <= files.keys()  # a file that is not there changes nothing
    with zipfile.ZipFile(target, "w") as new:
        for name, data in {**files, **contents}.items():
            new.writestr(name, data)
    return target
