"""``tzk deploy``: another version into a running server."""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli.serving_options import archive_options

__all__ = ["deploy"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--rollback", is_flag=True, help="The version before the current one again; no RUN.")
@click.option("--management-port", type=int, default=8081, show_default=True, help="Of the server.")
@click.option("--metrics-port", type=int, default=8082, show_default=True, help="Of the server.")
@click.option(
    "--model-store",
    type=click.Path(path_type=Path),
    help="Refuse a server with another one  [default: the server's own]",
)
@archive_options
@click.option(
    "--timeout",
    type=click.IntRange(1, 86_400),
    help="Seconds for the new version to be ready  [default: 300; 900 for the backend compile]",
)
def deploy(
    run: Path | None,
    rollback: bool,
    management_port: int,
    metrics_port: int,
    model_store: Path | None,
    bf16: bool,
    backend: str,
    timeout: int | None,
) -> None:
    """Serve RUN from a running server in place of what it serves; no request is lost.

    The new version is loaded beside the old one. If it cannot load, its own error is told and the
    old one goes on.
    """
    from tzk_core.errors import UsageError
    from tzk_core.launcher.deploy import deploy as put
    from tzk_core.launcher.deploy import roll_back
    from tzk_core.launcher.running import Running

    if rollback == (run is not None):
        raise UsageError("give either a RUN or --rollback")

    def tell(step: str) -> None:
        click.echo(step, err=True)

    common = {"store": model_store, "timeout": timeout, "tell": tell}
    with Running(management_port, metrics_port) as server:
        if run is None:
            version = roll_back(server, **common)
        else:
            version = put(run, server, bf16=bf16, backend=backend, **common)
    click.echo(version)
