"""``tzk fit-knowledge``: every kind that a run's recipe tells of, in parallel."""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli.inputs import device_option

__all__ = ["fit_knowledge"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--only", metavar="NAME", multiple=True, help="this kind; may be given again")
@click.option("--steps", type=click.IntRange(min=1), help="[default: those of the run's recipe]")
@click.option(
    "--processes", type=click.IntRange(min=1), help="[default: as many as there are cores for]"
)
@click.option(
    "--threads-per-process",
    "threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="also cores of each Ray task",
)
@click.option(
    "--ray",
    is_flag=False,
    flag_value="",
    metavar="[ADDRESS]",
    help="as Ray tasks: on the cluster at ADDRESS (auto: the one of this machine), else on one of "
    "its own",
)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="of a kind whose process died",
)
@device_option
def fit_knowledge(
    run: Path,
    only: tuple[str, ...],
    steps: int | None,
    processes: int | None,
    threads: int,
    ray: str | None,
    retries: int,
    device: str,
) -> None:
    """Fit the knowledge that the recipe of RUN tells of and its model does not have yet.

    Each kind of the first level, with those below it, is a job of its own on the frozen t-flow. A
    job whose process dies is tried again; run the command again for what is missing. Knowledge that
    is there stays as it is, bit for bit.
    """
    if ray is not None and processes is not None:
        raise click.UsageError("--processes is of this machine; a Ray cluster has its own number")
    from ..training.fit import fit_knowledge as fit

    model = fit(
        run,
        only=only,
        steps=steps,
        processes=processes,
        threads=threads,
        ray=ray,
        retries=retries,
        device=device,
    )
    click.echo("\n".join(model.paths()))
