"""``tzk status``: whether a server is ready, as an exit code."""

from __future__ import annotations

import click

__all__ = ["status"]


@click.command()
@click.option(
    "--management-port", type=int, default=8081, show_default=True, help="Of the server to ask."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(management_port: int, as_json: bool) -> None:
    """Say whether every model of the server here has a live worker; exit code 1 if not."""
    import json

    import httpx

    from tzk_core.errors import WorkFailed
    from tzk_core.launcher.server import not_ready
    from tzk_core.ports import HOST

    url = f"http://{HOST}:{management_port}"
    with httpx.Client(trust_env=False, timeout=5.0) as client:
        try:
            listed = client.get(f"{url}/models").raise_for_status().json()["models"]
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise WorkFailed(f"no server answers at {url}: {error}") from error
        models = [model["modelName"] for model in listed]
        waiting = not_ready(client, url, models)
    states = {name: waiting.get(name, "ready") for name in models}
    if as_json:
        click.echo(json.dumps({"ready": bool(models) and not waiting, "models": states}))
    else:
        for name, state in states.items():
            click.echo(f"{name}: {state}")
    if waiting or not models:
        raise WorkFailed("not every model is ready" if models else "the server has no models")
