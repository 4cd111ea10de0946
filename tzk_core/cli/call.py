"""``tzk call``: the endpoints of a running server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tzk_core.cli.inputs import first_seed_option, image_files, read, write
from tzk_core.cli.telling import (
    naming_the_file,
    score_line,
    score_row,
    tell_interpolation,
    tell_posterior,
    tell_samples,
    tell_unscored,
)
from tzk_core.errors import TzkError, UsageError, WorkFailed
from tzk_core.files import must_be_writable

__all__ = ["call"]

MOST_SEED = 2**63 - 1


@click.group()
def call() -> None:
    """Ask a server of tzk; the commands answer as score, sample, … do without one."""


def server_options(command: Callable) -> Callable:
    """Adds which server is asked, with which key."""
    for option in (
        click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=60.0,
            show_default=True,
            help="Seconds for an answer, all tries together.",
        ),
        click.option(
            "--key-file",
            type=click.Path(path_type=Path),
            help="Its first line is the key  [default: the environment's TZK_API_KEY, if any]",
        ),
        click.option("--url", default="http://127.0.0.1:8080", show_default=True),
    ):
        command = option(command)
    return command


def json_option(command: Callable) -> Callable:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def seed_option(command: Callable) -> Callable:
    return click.option(
        "--seed", type=click.IntRange(0, MOST_SEED), help="[default: fresh, and told]"
    )(command)


@call.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--given", help="A knowledge path, such as mnist/3.")
@click.option("--draws", type=int, help="1, 16 or 256.")
@first_seed_option
@click.option("--batch", type=click.IntRange(1, 64), default=16, show_default=True)
@json_option
@server_options
def nll(images, given, draws, seed, batch, as_json, **server) -> None:
    """How likely IMAGES are (files, or folders and all below them).

    A file that is no image is named, and has a row with its error.
    """
    files = image_files(images)
    rows = []
    with _client(**server) as client:
        answers = client.nll_many(files, given=given, draws=draws, seed=seed, batch=batch)
        for path, answer in zip(files, answers, strict=True):
            if isinstance(answer, TzkError) and _is_of_all(answer):
                raise answer
            rows.append(score_row(path, answer))
            click.echo(
                json.dumps(rows[-1], ensure_ascii=False) if as_json else score_line(rows[-1])
            )
    tell_unscored(rows)


@call.command()
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option("--absent", multiple=True, metavar="PATH", help="Knowledge that does not apply.")
@click.option("-n", "n", type=int, default=1, show_default=True, help="How many, 1 to 256.")
@seed_option
@click.option("--temperature", type=float, help="[default: 1]")
@click.option("--code-temperature", type=float, help="[default: 1]")
@click.option("--paper-sampler", is_flag=True, help="Skip the acceptance of codes.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("samples.png"),
    show_default=True,
    help="A .png (a grid if n > 1) or .npy (uint8, n×C×H×W) file.",
)
@json_option
@server_options
def sample(
    paths, absent, n, seed, temperature, code_temperature, paper_sampler, out, as_json, **server
) -> None:
    """New images of the knowledge PATH (such as mnist/3), of several at once, or of all."""
    if not as_json:
        _check_out(out, ".png", ".npy")
    with _client(**server) as client:
        drawn = client.sample(
            paths or None,
            absent=absent or None,
            n=n,
            seed=seed,
            temperature=temperature,
            code_temperature=code_temperature,
            paper_sampler=paper_sampler or None,
        )
    if as_json:
        click.echo(drawn.model_dump_json())
        return
    # Pictures come with their NLLs and how they were drawn, which a bare PNG has no place for.
    write(out, _file_of(drawn, out.suffix))
    tell_samples(drawn, drawn.seed)


@call.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--knowledge", help="Paths, comma-separated  [default: all]")
@click.option("--draws", type=int, help="1, 16 or 256  [default: 16]")
@click.option("--decoder-draws", type=int, help="256 estimates decoder too  [default: 0]")
@first_seed_option
@json_option
@server_options
def posterior(images, knowledge, draws, decoder_draws, seed, as_json, **server) -> None:
    """Which knowledge applies to IMAGES (files, or folders and all below them)."""
    from tzk_core.client import building

    files = image_files(images)
    options = {"knowledge": knowledge, "draws": draws, "decoder_draws": decoder_draws}
    failed = 0
    with _client(**server) as client:
        for i, path in enumerate(files):
            own = options | {"seed": (seed + i) % (MOST_SEED + 1)}
            try:
                asked = building.posterior(read(path), own).with_headers()
                answer, told = client.ask(asked)
            except TzkError as error:
                if _is_of_all(error):
                    raise
                failed += 1
                click.echo(f"{path}: {error.detail}", err=True)
                if as_json:
                    click.echo(json.dumps({"file": str(path), "error": error.detail}))
                continue
            tell_posterior(path, answer, told.seed, told.notes, as_json)
    if failed == len(files):
        raise WorkFailed("none of the files could be judged")


@call.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--steps", help="A number, or rows and columns as 8x8  [default: 8]")
@click.option("--method", help="linear or spherical  [default: linear]")
@click.option("--space", help="z, or c with --given  [default: z]")
@click.option("--given", help="The knowledge whose code is meant.")
@seed_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("interpolation.png"),
    show_default=True,
    help="The grid, a PNG.",
)
@json_option
@server_options
def interpolate(images, steps, method, space, given, seed, out, as_json, **server) -> None:
    """What lies between 2 IMAGES, or 4 (top left, top right, bottom left, bottom right)."""
    from tzk_core.client import building

    if not as_json:
        _check_out(out, ".png")
    options = {"steps": steps, "method": method, "space": space, "given": given, "seed": seed}
    corners = [read(path) for path in images]
    with _client(**server) as client:
        try:
            if as_json:
                click.echo(client.interpolate(corners, **options).model_dump_json())
                return
            asked = building.interpolate_png(corners, options).with_headers()
            picture, told = client.ask(asked)
        except TzkError as error:
            raise naming_the_file(error, images) from error
    write(out, picture)
    tell_interpolation(told.seed, told.notes)


def _client(url: str, key_file: Path | None, timeout: float) -> Any:
    from tzk_core.client import Retry, TzkClient

    return TzkClient(url, key=_key(key_file), timeout=timeout, retry=Retry(total=timeout))


def _key(file: Path | None) -> str | None:
    """The first key in a file like the server's (``#`` comments)."""
    if file is None:
        return None
    from tzk_core.front.keys import read_keys

    return read_keys(file, environment={})[0]


def _check_out(out: Path, *suffixes: str) -> None:
    if out.suffix not in suffixes:
        raise UsageError(f"--out {out} does not end in {' or '.join(suffixes)}")
    # Known before the work, not after.
    must_be_writable(out)


def _file_of(drawn: Any, suffix: str) -> bytes:
    """The images as a .png or .npy file."""
    import io

    import numpy as np

    from tzk_core.client import pixels_of
    from tzk_core.data.decoding import encode_png, grid

    pixels = pixels_of(drawn)
    if suffix == ".png":
        return encode_png(pixels[0] if len(pixels) == 1 else grid(pixels))
    file = io.BytesIO()
    np.save(file, pixels, allow_pickle=False)
    return file.getvalue()


def _is_of_all(error: TzkError) -> bool:
    """Whether what was wrong is not this image alone, but any other would have it too."""
    from tzk_core.client import Unreachable

    own = (error.pointer or "").startswith("/image")
    return not own and (error.exit_code == 2 or isinstance(error, Unreachable))
