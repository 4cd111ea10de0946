"""``tzk reproduce``: the paper's experiments."""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli.inputs import device_option
from tzk_core.errors import UsageError

__all__ = ["reproduce"]

_NOT_SHOWN = ("where", "data")  # columns that NAME.md has and a terminal no room for


@click.command()
@click.argument("names", metavar="NAME…", nargs=-1)
@click.option(
    "--scale",
    type=click.Choice(["small", "full"]),
    default="small",
    show_default=True,
    help="full: the paper's architecture and data; small: about 25 minutes of two cores a run, the "
    "hierarchy twice that.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of results and runs  [default: runs/paper-SCALE]",
)
@click.option(
    "--data",
    multiple=True,
    metavar="NAME=SOURCE",
    help="Where the images of a data set are; may be given again  [default: the hub]",
)
@click.option(
    "--stand-in",
    "stand_ins",
    multiple=True,
    metavar="NAME=SOURCE|none",
    help="Other images in the place of a data set, or none; rows are marked.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="[RECIPE:]KEY=VALUE",
    help="Change a key of the recipes, or of one: hierarchy:stages.0.steps=100",
)
@click.option(
    "--only",
    multiple=True,
    metavar="RUN",
    help="Train only this run of the experiment; may be given again.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="[default: that of the recipes]")
@click.option("--resume", is_flag=True, help="Go on with runs in --out that were interrupted.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Train a t-flow in so many processes, on parts of each batch.",
)
@click.option("--list", "as_list", is_flag=True, help="Name the experiments, and end.")
@click.option(
    "--page",
    "page_file",
    type=click.Path(path_type=Path),
    help="Write docs/reproduction.md from --results, and end.",
)
@click.option(
    "--results",
    multiple=True,
    type=click.Path(path_type=Path),
    help="For --page: a folder that --out named; may be given again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of the table.")
@device_option
def reproduce(
    names: tuple[str, ...],
    scale: str,
    out: Path | None,
    data: tuple[str, ...],
    stand_ins: tuple[str, ...],
    overrides: tuple[str, ...],
    only: tuple[str, ...],
    seed: int | None,
    resume: bool,
    processes: int,
    as_list: bool,
    page_file: Path | None,
    results: tuple[Path, ...],
    as_json: bool,
    device: str,
) -> None:
    """Train, measure and compare the paper's experiment NAME (several are run in turn).

    The table is printed; --out gets NAME.json, NAME.md and pictures as parts finish. Runs that are
    finished there are taken. docs/reproduction.md says what each experiment is.
    """
    from ..reproduction.registry import EXPERIMENTS, find

    if as_list:
        for each in EXPERIMENTS.values():
            click.echo(f"{each.name:<18} {each.title} (paper, {each.section})")
        return
    if page_file is not None:
        from ..reproduction.page import page

        page(page_file, results)
        click.echo(str(page_file))
        return
    if results:
        raise UsageError("--results is for --page")
    if not names:
        raise UsageError(f"which experiment? There are {', '.join(EXPERIMENTS)}")
    for name in names:
        find(name)  # a name that is none is told before the first one trains
    from ..reproduction.data import PaperData
    from ..reproduction.reproduce import reproduce as run

    out = out or Path("runs") / f"paper-{scale}"
    sources = PaperData.parsed(data, stand_ins)
    for name in dict.fromkeys(names):
        report = run(
            name,
            scale=scale,
            out=out,
            data=sources,
            seed=seed,
            overrides=overrides,
            only=only,
            resume=resume,
            processes=processes,
            device=device,
        )
        _tell(report, out / f"{name}.md", as_json)


def _tell(report: dict, file: Path, as_json: bool) -> None:
    """The results, to standard output."""
    import json

    from ..evaluation.report.result import Table
    from ..evaluation.report.showing import console, rich_table
    from ..reproduction.rows import HEADER

    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    kept = [index for index, name in enumerate(HEADER) if name not in _NOT_SHOWN]
    rows = [
        [row["cells"][index] for index in kept]
        for part in report["parts"].values()
        for row in part["rows"]
    ]
    header, title = [HEADER[index] for index in kept], f"{report['title']}, scale {report['scale']}"
    console().print(rich_table(Table(title, header, rows)))
    for each in report["stand_ins"]:
        click.echo(each)
    click.echo(str(file))
