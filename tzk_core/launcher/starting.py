"""How long workers may take until they are ready, by the backend that their archive names."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

__all__ = ["COMPILE_SECONDS", "START_SECONDS", "backend_of", "seconds_to_start"]

START_SECONDS = 120.0
"""Where neither an option nor the configuration says anything."""

COMPILE_SECONDS = 900.0
"""For workers that compile: 50 s for one alone on a core, and a server's compile all at once."""

MANIFEST = "MAR-INF/MANIFEST.json"


def seconds_to_start(archive: Path, usual: float) -> float:
    """``usual``, or as long as compiling takes where the archive's workers begin with that."""
    return max(usual, COMPILE_SECONDS) if backend_of(archive) == "compile" else usual


def backend_of(archive: Path) -> str:
    """The backend that an archive's manifest names.

    It is torch for one that cannot be read: what is wrong with it is told by what loads it.
    """
    try:
        with zipfile.ZipFile(archive) as whole:
            return json.loads(whole.read(MANIFEST))["tzk"]["backend"]
    except (OSError, zipfile.BadZipFile, LookupError, ValueError, TypeError):
        return "torch"
