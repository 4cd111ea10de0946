"""``tzk train``: a recipe, or a folder of images, to a run folder."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tzk_core.cli.inputs import device_option

__all__ = ["train"]


@click.command()
@click.argument("recipe", metavar="RECIPE|FOLDER")
@click.option("--out", type=click.Path(path_type=Path), help="run folder  [default: runs/NAME]")
@click.option("--resume", is_flag=True, help="go on from the last checkpoint of the run in --out")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="change a key of the recipe, dotted: stages.0.steps=10 (`tzk recipe fields` tells of all)",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    help="train in so many processes, one a GPU, on parts of each batch  [default: 1]",
)
@device_option
def train(
    recipe: str,
    out: Path | None,
    resume: bool,
    overrides: tuple[str, ...],
    processes: int,
    device: str,
) -> None:
    """Train a model by RECIPE (a YAML file or the name of one that comes with tzk).

    With a FOLDER of images there is no YAML to write: the folder becomes one knowledge, its class
    folders become the classes below it.

    Several processes of one machine are --processes; of several machines:
    accelerate launch -m tzk_core.cli.main train …
    """
    from ..training.folder import recipe_for_folder
    from ..training.group import is_main
    from ..training.recipe import load_recipe
    from ..training.run import train as run

    # Before any process starts, so that a wrong recipe is told once.
    if Path(recipe).is_dir():
        settings = recipe_for_folder(Path(recipe), overrides)
    else:
        settings = load_recipe(recipe, overrides)
    out = out or Path("runs") / settings.name
    if processes > 1:
        from ..training.launch import launch

        given = [f"--set={override}" for override in overrides]
        given += ["--out", str(out), "--device", device, *(["--resume"] if resume else [])]
        sys.exit(launch(["train", *given, "--", recipe], processes))
    run(settings, out=out, resume=resume, device=device)
    if is_main():
        click.echo(str(out))
