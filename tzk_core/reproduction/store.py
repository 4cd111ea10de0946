"""What an experiment has found, kept on disk as its parts finish: NAME.json, NAME.md, pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..evaluation.report.result import plain
from ..files import write_aside
from .markdown import result_markdown
from .rows import Outcome, Row, cells

__all__ = ["FORMAT", "PICTURES", "Store", "read_result"]

FORMAT = 1
PICTURES = "pictures"


class Store:
    """The results of one experiment.

    A part that is kept under the same key is taken, not measured again.

    Args:
        out: the folder.
        name: of the experiment.
        facts: of the machine, the data and what was changed.
        order: the parts' names.
    """

    def __init__(self, out: Path, name: str, facts: dict[str, Any], order: list[str]) -> None:
        self.out, self.file = out, out / f"{name}.json"
        self.order = order
        kept = read_result(self.file) or {}
        if kept and kept["scale"] != facts["scale"]:
            raise UsageError(
                f"{self.file} holds results of scale {kept['scale']}; name another --out"
            )
        self.report = plain(facts) | {"format": FORMAT, "experiment": name}
        self.report["runs"] = kept.get("runs", {})
        self.report["parts"] = {n: p for n, p in kept.get("parts", {}).items() if n in order}

    def has(self, part: str, key: dict[str, Any]) -> bool:
        """Whether a part was measured under that key and its pictures are there."""
        found = self.report["parts"].get(part)
        if found is None or found["key"] != plain(key):
            return False
        return all((self.out / each["file"]).is_file() for each in found["pictures"])

    def told(self, run: str, facts: dict[str, Any]) -> None:
        """Keeps what is known of a run."""
        self.report["runs"][run] = plain(facts)
        self.write()

    def add(self, part: str, key: dict[str, Any], found: Outcome, seconds: float) -> None:
        """Keeps what a part found, and writes everything."""
        pictures = []
        for picture in found.pictures:
            file = f"{PICTURES}/{picture.name}.png"
            write_aside(self.out / file, picture.png)
            pictures.append({"file": file, "caption": picture.caption})
        self.report["parts"][part] = {
            "key": plain(key),
            "seconds": round(seconds, 1),
            "rows": [_row(row) for row in found.rows],
            "pictures": pictures,
            "notes": found.notes,
        }
        self.write()

    def write(self) -> None:
        parts = self.report["parts"]
        self.report["parts"] = {name: parts[name] for name in self.order if name in parts}
        write_aside(self.file, json.dumps(self.report, indent=2, ensure_ascii=False) + "\n")
        text = result_markdown(self.report, level=1, pictures="")
        write_aside(self.file.with_suffix(".md"), text)


def read_result(file: Path) -> dict[str, Any] | None:
    """What :class:`Store` wrote; None if there is nothing, or nothing of this format."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    there = isinstance(found, dict) and found.get("format") == FORMAT
    return found if there and isinstance(found.get("parts"), dict) else None


def _row(row: Row) -> dict[str, Any]:
    return plain(row) | {"cells": cells(row)}
