"""``tzk sample``: new images, without a server."""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli.inputs import asked, device_option, result, service_of, write
from tzk_core.cli.telling import tell_samples
from tzk_core.errors import UsageError

__all__ = ["sample"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option("--absent", multiple=True, metavar="PATH", help="Knowledge that does not apply.")
@click.option("-n", "n", type=int, default=64, show_default=True, help="How many, 1 to 256.")
@click.option("--seed", type=int, help="Image i has seed + i  [default: fresh, and told]")
@click.option("--temperature", type=float, default=1.0, show_default=True)
@click.option("--code-temperature", type=float, default=1.0, show_default=True)
@click.option("--paper-sampler", is_flag=True, help="Skip the acceptance of codes.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("samples.png"),
    show_default=True,
    help="A .png (a grid if n > 1) or .npy (uint8, n×C×H×W) file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of writing a file.")
@device_option
def sample(
    run, paths, absent, n, seed, temperature, code_temperature, paper_sampler, out, as_json, device
) -> None:
    """Draw images from RUN's model, of the knowledge PATH (such as mnist/3) or of all.

    With several PATHs, or some that are absent, images of which all of it is true: the product of
    the kinds, which takes longer.
    """
    from tzk_core.service.requests import SampleRequest

    if not as_json and out.suffix not in (".png", ".npy"):
        raise UsageError(f"--out {out} ends in neither .png nor .npy")
    request = asked(
        SampleRequest,
        given=list(paths) or None,
        absent=list(absent) or None,
        n=n,
        seed=seed,
        temperature=temperature,
        code_temperature=code_temperature,
        paper_sampler=paper_sampler,
        format="json" if as_json else out.suffix.removeprefix("."),
    )
    drawn = result(service_of(run, device).sample([request]))
    if as_json:
        click.echo(drawn.answer().model_dump_json())
        return
    write(out, drawn.npy() if out.suffix == ".npy" else drawn.png())
    tell_samples(drawn, drawn.seeds[0])
