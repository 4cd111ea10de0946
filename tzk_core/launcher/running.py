"""A server that another process started: its versions and workers, asked for and changed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tzk_core.errors import UsageError, WorkFailed
from tzk_core.launcher.settings import read_properties
from tzk_core.ports import HOST

__all__ = ["Running"]

ANSWER_SECONDS = 60.0
"""TorchServe unpacks an archive before it answers."""


@dataclass(frozen=True)
class Started:
    """What a server was started with: its model store, its workers' log, where it answers."""

    store: Path
    model_log: Path
    inference_url: str


class Running:
    """The management address of TorchServe and the admin address of its front.

    Args:
        management_port, metrics_port: both on loopback, as ``tzk serve`` was given them.
    """

    def __init__(self, management_port: int, metrics_port: int) -> None:
        self.management_url = f"http://{HOST}:{management_port}"
        self.admin_url = f"http://{HOST}:{metrics_port}"
        self._client = httpx.Client(trust_env=False, timeout=ANSWER_SECONDS)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def endpoints(self) -> list[str]:
        """Those that it serves, by name."""
        return sorted(self.table())

    def table(self) -> dict[str, dict[str, Any]]:
        """The front's table, after it has asked TorchServe again."""
        return self._ask("POST", f"{self.admin_url}/refresh")["models"]

    def versions(self, endpoint: str) -> dict[str, dict[str, Any]]:
        """What TorchServe tells of each version of an endpoint."""
        told = self._ask("GET", f"{self.management_url}/models/{endpoint}/all")
        return {str(one["modelVersion"]): one for one in told}

    def current(self, endpoint: str) -> dict[str, Any]:
        """What TorchServe tells of the version that answers."""
        return self._ask("GET", f"{self.management_url}/models/{endpoint}")[0]

    def register(self, endpoint: str, file: str, like: dict[str, Any], seconds: float) -> None:
        """Begins to load an archive of the model store, with as many workers as ``like`` has.

        They have at least ``seconds`` to be ready, and no less than those of ``like``.
        """
        settings = {
            "url": file,
            "model_name": endpoint,
            "initial_workers": like["minWorkers"],
            "batch_size": like["batchSize"],
            "max_batch_delay": like["maxBatchDelay"],
            "response_timeout": like["responseTimeout"],
            "startup_timeout": max(like.get("startupTimeout", 0), math.ceil(seconds)),
            "synchronous": "false",
        }
        self._ask("POST", f"{self.management_url}/models", params=settings)

    def make_current(self, endpoint: str, version: str) -> None:
        self._ask("PUT", f"{self.management_url}/models/{endpoint}/{version}/set-default")

    def unregister(self, endpoint: str, version: str) -> None:
        self._ask("DELETE", f"{self.management_url}/models/{endpoint}/{version}")

    def started(self) -> Started:
        """What the server was started with, from its process, which is the workers' parent.

        Raises:
            WorkFailed: it has no worker, or is not tzk's, or another user's.
        """
        pids = [pid for model in self.table().values() for pid in model["workers"]]
        try:
            process = psutil.Process(pids[0]).parent()
            command, environment = process.cmdline(), process.environ()
            said = read_properties(Path(command[command.index("-f") + 1]).read_text())
            return Started(
                Path(said["model_store"]),
                Path(environment["LOG_LOCATION"]) / "model_log.log",
                said["inference_address"],
            )
        except (psutil.Error, OSError, LookupError, ValueError, AttributeError) as error:
            raise WorkFailed(
                f"the server at {self.management_url} cannot be looked into ({error!r}): it must "
                "have a live worker, and be started by tzk serve, on this machine, by this user"
            ) from error

    def smoke(self, url: str, endpoint: str, version: str) -> None:
        """One request to a version, whichever is current; a GET, which every endpoint answers.

        Raises:
            WorkFailed: the answer is an error of the server's.
        """
        try:
            answer = self._client.get(f"{url}/predictions/{endpoint}/{version}")
        except httpx.HTTPError as error:
            raise WorkFailed(f"{endpoint} {version} does not answer: {error}") from error
        if answer.status_code >= 500 or "x-request-id" not in answer.headers:
            raise WorkFailed(
                f"{endpoint} {version} answers {answer.status_code}: {answer.text[:200]}"
            )

    def _ask(self, method: str, url: str, **options: Any) -> Any:
        try:
            answer = self._client.request(method, url, **options)
            told = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise WorkFailed(f"no server of tzk answers at {url}: {error}") from error
        if answer.status_code == 405:
            raise UsageError(
                f"the server at {self.management_url} takes no new models: start it again with "
                "this tzk serve"
            )
        if answer.is_error:
            reason = told.get("message") or told.get("detail") or answer.text
            raise WorkFailed(f"{method} {url} was answered {answer.status_code}: {reason}")
        return told
