"""`tzk deploy` into a real server: under load, back again, refused, and after a restart."""

from __future__ import annotations

import contextlib
import shutil
import threading
from pathlib import Path

import pytest
from tiny_model import png, tiny_model

from tzk_core.client import NotFound, Retry, TzkClient
from tzk_core.config import KnowledgeConfig
from tzk_core.errors import ModelUnavailable, WorkFailed
from tzk_core.launcher import Serving, Settings
from tzk_core.launcher.deploy import LOCK, FileLock, deploy, roll_back
from tzk_core.launcher.running import Running
from tzk_core.randomness import generator

NEW = KnowledgeConfig(code_dim=2, code_steps=1, code_width=8, z_steps=1, z_width=8)


@pytest.fixture
def own_store(store, tmp_path) -> Path:
    """Two of the four archives, which this test may add to."""
    (tmp_path / "own").mkdir()
    for name in ("tzk_nll", "tzk_sample"):
        shutil.copy(store / f"{name}.mar", tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture
def with_new(tmp_path) -> Path:
    """A run of the same model with a kind more."""
    model = tiny_model().add_knowledge("new", NEW, generator=generator(0))
    model.save_pretrained(tmp_path / "with-new")
    return tmp_path / "with-new"


def settings(store: Path) -> Settings:
    return Settings(model_store=store, port=0, device="cpu", threads=1, start_timeout=300)


def running(serving: Serving) -> Running:
    return Running(serving.ports["--management-port"], serving.ports["--metrics-port"])


@contextlib.contextmanager
def asked_all_the_time(url: str):
    """Four clients that ask without a pause; what failed, and how many did not."""
    stop, failed, answered = threading.Event(), [], []

    def ask() -> None:
        with TzkClient(url, retry=Retry(tries=1)) as client:
            while not stop.is_set():
                try:
                    answered.append(client.nll(png(), seed=1).nll_nats)
                except Exception as error:
                    failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield failed, answered
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def knows_new(url: str) -> bool:
    with TzkClient(url) as client:
        try:
            client.sample("new", n=1, seed=1)
        except NotFound:
            return False
    return True


def test_a_kind_comes_into_a_live_server_and_goes_again(own_store, with_new):
    with Serving(settings(own_store)) as serving, running(serving) as server:
        assert not knows_new(serving.url)
        with asked_all_the_time(serving.url) as (failed, answered):
            assert deploy(with_new, server) == "2.0"
            assert knows_new(serving.url)
            assert roll_back(server) == "1.0"
            assert not knows_new(serving.url)
            assert roll_back(server) == "2.0"
        assert not failed
        # A kind more changes nothing that was there.
        assert len(set(answered)) == 1
    # What was deployed is what a restart serves.
    with Serving(settings(own_store)) as serving:
        assert knows_new(serving.url)


def test_what_cannot_be_deployed_leaves_the_server_as_it_was(own_store, with_new):
    with Serving(settings(own_store)) as serving, running(serving) as server:
        weights = with_new / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-4])
        with pytest.raises(ModelUnavailable):
            deploy(with_new, server)
        weights.write_bytes(whole)
        with (
            FileLock(own_store / LOCK),
            pytest.raises(WorkFailed, match="another tzk deploy"),
        ):
            deploy(with_new, server)
        assert not knows_new(serving.url)
        assert sorted(path.name for path in own_store.glob("*.mar")) == [
            "tzk_nll.mar",
            "tzk_sample.mar",
        ]
