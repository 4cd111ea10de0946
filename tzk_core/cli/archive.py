"""``tzk archive``: a run as model archives for TorchServe."""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli.serving_options import (
    archive_options,
    model_store_option,
)

__all__ = ["archive"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@model_store_option("Where the archives go.")
@archive_options
def archive(run: Path, model_store: Path, bf16: bool, backend: str) -> None:
    """Write RUN's model as the four archives that tzk serve reads."""
    from tzk_export.archive import archive as write

    for path in write(run, model_store, bf16=bf16, backend=backend):
        click.echo(path)
