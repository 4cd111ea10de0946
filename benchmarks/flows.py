"""Speed of the flow itself: ours beside normflows 1.7.3 and FrEIA 0.2, in turn in one run.

    pip install -c constraints.txt '.[bench]'
    python benchmarks/flows.py --out runs/flows                       (the table of a CPU)
    python benchmarks/flows.py --out runs/flows --device cuda         (the paper's size, on a GPU)

What is timed: NLL and sampling without gradients, and a step of training (forward, backward, fused
Adam). A round times every variant once, in an order that rotates; figures are medians over rounds,
ratios medians of the rounds' ratios. The share of the peak is what a variant's own multiplications
(`torch.utils.flop_counter`) reach, in its median round, of a plain matrix product in the same
precision in its best round: the product takes part in every table's rounds, as a variant does.

Compiled variants say how many graphs the compiler was given: where it is more than one, Python ran
between them. A table starts with nothing compiled, and a function that the compiler gives up on
(its limit of recompilations) ends the run instead of being timed as if it had been compiled. With
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
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
import torch._dynamo
from flows_page import page, titled
from peers import PEERS, Ours, made, start
from profiles import profiled
from rich.console import Console
from torch._dynamo.backends.registry import lookup_backend
from torch.utils.flop_counter import FlopCounterMode

from tzk_core.files import write_aside
from tzk_core.flows.prepared import Prepared
from tzk_core.graphs import Graphed, GraphedStep
from tzk_core.networks import run_networks_in
from tzk_core.randomness import generator

__all__ = ["flows"]

JOBS = ("nll", "sample", "train")
PRECISIONS = ("float32", "bfloat16")
# (levels, steps, width): the batches and the rounds.
SIZES = {
    "cpu": {(3, 8, 64): ((1, 32), 15), (3, 4, 512): ((1, 8), 9)},
    "cuda": {(3, 32, 512): ((1, 32), 9)},
}
MODES = {
    "cpu": ("eager", "prepared", "compiled", "onnxruntime"),
    "cuda": ("eager", "graph", "compiled"),
}
ALL_MODES = tuple(dict.fromkeys(itertools.chain(*MODES.values())))
SHAPE = (3, 32, 32)
DEEPEST = 5  # levels that halve a side of 32
SIDE = {"cpu": 1024, "cuda": 8192}  # of the plain product's matrices
COMPILER = "inductor"  # torch.compile's default
ENOUGH = 0.05  # seconds that a timing takes at least, by repeating

Run = Callable[[], Any]


class Counting:
    """The compiler, counting the graphs that it is given."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.graphs += 1
        return lookup_backend(COMPILER)(graph, inputs)


@dataclass
class Variant:
    """One library in one precision and mode, at one job."""

    library: str
    precision: str
    mode: str
    run: Run
    flops: int = 0
    compiler: Counting | None = None
    repeats: int = 1
    seconds: list[float] = field(default_factory=list)  # of one run, a round
    profile: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return f"{self.library} {self.mode} {self.precision}"


def _sizes(_context, _option, text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    try:
        levels, steps, width = (int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter("LEVELS,STEPS,WIDTH is wanted, as in 3,8,64") from None
    if not (1 <= levels <= DEEPEST and steps >= 1 and width >= 1):
        raise click.BadParameter(f"1 to {DEEPEST} levels, and steps and width from 1 on")
    return levels, steps, width


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/flows"))
@click.option("--device", type=click.Choice(list(SIZES)), default="cpu")
@click.option(
    "--rounds", type=click.IntRange(1), help="timed rounds of each table; by size without"
)
@click.option("--size", "only", callback=_sizes, help="LEVELS,STEPS,WIDTH, not the table's sizes")
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, help="not the table's")
@click.option("--mode", "modes", type=click.Choice(ALL_MODES), multiple=True, help="not all")
@click.option("--job", "jobs", type=click.Choice(JOBS), multiple=True, default=JOBS)
@click.option("--profile", is_flag=True, help="and which operators take the time")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def flows(out, device, rounds, only, batches, modes, jobs, profile, as_json):
    """NLL, sampling and training, ours and the peers'."""
    modes = _modes(device, modes)
    report: dict[str, Any] = {
        "torch": torch.__version__,
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "tables": [],
    }
    for sizes, (usual, count) in ({only: ((1, 32), 9)} if only else SIZES[device]).items():
        for batch, job in itertools.product(batches or usual, jobs):
            table = _table(sizes, batch, job, device, modes, rounds or count, profile)
            report["tables"].append(table)
            write_aside(out / f"flows-{device}.json", json.dumps(report, indent=2) + "\n")
            print(f"{titled(table)}, {job}: {table['times_as_fast']}", file=sys.stderr)
    write_aside(out / f"flows-{device}.md", page(report))
    if as_json:
        click.echo(json.dumps(report))
    else:
        Console(width=120).print(page(report), markup=False)


def _modes(device: str, asked: tuple[str, ...]) -> tuple[str, ...]:
    for mode in asked:
        if mode not in MODES[device]:
            offered = ", ".join(MODES[device])
            raise click.UsageError(
                f"--mode {mode} is not for --device {device}, which has {offered}"
            )
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda: there is no GPU here")
    return asked or MODES[device]


def _table(sizes, batch, job, device, modes, rounds, profile) -> dict[str, Any]:
    """One job at one size and batch, by every variant."""
    levels, steps, width = sizes
    # The compiler counts its recompilations by function, whichever model's it is: without these two
    # a later table's variants would be over its limit, and eager without a word.
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        found = list(_variants(SHAPE, sizes, batch, job, device, modes))
        products = _products(device)
        _measure([*found, *products], rounds, device)
        if profile:
            _profile(found, device)
    peak = {one.precision: one.flops / min(one.seconds) / 1e12 for one in products}
    return {
        "levels": levels,
        "steps": steps,
        "width": width,
        "batch": batch,
        "job": job,
        "peak_tflops": peak,
        "rows": _rows(found, batch, peak),
        "times_as_fast": _ratios(found),
    }


# -- what is timed ---------------------------------------------------------------------------------


def _variants(shape, sizes, batch, job, device, modes) -> Iterator[Variant]:
    t = (torch.rand(batch, *shape, generator=generator(0)) - 0.5).to(device)
    for library, mode, precision in itertools.product(PEERS, modes, PRECISIONS):
        if not _offered(library, mode, precision, job):
            continue
        try:
            yield _variant(library, mode, precision, sizes, job, t)
        except NotRecorded as error:
            print(f"{library} {mode} {precision}, {job}: left out, {error}", file=sys.stderr)


def _offered(library: str, mode: str, precision: str, job: str) -> bool:
    if mode == "prepared":
        return library == "tzk" and job != "train"
    if mode == "onnxruntime":
        return library == "tzk" and job != "train" and precision == "float32"
    return True


def _variant(library: str, mode: str, precision: str, sizes, job, t) -> Variant:
    ours = library == "tzk"
    model = made(library, tuple(t.shape[1:]), *sizes, seed=0).to(t.device)
    start(model, t)
    with torch.no_grad():
        for parameter in model.parameters():  # last layers are zero, which no trained model has
            if parameter.requires_grad:
                parameter += 1e-3 * torch.randn_like(parameter)
    if ours:
        run_networks_in(model, torch.bfloat16 if precision == "bfloat16" else None)
    autocast = not ours and precision == "bfloat16"
    plain = _job(model, job, "eager", t, autocast)
    with FlopCounterMode(display=False) as counter:
        plain()
    compiler = Counting() if mode == "compiled" else None
    if mode == "graph" and not ours:
        run = _recorded(model, job, t, autocast, plain)
    else:
        run = _job(model, job, mode, t, autocast, compiler)
    return Variant(library, precision, mode, run, counter.get_total_flops(), compiler)


class NotRecorded(RuntimeError):
    """A peer's job is no CUDA graph, and why."""


def _recorded(model, job, t, autocast: bool, plain: Run) -> Run:
    """A peer's job as a CUDA graph.

    Raises:
        NotRecorded: it waits for the GPU, or recording it failed.
    """
    try:
        # Looked for first: a recording that fails midway leaves the random numbers' generator and
        # the allocator as they are while recording, and what is timed later with them.
        with _no_waiting(t.device):
            plain()
        run = _job(model, job, "graph", t, autocast)
        for _ in range(2):  # the second call records
            run()
    except RuntimeError as error:
        raise NotRecorded(str(error).strip().partition("\n")[0]) from error
    return run


@contextlib.contextmanager
def _no_waiting(device: torch.device) -> Iterator[None]:
    """Within it what waits for a GPU raises ``RuntimeError``."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _job(model, job, mode, t, autocast: bool, compiler: Counting | None = None) -> Run:
    if mode == "onnxruntime":
        return _in_onnxruntime(model, job, t, len(t))

    def precision() -> contextlib.AbstractContextManager:
        if not autocast:  # ours enters it within each network, which is to be the outermost
            return contextlib.nullcontext()
        # A CUDA graph may not keep weights that were cast outside of it; cast once a call, as they
        # are here, they are as often so with the cache as without.
        return torch.autocast(t.device.type, dtype=torch.bfloat16, cache_enabled=mode != "graph")

    if job == "train":
        return _training(model, mode, t, precision, compiler)
    log_prob, sample = _functions(model, mode, compiler)

    def infer() -> Any:
        with torch.no_grad(), precision():
            return log_prob(t) if job == "nll" else sample(t)

    return infer


def _functions(model, mode, compiler: Counting | None) -> tuple[Callable, Callable]:
    """log p of observations, and as many samples as there are."""
    log_prob, sample = model.log_prob, lambda like: model.sample(len(like))
    if mode == "compiled":
        compiled = _compiled(model.sample, compiler)
        return _compiled(log_prob, compiler), lambda like: compiled(len(like))
    if mode == "graph" and not isinstance(model, Ours):
        return Graphed(log_prob), Graphed(sample)
    if mode == "graph":  # as what serves does, which draws outside
        model.encode, model.decode = Graphed(model.flow.encode), Graphed(model.flow.decode)
    if mode == "prepared":
        prepared = Prepared(model.flow, lone=True)  # which is about batches of one alone
        model.encode, model.decode = prepared.encode, prepared.decode
    return log_prob, sample


def _compiled(function: Callable, compiler: Counting | None) -> Callable:
    return torch.compile(function, dynamic=False, backend=compiler)


def _training(model, mode, t, precision, compiler: Counting | None) -> Run:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=1e-6, fused=True)
    log_prob = _compiled(model.log_prob, compiler) if mode == "compiled" else model.log_prob

    def objective(t) -> dict[str, torch.Tensor]:
        return {"loss": -log_prob(t).mean()}

    with precision():
        step = GraphedStep(objective, trained, (t,)) if mode == "graph" else objective

    def train() -> None:
        optimiser.zero_grad(set_to_none=True)
        with precision():
            loss = step(t)["loss"]
        loss.backward()
        optimiser.step()

    return train


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


def _products(device: str) -> list[Variant]:
    """A plain matrix product in each precision."""
    side = SIDE[device]
    found = []
    for precision in PRECISIONS:
        dtype = getattr(torch, precision)
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        multiply = partial(torch.matmul, a, b)
        found.append(Variant("torch", precision, "product", multiply, flops=2 * side**3))
    return found


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"


# -- telling ---------------------------------------------------------------------------------------


def _rows(variants: list[Variant], batch: int, peak: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "variant": one.name,
            "library": one.library,
            "mode": one.mode,
            "precision": one.precision,
            "graphs": one.compiler and one.compiler.graphs,
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


def _ratios(variants: list[Variant]) -> dict[str, dict[str, Any]]:
    """How many times as fast as each peer's better precision our variants are, by its mode."""
    found: dict[str, dict[str, Any]] = {}
    for library, mode in itertools.product(PEERS, ALL_MODES):
        theirs = [v for v in variants if v.library == library and v.mode == mode]
        if library == "tzk" or not theirs:
            continue
        best = min(theirs, key=lambda v: statistics.median(v.seconds))
        found[f"{library} {mode}"] = {"precision": best.precision} | {
            v.name: statistics.median(b / a for a, b in zip(v.seconds, best.seconds, strict=True))
            for v in variants
            if v.library == "tzk"
        }
    return found


if __name__ == "__main__":
    flows()
