"""What has been measured, kept on disk as it grows: JSON, Markdown, HTML and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...files import write_aside
from . import html
from .result import Result, Table, file_name, plain
from .showing import markdown_table
from .work import Part

__all__ = ["HTML", "JSON", "MARKDOWN", "Store"]

FORMAT = 1
JSON, MARKDOWN, HTML, PICTURES = "evaluation.json", "evaluation.md", "evaluation.html", "pictures"


class Store:
    """The results of one folder.

    An entry is of one scope of one part: when it was measured with what (``key``), and its figures,
    tables and pictures, or why there are none. An entry whose key is asked for again is taken and
    not measured anew.

    Args:
        out: the folder.
        facts: of the run; what an earlier evaluation of other weights left is not taken over.
    """

    def __init__(self, out: Path, facts: dict[str, Any], parts: list[Part]) -> None:
        self.out, self.parts = out, parts
        self.report = facts | {"format": FORMAT, "parts": {}}
        kept = _read(out / JSON)
        if kept.get("weights") == facts["weights"]:
            names = [part.name for part in parts]
            self.report["parts"] = {
                name: entries for name, entries in kept["parts"].items() if name in names
            }

    def entry(self, part: Part, scope: str, key: dict[str, Any]) -> dict[str, Any] | None:
        """What is kept of that key, if its pictures are there still."""
        found = self.report["parts"].get(part.name, {}).get(scope)
        if found is None or found["key"] != plain(key):
            return None
        return found if all(map(self._is_there, found["pictures"])) else None

    def _is_there(self, picture: dict[str, Any]) -> bool:
        return (self.out / picture["file"]).is_file()

    def only(self, part: Part, scopes: list[str]) -> None:
        """Forgets what a part was measured of before and is not any more."""
        entries = self.report["parts"].get(part.name, {})
        for scope in [scope for scope in entries if scope not in scopes]:
            del entries[scope]

    def add(
        self, part: Part, scope: str, key: dict[str, Any], found: Result | str, seconds: float
    ) -> dict[str, Any]:
        """Keeps a result, or why there is none, and writes everything."""
        entry: dict[str, Any] = {"key": plain(key), "seconds": round(seconds, 1)}
        if isinstance(found, str):
            entry |= {"skipped": found, "figures": {}, "tables": [], "pictures": []}
        else:
            pictures = []
            for picture in found.pictures:
                file = f"{PICTURES}/{file_name(picture.name)}.png"
                write_aside(self.out / file, picture.png)
                pictures.append(
                    {"file": file, "caption": picture.caption, "pixels": picture.pixels}
                )
            entry |= {
                "skipped": None,
                "figures": plain(found.figures),
                "tables": [table._asdict() for table in found.tables],
                "pictures": pictures,
            }
        self.report["parts"].setdefault(part.name, {})[scope] = entry
        self.write()
        return entry

    def write(self) -> None:
        order = [part.name for part in self.parts]
        parts = self.report["parts"]
        self.report["parts"] = {name: parts[name] for name in order if parts.get(name)}
        write_aside(self.out / JSON, self.json() + "\n")
        write_aside(self.out / MARKDOWN, self.markdown())
        write_aside(self.out / HTML, self.html())

    def json(self) -> str:
        return json.dumps(plain(self.report), indent=2, ensure_ascii=False)

    def markdown(self) -> str:
        lines = [f"# {self._title}\n", *(f"{line}\n" for line in self._told())]
        for part, entries in self.entries():
            lines += [f"## {part.title}\n", part.about + "\n"]
            for scope, entry in entries.items():
                lines.append(f"### {part.title}: {scope}\n" if len(entries) > 1 else "")
                if entry["skipped"]:
                    lines.append(f"Not measured: {entry['skipped']}.\n")
                lines += [markdown_table(Table(**table), 0) for table in entry["tables"]]
                for each in filter(self._is_there, entry["pictures"]):
                    name = Path(each["file"]).stem
                    lines.append(f"![{name}]({each['file']})\n\n{each['caption']}\n")
                lines.append(f"{_footnote(entry)}\n")
        return "\n".join(line for line in lines if line)

    def html(self) -> str:
        sections = []
        for part, entries in self.entries():
            content = [html.paragraph(part.about)]
            for scope, entry in entries.items():
                if len(entries) > 1:
                    content.append(html.heading(scope))
                if entry["skipped"]:
                    content.append(html.paragraph(f"Not measured: {entry['skipped']}."))
                content += [html.table(Table(**table)) for table in entry["tables"]]
                content += [
                    html.figure(
                        (self.out / each["file"]).read_bytes(),
                        each["caption"],
                        pixels=each["pixels"],
                    )
                    for each in filter(self._is_there, entry["pictures"])
                ]
                content.append(html.paragraph(_footnote(entry), note=True))
            sections.append((part.title, "".join(content)))
        return html.page(self._title, sections, [html.paragraph(line) for line in self._told()])

    def entries(self) -> list[tuple[Part, dict[str, Any]]]:
        """Every part that was measured, with its entries by what they are of."""
        found = ((part, self.report["parts"].get(part.name)) for part in self.parts)
        return [(part, entries) for part, entries in found if entries]

    @property
    def _title(self) -> str:
        return f"Evaluation of {self.report['run']}"

    def _told(self) -> list[str]:
        """The run and its data, in sentences."""
        facts = self.report
        lines = [
            f"{facts['observation']}, {facts['parameters']:,} parameters, knowledge: "
            f"{', '.join(facts['knowledge']) or 'none'}. Weights {facts['weights'][:16]}…, "
            f"tzk {facts['tzk']}, torch {facts['torch']}, {facts['device']} "
            f"({facts['processor']}), {facts['threads']} threads.",
            *facts["notes"],
        ]
        for each in facts["data"]:
            counts = each["images"]
            kind = f", of the kind {each['kind']}" if each["kind"] else ""
            lines.append(
                f"{each['name']}: {each['source']}{kind}; {counts['test']:,} test images "
                f"({each['test_images']}), {counts['training']:,} training images."
            )
        lines.append(
            "± is one standard error over images or samples; of how many, stands below each part."
        )
        return lines


def _footnote(entry: dict[str, Any]) -> str:
    """How an entry was measured."""
    key = entry["key"]
    settings = ", ".join(f"{name} {_shown(value)}" for name, value in key["settings"].items())
    told = f"seed {key['seed']}, {settings}" if settings else f"seed {key['seed']}"
    return f"({told}; {entry['seconds']:.0f} s)"


def _shown(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def _read(file: Path) -> dict[str, Any]:
    """What was kept; nothing, if it cannot be read or is of another format."""
    try:
        kept = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    there = isinstance(kept, dict) and kept.get("format") == FORMAT
    return kept if there and isinstance(kept.get("parts"), dict) else {}
