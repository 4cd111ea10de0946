"""``tzk serve``: TorchServe and its front, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import click

from tzk_core.cli.serving_options import model_store_option, serving_options

__all__ = ["serve"]


def _new_key(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from tzk_core.front.keys import new_key

    click.echo(new_key())
    context.exit()


@click.command()
@model_store_option("The folder that tzk archive wrote to.")
@serving_options
@click.option(
    "--new-key",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_new_key,
    help="Print a new key and do nothing else.",
)
def serve(**options) -> None:
    """Serve the archives of a model store in the foreground.

    It says so when every model has a live worker. If one cannot load, its own error is told and
    the command fails. On Ctrl-C or SIGTERM it takes no new request, finishes those in flight, and
    ends all that it started; a second one ends it at once.
    """
    from tzk_core.launcher import Serving, Settings
    from tzk_core.launcher.signals import signals_end

    settings = Settings(**options)
    with signals_end():
        click.echo("starting …", err=True)
        with Serving(settings) as serving:
            click.echo(f"configuration: {settings.config_file()}", err=True)
            click.echo(f"logs: {serving.logs}", err=True)
            click.echo(f"metrics: {serving.admin_url}/metrics", err=True)
            names = ", ".join(serving.models)
            click.echo(f"ready: {names} at {serving.url}/predictions/", err=True)
            try:
                serving.wait()
            finally:
                click.echo("stopping …", err=True)
    click.echo("stopped", err=True)
