"""A model store: the archives of one version or several, and which of them is served.

``tzk archive`` writes version 1.0, ``NAME.mar``. ``tzk deploy`` adds ``NAME-2.0.mar`` and so on,
and says in ``versions.json`` which version is current and which was before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tzk_core.errors import WorkFailed
from tzk_core.files import write_aside

__all__ = ["FIRST", "VERSIONS", "Versions", "archive_name", "stored_versions"]

FIRST = "1.0"
"""The version that ``tzk archive`` writes, and of the HTTP contract."""

VERSIONS = "versions.json"
SHAPE = re.compile(r"[1-9]\d{0,8}\.0")


@dataclass(frozen=True)
class Versions:
    """Which version is served, and which one a rollback goes to (None: there is none)."""

    current: str = FIRST
    previous: str | None = None

    @classmethod
    def read(cls, store: Path) -> Versions:
        """Of a store; the first version alone where nothing was deployed.

        Raises:
            WorkFailed: the file is not what was written.
        """
        try:
            told = json.loads((store / VERSIONS).read_text())
            current, previous = told["current"], told["previous"]
            for version in (current, previous or FIRST):
                if not SHAPE.fullmatch(version):
                    raise ValueError(version)
        except FileNotFoundError:
            return cls()
        except (ValueError, LookupError, TypeError) as error:
            raise WorkFailed(
                f"{store / VERSIONS} cannot be understood: delete it, and tzk archive and tzk "
                "serve start again with version 1.0"
            ) from error
        return cls(current, previous)

    def write(self, store: Path) -> None:
        """Whole or not at all."""
        write_aside(store / VERSIONS, json.dumps(asdict(self), indent=2) + "\n")


def archive_name(endpoint: str, version: str = FIRST) -> str:
    """The file name of an endpoint's archive."""
    return f"{endpoint}.mar" if version == FIRST else f"{endpoint}-{version}.mar"


def stored_versions(store: Path, endpoints: Iterable[str]) -> dict[str, list[Path]]:
    """The archives in a store by their version."""
    found: dict[str, list[Path]] = {}
    for endpoint in endpoints:
        if (store / archive_name(endpoint)).is_file():
            found.setdefault(FIRST, []).append(store / archive_name(endpoint))
        for path in store.glob(f"{endpoint}-*.mar"):
            version = path.name.removeprefix(f"{endpoint}-").removesuffix(".mar")
            if SHAPE.fullmatch(version):
                found.setdefault(version, []).append(path)
    return found
