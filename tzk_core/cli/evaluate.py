"""``tzk evaluate``: what a trained model is worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from tzk_core.cli.inputs import device_option
from tzk_core.evaluation.settings import PARTS, QUICK, Settings

__all__ = ["evaluate"]

_COUNT = click.IntRange(min=2)


def _size(name: str, help: str, type: click.ParamType = _COUNT):
    """An option of Settings, whose default --quick changes."""
    field = name.strip("-").replace("-", "_")
    default = getattr(Settings(), field)
    return click.option(name, type=type, help=f"{help}  [default: {default:,}]")


@click.command()
@click.argument("run")
@click.option(
    "--data",
    multiple=True,
    metavar="KIND=SOURCE",
    help="Images of a kind; may be given again  [default: the sources of the run's recipe]",
)
@click.option(
    "--against",
    multiple=True,
    metavar="SOURCE",
    help="Images that are none of the model's, for typicality; may be given again.",
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(PARTS),
    help="Measure only this; may be given again.",
)
@click.option("--quick", is_flag=True, help="Few images: about a minute, and large errors.")
@click.option("--again", is_flag=True, help="Measure anew what is in --out already.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the results  [default: RUN/evaluation, with --quick RUN/evaluation-quick]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of tables.")
@_size("--test-images", "Of each source, that are read.", click.IntRange(min=4))
@_size("--likelihood-images", "Of each source.")
@click.option(
    "--draws",
    multiple=True,
    type=click.IntRange(min=1),
    help="N of importance; may be given again.",
)
@_size("--encoder-rate-draws", "Samples for the encoder estimate; 0: none.", click.IntRange(min=0))
@_size(
    "--existence-draws",
    "To fit p(e = 1) anew; of a checkpoint to resume from 10,000.",
    click.IntRange(min=0),
)
@_size("--consistency-images", "Of each source.")
@_size("--consistency-draws", "Of the decoder's posterior.", click.IntRange(min=16))
@_size("--typicality-images", "Of each source.")
@_size("--information-images", "Of each kind.")
@_size("--interpolation-side", "Images along a side of a sheet.", click.IntRange(min=3))
@_size("--neighbour-images", "Samples, and as many test images.")
@_size("--round-trip-images", "Of each source.")
@_size("--samples", "Of each class.")
@click.option(
    "--temperature",
    "temperatures",
    multiple=True,
    type=click.FloatRange(min=0),
    help="Of z, for samples; may be given again  [default: 0.7 and 1]",
)
@_size("--shown", "Images that each classifier is shown while it learns.")
@device_option
def evaluate(run, data, against, parts, quick, again, seed, out, as_json, device, **sizes) -> None:
    """Measure RUN (a run folder, a checkpoint or a hub name) on test images.

    Tables are printed; JSON, Markdown and one HTML file with pictures go to --out. A part that is
    done is kept: the same call takes it from there. docs/evaluation.md says what each figure means.
    """
    from ..evaluation.report import evaluate as work
    from ..evaluation.report import results_folder
    from ..evaluation.report.showing import show

    if quick and out is None:
        out = results_folder(run, "evaluation-quick")  # a glance never replaces hours of work
    given = {name: value for name, value in sizes.items() if value not in (None, ())}
    store = work(
        run,
        data=data,
        against=against,
        parts=parts,
        settings=replace(QUICK if quick else Settings(), **given),
        seed=seed,
        device=device,
        out=out,
        again=again,
    )
    if as_json:
        click.echo(store.json())
        return
    show(store, parts or PARTS)
    click.echo(str(store.out / "evaluation.html"))
