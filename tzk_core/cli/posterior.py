"""``tzk posterior``: which knowledge applies to these images, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tzk_core.cli.inputs import (
    asked,
    device_option,
    first_seed_option,
    image_files,
    read,
    service_of,
)
from tzk_core.cli.telling import tell_posterior
from tzk_core.errors import TzkError, WorkFailed

__all__ = ["posterior"]

BATCH = 64


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--knowledge", help="Paths, comma-separated  [default: all]")
@click.option("--draws", type=int, default=16, show_default=True, help="1, 16 or 256.")
@click.option(
    "--decoder-draws", type=int, default=0, show_default=True, help="256 estimates decoder too."
)
@first_seed_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object an image and line.")
@device_option
def posterior(run, sources, knowledge, draws, decoder_draws, seed, as_json, device) -> None:
    """Judge images (files, or folders and all below them) with RUN's model."""
    from tzk_core.randomness import SEEDS
    from tzk_core.service.requests import PosteriorRequest

    files = image_files(sources)
    service = service_of(run, device)
    failed = 0
    for start in range(0, len(files), BATCH):
        part = files[start : start + BATCH]
        requests = [
            asked(
                PosteriorRequest,
                image=read(path),
                knowledge=knowledge,
                draws=draws,
                decoder_draws=decoder_draws,
                seed=(seed + i) % SEEDS,
            )
            for i, path in enumerate(part, start)
        ]
        for path, judged in zip(part, service.posterior(requests), strict=True):
            if isinstance(judged, TzkError):
                failed += 1
                click.echo(f"{path}: {judged.detail}", err=True)
                if as_json:
                    click.echo(json.dumps({"file": str(path), "error": judged.detail}))
                continue
            tell_posterior(path, judged.answer, judged.seed, judged.notes, as_json)
    if failed == len(files):
        raise WorkFailed("none of the files could be judged")
