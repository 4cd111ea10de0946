"""``tzk interpolate``: the images between two or four others, without a server."""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli.inputs import asked, device_option, read, result, service_of, write

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
    between = result(service_of(run, device).interpolate([request]))
    if as_json:
        click.echo(between.answer().model_dump_json())
        return
    write(out, between.png())
    notes = f" ({'; '.join(between.notes)})" if between.notes else ""
    click.echo(f"seed {between.seed}{notes}", err=True)
