"""From the rounds of benchmarks/serving.py to medians, ratios, targets and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from serving_show import Sheet, number

__all__ = ["IN_PROCESS", "capacity", "saturation", "sheets", "summary", "verdicts"]

Row = dict[str, Any]
"""One measurement: kind, target, load (``closed``, ``open`` or ``in-process``), round, figures."""

IN_PROCESS = "in process"
QUANTILES = ("p50_ms", "p95_ms", "p99_ms")
PEERS = ("fastapi", "litserve")
MANY = (16, 64)
"""Clients at which we are to be ahead of the others; more are judged when they were measured."""
FULL = 16
"""The batch of the limit that throughput is compared with: TorchServe's full one."""
OURS = (("handlers", 0.85, 6.0), ("front", 0.70, 8.0))
"""The issue's targets: the least share of the limit's throughput, and the most milliseconds that a
lone request may take longer than in process."""


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


def saturation(rows: list[Row]) -> list[Row]:
    """Of every kind and target: the throughput at saturation, and what of the limit's it is."""
    told = []
    for kind, target in dict.fromkeys((r["kind"], r["target"]) for r in rows):
        if target == IN_PROCESS:
            continue
        rates = _of_rounds(rows, lambda n, k=kind, t=target: capacity(rows, k, t, n))
        share = _of_rounds(rows, lambda n, k=kind, t=target: _share(rows, k, t, n))
        one = {"kind": kind, "target": target, "rate": _median(rates)}
        told.append(one | {"share": _median(share), "rounds": rates})
    return told


def verdicts(rows: list[Row]) -> list[dict[str, Any]]:
    """The issue's targets beside what was measured, as medians of ratios within a round.

    ``met`` is ``None`` where this run did not measure what a target is about.
    """
    told = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        for target, share, more in OURS:
            told += [
                _verdict(
                    rows,
                    f"{kind}: {target}, throughput / in process at batch {FULL}",
                    share,
                    lambda n, k=kind, t=target: _share(rows, k, t, n),
                ),
                _verdict(
                    rows,
                    f"{kind}: {target}, p50 of one client − in process at batch 1, ms",
                    -more,
                    lambda n, k=kind, t=target: _difference(
                        _one(rows, k, t, n, clients=1, of="p50_ms"),
                        _one(rows, k, IN_PROCESS, n, batch=1, of="p50_ms"),
                    ),
                ),
            ]
            measured = {r["clients"] for r in _of(rows, kind, target, "closed")}
            counts = sorted({*MANY, *(count for count in measured if count >= min(MANY))})
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
                for other in PEERS
                for count in counts
            ]
    return told


def sheets(report: dict[str, Any]) -> list[Sheet]:
    """What is shown of a report: a table of loads a kind of request, saturation, targets."""
    made = []
    for kind in dict.fromkeys(row["kind"] for row in report["summary"]):
        cells = [row for row in report["summary"] if row["kind"] == kind]
        columns = ["target", "load", "a second", "p50 ms", "p95 ms", "p99 ms", "errors"]
        made.append(Sheet(kind, [*columns, "processor ms a request"], [_cell(c) for c in cells]))
    rows = [
        [f"{r['kind']}: {r['target']}", number(r["rate"]), number(r["share"], 2)]
        for r in report["saturation"]
    ]
    columns = ["what", "a second", f"of in process at batch {FULL}"]
    made.append(Sheet("throughput at saturation", columns, rows))
    columns = ["what", "target", "measured", "rounds", "met"]
    made.append(Sheet("targets", columns, [_judged(one) for one in report["targets"]]))
    return made


def _cell(cell: Row) -> list[str]:
    rate = f"{cell['rate']:.1f} ({cell['least']:.1f} – {cell['most']:.1f})"
    late = f", {cell['late_share']:.0%} sent late" if cell["late_share"] > 0.01 else ""
    parts = [f"{part} {ms:.2f}" for part, ms in cell["cpu_ms"].items() if ms is not None]
    quantiles = [number(cell[name]) for name in QUANTILES]
    return [
        cell["target"],
        _load(cell) + late,
        rate,
        *quantiles,
        str(cell["errors"]),
        ", ".join(parts),
    ]


def _judged(one: dict[str, Any]) -> list[str]:
    rounds = " ".join(f"{value:.2f}" for value in one["rounds"])
    met = {True: "yes", False: "no", None: "not measured"}[one["met"]]
    return [one["what"], one["target"], number(one["measured"], 2), rounds, met]


def _load(cell: Row) -> str:
    if cell["load"] == "in-process":
        return f"batch {cell['batch']}"
    if cell["load"] == "open":
        return "open loop"
    return "1 client" if cell["clients"] == 1 else f"{cell['clients']} clients"


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


def _share(rows: list[Row], kind: str, target: str, number: int) -> float | None:
    """Of the limit's throughput."""
    limit = _one(rows, kind, IN_PROCESS, number, batch=FULL, of="rate")
    return _ratio(capacity(rows, kind, target, number), limit)


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _difference(one: float | None, other: float | None) -> float | None:
    return one - other if one is not None and other is not None else None


def _of_rounds(rows: list[Row], of_round: Callable[[int], float | None]) -> list[float]:
    """A figure of every round that has it."""
    values = [of_round(number) for number in sorted({row["round"] for row in rows})]
    return [value for value in values if value is not None]


def _verdict(
    rows: list[Row], what: str, bound: float, of_round: Callable[[int], float | None]
) -> dict[str, Any]:
    """``bound`` is the least that is wanted; a negative one is the most, with its sign changed."""
    known = _of_rounds(rows, of_round)
    measured, met = _median(known), None
    if measured is not None:
        met = measured >= bound if bound > 0 else measured <= -bound
    target = f"≥ {bound:g}" if bound > 0 else f"≤ {-bound:g}"
    return {"what": what, "target": target, "measured": measured, "rounds": known, "met": met}
