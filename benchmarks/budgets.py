"""What more training would buy: a recipe at shares of its steps, and how its samples are read.

    python benchmarks/budgets.py digits --data mnist --share 0.125 --share 0.25 --share 1
    python benchmarks/budgets.py digits --data fashion_mnist --knowledge fashion --share 0.125
    python benchmarks/budgets.py digits --data mnist --share 0.125 --run runs/digits

Every stage of a recipe of one source with classes is trained for each share of its steps, from
nothing, by what `tzk train` does: an interrupted budget goes on when the command is given again,
and a finished one is taken. Told is the share of conditional samples of the classes that an
independent classifier, trained on the source's training images, reads as asked for, ± its standard
error over samples, p(t) on held-out images, and the seconds that training took. --run adds a
finished run, such as the whole recipe's. Results go to OUT/budgets.json, .md and .png.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import torch

from tzk_core._version import __version__
from tzk_core.cli.script import Script
from tzk_core.devices import conditions_on, device_named
from tzk_core.errors import UsageError
from tzk_core.evaluation.report.class_samples import sampled
from tzk_core.evaluation.report.data import Classes, classes_of, read_source
from tzk_core.evaluation.report.judge import Judge, judge_of
from tzk_core.evaluation.report.result import Table, plain, share
from tzk_core.evaluation.report.showing import markdown_table
from tzk_core.evaluation.settings import SHOWN
from tzk_core.files import write_aside
from tzk_core.model import TzK
from tzk_core.reproduction.pictures import lines
from tzk_core.training.fit import recipe_of
from tzk_core.training.progress import Reporter
from tzk_core.training.recipe import Recipe, SourceConfig, load_recipe, parse_recipe
from tzk_core.training.run import RECIPE, is_finished, train

__all__ = ["budgets", "shortened"]

TEMPERATURES = (0.7, 1.0)
TEST_IMAGES = 10_000


@click.command(cls=Script)
@click.argument("recipe_name", metavar="RECIPE")
@click.option("--data", required=True, help="source with classes, with train and test images")
@click.option("--knowledge", help="what it is called  [default: as in the recipe]")
@click.option("--share", "shares", type=click.FloatRange(0, min_open=True), multiple=True)
@click.option(
    "--run", "runs", type=click.Path(path_type=Path), multiple=True, help="a finished run"
)
@click.option("--samples", type=click.IntRange(min=2), default=1000, show_default=True)
@click.option("--set", "overrides", multiple=True, help="change a key of the recipe")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/budgets"))
def budgets(
    recipe_name: str,
    data: str,
    knowledge: str | None,
    shares: tuple[float, ...],
    runs: tuple[Path, ...],
    samples: int,
    overrides: tuple[str, ...],
    seed: int,
    device: str,
    out: Path,
) -> None:
    """Train RECIPE for shares of its steps, and measure its conditional samples."""
    where, reporter = device_named(device), Reporter()
    own = [f"data.sources.0.source={data}", *overrides]
    if knowledge is not None:
        own.append(f"data.sources.0.knowledge={knowledge}")
    whole = load_recipe(recipe_name, own)
    if len(whole.data.sources) != 1 or not whole.data.sources[0].classes:
        raise UsageError(f"{recipe_name} is not of one source with classes")
    for run in runs:
        if not is_finished(run):
            raise UsageError(f"{run} holds no finished run")
    report: dict[str, Any] = {
        "recipe": whole.name,
        "data": data,
        **conditions_on(where),
        "seed": seed,
        "samples_a_class": samples,
        "budgets": [],
    }
    trained = [_trained(shortened(whole, part), out / f"share-{part:g}", where) for part in shares]
    for folder in sorted([*trained, *runs], key=_images_seen):
        with reporter.live():
            report["budgets"].append(_measured(folder, data, samples, seed, where, out, reporter))
        write_aside(out / "budgets.json", json.dumps(plain(report), indent=2) + "\n")
        write_aside(out / "budgets.md", _markdown(report))
        write_aside(out / "budgets.png", _curve(report))
    click.echo(_markdown(report))


def shortened(recipe: Recipe, part: float) -> Recipe:
    """The recipe with a share of every stage's steps."""
    values = recipe.model_dump(mode="json")
    for stage in values["stages"]:
        stage["steps"] = max(1, round(part * stage["steps"]))
    return parse_recipe(values, title=f"{recipe.name}, {part:g} of its steps")


def _trained(recipe: Recipe, folder: Path, device: torch.device) -> Path:
    """The finished run of a budget.

    Raises:
        UsageError: the folder holds a run by another recipe.
    """
    if (folder / RECIPE).exists() and recipe_of(folder) != recipe:
        raise UsageError(
            f"{folder} holds a run by another recipe (data, sizes or seed): name another --out"
        )
    if not is_finished(folder):
        train(recipe, out=folder, resume=(folder / RECIPE).exists(), device=device)
    return folder


def _images_seen(folder: Path) -> int:
    """By all stages together."""
    return sum(stage.steps * stage.batch for stage in recipe_of(folder).stages)


def _measured(
    folder: Path,
    data: str,
    samples: int,
    seed: int,
    device: torch.device,
    out: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    """The figures of one run."""
    recipe, model = recipe_of(folder), TzK.from_pretrained(folder).to(device)
    [config] = [source for source in recipe.data.sources if source.classes][:1]
    classes = _classes(model, config.model_copy(update={"source": data}), recipe, seed)
    judge = _judge(classes, out, seed, device, reporter)
    facts = json.loads((folder / "run.json").read_text())
    found = {
        temperature: sampled(
            model,
            classes,
            judge,
            samples,
            temperature,
            name=folder.name,
            seed=seed,
            reporter=reporter,
        )[0].figures["read_as_asked"]
        for temperature in TEMPERATURES
    }
    return {
        "run": folder.name,
        "stages": [[stage.train, stage.steps, stage.batch] for stage in recipe.stages],
        "images_seen": _images_seen(folder),
        "seconds": facts["seconds"],
        "trained_on": sorted(
            {
                f"{s['device']}, {s['processes']} processes of {s['threads']} threads"
                for s in facts["sessions"]
            }
        ),
        "held_out": facts["figures"][0],
        "read_as_asked": {f"{t:g}": figure for t, figure in found.items()},
    }


def _classes(model: TzK, config: SourceConfig, recipe: Recipe, seed: int) -> Classes:
    source = read_source(
        config,
        config.knowledge or config.source,
        model.preparation,
        test_images=TEST_IMAGES,
        seed=recipe.seed,
        holdout=recipe.data.holdout,
    )
    classes = classes_of(source, model.paths())
    if classes is None:
        raise UsageError(f"{config.source} has no two classes that the model knows")
    return classes


def _judge(
    classes: Classes, out: Path, seed: int, device: torch.device, reporter: Reporter
) -> Judge:
    file = out / f"classifier-{classes.name}.safetensors"
    return judge_of(classes, file, seed=seed, device=device, reporter=reporter, shown=SHOWN)


def _markdown(report: dict[str, Any]) -> str:
    rows = [
        [
            one["run"],
            f"{one['images_seen']:,}",
            f"{one['seconds']:,}",
            "; ".join(one["trained_on"]),
            f"{one['held_out']['mean']:.3f}",
            *(share(figure) for figure in one["read_as_asked"].values()),
        ]
        for one in report["budgets"]
    ]
    header = ["run", "images seen", "seconds", "trained on", "p(t), bits/dim, held out"]
    header += [f"read as asked, T {t:g}" for t in TEMPERATURES]
    title = (
        f"{report['recipe']} on {report['data']}, {report['samples_a_class']:,} samples of each "
        f"class, seed {report['seed']}, tzk {__version__}, torch {torch.__version__}"
    )
    return markdown_table(Table(title, header, rows)) + "\n"


def _curve(report: dict[str, Any]) -> bytes:
    seen = [one["images_seen"] / 1000 for one in report["budgets"]]
    series = {
        f"temperature {t:g}": (
            seen,
            [one["read_as_asked"][f"{t:g}"].mean for one in report["budgets"]],
        )
        for t in TEMPERATURES
    }
    return lines(series, report["recipe"], "thousands of images seen", "samples read as asked")


if __name__ == "__main__":
    budgets()
