"""What benchmarks/flows.py found, as Markdown.

    python benchmarks/flows_page.py runs/a/flows-cpu.json runs/b/flows-cpu.json

prints the page of tables from several calls; of two of one job, size and batch the later counts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from profiles import largest

__all__ = ["page", "titled"]

PRECISIONS = ("float32", "bfloat16")
BESIDE = "normflows eager"  # what the ratios of the short tables are to
TITLES = {"nll": "NLL", "sample": "sampling", "train": "training step"}


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
def flows_page(files: tuple[Path, ...]) -> None:
    """Print the page of the tables in FILES."""
    reports = [json.loads(file.read_text()) for file in files]
    for name in ("device", "threads", "torch"):
        if len({str(report[name]) for report in reports}) > 1:
            raise click.UsageError(f"the files differ in {name}: make a page of each")
    tables = {
        (titled(table), table["job"]): table for report in reports for table in report["tables"]
    }
    click.echo(page(reports[-1] | {"tables": list(tables.values())}), nl=False)


def page(report: dict[str, Any]) -> str:
    """All tables: a short one of each size and batch, every variant, and the profiles."""
    peaks = " and ".join(f"{_range(report, one)} in {one}" for one in PRECISIONS)
    lines = [
        f"{report['device']}, {report['threads']} threads, torch {report['torch']}; a plain matrix "
        f"product reaches {peaks} TFLOP/s, the best of a table's rounds.",
        "",
        *_summaries(report["tables"]),
        *_timings(report["tables"]),
    ]
    profiles = _profiles(report["tables"])
    return "\n".join([*lines, *(["", *profiles] if profiles else [])]) + "\n"


def _summaries(tables: list[dict[str, Any]]) -> list[str]:
    """A table of each size and batch: jobs side by side, both precisions in a cell."""
    lines = []
    for title in dict.fromkeys(map(titled, tables)):
        jobs = {table["job"]: table for table in tables if titled(table) == title}
        lines += _header([title, *(TITLES[job] for job in jobs)])
        names = [(row["library"], row["mode"]) for table in jobs.values() for row in table["rows"]]
        for library, mode in dict.fromkeys(names):
            cells = [_cell(table, library, mode) for table in jobs.values()]
            lines.append(_line([f"{library}, {mode}", *cells]))
        lines += [
            _line([f"the best of ours against {peer}", *(_best(t, peer) for t in jobs.values())])
            for peer in dict.fromkeys(p for t in jobs.values() for p in t["times_as_fast"])
        ]
        lines += [
            "",
            f"ms an image, float32 / bfloat16; in brackets times as fast as {BESIDE} in its better "
            "precision.",
            "",
        ]
    return lines


def _cell(table: dict[str, Any], library: str, mode: str) -> str:
    """Both precisions of a variant, or that there is none."""
    ratios = table["times_as_fast"].get(BESIDE, {})
    told = []
    for row in table["rows"]:
        if (row["library"], row["mode"]) == (library, mode):
            times = ratios.get(row["variant"])
            told.append(f"{row['ms_an_image']:.3g}" + ("" if times is None else f" ({times:.2f})"))
    return " / ".join(told) or "–"


def _best(table: dict[str, Any], peer: str) -> str:
    ratios = {k: v for k, v in table["times_as_fast"].get(peer, {}).items() if k != "precision"}
    if not ratios:
        return "–"
    name = max(ratios, key=ratios.get)
    return f"{ratios[name]:.2f}, {name.partition(' ')[2]}"


def _range(report: dict[str, Any], precision: str) -> str:
    peaks = [table["peak_tflops"][precision] for table in report["tables"]]
    return " to ".join(dict.fromkeys(f"{one:.3g}" for one in (min(peaks), max(peaks))))


def _timings(tables: list[dict[str, Any]]) -> list[str]:
    peers = list(dict.fromkeys(peer for table in tables for peer in table["times_as_fast"]))
    titles = ["L × steps, width, batch", "job", "variant", "graphs", "ms an image"]
    titles += ["share of the peak", *(f"times as fast as {peer}" for peer in peers)]
    lines = _header(titles)
    for table in tables:
        ratios = table["times_as_fast"]
        for row in table["rows"]:
            against = [ratios.get(peer, {}).get(row["variant"]) for peer in peers]
            cells = [
                titled(table),
                table["job"],
                row["variant"],
                "" if row["graphs"] is None else str(row["graphs"]),
            ]
            cells += [f"{row['ms_an_image']:.3g}", f"{100 * row['share_of_peak']:.1f} %"]
            cells += ["" if one is None else f"{one:.2f}" for one in against]
            lines.append(_line(cells))
    return lines


def _profiles(tables: list[dict[str, Any]]) -> list[str]:
    titles = ["L × steps, width, batch", "job", "variant", "operators a call", "multiplying"]
    titles += ["multiplying alone", "the largest shares"]
    lines = [
        _line([titled(table), table["job"], row["variant"], *_profile_cells(row["profile"])])
        for table in tables
        for row in table["rows"]
        if row["profile"]
    ]
    return [*_header(titles), *lines] if lines else []


def _profile_cells(found: dict[str, Any]) -> list[str]:
    shares = [f"{100 * found[name]:.0f} %" for name in ("multiply", "multiply_alone")]
    return [str(found["operators"]), *shares, largest(found)]


def _header(titles: list[str]) -> list[str]:
    return [_line(titles), "|" + "---|" * len(titles)]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def titled(table: dict[str, Any]) -> str:
    return f"{table['levels']} × {table['steps']}, {table['width']}, {table['batch']}"


if __name__ == "__main__":
    flows_page()
