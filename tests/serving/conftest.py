"""One real TorchServe for all tests here, on free ports and with folders of its own."""

from __future__ import annotations

import re
import shutil

import httpx
import pytest
from tiny_model import tiny_model

from tzk_core.launcher import Server, Serving, Settings
from tzk_export.archive import archive


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    tiny_model().save_pretrained(folder / "run")
    archive(folder / "run", folder / "store")
    return folder / "store"


@pytest.fixture(scope="session")
def server(store):
    with Server(
        Settings(model_store=store, port=0, device="cpu", threads=1, start_timeout=300)
    ) as server:
        yield server


@pytest.fixture(scope="module")
def serving(store, tmp_path_factory):
    """Two endpoints behind the front, as ``tzk serve`` runs them."""
    folder = tmp_path_factory.mktemp("fronted")
    for name in ("tzk_nll", "tzk_sample"):
        shutil.copy(store / f"{name}.mar", folder)
    with Serving(
        Settings(model_store=folder, port=0, device="cpu", threads=1, start_timeout=300)
    ) as serving:
        yield serving


@pytest.fixture(scope="session")
def fronted(store):
    """All four endpoints behind the front."""
    with Serving(
        Settings(model_store=store, port=0, device="cpu", threads=1, start_timeout=300)
    ) as serving:
        yield serving


@pytest.fixture(scope="session")
def http(server):
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def pids_of():
    """What makes, of a server, a function that asks for its workers' process ids by model."""

    def of(server):
        def ask():
            found = {}
            for name in server.models:
                answer = httpx.get(f"{server.management_url}/models/{name}", trust_env=False)
                found[name] = [worker["pid"] for worker in answer.json()[0]["workers"]]
            return found

        return ask

    return of


@pytest.fixture(scope="session")
def pids(server, pids_of):
    return pids_of(server)


@pytest.fixture(scope="session")
def batch_delay():
    """``maxBatchDelay`` (ms) of every model, as the configuration says it."""
    text = Settings().config_file().read_text()
    [told] = set(re.findall(r'"maxBatchDelay": (\d+)', text))
    return int(told)
