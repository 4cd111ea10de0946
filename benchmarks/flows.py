"""Speed of the flow itself: ours beside normflows 1.7.3 and FrEIA 0.2, in turn in one run.

    pip install -c constraints.txt '.[bench]'
    python benchmarks/flows.py --out runs/flows                       (the table of a CPU)
    python benchmarks/flows.py --out runs/flows --device cuda         (the paper's size, on a GPU)

What is timed: NLL and sampling without gradients, and a step of training (forward, backward, fused
Adam). A round times every variant once, in an order that rotates; figures are medians over rounds,
ratios medians of the rounds' ratios. The peak is that of a plain matrix product on the machine, and
the share what a variant's own multiplications (`torch.utils.flop_counter`) reach of it. With
--profile each variant is run once more under torch's profiler, after it was timed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch
from peers import PEERS, Ours, made
from profiles import largest, profiled
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from tzk_core.files import write_aside
from tzk_core.flows.prepared import Prepared
from tzk_core.graphs import Graphed, GraphedStep
from tzk_core.networks import run_networks_in
from tzk_core.randomness import generator

__all__ = ["flows"]

JOBS = ("nll", "sample", "train")
# (levels, steps, width): the batches and the rounds.
SIZES = {
    "cpu": {(3, 8, 64): ((1, 32), 15), (3, 4, 512): ((1, 8), 9)},
    "cuda": {(3, 32, 512): ((1, 32), 9)},
}
MODES = {"cpu": ("eager", "prepared", "compiled", "onnxruntime"), "cuda": ("eager", "graph")}
ENOUGH = 0.05  # seconds that a timing takes at least, by repeating


@dataclass
class Variant:
    """One library in one precision and mode, at one job."""

    library: str
    precision: str
    mode: str
    run: Callable[[], Any]
    flops: int = 0
    repeats: int = 1
    seconds: list[float] = field(default_factory=list)  # of one run, a round
    profile: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return f"{self.library} {self.mode} {self.precision}"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/flows"))
@click.option("--device", type=click.Choice(list(SIZES)), default="cpu")
@click.option("--rounds", type=int, help="timed rounds of each table; by size without")
@click.option("--size", "only", help="LEVELS,STEPS,WIDTH instead of the table's sizes")
@click.option("--batch", "batches", type=int, multiple=True, help="instead of the table's")
@click.option("--mode", "modes", multiple=True, help="instead of all")
@click.option("--job", "jobs", type=click.Choice(JOBS), multiple=True, default=JOBS)
@click.option("--profile", is_flag=True, help="and which operators take the time")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def flows(out, device, rounds, only, batches, modes, jobs, profile, as_json):
    """NLL, sampling and training, ours and the peers'."""
    sizes = SIZES[device]
    if only:
        sizes = {tuple(int(n) for n in only.split(",")): ((1, 32), 9)}
    report: dict[str, Any] = {
        "torch": torch.__version__,
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "peak_tflops": {p: _peak(device, p) for p in ("float32", "bfloat16")},
        "tables": [],
    }
    for (levels, steps, width), (usual, count) in sizes.items():
        for batch, job in itertools.product(batches or usual, jobs):
            shape = (3, 32, 32)
            found = list(
                _variants(shape, (levels, steps, width), batch, job, device, modes or MODES[device])
            )
            _measure(found, rounds or count, device)
            if profile:
                _profile(found, device)
            table = {"levels": levels, "steps": steps, "width": width, "batch": batch, "job": job}
            report["tables"].append(table | {"rows": _rows(found, batch, report["peak_tflops"])})
            report["tables"][-1]["times_as_fast"] = _ratios(found)
            write_aside(out / f"flows-{device}.json", json.dumps(report, indent=2) + "\n")
            print(f"{table}: {report['tables'][-1]['times_as_fast']}", file=sys.stderr)
    write_aside(out / f"flows-{device}.md", _markdown(report))
    if as_json:
        click.echo(json.dumps(report))
    else:
        Console(width=120).print(_markdown(report), markup=False)


# -- what is timed ---------------------------------------------------------------------------------


def _variants(shape, sizes, batch, job, device, modes) -> Iterator[Variant]:
    t = (torch.rand(batch, *shape, generator=generator(0)) - 0.5).to(device)
    for library, mode, precision in itertools.product(PEERS, modes, ("float32", "bfloat16")):
        if library != "tzk" and mode in ("graph", "prepared", "onnxruntime"):
            continue
        if mode == "prepared" and job == "train":
            continue
        if mode == "onnxruntime" and (job == "train" or precision != "float32"):
            continue
        if mode == "compiled" and library == "FrEIA":
            continue  # torch.compile cannot take its lists of tensors as they are
        model = made(library, shape, *sizes, seed=0).to(device)
        with torch.no_grad():
            model.log_prob(t)  # the peers' ActNorm starts here
            for parameter in model.parameters():  # last layers are zero, which no trained model has
                if parameter.requires_grad:
                    parameter += 1e-3 * torch.randn_like(parameter)
        if library == "tzk":
            run_networks_in(model, torch.bfloat16 if precision == "bfloat16" else None)
        run = _job(model, job, mode, t, batch, precision if library != "tzk" else "float32")
        plain = PEERS[library](shape, *sizes).to(device) if mode == "prepared" else model
        with FlopCounterMode(display=False) as counter:
            _job(plain, job, "eager", t, batch, precision if library != "tzk" else "float32")()
        yield Variant(library, precision, mode, run, counter.get_total_flops())


def _job(model, job, mode, t, batch, autocast) -> Callable[[], Any]:
    if mode == "onnxruntime":
        return _in_onnxruntime(model, job, t, batch)
    if mode == "graph" and job != "train":
        model.encode, model.decode = Graphed(model.flow.encode), Graphed(model.flow.decode)
    if mode == "prepared":
        prepared = Prepared(model.flow)
        model.encode, model.decode = prepared.encode, prepared.decode
    log_prob, sample = model.log_prob, model.sample
    if mode == "compiled":
        log_prob = torch.compile(model.log_prob, dynamic=False)
        sample = torch.compile(model.sample, dynamic=False)

    def precision():
        if autocast == "float32":
            return contextlib.nullcontext()
        return torch.autocast(t.device.type, dtype=torch.bfloat16)

    if job == "train":
        trained = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(trained, lr=1e-6, fused=True)
        graphed = None
        if mode == "graph":
            graphed = GraphedStep(lambda t: {"loss": -log_prob(t).mean()}, trained, (t,))

        def train() -> None:
            optimiser.zero_grad(set_to_none=True)
            with precision():
                loss = -log_prob(t).mean() if graphed is None else graphed(t)["loss"]
            loss.backward()
            optimiser.step()

        return train

    def infer() -> Any:
        with torch.no_grad(), precision():
            return log_prob(t) if job == "nll" else sample(batch)

    return infer


def _in_onnxruntime(model: Ours, job: str, t, batch: int) -> Callable[[], Any]:
    import onnxruntime

    from tzk_export.onnx_graphs import Field
    from tzk_export.onnx_trace import traced

    encode = job == "nll"
    shape = model.flow.shape if encode else model.flow.latent_shape
    inputs = [Field("x", ("batch", *shape), "float32", "N(0, 1)", "of the flow")]
    outputs = [
        Field("y", ("batch", *shape), "float32", "", "mapped"),
        Field("log_det", ("batch",), "float32", "nats", "of the Jacobian"),
    ]

    class One(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flow = model.flow

        def forward(self, x):
            return self.flow.encode(x) if encode else self.flow.decode(x)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        traced(One(), inputs, outputs, job).SerializeToString(), options
    )

    def run() -> Any:
        x = t if encode else torch.randn(batch, *shape)
        z, log_det = session.run(None, {"x": x.numpy()})
        z = torch.from_numpy(z)
        return torch.from_numpy(log_det) - 0.5 * z.square().flatten(1).sum(1) if encode else z

    return run


# -- timing ----------------------------------------------------------------------------------------


def _measure(variants: list[Variant], rounds: int, device: str) -> None:
    for one in variants:
        for _ in range(3):
            one.run()
        one.repeats = max(1, round(ENOUGH / _seconds(one.run, 1, device)))
    for number in range(rounds):
        turn = number % len(variants)
        for one in variants[turn:] + variants[:turn]:
            one.seconds.append(_seconds(one.run, one.repeats, device))


def _profile(variants: list[Variant], device: str) -> None:
    for one in variants:
        if one.mode != "onnxruntime":  # its operators are not torch's
            one.profile = profiled(one.run, device)


def _seconds(run: Callable[[], Any], repeats: int, device: str) -> float:
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    wait()
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    wait()
    return (time.perf_counter() - began) / repeats


def _peak(device: str, precision: str) -> float:
    """TFLOP/s of a plain matrix product, the best of several."""
    side = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device).to(getattr(torch, precision)) for _ in range(2))
    best = min(_seconds(lambda: a @ b, 5, device) for _ in range(6))
    return 2 * side**3 / best / 1e12


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"


# -- telling ---------------------------------------------------------------------------------------


def _rows(variants: list[Variant], batch: int, peak: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "variant": one.name,
            "ms_an_image": 1e3 * statistics.median(one.seconds) / batch,
            "share_of_peak": one.flops
            / statistics.median(one.seconds)
            / 1e12
            / peak[one.precision],
            "seconds": one.seconds,
            "profile": one.profile,
        }
        for one in variants
    ]


def _ratios(variants: list[Variant]) -> dict[str, dict[str, float]]:
    """How many times as fast as each peer's better precision our variants are, by its mode."""
    found: dict[str, dict[str, float]] = {}
    for library, mode in itertools.product(PEERS, ("eager", "compiled")):
        theirs = [v for v in variants if v.library == library and v.mode == mode]
        if library == "tzk" or not theirs:
            continue
        best = min(theirs, key=lambda v: statistics.median(v.seconds))
        found[f"{library} {mode} ({best.precision})"] = {
            v.name: statistics.median(b / a for a, b in zip(v.seconds, best.seconds, strict=True))
            for v in variants
            if v.library == "tzk"
        }
    return found


def _markdown(report: dict[str, Any]) -> str:
    peak = report["peak_tflops"]
    lines = [
        f"{report['device']}, {report['threads']} threads, torch {report['torch']}; "
        f"a matrix product reaches {peak['float32']:.3g} TFLOP/s in float32 and "
        f"{peak['bfloat16']:.3g} in bfloat16.",
        "",
        "| L × steps, width, batch | job | variant | ms an image | share of the peak | "
        "times as fast as normflows | as normflows compiled | as FrEIA |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for table in report["tables"]:
        size = _size(table)
        ratios = table["times_as_fast"]
        for row in table["rows"]:
            against = [
                next((r.get(row["variant"]) for k, r in ratios.items() if k.startswith(peer)), None)
                for peer in ("normflows eager", "normflows compiled", "FrEIA")
            ]
            told = " | ".join("" if one is None else f"{one:.2f}" for one in against)
            lines.append(
                f"| {size} | {table['job']} | {row['variant']} | {row['ms_an_image']:.3g} | "
                f"{100 * row['share_of_peak']:.1f} % | {told} |"
            )
    profiles = [
        (_size(table), table["job"], row["variant"], row["profile"])
        for table in report["tables"]
        for row in table["rows"]
        if row["profile"]
    ]
    if profiles:
        lines += [
            "",
            "| L × steps, width, batch | job | variant | operators a call | multiplying | "
            "the largest shares |",
            "|---|---|---|---|---|---|",
        ]
    for size, job, variant, found in profiles:
        lines.append(
            f"| {size} | {job} | {variant} | {found['operators']} | "
            f"{100 * found['multiply']:.0f} % | {largest(found)} |"
        )
    return "\n".join(lines) + "\n"


def _size(table: dict[str, Any]) -> str:
    return f"{table['levels']} × {table['steps']}, {table['width']}, {table['batch']}"


if __name__ == "__main__":
    flows()
