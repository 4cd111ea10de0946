"""Half an hour at 70 % of what the server can do: errors, latency, and whether memory grows.

    pip install -c constraints.txt '.[serve]'
    python benchmarks/soak.py --json soak.json --markdown soak.md
    python benchmarks/soak.py runs/digits --minutes 120 --share 0.8
    python benchmarks/soak.py --quick --minutes 2

The server is started as `tzk serve` does. What it can do is how many requests 16 clients get
answered that each ask again at once (a closed loop of `--capacity-seconds`). Then requests arrive
at random times (Poisson, an open loop) at `--share` of that through the front, scoring and sampling
by turns, while the memory of front, TorchServe and workers is read 360 times.

Told are errors by kind, percentiles of the latency, and the slope of each part's memory (what the
processes have to themselves, USS; PSS and RSS beside it) with a 95 % confidence interval that
respects that one sample is much like the one before (serving_trend.py). The first fifth is left
out, as heaps and caches fill then. Memory is `flat` if growth of `--most` of it an hour or more is
excluded, it `grows` if that is not and standing still is, and else it is `undecided`: the run was
too short. All parts together decide; under ten minutes nothing is decided. Exit code 1: an answer
was not 200, a worker was replaced, memory grows, or the run did not come to its end.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np
import serving_load
from prometheus_client.parser import text_string_to_metric_families
from serving_memory import JUDGED, KINDS, TOTAL, Watch, trends
from serving_processes import machine
from serving_requests import ENDPOINT_OF, model_for, requests_of
from serving_show import Sheet, markdown, number, show
from serving_targets import Place, ours, parts_of

from tzk_core.cli.script import Script
from tzk_core.errors import WorkFailed
from tzk_core.files import write_aside
from tzk_core.launcher.signals import signals_end

__all__ = ["sheets", "soak", "wrong"]

CLIENTS = 16
"""As many as a batch holds: with more, answers take longer and are not many more."""
SAMPLES = 360
"""Every 5 s of half an hour."""
SHORTEST = 1.0
"""Seconds between two: a sample takes time of the processors that serve."""
SETTLE = 0.2
PERCENTILES = (50, 95, 99, 99.9)


@click.command(cls=Script)
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--minutes", default=30.0, show_default=True, type=click.FloatRange(min=0.5))
@click.option("--share", default=0.7, show_default=True, help="of capacity")
@click.option("--capacity-seconds", default=15.0, show_default=True, help="and as many to warm up")
@click.option(
    "--most",
    default=0.01,
    show_default=True,
    help="growth an hour, as a share of the memory, that is excluded where it is flat; one of 0.01 "
    "doubles in three days, and half an hour shows no less",
)
@click.option("--data", default="builtin/mnist", show_default=True, help="of the test images")
@click.option("--images", default=500, show_default=True, type=click.IntRange(min=1))
@click.option("--threads", default=1, show_default=True, help="of torch in each process")
@click.option("--device", default="cpu", show_default=True)
@click.option("--config", type=click.Path(path_type=Path), help="TorchServe's configuration")
@click.option(
    "--generator",
    type=click.Choice(["auto", *serving_load.GENERATORS]),
    default="auto",
    show_default=True,
)
@click.option("--seed", default=0, show_default=True)
@click.option("--quick", is_flag=True, help="a tiny model")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="where the report goes")
@click.option("--markdown", "markdown_file", type=click.Path(path_type=Path), help="the tables")
def soak(run, config, device, threads, json_file, markdown_file, **options):
    """Errors, latency and memory of a server under a load that lasts."""
    report: dict[str, Any] = {
        "machine": machine(threads),
        "settings": options,
        "generator": serving_load.generator_named(options["generator"]),
    }
    whole = False
    with signals_end(), tempfile.TemporaryDirectory(prefix="tzk-soak-") as scratch:
        run, images, report["model"] = model_for(run, Path(scratch), options)
        by_kind = [requests_of(kind, images) for kind in ENDPOINT_OF]
        requests = [one for together in zip(*by_kind) for one in together]
        with ours(Place(run, Path(scratch), device, threads), config) as serving:
            rate = _capacity(serving.url, requests, report, options)
            report |= _soaked(serving, requests, rate, report, options)
        whole = True
    if not whole:
        raise WorkFailed("ended before its end: nothing is known")
    text = f"{markdown(sheets(report))}\n{_told(report)}\n"
    for file, content in ((json_file, json.dumps(report, indent=2) + "\n"), (markdown_file, text)):
        if file is not None:
            write_aside(file, content)
    show(sheets(report))
    click.echo(_told(report))
    faults = wrong(report)
    if faults:
        raise WorkFailed("; ".join(faults))


def wrong(report: dict[str, Any]) -> list[str]:
    """What makes the run a failure, in words."""
    faults = []
    if report["load"]["errors"]:
        faults.append(f"{report['load']['errors']} requests were not answered with 200")
    if report["replaced"]:
        faults.append(f"{report['replaced']} processes were replaced")
    total = report["memory"][JUDGED].get(TOTAL)
    if total is not None and total["verdict"] == "grows":
        low, high = total["low"], total["high"]
        faults.append(f"memory grows by {total['slope']:.1f} ({low:.1f} – {high:.1f}) MB an hour")
    return faults


def sheets(report: dict[str, Any]) -> list[Sheet]:
    """The report's tables: load, errors, memory."""
    load = report["load"]
    told = [
        ["capacity, requests a second", number(report["capacity"])],
        ["asked for, requests a second", number(report["asked"])],
        ["answered with 200 a second", number(load["rate"])],
        ["sent", str(load["sent"])],
        ["errors", str(load["errors"])],
        ["processes replaced", str(report["replaced"])],
        ["sent more than 5 ms late", f"{load['late_share']:.2%}"],
        *([f"p{q} ms", number(ms)] for q, ms in load["percentiles_ms"].items()),
        ["slowest ms", number(load["slowest_ms"])],
    ]
    made = [Sheet("load", ["what", "measured"], told)]
    errors = [[kind, str(count)] for kind, count in report["errors"].items()]
    made.append(Sheet("errors by kind", ["kind", "how many"], errors or [["none", "0"]]))
    columns = ["MB", "first", "last", "slope an hour", "95 % interval", "correlation", "verdict"]
    for kind, parts in report["memory"].items():
        rows = [
            [
                part,
                *(number(t[name]) for name in ("first", "last", "slope")),
                f"{t['low']:.1f} – {t['high']:.1f}",
                number(t["correlation"], 2),
                t["verdict"],
            ]
            for part, t in parts.items()
        ]
        made.append(Sheet(f"memory, {kind.upper()}", columns, rows or [["too few samples"] * 7]))
    return made


def _capacity(url: str, requests: list, report: dict[str, Any], options: dict[str, Any]) -> float:
    """Warms the server up, measures what it can do, and gives the rate to ask for."""
    click.echo("measuring what it can do …", err=True)
    for _ in ("warm-up", "measured"):
        load = serving_load.closed_loop(
            report["generator"], url, requests, CLIENTS, options["capacity_seconds"]
        )
    if not load.rate:
        raise WorkFailed(f"nothing was answered with 200: {load.statuses} {load.lost}")
    report["capacity"] = load.rate
    return options["share"] * load.rate


def _soaked(
    serving, requests: list, rate: float, report: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """The load, and what became of it and of the memory."""
    seconds = 60 * options["minutes"]
    times = serving_load.arrivals(rate, seconds, np.random.default_rng(options["seed"]))
    click.echo(f"{len(times)} requests in {options['minutes']:g} minutes …", err=True)
    before, began = _counted(serving), time.monotonic()
    with Watch(lambda: parts_of(serving), max(SHORTEST, seconds / SAMPLES)) as watch:
        load = serving_load.open_loop(report["generator"], serving.url, requests, times)
    replaced = watch.replaced(parts_of(serving))
    # What is sampled after the last arrival is of a server at rest.
    samples = [one for one in watch.samples if one["seconds"] <= seconds]
    return {
        "asked": rate,
        "seconds": time.monotonic() - began,
        "load": _load(load),
        "errors": _errors(load, before, _counted(serving)),
        "replaced": replaced,
        "memory": {
            kind: trends(samples, SETTLE * seconds, options["most"], kind) for kind in KINDS
        },
        "samples": samples,
    }


def _load(load: serving_load.Load) -> dict[str, Any]:
    told = {name: getattr(load, name) for name in ("sent", "rate", "errors", "statuses", "lost")}
    told |= {"late_share": load.late_share, "generator_cpu_seconds": load.cpu_seconds}
    told["percentiles_ms"] = {str(q): load.percentile_ms(q) for q in PERCENTILES}
    return told | {"slowest_ms": load.percentile_ms(100)}


def _errors(load: serving_load.Load, before: dict[str, float], after: dict) -> dict[str, int]:
    """By status as the caller saw them, then by title as the workers counted them."""
    told = {f"status {s}": count for s, count in load.statuses.items() if s != 200}
    told |= {kind: count for kind, count in load.lost.items() if count}
    for kind, count in after.items():
        if count > before.get(kind, 0):
            told[f"of these, {kind}"] = int(count - before.get(kind, 0))
    return told


def _counted(serving) -> dict[str, float]:
    """``tzk_errors_total`` by endpoint, title and status."""
    text = httpx.get(f"{serving.admin_url}/metrics", trust_env=False, timeout=60).text
    return {
        ", ".join(one.labels[name] for name in ("endpoint", "title", "status")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == "tzk_errors_total"
    }


def _told(report: dict[str, Any]) -> str:
    """On what, with what, for how long."""
    on = report["machine"]
    return (
        f"{on['processors']} processors ({on['processor']}), torch {on['packages']['torch']}, "
        f"{on['threads']} threads a process, load before {on['load_before']:.2f}, generator "
        f"{report['generator']}, {report['model']['parameters']:,} parameters, "
        f"{report['seconds'] / 60:.1f} minutes"
    )


if __name__ == "__main__":
    soak()
