"""``tzk serve``: TorchServe in the foreground, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import click

from tzk_core.cli.serving_options import model_store_option, serving_options

__all__ = ["serve"]


@click.command()
@model_store_option("The folder that tzk archive wrote to.")
@serving_options
def serve(**options) -> None:
    """Serve the archives of a model store in the foreground.

    It says so when every model has a live worker. If one cannot load, its own error is told and
    the command fails. Ctrl-C or SIGTERM ends the server and all that it started.
    """
    from tzk_core.launcher import Server, Settings
    from tzk_core.launcher.signals import signals_end

    settings = Settings(**options)
    with signals_end():
        click.echo("starting …", err=True)
        with Server(settings) as server:
            click.echo(f"configuration: {settings.config_file()}", err=True)
            click.echo(f"logs: {server.logs}", err=True)
            click.echo(f"ready: {', '.join(server.models)} at {server.url}/predictions/", err=True)
            server.wait()
    click.echo("stopped", err=True)
