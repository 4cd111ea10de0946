"""``tzk openapi``: the HTTP contract as a document for machines."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["openapi"]


@click.command()
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file to write.  [default: standard output]",
)
def openapi(out: Path | None) -> None:
    """Print the OpenAPI 3.1 document of the endpoints, made from their own models."""
    from tzk_core.files import write_aside
    from tzk_core.service.openapi import dumps

    if out is None:
        click.echo(dumps(), nl=False)
    else:
        write_aside(out, dumps())
