"""``tzk status``: whether a server is ready, as an exit code."""

from __future__ import annotations

import click

__all__ = ["status"]


@click.command()
@click.option("--port", type=int, default=8080, show_default=True, help="Of a server here.")
@click.option("--url", help="Of a server elsewhere, without a path.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(port: int, url: str | None, as_json: bool) -> None:
    """Say whether every model of a server has a live worker; exit code 1 if not.

    It is what GET /ready says, which a load balancer can ask too.
    """
    import json

    import httpx

    from tzk_core.errors import WorkFailed
    from tzk_core.ports import HOST

    address = (url or f"http://{HOST}:{port}").rstrip("/")
    try:
        answer = httpx.get(f"{address}/ready", trust_env=url is not None, timeout=10.0)
        told = answer.json()
        states = dict(told["models"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
        raise WorkFailed(f"no server of tzk answers at {address}: {error}") from error
    ready = answer.status_code == 200
    if as_json:
        click.echo(json.dumps({"ready": ready, "models": states}))
    else:
        for name, state in states.items():
            click.echo(f"{name}: {state}")
    if not ready:
        raise WorkFailed(told.get("detail", "not every model is ready"))
