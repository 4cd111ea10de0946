"""``tzk archive``: a run as model archives for TorchServe."""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli.serving_options import model_store_option

__all__ = ["archive"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@model_store_option("Where the archives go.")
@click.option(
    "--bf16",
    is_flag=True,
    help="On a GPU, networks in bfloat16 where the model allows it; each worker measures that.",
)
@click.option(
    "--backend",
    type=click.Choice(["torch", "compile", "onnx"]),
    default="torch",
    show_default=True,
    help="What runs the model's large parts; onnx needs the extra 'export' here, and where it is "
    "served onnxruntime.",
)
def archive(run: Path, model_store: Path, bf16: bool, backend: str) -> None:
    """Write RUN's model as the four archives that tzk serve reads."""
    from tzk_export.archive import archive as write

    for path in write(run, model_store, bf16=bf16, backend=backend):
        click.echo(path)
