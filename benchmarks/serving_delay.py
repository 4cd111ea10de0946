"""What waiting for company costs a lone request, and what it is worth to many.

    pip install -c constraints.txt '.[serve]'
    python benchmarks/serving_delay.py --markdown delay.md
    python benchmarks/serving_delay.py --delays 1,3,10 --rounds 5

A server for each `maxBatchDelay`, all up all the time, asked at TorchServe's own address. Lone
requests go to them by turns, one after the other, so that whatever else the machine does meets all
of them alike; their differences are taken pair by pair, with the 95 % bootstrap interval of the
median. Then 4, 16 and 64 clients ask each, in closed loops by turns, and medians over rounds are
told with the requests that a batch had. The model is that of benchmarks/serving.py.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np
import serving_load
from prometheus_client.parser import text_string_to_metric_families
from serving_options import Lists
from serving_processes import machine
from serving_requests import ENDPOINT_OF, model_for, requests_of
from serving_show import Sheet, markdown, number, show
from serving_targets import START_SECONDS

from tzk_core.cli.script import Script
from tzk_core.errors import WorkFailed
from tzk_core.files import write_aside
from tzk_core.launcher import Serving, Settings
from tzk_core.launcher.signals import signals_end
from tzk_core.ports import HOST
from tzk_export.archive import archive

__all__ = ["delay", "paired"]

WARM_REQUESTS = 200
RESAMPLES = 2000


@click.command(cls=Script)
@click.option("--delays", type=Lists(click.IntRange(min=1)), default=[1, 3], show_default=True)
@click.option("--lone", default=1000, show_default=True, help="lone requests to each server")
@click.option("--clients", type=Lists(click.IntRange(1, 256)), default=[4, 16, 64])
@click.option("--seconds", default=8.0, show_default=True, help="of each closed loop")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--data", default="builtin/mnist", show_default=True)
@click.option("--images", default=500, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@click.option("--quick", is_flag=True, help="a tiny model")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
@click.option("--markdown", "markdown_file", type=click.Path(path_type=Path))
def delay(delays, json_file, markdown_file, **options):
    """Latency of lone requests and throughput of many, by TorchServe's maxBatchDelay."""
    report: dict[str, Any] = {"machine": machine(1), "settings": options | {"delays": delays}}
    whole = False
    with (
        signals_end(),
        tempfile.TemporaryDirectory(prefix="tzk-delay-") as scratch,
        contextlib.ExitStack() as up,
    ):
        run, images, report["model"] = model_for(None, Path(scratch), options)
        requests = requests_of("score", images)
        store = _scoring_alone(run, Path(scratch))
        servers = {ms: up.enter_context(_serving(store, Path(scratch), ms)) for ms in delays}
        report["lone"] = _lone(servers, requests, options)
        report["many"] = _many(servers, requests, options)
        whole = True
    if not whole:
        raise WorkFailed("ended before its end: nothing is known")
    text = markdown(sheets(report))
    for file, content in ((json_file, json.dumps(report, indent=2) + "\n"), (markdown_file, text)):
        if file is not None:
            write_aside(file, content)
    show(sheets(report))


def sheets(report: dict[str, Any]) -> list[Sheet]:
    lone = [
        [ms, *(number(told[f"p{q}_ms"]) for q in (10, 50, 95)), _interval(told["longer_ms"])]
        for ms, told in report["lone"].items()
    ]
    first = next(iter(report["lone"]))
    columns = ["maxBatchDelay", "p10 ms", "p50 ms", "p95 ms", f"longer than {first}, ms"]
    many = [
        [
            told["delay"],
            str(told["clients"]),
            *(number(told[name]) for name in ("rate", "p50_ms", "batch")),
            str(told["errors"]),
        ]
        for told in report["many"]
    ]
    more = ["maxBatchDelay", "clients", "a second", "p50 ms", "requests a batch", "errors"]
    return [Sheet("lone requests", columns, lone), Sheet("many clients", more, many)]


def paired(times: np.ndarray, others: np.ndarray, seed: int) -> tuple[float, float, float]:
    """The median of ``times − others``, both (n,), and its 95 % bootstrap interval."""
    apart, random = np.asarray(times) - np.asarray(others), np.random.default_rng(seed)
    drawn = np.median(random.choice(apart, (RESAMPLES, len(apart))), axis=1)
    return float(np.median(apart)), *map(float, np.percentile(drawn, (2.5, 97.5)))


def _scoring_alone(run: Path, folder: Path) -> Path:
    """A model store with one archive, so that one worker a server takes memory and processors."""
    archive(run, folder / "all")
    store, name = folder / "store", f"{ENDPOINT_OF['score']}.mar"
    store.mkdir()
    (folder / "all" / name).rename(store / name)
    return store


def _serving(store: Path, folder: Path, ms: int) -> Serving:
    usual = Settings(model_store=store).config_file().read_text()
    text, changed = re.subn(r'("maxBatchDelay": )\d+', rf"\g<1>{ms}", usual)
    if not changed:
        raise WorkFailed("the configuration names no maxBatchDelay")
    config = folder / f"delay-{ms}.properties"
    config.write_text(text)
    return Serving(
        Settings(
            model_store=store,
            port=0,
            device="cpu",
            threads=1,
            config=config,
            start_timeout=START_SECONDS,
        )
    )


def _lone(servers: dict[int, Serving], requests: list, options: dict[str, Any]) -> dict[str, Any]:
    """One client, who asks the servers by turns and in random order."""
    random = np.random.default_rng(options["seed"])
    connections = {
        ms: http.client.HTTPConnection(HOST, serving.server.ports["--port"])
        for ms, serving in servers.items()
    }
    taken: dict[int, list[float]] = {ms: [] for ms in servers}
    for turn in range(WARM_REQUESTS + options["lone"]):
        one = requests[turn % len(requests)]
        for ms in random.permutation(list(servers)):
            began = time.perf_counter()
            connections[ms].request("POST", one.path, one.body, one.headers)
            answer = connections[ms].getresponse()
            answer.read()
            if answer.status != 200:
                raise WorkFailed(f"a lone request was answered with {answer.status}")
            taken[ms].append(1e3 * (time.perf_counter() - began))
    for connection in connections.values():
        connection.close()
    kept = {ms: np.array(times[WARM_REQUESTS:]) for ms, times in taken.items()}
    first = next(iter(kept.values()))
    return {
        f"{ms} ms": {f"p{q}_ms": float(np.percentile(times, q)) for q in (10, 50, 95)}
        | {"longer_ms": paired(times, first, options["seed"])}
        for ms, times in kept.items()
    }


def _many(servers: dict[int, Serving], requests: list, options: dict[str, Any]) -> list[dict]:
    """Closed loops by turns, in the other order every other round."""
    rows: dict[tuple[int, int], list[dict[str, float]]] = {}
    generator = serving_load.generator_named("auto")
    for turn in range(options["rounds"]):
        for clients in options["clients"]:
            for ms in list(servers)[:: -1 if turn % 2 else 1]:
                before = _batches(servers[ms])
                url = servers[ms].server.url
                load = serving_load.closed_loop(
                    generator, url, requests, clients, options["seconds"]
                )
                served, batches = np.subtract(_batches(servers[ms]), before)
                told = {"rate": load.rate, "p50_ms": load.percentile_ms(50) or np.nan}
                told |= {"batch": served / max(1, batches), "errors": load.errors}
                rows.setdefault((clients, ms), []).append(told)
    return [
        {"delay": f"{ms} ms", "clients": clients, "errors": sum(one["errors"] for one in cell)}
        | {name: float(np.median([r[name] for r in cell])) for name in ("rate", "p50_ms", "batch")}
        for (clients, ms), cell in rows.items()
    ]


def _batches(serving: Serving) -> tuple[float, float]:
    """Requests that the worker was given so far, and batches."""
    text = httpx.get(f"{serving.admin_url}/metrics", trust_env=False, timeout=60).text
    found = {
        one.name: one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name in ("tzk_batch_requests_sum", "tzk_batch_requests_count")
    }
    return found["tzk_batch_requests_sum"], found["tzk_batch_requests_count"]


def _interval(figure: tuple[float, float, float]) -> str:
    return f"{figure[0]:.2f} ({figure[1]:.2f} – {figure[2]:.2f})"


if __name__ == "__main__":
    delay()
