"""The SHA-256 of each archive in a model store, so that one that was changed is refused.

``tzk archive`` and ``tzk deploy`` note it in ``archives.json`` when they write an archive; ``tzk
serve`` and ``tzk deploy`` look before they load one. An archive without a note was made or put
there by hand: it is served, and the log says that nothing is known of it. The file is as easily
changed as an archive is: this finds accidents and what was copied in part, not somebody who may
write to the store.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from tzk_core.errors import ModelUnavailable, WorkFailed
from tzk_core.files import write_aside
from tzk_core.hub import sha256

__all__ = ["ARCHIVES", "check", "forget", "note"]

ARCHIVES = "archives.json"

log = logging.getLogger(__name__)


def note(store: Path, files: Iterable[Path]) -> None:
    """These archives of the store are as they should be."""
    _write(store, _noted(store) | {file.name: sha256(file) for file in files})


def forget(store: Path, files: Iterable[Path]) -> None:
    """These archives of the store are gone."""
    gone = {file.name for file in files}
    _write(store, {name: digest for name, digest in _noted(store).items() if name not in gone})


def check(store: Path, name: str) -> None:
    """Raises unless an archive is what was noted, or nothing was noted of it.

    Raises:
        ModelUnavailable: it was changed.
        WorkFailed: the notes cannot be understood.
    """
    wanted = _noted(store).get(name)
    if wanted is None:
        log.warning("%s has no SHA-256 in %s: it is loaded as it is", name, store / ARCHIVES)
    elif sha256(store / name) != wanted:
        raise ModelUnavailable(
            f"{store / name} is not the file that was archived (its SHA-256 differs): archive the "
            f"run again, or take {name} out of {ARCHIVES} if the change is yours"
        )


def _noted(store: Path) -> dict[str, str]:
    try:
        told = json.loads((store / ARCHIVES).read_text())
        return {str(name): str(digest) for name, digest in told.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise WorkFailed(
            f"{store / ARCHIVES} cannot be understood: run tzk archive again, or delete the file "
            "to have the archives loaded as they are"
        ) from error


def _write(store: Path, noted: dict[str, str]) -> None:
    write_aside(store / ARCHIVES, json.dumps(dict(sorted(noted.items())), indent=2) + "\n")
