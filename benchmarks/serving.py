"""How fast our server answers, beside its limit and its peers, in one run.

    pip install -c constraints.txt '.[serve,bench]'
    python benchmarks/serving.py --data mnist --json serving.json
    python benchmarks/serving.py runs/digits --targets handlers,front --clients 1,16
    python benchmarks/serving.py --quick

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
million parameters, made with a seed and not trained. Exit code 1: an answer was not 200.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import serving_load
from rich.console import Console
from serving_processes import cpu_seconds, machine
from serving_requests import ENDPOINT_OF, flow_of, images_of, requests_of
from serving_tables import capacity, summary, tables, verdicts
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
from tzk_core.config import FlowConfig
from tzk_core.data.preparation import Preparation
from tzk_core.errors import UsageError, WorkFailed
from tzk_core.files import write_aside
from tzk_core.model import TzK

__all__ = ["Lists", "model_for", "serving"]

IN_PROCESS = "in process"
TARGETS = ("handlers", "front", *PEERS, IN_PROCESS)
SMALL = FlowConfig(levels=3, steps=8, width=64)
"""0.3 million parameters on 1×32×32."""
TINY = FlowConfig(levels=2, steps=1, width=8)
QUICK = {"clients": [1, 2], "seconds": 1.0, "warmup": 0.5, "rounds": 1, "images": 32}


class Lists(click.ParamType):
    """Values with commas between them."""

    name = "list"

    def __init__(self, of: click.ParamType) -> None:
        self.of = of

    def convert(self, value, param, ctx):
        if isinstance(value, (list, tuple)):
            return list(value)
        return [self.of.convert(one.strip(), param, ctx) for one in value.split(",")]


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
def serving(run, config, device, threads, json_file, **options):
    """Throughput, latency and processor time of the server and its peers."""
    if options["quick"]:
        options |= QUICK
    report: dict[str, Any] = {
        "machine": machine(threads),
        "settings": options,
        "generator": serving_load.generator_named(options["generator"]),
    }
    with tempfile.TemporaryDirectory(prefix="tzk-bench-") as scratch, contextlib.ExitStack() as up:
        folder = Path(scratch)
        run, images, report["model"] = model_for(run, folder, options)
        place = Place(run, folder, device, threads)
        targets, limit = _started(up, place, config, options["targets"])
        measuring = Measuring(report["generator"], options, images)
        for number in range(options["rounds"]):
            for kind in options["kinds"]:
                measuring.round(kind, number, targets[:: -1 if number % 2 else 1], limit)
                report |= {"summary": summary(measuring.rows), "targets": verdicts(measuring.rows)}
                report["rounds"] = measuring.rows
                if json_file is not None:  # what is done is kept if the rest fails
                    write_aside(json_file, json.dumps(report, indent=2, default=str) + "\n")
    console = Console(width=None if Console().is_terminal else 160)
    for table in tables(report):
        console.print(table)
    told = report["machine"]
    console.print(
        f"{told['processors']} processors ({told['processor']}), torch "
        f"{told['packages']['torch']}, {threads} threads a process, load before "
        f"{told['load_before']:.2f}, generator {report['generator']}, "
        f"{report['model']['parameters']:,} parameters"
    )
    failed = sum(row["errors"] for row in measuring.rows)
    if failed:
        raise WorkFailed(f"{failed} requests were not answered with 200")


def model_for(run: Path | None, folder: Path, options: dict[str, Any]):
    """The run's folder, the images for it, and what to say of the model."""
    if run is None:
        size = Preparation(size=16) if options["quick"] else None
        images = images_of(options["data"], options["images"], size)
        run = folder / "run"
        made = flow_of(images, run, options["seed"], TINY if options["quick"] else SMALL)
        source = f"made with seed {options['seed']}"
    else:
        if not run.is_dir():
            raise UsageError(f"there is no run {run}")
        made, source = TzK.from_pretrained(run), run.name
        images = images_of(options["data"], options["images"], made.preparation)
    count = sum(parameter.numel() for parameter in made.parameters())
    about = {"source": source, "parameters": count, "shape": list(images.pixels.shape[1:])}
    return run.resolve(), images, about


def _started(
    up: contextlib.ExitStack, place: Place, config: Path | None, wanted: list[str]
) -> tuple[list[Target], InProcess | None]:
    """The servers, and the process that is the limit, up until ``up`` is closed."""
    targets = []
    if {"handlers", "front"} & set(wanted):
        served = up.enter_context(ours(place, config))
        for name, url in addresses(served).items():

            def parts(front=name == "front"):
                return parts_of(served, front=front)

            targets.append(Target(name, url, parts))
    targets += [up.enter_context(peer(name, place)) for name in PEERS if name in wanted]
    limit = up.enter_context(in_process(place)) if IN_PROCESS in wanted else None
    return [target for target in targets if target.name in wanted], limit


class Measuring:
    """The loads of a run.

    Args:
        generator: of load.
        options: of the command.
        images: real ones.

    Attributes:
        rows: what was measured so far (``serving_tables.Row``).
    """

    def __init__(self, generator: str, options: dict[str, Any], images) -> None:
        self.generator, self.options = generator, options
        self.requests = {kind: requests_of(kind, images) for kind in options["kinds"]}
        self.random = np.random.default_rng(options["seed"])
        self.rows: list[dict[str, Any]] = []

    def round(self, kind: str, number: int, targets: list[Target], limit: InProcess | None) -> None:
        """Every load on every target once; the open loop follows what the closed one showed."""
        requests, seconds = self.requests[kind], self.options["seconds"]
        if limit is not None:
            for batch in (1, 16):
                self._limit(kind, number, limit, batch)
        for clients in self.options["clients"]:
            for target in targets:
                self._warm(kind, target)

                def closed(target=target, clients=clients):
                    return serving_load.closed_loop(
                        self.generator, target.url, requests, clients, seconds
                    )

                self._load(kind, number, target, closed, "closed", clients)
        for target in targets:
            rate = self.options["share"] * (capacity(self.rows, kind, target.name, number) or 0)
            if not rate:
                continue
            times = serving_load.arrivals(rate, seconds, self.random)
            self._warm(kind, target)

            def opened(target=target, times=times):
                return serving_load.open_loop(self.generator, target.url, requests, times)

            self._load(kind, number, target, opened, "open", None)

    def _limit(self, kind: str, number: int, limit: InProcess, batch: int) -> None:
        endpoint, requests = ENDPOINT_OF[kind], self.requests[kind]
        if self.options["warmup"]:
            limit.measure(endpoint, requests, batch, self.options["warmup"])
        told = limit.measure(endpoint, requests, batch, self.options["seconds"])
        p50, p95, p99 = 1e3 * np.percentile(told["latencies"], (50, 95, 99))
        self.rows.append(
            {"kind": kind, "target": IN_PROCESS, "load": "in-process", "round": number}
            | {"clients": None, "batch": batch, "rate": told["answers"] / told["seconds"]}
            | {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "errors": told["errors"]}
            | {"late_share": 0.0, "cpu_ms": {IN_PROCESS: _each(told["cpu_seconds"], told)}}
        )

    def _warm(self, kind: str, target: Target) -> None:
        if self.options["warmup"]:
            requests, seconds = self.requests[kind], self.options["warmup"]
            serving_load.closed_loop(self.generator, target.url, requests, 4, seconds)

    def _load(self, kind, number, target: Target, send, load: str, clients: int | None) -> None:
        parts = target.parts()
        before = cpu_seconds(parts)
        came = send()
        after = cpu_seconds(parts)
        used = {part: after[part] - before[part] for part in parts}
        used["generator"] = came.cpu_seconds
        count = max(1, came.answered)
        self.rows.append(
            {"kind": kind, "target": target.name, "load": load, "round": number}
            | {"clients": clients, "batch": None, "rate": came.rate, "sent": came.sent}
            | {f"p{q}_ms": came.percentile_ms(q) for q in (50, 95, 99)}
            | {"errors": came.errors, "statuses": came.statuses, "lost": came.lost}
            | {"late_share": came.late_share, "latest_ms": came.latest_ms}
            | {"cpu_ms": {part: 1e3 * seconds / count for part, seconds in used.items()}}
        )


def _each(seconds: float, told: dict[str, Any]) -> float:
    return 1e3 * seconds / told["answers"]


if __name__ == "__main__":
    serving()
