"""The results of an experiment as Markdown."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .rows import HEADER

__all__ = ["result_markdown"]


def result_markdown(report: dict[str, Any], *, level: int, pictures: str) -> str:
    """A section: what was run, the table, the notes, the pictures.

    Args:
        report: as :class:`~tzk_core.reproduction.store.Store` keeps it.
        level: of the heading.
        pictures: stands before the names of pictures' files.
    """
    lines = [f"{'#' * level} {report['title']}, scale {report['scale']}", ""]
    lines += [*_told(report), ""]
    rows = [row for part in report["parts"].values() for row in part["rows"]]
    if rows:
        lines += [_line(HEADER), "|" + "---|" * len(HEADER)]
        lines += [_line(row["cells"]) for row in rows]
        lines.append("")
    for part in report["parts"].values():
        lines += [line for note in part["notes"] for line in (note, "")]
    for part in report["parts"].values():
        for each in part["pictures"]:
            caption = each["caption"].replace("[", "(").replace("]", ")")
            lines += [f"![{caption}]({pictures}{each['file']})", "", caption, ""]
    return "\n".join(lines)


def _told(report: dict[str, Any]) -> list[str]:
    counts = Counter(
        row["verdict"]["word"] for part in report["parts"].values() for row in part["rows"]
    )
    verdicts = ", ".join(f"{count} {word}" for word, count in counts.items()) or "nothing yet"
    missing = [name for name in report["order"] if name not in report["parts"]]
    found = [
        f"Rows: {verdicts}." + (f" Still to come: {', '.join(missing)}." if missing else ""),
        *([f"`{report['command']}`"] if "command" in report else []),  # older results have none
        f"Measured with seed {report['seed']} on {report['device']} ({report['processor']}), "
        f"{report['threads']} threads, tzk {report['tzk']}, torch {report['torch']}. ± is one "
        "standard error over images, samples or rounds.",
    ]
    if report["stand_ins"]:
        found.append(f"Stand-ins: {', '.join(report['stand_ins'])}.")
    if report["changed"]:
        found.append(f"Changed by --set: {', '.join(report['changed'])}.")
    for name, run in report["runs"].items():
        stages = "; ".join(f"{train} {steps:,} × {batch}" for train, steps, batch in run["steps"])
        images = run["images"] or {}
        count = f", {images['training']:,} training images" if images else ""
        found.append(
            f"Run {name}: {run['parameters']:,} parameters, stages (steps × images) {stages}"
            f"{count}, seed {run['seed']}, {run['seconds']:,} s{_team(run)}."
            + (f" Smaller than the paper's: {'; '.join(run['smaller'])}." if run["smaller"] else "")
        )
    return [line for each in found for line in (each, "")][:-1]


def _team(run: dict[str, Any]) -> str:
    """By whom a run was trained; nothing where that is not known."""
    processes, threads = run.get("processes"), run.get("threads")
    if not processes or not threads:
        return ""
    return f" by {processes} process{'es' if processes > 1 else ''} of {threads} thread" + (
        "s" if threads > 1 else ""
    )


def _line(texts: list[str]) -> str:
    # A bar would end the cell.
    return "| " + " | ".join(text.replace("|", "∣") for text in texts) + " |"
