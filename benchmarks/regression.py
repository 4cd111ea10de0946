"""Whether the working tree is slower than an older commit: three hot paths, paired in one run.

    python benchmarks/regression.py                       (against HEAD~1)
    python benchmarks/regression.py --base v0.1 --rounds 31 --json

The older commit is checked out into a temporary `git worktree`. Each tree has a process of its own
(benchmarks/regression_worker.py) with a model of the same weights on the same built-in images; they
work in turn, one at a time. Timed are log p of a batch, samples, and a step of training all of the
model. A ratio is the median of the rounds' ratios, its interval a bootstrap's over rounds (95 %).

Exit codes: 0 no path is slower by more than --tolerance; 1 one is, even at its interval's lower
end; 2 the call was wrong; 3 a tree cannot be measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tzk_core.data.quantisation import dequantise
from tzk_core.data.sources import load
from tzk_core.randomness import generator

__all__ = ["interval", "regression", "summary"]

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("regression_worker.py")
ENOUGH = 0.1  # seconds that a timing takes at least, by repeating
RESAMPLES = 2000


class Unmeasured(click.ClickException):
    """Nothing can be said of one of the trees."""

    exit_code = 3


@click.command()
@click.option("--base", default="HEAD~1", show_default=True, help="the older commit")
@click.option("--rounds", type=click.IntRange(min=2), default=15, show_default=True)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.1,
    show_default=True,
    help="how much slower a path may be",
)
@click.option("--levels", type=click.IntRange(1, 5), default=3, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--width", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--batch", type=click.IntRange(2, 512), default=32, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def regression(base, rounds, tolerance, levels, steps, width, batch, as_json):
    """Compare the working tree's speed with that of the commit --base."""
    commit = _git("rev-parse", "--verify", "--quiet", f"{base}^{{commit}}", wrong=f"no {base} here")
    settings = {"levels": levels, "steps": steps, "width": width}
    with tempfile.TemporaryDirectory(prefix="tzk-regression-") as place:
        inputs = Path(place, "inputs.npz")
        _write_inputs(inputs, batch)
        with (
            checked_out(commit, Path(place, "base")) as tree,
            Worker("base", tree, inputs, settings) as old,
            Worker("new", ROOT, inputs, settings) as new,
        ):
            if new.missing:
                raise Unmeasured(f"the working tree cannot do {new.missing}")
            seconds = measure(old, new, rounds)
    report = {
        "base": commit,
        "head": _git("rev-parse", "HEAD"),
        "modified": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "torch": torch.__version__,
        "threads": new.threads,
        "settings": settings | {"batch": batch, "rounds": rounds, "tolerance": tolerance},
        "log_p_apart_nats": _apart(old.log_p, new.log_p),
        "missing": old.missing,
        "paths": {name: summary(*pair, tolerance) for name, pair in seconds.items()},
    }
    if as_json:
        click.echo(json.dumps(report))
    else:
        _show(report)
    if any(one["slower"] for one in report["paths"].values()):
        sys.exit(1)


def _apart(old: list[float] | None, new: list[float]) -> float | None:
    return None if old is None else float(np.abs(np.subtract(old, new)).max())


# -- the two trees ---------------------------------------------------------------------------------


@contextlib.contextmanager
def checked_out(commit: str, tree: Path) -> Iterator[Path]:
    """The commit's files in ``tree``, until the block is left."""
    try:
        _git("worktree", "add", "--detach", "--quiet", str(tree), commit)
        yield tree
    finally:
        with contextlib.suppress(click.ClickException):  # an error on the way there is the one told
            _git("worktree", "remove", "--force", str(tree))


class Worker:
    """A process that runs one tree's code, when it is asked to."""

    def __init__(self, name: str, tree: Path, inputs: Path, settings: dict[str, int]) -> None:
        self.name = name
        self._said = inputs.with_name(f"{name}.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), str(tree), str(inputs), json.dumps(settings)],
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,  # Ctrl-C ends this process, which ends that one
        )
        try:
            told = self._answer()
        except BaseException:
            self.close()
            raise
        self.paths, self.missing = told["paths"], told["missing"]
        self.log_p, self.threads = told["log_p"], told["threads"]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def seconds(self, path: str, repeats: int) -> float:
        """Of one run, the mean of several."""
        with contextlib.suppress(BrokenPipeError):  # it ended, which its answer tells
            self._process.stdin.write(json.dumps({"path": path, "repeats": repeats}) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            self._said.seek(0)
            said = self._said.read().strip().splitlines()[-20:]
            raise Unmeasured("\n".join([f"the tree {self.name!r} failed:", *said]))
        return json.loads(line)


def _git(*arguments: str, wrong: str | None = None) -> str:
    """What git prints; ``wrong`` says that the call was, where git does not succeed."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    if done.returncode:
        if wrong is not None:
            raise click.UsageError(wrong)
        raise Unmeasured(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def _write_inputs(file: Path, batch: int) -> None:
    """Built-in digits and garments in turn, so that neither tree's way to read data matters."""
    halves = [load(f"builtin/{name}", split="test") for name in ("mnist", "fashion_mnist")]
    count = (batch + 1) // 2
    pixels = np.stack([one.pixels[:count] for one in halves], 1).reshape(-1, 1, 32, 32)[:batch]
    labels = np.stack([halves[0].labels[:count], np.full(count, -1)], 1).reshape(-1)[:batch]
    noise = torch.rand(pixels.shape, generator=generator(0))
    t = dequantise(torch.from_numpy(pixels), noise)
    np.savez(file, t=t.numpy(), labels=labels.astype(np.int64))


# -- timing ----------------------------------------------------------------------------------------


def measure(old: Worker, new: Worker, rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of each path by the older tree and by the newer one, round by round."""
    names = [name for name in new.paths if name in old.paths]
    repeats = {}
    for name in names:
        warm = min(one.seconds(name, 2) for one in (old, new, old, new))
        repeats[name] = max(1, round(ENOUGH / warm))
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names}
    for number in range(rounds):
        for index, name in enumerate(names):
            sides = list(zip((old, new), found[name], strict=True))
            # Who comes first takes turns, as what a machine did before has an effect.
            for worker, seconds in sides if (number + index) % 2 == 0 else reversed(sides):
                seconds.append(worker.seconds(name, repeats[name]))
    return found


def summary(old: Sequence[float], new: Sequence[float], tolerance: float) -> dict[str, Any]:
    """Medians, the ratio new/old and its interval, and whether that is a regression."""
    ratios = [mine / theirs for mine, theirs in zip(new, old, strict=True)]
    low, high = interval(ratios)
    return {
        "base_ms": 1e3 * statistics.median(old),
        "ms": 1e3 * statistics.median(new),
        "ratio": statistics.median(ratios),
        "interval": [low, high],
        "slower": low > 1 + tolerance,
        "seconds": {"base": list(old), "new": list(new)},
    }


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Where the median would be in 95 % of other runs of as many rounds."""
    random = np.random.default_rng(0)
    drawn = random.choice(np.asarray(ratios), (RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(drawn, 1), (0.025, 0.975))
    return float(low), float(high)


# -- telling ---------------------------------------------------------------------------------------


def _show(report: dict[str, Any]) -> None:
    head = f"{report['head'][:10]}{', modified' if report['modified'] else ''}"
    click.echo(
        f"the working tree ({head}) against {report['base'][:10]}; "
        f"{report['threads']} threads, torch {report['torch']}; {report['settings']}"
    )
    table = Table("path", "before, ms", "now, ms", "now / before", "95 %", "")
    for name, one in report["paths"].items():
        low, high = one["interval"]
        table.add_row(
            name,
            f"{one['base_ms']:.3g}",
            f"{one['ms']:.3g}",
            f"{one['ratio']:.3f}",
            f"{low:.3f} to {high:.3f}",
            "slower" if one["slower"] else "",
        )
    Console(width=100).print(table)
    for name, reason in report["missing"].items():
        click.echo(f"{name}: the older commit has none ({reason})")
    if report["log_p_apart_nats"] is not None:
        apart = report["log_p_apart_nats"]
        click.echo(f"log p of the two trees differ by at most {apart:.2g} nats")


if __name__ == "__main__":
    # Ended by a signal, it takes its worktree away too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    regression()
