"""``tzk score``: how likely are these images, without a server."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tzk_core.cli.inputs import (
    asked,
    device_option,
    first_seed_option,
    image_files,
    read,
    service_of,
    write,
)
from tzk_core.cli.telling import score_line, score_row, tell_unscored
from tzk_core.errors import TzkError, UsageError
from tzk_core.files import must_be_writable

__all__ = ["score"]

NUMBERS = ("nll_nats", "bits_per_dim", "bits_per_dim_native", "typicality", "percentile")
COUNTS = ("draws", "seed", "dims", "dims_native")
COLUMNS = dict.fromkeys(NUMBERS, "float64") | dict.fromkeys(COUNTS, "int64")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--given", help="A knowledge path, such as mnist/3.")
@click.option("--draws", type=int, help="1, 16 or 256.")
@first_seed_option
@click.option("--out", type=click.Path(path_type=Path), help="A .csv or .parquet file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object an image and line.")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True)
@device_option
def score(run, sources, given, draws, seed, out, as_json, batch, device) -> None:
    """Score images (files, or folders and all below them) with RUN's model.

    A file that is no image is named, and has a row with its error.
    """
    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise UsageError(f"--out {out} ends in neither .csv nor .parquet")
    files = image_files(sources)
    if out is not None:
        # Known before hours of work, not after.
        must_be_writable(out)
        if out.suffix == ".parquet":
            import pyarrow  # noqa: F401
    service = service_of(run, device)
    if given is not None:
        service.model.find(given)
    rows = list(_scored(service, files, batch, given=given, draws=draws, seed=seed))
    if out is not None:
        write(out, _table(rows, out.suffix))
    if as_json:
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
    elif out is None:
        for row in rows:
            click.echo(score_line(row))
    tell_unscored(rows)


def _scored(
    service, files: list[Path], batch: int, *, given: str | None, draws: int | None, seed: int
) -> Iterator[dict[str, Any]]:
    from rich.console import Console
    from rich.progress import track

    from tzk_core.randomness import SEEDS
    from tzk_core.service.requests import NllRequest

    console = Console(stderr=True)
    starts = range(0, len(files), batch)
    hidden = not console.is_terminal
    for start in track(starts, "scoring", console=console, disable=hidden):
        part = files[start : start + batch]
        requests = []
        for i, path in enumerate(part, start):
            own = (seed + i) % SEEDS
            # Options are the same for all files, so a wrong one stops the command at once.
            made = asked(NllRequest, image=b"?", given=given, draws=draws, seed=own)
            try:
                requests.append(made.model_copy(update={"image": read(path)}))
            except TzkError as error:
                requests.append(error)
        for path, answer in zip(part, service.score(requests), strict=True):
            yield score_row(path, answer)


def _table(rows: list[dict[str, Any]], suffix: str) -> bytes:
    """The rows as the bytes of a file."""
    if suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        # Named, as a column in which nothing is known would have no type.
        schema = pyarrow.schema([(name, COLUMNS.get(name, "string")) for name in rows[0]])
        binary = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), binary)
        return binary.getvalue()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
