"""One line of JSON for each request: no key, no header, no body."""

from __future__ import annotations

import json
import logging
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

__all__ = ["AccessLog"]

LONGEST_PATH = 200
MOST_BYTES = 50 * 2**20
KEPT = 4


class AccessLog:
    """Writes to a file, which is exchanged for a new one at 50 MiB (four old ones are kept).

    Args:
        target: the file, or ``-`` for standard output.
    """

    def __init__(self, target: str) -> None:
        if target == "-":
            self._handler: logging.Handler = logging.StreamHandler(sys.stdout)
        else:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            self._handler = RotatingFileHandler(target, maxBytes=MOST_BYTES, backupCount=KEPT)

    def write(self, **members: Any) -> None:
        """One line: the time, then ``members``; those that are ``None`` are left out."""
        now = time.time()
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
            + f".{int(now % 1 * 1e3):03d}Z"
        }
        line |= {name: value for name, value in members.items() if value is not None}
        if "path" in line:
            line["path"] = line["path"][:LONGEST_PATH]
        # ASCII, so that nothing that a caller sends can break a line or a terminal.
        text = json.dumps(line)
        self._handler.handle(logging.LogRecord("tzk.access", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        self._handler.close()
