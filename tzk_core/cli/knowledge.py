"""``tzk add-knowledge`` and ``tzk remove-knowledge``."""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli.inputs import device_option

__all__ = ["add_knowledge", "remove_knowledge"]

RUN = click.argument("run", type=click.Path(path_type=Path))


@click.command()
@RUN
@click.option("--name", required=True, help="name of the new knowledge")
@click.option("--data", "source", required=True, help="a folder, parquet, builtin/… or hub name")
@click.option("--classes", is_flag=True, help="its labels become knowledge below it")
@click.option("--steps", type=click.IntRange(min=1), help="[default: those of the run's recipe]")
@click.option("--limit", type=click.IntRange(min=2), help="at most so many images")
@device_option
def add_knowledge(
    run: Path,
    name: str,
    source: str,
    classes: bool,
    steps: int | None,
    limit: int | None,
    device: str,
) -> None:
    """Fit one more knowledge on the frozen t-flow of RUN; nothing else changes, bit for bit."""
    from ..training.extend import add_knowledge as add

    model = add(
        run, name=name, source=source, classes=classes, steps=steps, limit=limit, device=device
    )
    click.echo("\n".join(model.paths()))


@click.command()
@RUN
@click.argument("name")
def remove_knowledge(run: Path, name: str) -> None:
    """Remove the knowledge NAME (a path), and all below it, from RUN."""
    from ..training.extend import remove_knowledge as remove

    model = remove(run, name)
    click.echo("\n".join(model.paths()))
