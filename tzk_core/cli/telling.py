"""How results are told on the command line, with a server or without one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from tzk_core.errors import TzkError, WorkFailed

if TYPE_CHECKING:
    from tzk_core.service.answers import Existence, NllAnswer

__all__ = [
    "naming_the_file",
    "score_line",
    "score_row",
    "tell_interpolation",
    "tell_posterior",
    "tell_samples",
    "tell_unscored",
]


class Drawn(Protocol):
    """How images were drawn; what the service gives and what HTTP answers both say it."""

    acceptance_rate: float | None
    effective_sample_size: float | None
    exact: bool
    notes: list[str]


def score_row(path: Path, answer: NllAnswer | TzkError) -> dict[str, Any]:
    """What is told of one image, by column; an error is told at once."""
    from tzk_core.service.answers import NllAnswer

    if isinstance(answer, TzkError):
        click.echo(f"{path}: {answer.detail}", err=True)
        empty = {name: None for name in NllAnswer.model_fields if name != "reasons"}
        return {"file": str(path), **empty, "error": answer.detail}
    values = answer.model_dump(exclude={"reasons"})
    return {"file": str(path), **values, "notes": "; ".join(answer.notes), "error": None}


def score_line(row: Mapping[str, Any]) -> str:
    """A row as a person reads it."""
    if row["error"]:
        return f"{row['file']}\terror: {row['error']}"
    percentile = row["percentile"]
    rank = "" if percentile is None else f"\tpercentile {percentile:.1f}"
    if row["typicality"] is not None:
        rank += f"\ttypicality {row['typicality']:.4f}"
    notes = f"\t({row['notes']})" if row["notes"] else ""
    nats, bits, native = (
        "none" if row[name] is None else f"{row[name]:.3f}"
        for name in ("nll_nats", "bits_per_dim", "bits_per_dim_native")
    )
    return (
        f"{row['file']}\t{nats} nats\t{bits} bits/dim on D = {row['dims']}"
        f"\t{native} on its own {row['dims_native']}{rank}{notes}"
    )


def tell_unscored(rows: Sequence[Mapping[str, Any]]) -> None:
    """Says how many rows are errors.

    Raises:
        WorkFailed: all of them are.
    """
    wrong = [row for row in rows if row["error"]]
    if wrong:
        click.echo(f"{len(wrong)} of {len(rows)} files could not be scored", err=True)
    if len(wrong) == len(rows):
        raise WorkFailed(f"no file could be scored; of {wrong[0]['file']}: {wrong[0]['error']}")


def tell_posterior(
    path: Path,
    answer: Mapping[str, Existence],
    seed: int | None,
    notes: Sequence[str],
    as_json: bool,
) -> None:
    """Each knowledge of one image, to standard output."""
    if as_json:
        posterior = {name: one.model_dump() for name, one in answer.items()}
        told = {"file": str(path), "posterior": posterior, "seed": seed, "notes": list(notes)}
        click.echo(json.dumps(told, ensure_ascii=False))
        return
    click.echo(f"{path}" + (f"\t({'; '.join(notes)})" if notes else ""))
    for name, one in answer.items():
        encoder, joint = (
            "none" if value is None else f"{value:.4f}" for value in (one.encoder, one.joint)
        )
        decoder = "" if one.decoder is None else f"  decoder {one.decoder:.4f}"
        among = "" if one.normalised is None else f"  of its siblings {one.normalised:.4f}"
        click.echo(f"  {name:<24} {encoder}  joint {joint}{among}{decoder}")


def tell_samples(drawn: Drawn, seed: int) -> None:
    """The seed of the first image and how the images were drawn, to standard error."""
    rate = "" if drawn.acceptance_rate is None else f", acceptance {drawn.acceptance_rate:.3f}"
    size = drawn.effective_sample_size
    sizes = "" if size is None else f", effective sample size {size:.1f}"
    exact = "" if drawn.exact else ", not exact"
    click.echo(f"seed {seed}{rate}{sizes}{exact}", err=True)
    for note in drawn.notes:
        click.echo(f"warning: {note}", err=True)


def tell_interpolation(seed: int | None, notes: Sequence[str]) -> None:
    told = f" ({'; '.join(notes)})" if notes else ""
    click.echo(f"seed {seed}{told}", err=True)


def naming_the_file(error: TzkError, images: Sequence[Path]) -> TzkError:
    """``error``, which points at an image by its number, with the image's name before it."""
    number = (error.pointer or "").removeprefix("/images/")
    if number.isdecimal() and int(number) < len(images):
        error.detail = f"{images[int(number)]}: {error.detail}"
    return error
