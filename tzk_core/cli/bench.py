"""``tzk bench``: which backend serves a run fastest on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tzk_core.cli.inputs import device_option

__all__ = ["bench"]

NAMES = ("torch", "graphs", "bf16", "compile", "onnx")  # without importing torch for --help


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(NAMES),
    help="Measure this beside torch; may be given again  [default: all that the device has]",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=click.IntRange(1, 256),
    default=(1, 16),
    show_default=True,
    help="Requests answered by one call; may be given again.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="Of each backend, endpoint and batch.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of the table.")
@device_option
def bench(run, backends, batches, seconds, as_json, device) -> None:
    """Time what RUN's model is asked for with each backend, and say which to archive with.

    It runs in this process what a server's workers run. A backend that cannot run here is named
    with the reason. docs/performance.md says what the figures mean.
    """
    from tzk_core.benchmark import bench as measure

    report = measure(
        run,
        device=device,
        backends=backends,
        batches=batches,
        seconds=seconds,
        progress=lambda said: click.echo(said, err=True),
    )
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
        return
    _show(report)


def _show(report: dict[str, Any]) -> None:
    from tzk_core.evaluation.report.result import Table
    from tzk_core.evaluation.report.showing import console, rich_table

    out, on = console(), report["conditions"]
    click.echo(f"{on['processor']}, {on['device']}, {on['threads']} threads, torch {on['torch']}")
    header = ["backend", "endpoint", "batch", "ms a request", "images/s", "times as fast as torch"]
    header += ["log p apart, nats", "pixels apart", "agrees"]
    rows = [
        [
            row["backend"],
            row["endpoint"],
            str(row["batch"]),
            f"{row['ms']:.3g}",
            f"{row['images_per_s']:.4g}",
            f"{row['times_as_fast']:.2f}",
            _cell(row["log_p_apart_nats"], "{:.1e}"),
            _cell(row["pixels_apart"], "{:.2%}"),
            "yes" if row["agrees"] else "no",
        ]
        for row in report["rows"]
    ]
    out.print(rich_table(Table("", header, rows)))
    header = ["backend", "ready after, s", "endpoint", "first request, ms", "2nd to 10th, ms"]
    rows = [
        [name, f"{start['ready_s']:.1f}", endpoint]
        + [f"{start[endpoint][which]:.3g}" for which in ("first_ms", "next_ms")]
        for name, start in report["starts"].items()
        for endpoint in start
        if endpoint != "ready_s"
    ]
    out.print(rich_table(Table("", header, rows)))
    for name, reason in report["left_out"].items():
        click.echo(f"{name} left out: {reason}")
    if report["busy"]:
        click.echo(f"measured while {report['busy']}: the figures are rough")
    click.echo(f"pick {report['why'].replace('RUN', report['run'])}")


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
