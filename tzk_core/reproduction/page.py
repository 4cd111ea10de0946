"""docs/reproduction.md, made of the experiments' descriptions and of results as they were written.

No result is typed by hand: what was not run says so.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError, WorkFailed
from ..files import write_aside
from . import verdict
from .experiment import Experiment, recipes_of
from .markdown import result_markdown
from .registry import EXPERIMENTS
from .settings import SCALES
from .store import read_result

__all__ = ["page"]

PICTURES = "images/reproduction"
NOT_RUN = "Not run yet at scale {scale}."

_HEAD = """# The paper's experiments, run again

Livne and Fleet, *TzK Flow: Conditional Generative Model*, 2019. This page is written by a command,
which takes every result from where the experiment put it:

    tzk reproduce --page docs/reproduction.md --results runs/paper-small --results runs/paper-full

An experiment is one command; `tzk reproduce --list` names them all:

    tzk reproduce hierarchy --scale small --data mnist=DIR/mnist --data cifar10=DIR/cifar10 …

`--scale full` is the paper's architecture and data, by the recipes `recipes/paper/NAME.yaml`. Where
the paper is silent or says otherwise than here: it does not say for how long it trained (full: five
million images for a t-flow), batches are balanced, 1 % of the training images is held out, σ is
limited, codes have a volume-preserving prior, and a child's density of its parent's code does not
train that code (docs/decisions.md has why).
`--scale small` is what about 25 minutes of two processor cores can do for each run, the hierarchy's
about twice that (`NAME-small.yaml`; a t-flow takes both cores with `--processes 2`; the seconds of
each run are told), with every structural element kept: three levels, z-flows and code flows of 4
steps, codes of 10 and 2 elements, frozen t-flows, kinds trained at once. Networks are smaller, and
two things are otherwise than in the paper: the objective is the evidence bound, and z-flows see the
code. With so little training codes stay unused without them, and some with them: each kind's I(c;
t) is told. A run's line names the sizes and data that differ; rates, precision and the objective's
weights are in its recipe.

A run that is finished in `--out` is taken, whichever experiment trained it; `--resume` goes on with
one that was interrupted (of kinds that are fitted in parallel those that were not done begin anew),
and `--only RUN` trains one of an experiment's runs and measures what needs no other. `--set
RECIPE:KEY=VALUE` changes a recipe, and the results say so.

Images come from the hub by their short names, or from where `--data NAME=SOURCE` says.
`--stand-in NAME=SOURCE` takes other images in the place of a data set, `--stand-in NAME=none`
leaves it out; the rows that depend on it say so.

Estimators are those of docs/evaluation.md: `prior` is log p(t); `reconstruction` is what the paper
reports for conditionals (Appendix C) and is no likelihood of the image; `importance` is a lower
bound on log p(t|kind) by N codes. Bits/dim are told on D, all elements of the observation, and on
the native D, those that the image itself gave: the paper does not say which it uses.

## When a figure counts as reproduced
"""


def page(file: Path, results: Sequence[Path] = ()) -> None:
    """Writes the page, and copies the pictures of results beside it.

    Args:
        file: the Markdown file.
        results: folders that ``tzk reproduce`` wrote; of two that hold the same experiment at one
            scale, the later one counts.

    Raises:
        UsageError: a folder holds no results.
        WorkFailed: something cannot be read or written.
    """
    found: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}
    for folder in map(Path, results):
        here = _results(folder)
        if not here:
            raise UsageError(f"{folder} holds no results of tzk reproduce")
        found |= {(name, report["scale"]): (folder, report) for name, report in here.items()}
    sections = [_HEAD, _rule(), ""]
    for experiment in EXPERIMENTS.values():
        sections += [_section(experiment, found, file), ""]
    write_aside(file, "\n".join(sections).rstrip() + "\n")


def _results(folder: Path) -> dict[str, dict[str, Any]]:
    there = {name: read_result(folder / f"{name}.json") for name in EXPERIMENTS}
    return {name: report for name, report in there.items() if report is not None}


def _rule() -> str:
    """The rule as the code that applies it tells it, less its first line."""
    _, _, rest = inspect.getdoc(verdict).partition("\n")
    return rest.strip()


def _section(experiment: Experiment, found, file: Path) -> str:
    lines = [
        f"## {experiment.title}: `{experiment.name}`",
        "",
        textwrap.fill(f"Section {experiment.section} of the paper. {experiment.about}", 100),
        "",
        f"Recipes: {', '.join(f'`paper/{name}`' for name in recipes_of(experiment))}.",
        "",
        f"<!-- results of {experiment.name} -->",
        "",
    ]
    for scale in SCALES:
        entry = found.get((experiment.name, scale))
        if entry is None:
            lines += [NOT_RUN.format(scale=scale), ""]
            continue
        folder, report = entry
        prefix = f"{PICTURES}/{experiment.name}-{scale}-"
        for part in report["parts"].values():
            for each in part["pictures"]:
                name = Path(each["file"]).name
                _copy(folder / each["file"], file.parent / f"{prefix}{name}")
                each["file"] = name
        lines.append(result_markdown(report, level=3, pictures=prefix))
    lines.append(f"<!-- end of {experiment.name} -->")
    return "\n".join(lines)


def _copy(source: Path, target: Path) -> None:
    try:
        picture = source.read_bytes()
    except OSError as error:
        raise WorkFailed(f"{source} cannot be read: {error.strerror or error}") from error
    write_aside(target, picture)
