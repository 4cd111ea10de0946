"""``tzk export``: a run as ONNX files."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["export"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder that becomes the export: a new or empty one, or an earlier export.",
)
@click.option(
    "--knowledge", help="Paths to have samplers and densities of, comma-separated  [default: all]"
)
@click.option("--absent", is_flag=True, help="Also those of what is absent (e = 0).")
@click.option(
    "--check/--no-check",
    default=True,
    show_default=True,
    help="Run every file against the library on real images.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="A folder of images to check with  [default: built-in digits and garments]",
)
def export(
    run: Path, to: Path, knowledge: str | None, absent: bool, check: bool, images: Path | None
) -> None:
    """Write RUN's model as ONNX files; docs/onnx.md tells of their inputs and outputs."""
    import onnx  # noqa: F401 - the first of the extra's packages, missed before torch is loaded

    from tzk_export.onnx import export as write

    paths = None if knowledge is None else [one.strip() for one in knowledge.split(",") if one]
    write(run, to, paths=paths, absent=absent, check=check, images=images, progress=_tell)
    if not check:
        click.echo("not checked against the library", err=True)


def _tell(file: str, figures: dict[str, float]) -> None:
    # Whose error a difference is, export.json has.
    shown = {name: value for name, value in figures.items() if "_error_" not in name}
    told = ", ".join(f"{name} {value:.2g}" for name, value in shown.items())
    click.echo(f"{file}\t{told}" if told else file)
