"""``tzk quickstart``: archive, serve and ask in one command, the model that comes with tzk or one
that is trained first."""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli.serving_options import model_store_option, serving_options
from tzk_core.pretrained import BUILTIN, run_folder

__all__ = ["quickstart"]


@click.command()
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    default=Path(BUILTIN),
    show_default=True,
    help="A run folder; the recipe quick is trained there unless it holds a model. builtin is the "
    "model that comes with tzk.",
)
@model_store_option("Where the archives go.")
@click.option("--once", is_flag=True, help="Stop after the calls; fail unless all were right.")
@serving_options
def quickstart(run: Path, model_store: Path, once: bool, **options) -> None:
    """Serve a model (the one that comes with tzk, or a run) and call every endpoint."""
    from tzk_core.errors import WorkFailed
    from tzk_core.launcher import Serving, Settings
    from tzk_core.launcher.java import find_java
    from tzk_core.launcher.signals import signals_end
    from tzk_core.ports import must_be_free
    from tzk_export.archive import archive

    settings = Settings(model_store=model_store, **options)
    # Known before minutes of training, not after.
    find_java()
    must_be_free(settings.ports())
    settings.check_callers()
    wrong: list[str] = []
    finished = False
    with signals_end():
        if run_folder(run) == run:
            _trained(run, options["device"])
        _say(f"archiving {run} to {settings.model_store}")
        archive(run, settings.model_store)
        _say("starting the server …")
        with Serving(settings) as server:
            _say(f"ready at {server.url}")
            wrong = _called(server.url, run)
            finished = True
            if not once:
                _say("serving until Ctrl-C")
                server.wait()
    if once and not finished:
        raise WorkFailed("it was stopped before all endpoints were called")
    if wrong:
        raise WorkFailed("not every endpoint answered rightly: " + "; ".join(wrong))


def _trained(run: Path, device: str) -> None:
    """Trains the quick recipe into ``run``, or goes on where it was stopped, unless it is done."""
    from tzk_core.errors import WorkFailed
    from tzk_core.training.recipe import load_recipe
    from tzk_core.training.run import RECIPE, is_finished, train

    if is_finished(run):
        _say(f"{run} is there: it is not trained again")
        return
    stopped = (run / RECIPE).is_file()
    _say(
        f"training the recipe quick into {run}" + (", from where it was stopped" if stopped else "")
    )
    try:
        train(load_recipe("quick"), out=run, resume=stopped, device=device)
    except WorkFailed:
        if (run / RECIPE).is_file():
            # The error speaks of --resume, which is tzk train's.
            _say("tzk quickstart goes on from the last checkpoint when it is run again")
        raise


def _called(url: str, run: Path) -> list[str]:
    """Calls every endpoint and prints what came back; returns what was wrong."""
    from tzk_core.hub import load_config
    from tzk_core.tour import tour

    config, _ = load_config(run)
    wrong = []
    folder = Path("quickstart") if run_folder(run) != run else run / "quickstart"
    for answered in tour(url, _paths(config), config.observation[1:], folder):
        click.echo(f"\n$ {answered.curl}")
        click.echo(answered.told or "(no answer)")
        for one in answered.wrong:
            click.echo(f"WRONG: {one}")
            wrong.append(f"{answered.endpoint}: {one}")
    click.echo("")
    return wrong


def _paths(config) -> list[str]:
    """The knowledge paths of a configuration, parents first."""
    found = []
    for name, kind in config.knowledge.items():
        found.append(name)
        if kind.child is not None:
            found += [f"{name}/{path}" for path in _paths(kind.child)]
    return found


def _say(text: str) -> None:
    click.echo(text, err=True)
