"""How fast our server answers, beside its limit and its peers, in one run.

    pip install -c constraints.txt '.[serve,bench]'
    python benchmarks/serving.py --data mnist --json serving.json --markdown serving.md
    python benchmarks/serving.py runs/digits --targets handlers,front --clients 1,16
    python benchmarks/serving.py --quick

The first takes half an hour, the last three minutes, to see that it runs to its end.

Targets: `handlers` (TorchServe with our handlers, asked directly), `front` (the same server as
callers reach it), `fastapi` (by hand, one call of the service a request), `litserve` (batches of up
to 16), and `in process`, the same call of tzk_core.service in a process that serves nobody, at
batches of 1 and 16: the limit. All have the same weights, images, threads and requests, all are up
all the time, and they take turns, in the other order every other round.

- closed loop: 1, 4, 16 and 64 clients, each of which asks again when it is answered. The most that
  any number of clients gets is the throughput at saturation.
- open loop: Poisson arrivals at 70 % of the target's own throughput in that round.
- processor time a request by part, from what the processes used during the load; the load generator
  (wrk, where it is installed) runs on the same processors, and is a part too.

Ratios are taken within a round, and medians over rounds. Without RUN the model is a flow of 0.3
million parameters, made with a seed and not trained. What was measured is written after each kind
of request of each round, and shown if a signal ends the run early. Exit code 1: an answer was not
200 (503 apart where an open loop found the queue full), or the run did not come to its end. A
target that is missed is told, and is no error.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import serving_load
from serving_measuring import Measuring, failures, seconds_of
from serving_options import Lists
from serving_processes import machine
from serving_requests import ENDPOINT_OF, model_for
from serving_show import markdown, show
from serving_tables import IN_PROCESS, saturation, sheets, summary, verdicts
from serving_targets import (
    PEERS,
    InProcess,
    Place,
    Target,
    addresses,
    in_process,
    ours,
    parts_of,
    peer,
)

from tzk_core.cli.script import Script
from tzk_core.errors import WorkFailed
from tzk_core.files import write_aside
from tzk_core.launcher.signals import signals_end
from tzk_core.service.backends import BACKENDS

__all__ = ["serving"]

TARGETS = ("handlers", "front", *PEERS, IN_PROCESS)
QUICK = {"clients": [1, 16], "seconds": 1.0, "warmup": 0.5, "rounds": 1, "images": 32}


@click.command(cls=Script)
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--data", default="builtin/mnist", show_default=True, help="of the test images")
@click.option("--images", default=500, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--targets", type=Lists(click.Choice(TARGETS)), default=list(TARGETS), help="[default: all]"
)
@click.option("--kinds", type=Lists(click.Choice(list(ENDPOINT_OF))), default=list(ENDPOINT_OF))
@click.option("--clients", type=Lists(click.IntRange(1, 256)), default=[1, 4, 16, 64])
@click.option("--share", default=0.7, show_default=True, help="of capacity, in the open loop")
@click.option("--seconds", default=8.0, show_default=True, help="of each load")
@click.option("--warmup", default=2.0, show_default=True, help="seconds before each load")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--threads", default=1, show_default=True, help="of torch in each process")
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="torch",
    show_default=True,
    help="of our archives; the others and the limit run by torch",
)
@click.option("--config", type=click.Path(path_type=Path), help="TorchServe's configuration")
@click.option(
    "--generator",
    type=click.Choice(["auto", *serving_load.GENERATORS]),
    default="auto",
    show_default=True,
)
@click.option("--seed", default=0, show_default=True)
@click.option("--quick", is_flag=True, help="a tiny model and seconds, to see that it runs")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="where the report goes")
@click.option("--markdown", "markdown_file", type=click.Path(path_type=Path), help="the tables")
def serving(run, backend, config, device, threads, json_file, markdown_file, **options):
    """Throughput, latency and processor time of the server and its peers."""
    if options["quick"]:
        options |= QUICK
    report: dict[str, Any] = {
        "machine": machine(threads),
        "settings": options | {"backend": backend},
        "generator": serving_load.generator_named(options["generator"]),
    }
    began, whole, rows = time.monotonic(), False, []
    with (
        signals_end(),
        tempfile.TemporaryDirectory(prefix="tzk-bench-") as scratch,
        contextlib.ExitStack() as up,
    ):
        folder = Path(scratch)
        run, images, report["model"] = model_for(run, folder, options)
        place = Place(run, folder, device, threads)
        targets, limit = _started(up, place, backend, config, options["targets"])
        minutes = seconds_of(options, len(targets), limit is not None) / 60
        click.echo(f"all are up; the loads take {minutes:.0f} minutes", err=True)
        measuring = Measuring(report["generator"], options, images)
        rows = measuring.rows
        for number in range(options["rounds"]):
            for kind in options["kinds"]:
                measuring.round(kind, number, targets[:: -1 if number % 2 else 1], limit)
                report |= {"seconds": time.monotonic() - began, "rounds": rows}
                report |= {"summary": summary(rows), "saturation": saturation(rows)}
                report |= {"targets": verdicts(rows)}
                _write(report, json_file, markdown_file)
                click.echo(f"round {number + 1} of {options['rounds']}: {kind} done", err=True)
        whole = True
    if "summary" in report:
        show(sheets(report))
    click.echo(_told(report))
    failed = failures(rows)
    if failed:
        raise WorkFailed(f"{failed} requests were not answered with 200")
    if not whole:
        raise WorkFailed("ended before its end: what is shown are the rounds that were done")


def _write(report: dict[str, Any], json_file: Path | None, markdown_file: Path | None) -> None:
    """What is done is kept if the rest fails."""
    if json_file is not None:
        write_aside(json_file, json.dumps(report, indent=2, default=str) + "\n")
    if markdown_file is not None:
        write_aside(markdown_file, f"{markdown(sheets(report))}\n{_told(report)}\n")


def _told(report: dict[str, Any]) -> str:
    """On what, with what, for how long."""
    on, model = report["machine"], report.get("model")
    parts = [
        f"{on['processors']} processors ({on['processor']})",
        f"torch {on['packages']['torch']}",
        f"{on['threads']} threads a process",
        f"our backend {report['settings']['backend']}",
        f"load before {on['load_before']:.2f}",
        f"generator {report['generator']}",
    ]
    parts += [f"{model['parameters']:,} parameters"] if model else []
    parts += [f"{report['seconds'] / 60:.0f} minutes"] if "seconds" in report else []
    return ", ".join(parts)


def _started(
    up: contextlib.ExitStack, place: Place, backend: str, config: Path | None, wanted: list[str]
) -> tuple[list[Target], InProcess | None]:
    """The servers, and the process that is the limit, up until ``up`` is closed."""
    targets = []
    if {"handlers", "front"} & set(wanted):
        served = up.enter_context(ours(place, config, backend))
        for name, url in addresses(served).items():

            def parts(front=name == "front"):
                return parts_of(served, front=front)

            targets.append(Target(name, url, parts))
    targets += [up.enter_context(peer(name, place)) for name in PEERS if name in wanted]
    limit = up.enter_context(in_process(place)) if IN_PROCESS in wanted else None
    return [target for target in targets if target.name in wanted], limit


if __name__ == "__main__":
    serving()
