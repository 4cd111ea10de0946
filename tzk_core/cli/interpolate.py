"""``tzk interpolate``: the images between two or four others, without a server."""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli.inputs import asked, device_option, read, result, service_of, write
from tzk_core.cli.telling import naming_the_file, tell_interpolation
from tzk_core.errors import TzkError, UsageError

__all__ = ["interpolate"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--steps", help="A number, or rows and columns as 8x8  [default: 8]")
@click.option("--method", default="linear", show_default=True, help="linear or spherical.")
@click.option("--space", default="z", show_default=True, help="z, or c with --given.")
@click.option("--given", help="The knowledge whose code is meant.")
@click.option("--seed", type=int, help="[default: fresh, and told]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("interpolation.png"),
    show_default=True,
    help="The grid, a PNG.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of writing a file.")
@device_option
def interpolate(run, images, steps, method, space, given, seed, out, as_json, device) -> None:
    """Draw what lies between 2 IMAGES, or 4 (top left, top right, bottom left, bottom right)."""
    from tzk_core.service.requests import InterpolateRequest

    if not as_json and out.suffix != ".png":
        raise UsageError(f"--out {out} does not end in .png")
    request = asked(
        InterpolateRequest,
        images=[read(path) for path in images],
        steps=steps,
        method=method,
        space=space,
        given=given,
        seed=seed,
        format="json" if as_json else "png",
    )
    try:
        between = result(service_of(run, device).interpolate([request]))
    except TzkError as error:
        raise naming_the_file(error, images) from error
    if as_json:
        click.echo(between.answer().model_dump_json())
        return
    write(out, between.png())
    tell_interpolation(between.seed, between.notes)
