"""Log lines as JSON, one object a line, with the ids of the requests that they are about.

The environment variable TZK_LOGS turns them on: ``-`` for standard output, which TorchServe keeps
in model_log.log and rotates, or a file, to which every process appends (``logrotate`` may move it).
No line holds image data, a key or a header other than the request's id.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from logging.handlers import WatchedFileHandler
from types import TracebackType
from typing import Any

__all__ = ["VARIABLE", "JsonFormatter", "about", "configure", "without_data"]

VARIABLE = "TZK_LOGS"
LOGGERS = ("tzk_core", "tzk_handlers")

LONGEST_TEXT = 2_000
LONGEST_TRACEBACK = 20_000

BYTES = re.compile(r"b(?:ytearray\(b)?(['\"])(?:\\.|(?!\1)[^\\])*\1\)?")
# What a key, or a piece of an image in base64, looks like: long, of letters and digits. Names in
# CUDA's errors are long too, but have no digits.
OPAQUE = re.compile(r"(?<![\w+=-])(?=[A-Za-z_+=-]*\d)(?=[\d_+=-]*[A-Za-z])[\w+=-]{24,}")

_ABOUT: ContextVar[dict[str, Any]] = ContextVar("about")


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON.

    ``extra={"fields": {...}}`` adds members of its own; what ``about`` says is added too.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": without_data(record.getMessage()),
        }
        line |= _ABOUT.get({})
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = _traceback(record.exc_info)
        # ASCII, so that no control character and no encoding breaks a line.
        return json.dumps(line, default=str)


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Every record of this thread inside it has ``fields`` too."""
    token = _ABOUT.set(_ABOUT.get({}) | fields)
    try:
        yield
    finally:
        _ABOUT.reset(token)


def configure() -> None:
    """Sends tzk's records to where TZK_LOGS says, as JSON; without it nothing changes."""
    target = os.environ.get(VARIABLE)
    if not target:
        return
    handler = logging.StreamHandler(sys.stdout) if target == "-" else WatchedFileHandler(target)
    handler.setFormatter(JsonFormatter())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for old in logger.handlers:
            old.close()
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def without_data(text: str) -> str:
    """``text`` without bytes and without what may be a key or an image, and not too long.

    >>> without_data("no image: b'GIF8' of key 8f14e45fceea167a5a36dedd4bea2543")
    'no image: <bytes> of key <32 characters>'
    """
    text = BYTES.sub("<bytes>", text[: 10 * LONGEST_TEXT])
    text = OPAQUE.sub(lambda match: f"<{len(match[0])} characters>", text)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " …"


def _utc(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def _traceback(
    exc_info: tuple[type[BaseException], BaseException, TracebackType | None],
) -> str:
    """The traceback with its end kept, where the error is; only code is told as it stands."""
    parts = []
    for part in traceback.format_exception(*exc_info):
        # A frame is indented and holds paths and code; what is not is an error's own words.
        parts.append(part if part.startswith("  ") else without_data(part))
    text = "".join(parts)
    return text if len(text) <= LONGEST_TRACEBACK else "… " + text[-LONGEST_TRACEBACK:]
