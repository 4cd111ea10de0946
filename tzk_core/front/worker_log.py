"""What the workers themselves say, read from TorchServe's model log."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["failures", "said_last"]

# 2026-11-25T04:30:58,403 [INFO ] W-9000-tzk_nll_1.0-stdout MODEL_LOG - Traceback (most …
LINE = re.compile(
    r"^\S+ \[\w+ *\] W-\d+-(?P<model>\w+)_(?P<version>[\d.]+)-std(?:out|err) "
    r"MODEL_LOG - (?P<text>.*)$"
)
READ_BYTES = 1 << 20
"""From the end: the log of a server that has run for months is not read whole."""
DIED = "Backend worker process died"
TRACEBACK = "Traceback (most recent call last):"
# What TorchServe raises in place of a RuntimeError that it has just logged itself.
STAND_IN = re.compile(r"RuntimeError: \d{3} - ")
UNPACKED = re.compile(r"/\S*/models/[0-9a-f]{32}/")


def failures(log: Path, *, since: int = 0, version: str | None = None) -> dict[str, str]:
    """The Python error of each model whose worker died of one, by the model's name.

    Read from byte ``since`` of the log on, and of one version's workers where one is given. The
    error is the last line or lines of the worker's traceback, such as ``ModelUnavailable: …``.
    """
    errors = {}
    for model, lines in _by_model(log, since, version).items():
        if any(line.startswith(DIED) for line in lines):
            error = _error(lines)
            if error:
                errors[model] = error
    return errors


def said_last(log: Path, model: str, lines: int = 12) -> str:
    """The last lines of a model's worker."""
    return "\n".join(_by_model(log).get(model, [])[-lines:])


def _by_model(log: Path, since: int = 0, version: str | None = None) -> dict[str, list[str]]:
    if not log.is_file():
        return {}
    said: dict[str, list[str]] = {}
    with log.open("rb") as file:
        size = log.stat().st_size
        # A log that has become shorter has been begun anew.
        file.seek(max(since if since <= size else 0, size - READ_BYTES))
        text = file.read().decode("utf-8", "replace")
    for line in text.splitlines():
        match = LINE.match(line)
        if match and version in (None, match["version"]):
            said.setdefault(match["model"], []).append(match["text"])
    return said


def _error(lines: list[str]) -> str | None:
    """The first death's error, without its module's name and the worker's own folder."""
    died = next(i for i, line in enumerate(lines) if line.startswith(DIED))
    starts = [i for i, line in enumerate(lines) if line == TRACEBACK]
    # The traceback of this death follows the line that tells of it, up to the next process's.
    after = [i for i in starts if i > died and not _restarted(lines[died:i])]
    before = [i for i in starts if i < died]
    found = _exception(lines, after[-1]) if after else None
    if found and STAND_IN.match(found) and before:
        found = _exception(lines, before[-1]) or found
    if not found:
        return None
    # Where this worker unpacked its archive says nothing, and hides that several say the same.
    found = UNPACKED.sub("", found)
    return re.sub(r"^(?:\w+\.)+(?=\w+(?::|$))", "", found)


def _restarted(lines: list[str]) -> bool:
    return any(line.startswith("Torch worker started") for line in lines)


def _exception(lines: list[str], start: int) -> str | None:
    """What stands below the indented lines of the traceback that begins at ``start``."""
    end = start + 1
    while end < len(lines) and lines[end].startswith(" "):
        end += 1
    return lines[end].strip() if end < len(lines) else None
