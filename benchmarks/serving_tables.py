"""From the rounds of benchmarks/serving.py to medians, ratios, targets and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from rich.table import Table

__all__ = ["capacity", "summary", "tables", "verdicts"]

Row = dict[str, Any]
"""One measurement: kind, target, load (``closed``, ``open`` or ``in-process``), round, figures."""

QUANTILES = ("p50_ms", "p95_ms", "p99_ms")
MANY = 16
"""Clients from which on batching servers must be ahead."""


def capacity(rows: Iterable[Row], kind: str, target: str, number: int) -> float | None:
    """Throughput at saturation in one round: the most a second at any number of clients."""
    rates = [r["rate"] for r in _of(rows, kind, target, "closed") if r["round"] == number]
    return max(rates, default=None)


def summary(rows: list[Row]) -> list[Row]:
    """Medians over the rounds of every cell, with the least and the most of its rates."""
    cells: dict[tuple, list[Row]] = {}
    for row in rows:
        key = (row["kind"], row["target"], row["load"], row["clients"], row["batch"])
        cells.setdefault(key, []).append(row)
    told = []
    for (kind, target, load, clients, batch), cell in cells.items():
        one = {"kind": kind, "target": target, "load": load, "clients": clients, "batch": batch}
        one |= {name: _median(r[name] for r in cell) for name in ("rate", *QUANTILES)}
        one |= {"least": min(r["rate"] for r in cell), "most": max(r["rate"] for r in cell)}
        one["errors"] = sum(r["errors"] for r in cell)
        one["late_share"] = max(r["late_share"] for r in cell)
        parts = dict.fromkeys(part for r in cell for part in r["cpu_ms"])
        one["cpu_ms"] = {part: _median(r["cpu_ms"].get(part) for r in cell) for part in parts}
        told.append(one)
    return told


def verdicts(rows: list[Row]) -> list[dict[str, Any]]:
    """The issue's targets beside what was measured, as medians of ratios within a round."""
    told = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        for target, share, more in (("handlers", 0.85, 6.0), ("front", 0.70, 8.0)):
            told += [
                _verdict(
                    rows,
                    f"{kind}: {target}, throughput / in process at batch 16",
                    share,
                    lambda n, k=kind, t=target: _ratio(
                        capacity(rows, k, t, n), _one(rows, k, "in process", n, batch=16, of="rate")
                    ),
                ),
                _verdict(
                    rows,
                    f"{kind}: {target}, p50 of one client − in process at batch 1, ms",
                    -more,
                    lambda n, k=kind, t=target: _difference(
                        _one(rows, k, t, n, clients=1, of="p50_ms"),
                        _one(rows, k, "in process", n, batch=1, of="p50_ms"),
                    ),
                ),
            ]
            clients = {r["clients"] for r in _of(rows, kind, target, "closed")}
            for other in ("fastapi", "litserve"):
                told += [
                    _verdict(
                        rows,
                        f"{kind}: {target} / {other}, throughput at {count} clients",
                        1.0,
                        lambda n, k=kind, t=target, o=other, c=count: _ratio(
                            _one(rows, k, t, n, clients=c, of="rate"),
                            _one(rows, k, o, n, clients=c, of="rate"),
                        ),
                    )
                    for count in sorted(clients)
                    if count >= MANY
                ]
    return [one for one in told if one is not None]


def tables(report: dict[str, Any]) -> list[Table]:
    """What the terminal shows."""
    made = []
    for kind in dict.fromkeys(row["kind"] for row in report["summary"]):
        cells = [row for row in report["summary"] if row["kind"] == kind]
        table = Table("target", "load", "a second", "p50 ms", "p95 ms", "p99 ms", title=kind)
        table.add_column("errors")
        table.add_column("processor ms a request")
        for cell in cells:
            rate = f"{cell['rate']:.1f} ({cell['least']:.1f} – {cell['most']:.1f})"
            late = f", {cell['late_share']:.0%} sent late" if cell["late_share"] > 0.01 else ""
            parts = [f"{part} {ms:.2f}" for part, ms in cell["cpu_ms"].items() if ms is not None]
            table.add_row(
                cell["target"],
                _load(cell) + late,
                rate,
                *(_number(cell[name]) for name in QUANTILES),
                str(cell["errors"]),
                ", ".join(parts),
            )
        made.append(table)
    table = Table("what", "target", "measured", "rounds", "met", title="targets")
    for one in report["targets"]:
        rounds = " ".join(f"{value:.2f}" for value in one["rounds"])
        met = "yes" if one["met"] else "no"
        table.add_row(one["what"], one["target"], f"{one['measured']:.2f}", rounds, met)
    made.append(table)
    return made


def _load(cell: Row) -> str:
    if cell["load"] == "in-process":
        return f"batch {cell['batch']}"
    if cell["load"] == "open":
        return "open loop"
    return "1 client" if cell["clients"] == 1 else f"{cell['clients']} clients"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _of(rows: Iterable[Row], kind: str, target: str, load: str) -> list[Row]:
    wanted = (kind, target, load)
    return [row for row in rows if (row["kind"], row["target"], row["load"]) == wanted]


def _one(
    rows: list[Row], kind: str, target: str, number: int, *, of: str, clients=None, batch=None
) -> float | None:
    wanted = (kind, target, number, clients, batch)
    for row in rows:
        key = (row["kind"], row["target"], row["round"], row["clients"], row["batch"])
        if key == wanted and row["load"] != "open":
            return row[of]
    return None


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _difference(one: float | None, other: float | None) -> float | None:
    return one - other if one is not None and other is not None else None


def _verdict(
    rows: list[Row], what: str, bound: float, of_round: Callable[[int], float | None]
) -> dict[str, Any] | None:
    """``bound`` is the least that is wanted; a negative one is the most, with its sign changed."""
    values = [of_round(number) for number in sorted({row["round"] for row in rows})]
    known = [value for value in values if value is not None]
    if not known:
        return None
    measured = median(known)
    met = measured >= bound if bound > 0 else measured <= -bound
    target = f"≥ {bound:g}" if bound > 0 else f"≤ {-bound:g}"
    return {"what": what, "target": target, "measured": measured, "rounds": known, "met": met}
