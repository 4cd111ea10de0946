"""What the server is started with, and the configuration file made from it."""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tzk_core import archive_sums
from tzk_core.devices import device_named, processors
from tzk_core.errors import UsageError
from tzk_core.front.keys import KEYS_VARIABLE, digests_of, read_keys
from tzk_core.launcher.starting import START_SECONDS, seconds_to_start
from tzk_core.model_store import FIRST, Versions, archive_name
from tzk_core.ports import HOST, free_port
from tzk_core.service.service import ENDPOINTS
from tzk_core.service.time_limit import ANSWER_SECONDS, ANSWER_VARIABLE

__all__ = ["CONFIG_FILE", "Settings", "is_loopback", "read_properties"]

CONFIG_FILE = "config.properties"


@dataclass(frozen=True)
class Settings:
    """What ``tzk serve`` can be told.

    Args:
        model_store: the folder with the archives.
        port: of inference; 0 takes any free port, here and for the other two.
        management_port, metrics_port: the next two after ``port`` when left out.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        config: a TorchServe configuration; by default ./config.properties, else the one that
            came with tzk.
        logs: a folder for the logs; a temporary one, removed at the end, when left out.
        threads: of each worker; the processors shared out among the workers when left out.
        start_timeout: seconds in which every worker must be ready; what the configuration says,
            and more for archives that compile, when left out.
        host: the address that the front listens on; management and metrics are always on loopback.
        keys_file: keys of who may call, one a line.
        insecure: another host than loopback without keys is meant.
        drain: seconds that requests in flight have when the server is ended.
        access_log: a file, or ``-`` for standard output; among the logs when left out.
    """

    model_store: Path = Path("model_store")
    port: int = 8080
    management_port: int | None = None
    metrics_port: int | None = None
    device: str = "auto"
    config: Path | None = None
    logs: Path | None = None
    threads: int | None = None
    start_timeout: float | None = None
    host: str = HOST
    keys_file: Path | None = None
    insecure: bool = False
    drain: float = 30.0
    access_log: str | None = None

    def check_callers(self) -> tuple[str, ...]:
        """The digests of the keys in the environment, when everything about callers is right.

        Raises:
            UsageError: a key is too weak, or a host beyond loopback would be open to all.
        """
        read_keys(self.keys_file, environment={})
        digests = digests_of(read_keys(None))
        if not (is_loopback(self.host) or self.keys_file or digests or self.insecure):
            raise UsageError(
                f"--host {self.host} lets other machines call: give keys with --keys-file or "
                f"{KEYS_VARIABLE} (tzk serve --new-key makes one), or say --insecure"
            )
        return digests

    def ports(self) -> dict[str, int]:
        """The three ports by the option that sets each."""
        if self.port == 0:
            first, second, third = free_port(), free_port(), free_port()
        else:
            first, second, third = self.port, self.port + 1, self.port + 2
        return {
            "--port": first,
            "--management-port": self.management_port or second,
            "--metrics-port": self.metrics_port or third,
        }

    def archives(self) -> list[str]:
        """The names of the endpoints whose archives of the current version are in the store.

        Raises:
            UsageError: there is no store, or none of the archives in it.
        """
        store = self.model_store
        if not store.is_dir():
            raise UsageError(f"there is no model store {store}: run tzk archive first")
        version = Versions.read(store).current
        files = {name: archive_name(name, version) for name in ENDPOINTS}
        names = [name for name, file in files.items() if (store / file).is_file()]
        if not names:
            raise UsageError(
                f"the model store {store} has none of the archives {', '.join(files.values())}: "
                "run tzk archive first"
            )
        return names

    def check_archives(self, names: list[str]) -> None:
        """Raises ModelUnavailable if an archive that will be served was changed."""
        version = Versions.read(self.model_store).current
        for name in names:
            archive_sums.check(self.model_store, archive_name(name, version))

    def config_file(self) -> Path:
        """The configuration file that is used."""
        if self.config is not None:
            if not self.config.is_file():
                raise UsageError(f"there is no configuration file {self.config}")
            return self.config
        packaged = Path(str(resources.files("tzk_core").joinpath(CONFIG_FILE)))
        clone = Path(__file__).resolve().parents[2] / CONFIG_FILE
        for candidate in (Path(CONFIG_FILE), packaged, clone):
            if candidate.is_file():
                return candidate
        raise UsageError(f"{CONFIG_FILE} did not come with this tzk: name one with --config")

    def properties(self, ports: dict[str, int], names: list[str]) -> str:
        """The configuration: the file's text, then what the options say, which wins."""
        inference, management, metrics = ports.values()
        version = Versions.read(self.model_store).current
        text = self.config_file().read_text()
        said = {
            "inference_address": f"http://{HOST}:{inference}",
            "management_address": f"http://{HOST}:{management}",
            "metrics_address": f"http://{HOST}:{metrics}",
            "model_store": str(self.model_store.resolve()),
            "load_models": ",".join(f"{name}={archive_name(name, version)}" for name in names),
            # tzk deploy registers models; the address is loopback, and takes files of the model
            # store alone (allowed_urls).
            "enable_model_api": "true",
        }
        said |= self._models(names) | self._gpus()
        lines = [f"{key}={value}" for key, value in said.items()]
        return text + "\n" + "\n".join(lines) + "\n"

    def environment(self, names: list[str]) -> dict[str, str]:
        """Environment variables of the server and its workers, beside the present ones.

        Args:
            names: of the models, whose workers share the processors.
        """
        threads = self.threads or max(1, processors() // self._workers(names))
        chosen = {ANSWER_VARIABLE: f"{min(self.answer_seconds(names)):g}"}
        if self.threads is not None or "OMP_NUM_THREADS" not in os.environ:
            chosen |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if self.device == "cpu":
            chosen["CUDA_VISIBLE_DEVICES"] = ""
        elif self.device.startswith("cuda:"):
            chosen["CUDA_VISIBLE_DEVICES"] = self.device.removeprefix("cuda:")
        return chosen

    def answer_seconds(self, names: list[str]) -> list[float]:
        """The time limit of a batch, of each model."""
        return self._of_models(names, "responseTimeout", "default_response_timeout", ANSWER_SECONDS)

    def start_seconds(self, names: list[str]) -> dict[str, float]:
        """Seconds in which the workers of each model must be ready."""
        if self.start_timeout is not None:
            return dict.fromkeys(names, self.start_timeout)
        said = self._of_models(names, "startupTimeout", "default_startup_timeout", START_SECONDS)
        version = Versions.read(self.model_store).current
        return {
            name: seconds_to_start(self.model_store / archive_name(name, version), usual)
            for name, usual in zip(names, said, strict=True)
        }

    def _models(self, names: list[str]) -> dict[str, str]:
        """The property ``models``: what the file says of version 1.0, said of the one served.

        A worker has as long to start as we wait for it: TorchServe would end it sooner.
        """
        version = Versions.read(self.model_store).current
        told = _told_models(self.config_file().read_text())
        models = {}
        for name, seconds in self.start_seconds(names).items():
            ours = {"marName": archive_name(name, version), "startupTimeout": math.ceil(seconds)}
            models[name] = {version: told.get(name, {}) | ours}
        return {"models": json.dumps(models)}

    def _workers(self, names: list[str]) -> int:
        found = self._of_models(names, "minWorkers", "default_workers_per_model", 1)
        return max(1, sum(map(int, found)))

    def _of_models(self, names: list[str], key: str, default: str, otherwise: float) -> list[float]:
        """What the configuration says of each model, or of all."""
        text = self.config_file().read_text()
        whole = float(read_properties(text).get(default, otherwise))
        told = _told_models(text)
        return [float(told.get(name, {}).get(key, whole)) for name in names]

    def _gpus(self) -> dict[str, str]:
        if self.device == "auto":
            return {}
        device = device_named(self.device)
        if device.type == "cpu":
            return {"number_of_gpu": "0"}
        return {} if device.index is None else {"number_of_gpu": "1"}


def is_loopback(host: str) -> bool:
    """Whether only this machine can call at ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _told_models(text: str) -> dict[str, dict[str, Any]]:
    """What the property ``models`` says of version 1.0 of each model.

    Raises:
        UsageError: it is no JSON.
    """
    told = read_properties(re.sub(r"\\\n\s*", "", text)).get("models", "{}")
    try:
        return {name: said[FIRST] for name, said in json.loads(told).items() if FIRST in said}
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"the configuration's 'models' cannot be understood: {error}") from error


def read_properties(text: str) -> dict[str, str]:
    """The single-line properties of a Java properties file; enough for ``vmargs``."""
    pairs = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", "!")):
            pairs[key.strip()] = value.strip()
    return pairs
