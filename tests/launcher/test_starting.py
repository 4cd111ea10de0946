"""How long workers may take to start: what is waited for, and what TorchServe is told."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from tiny_model import tiny_model

from tzk_core import launcher
from tzk_core.cli.main import cli
from tzk_core.errors import WorkFailed
from tzk_core.launcher import Server, Settings
from tzk_core.launcher import deploy as deploying
from tzk_core.launcher import server as serving
from tzk_core.launcher.running import Running, Started
from tzk_core.launcher.settings import read_properties
from tzk_core.launcher.starting import COMPILE_SECONDS, START_SECONDS, backend_of
from tzk_core.model_store import Versions
from tzk_export.archive import archive

NAMES = ["tzk_nll", "tzk_sample"]
LIKE = {"minWorkers": 2, "batchSize": 16, "maxBatchDelay": 1, "responseTimeout": 60}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two endpoints, of which tzk_nll compiles; the same, but other backends, as version 2.0."""
    folder = tmp_path_factory.mktemp("starting")
    tiny_model().save_pretrained(folder / "run")
    for name, backend, later in zip(NAMES, ("compile", "torch"), ("torch", "compile")):
        archive(folder / "run", folder / "store", backend=backend, names=[name])
        archive(folder / "run", folder / "store", backend=later, names=[name], version="2.0")
    return folder / "store"


def config_saying(folder, **models):
    config = folder / "config.properties"
    said = {name: {"1.0": own} for name, own in models.items()}
    config.write_text(f"default_startup_timeout=150\nmodels={json.dumps(said)}\n")
    return config


def told_torchserve(settings):
    """``models`` as TorchServe reads it: the last one of the file."""
    text = settings.properties(settings.ports(), NAMES)
    return json.loads(read_properties(text)["models"])


def test_archives_that_compile_have_longer(store):
    settings = Settings(model_store=store, port=0)
    assert settings.start_seconds(NAMES) == {"tzk_nll": 900, "tzk_sample": 120}
    assert (COMPILE_SECONDS, START_SECONDS) == (900, 120)
    told = told_torchserve(settings)
    assert told["tzk_nll"]["1.0"]["startupTimeout"] == 900
    assert told["tzk_sample"]["1.0"]["startupTimeout"] == 120
    for name in NAMES:  # the rest is as the configuration has it
        assert told[name]["1.0"]["marName"] == f"{name}.mar"
        assert told[name]["1.0"]["batchSize"] == 16


@pytest.mark.parametrize(("asked", "told"), [(30, 30), (1800, 1800), (0.5, 1)])
def test_what_is_asked_for_wins(store, asked, told):
    settings = Settings(model_store=store, port=0, start_timeout=asked)
    assert settings.start_seconds(NAMES) == dict.fromkeys(NAMES, asked)
    for model in told_torchserve(settings).values():
        assert model["1.0"]["startupTimeout"] == told


def test_a_configuration_of_ones_own_is_heeded(store, tmp_path):
    config = config_saying(tmp_path, tzk_nll={"startupTimeout": 1000, "batchSize": 4})
    settings = Settings(model_store=store, port=0, config=config)
    assert settings.start_seconds(NAMES) == {"tzk_nll": 1000, "tzk_sample": 150}
    told = told_torchserve(settings)["tzk_nll"]["1.0"]
    assert (told["startupTimeout"], told["batchSize"]) == (1000, 4)


def test_the_version_that_is_served_says_which_backend(store, tmp_path):
    for file in store.glob("*.mar"):
        (tmp_path / file.name).symlink_to(file)
    Versions("2.0", "1.0").write(tmp_path)
    settings = Settings(model_store=tmp_path, port=0)
    assert settings.start_seconds(NAMES) == {"tzk_nll": 120, "tzk_sample": 900}
    told = told_torchserve(settings)["tzk_sample"]
    assert told.keys() == {"2.0"}
    assert (told["2.0"]["marName"], told["2.0"]["startupTimeout"]) == ("tzk_sample-2.0.mar", 900)


def test_an_archive_that_cannot_be_read_is_left_to_who_loads_it(tmp_path):
    (tmp_path / "tzk_nll.mar").write_text("no archive")
    assert backend_of(tmp_path / "tzk_nll.mar") == "torch"
    assert backend_of(tmp_path / "none.mar") == "torch"


def test_workers_that_were_not_ready_in_time_name_the_option(store, tmp_path, monkeypatch):
    server = Server(Settings(model_store=store, port=0, start_timeout=0))
    server._process = SimpleNamespace(poll=lambda: None)
    server.logs = tmp_path
    (tmp_path / "torchserve.log").write_text("loading\n")
    monkeypatch.setattr(serving, "not_ready", lambda *_: {"tzk_nll": "its workers are none"})
    with pytest.raises(WorkFailed, match=r"within 0 s \(--start-timeout gives.*said last: loading"):
        server.wait_until_ready()


@pytest.mark.parametrize(("options", "wanted"), [([], None), (["--start-timeout", "600"], 600)])
def test_tzk_serve_hands_the_option_on(store, monkeypatch, options, wanted):
    seen = []

    def not_started(settings):
        seen.append(settings.start_timeout)
        raise WorkFailed("it is not started here")

    monkeypatch.setattr(launcher, "Serving", not_started)
    told = CliRunner().invoke(cli, ["serve", "--model-store", str(store), *options])
    assert "it is not started here" in told.stderr
    assert seen == [wanted]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "99999999999"])
def test_a_limit_that_is_none_is_refused(store, seconds):
    for command in (["serve", "--start-timeout"], ["deploy", "run", "--timeout"]):
        told = CliRunner().invoke(cli, [*command, seconds])
        assert told.exit_code == 2
        assert command[-1] in told.stderr


# -- deploying -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("like", "seconds", "told"),
    [
        (LIKE | {"startupTimeout": 120}, 899.5, 900),
        (LIKE | {"startupTimeout": 1000}, 300, 1000),
        (LIKE, 300, 300),
    ],
)
def test_a_new_versions_workers_have_no_less_than_the_old_ones(monkeypatch, like, seconds, told):
    sent = {}
    with Running(1, 2) as running:
        monkeypatch.setattr(running, "_ask", lambda *_, params: sent.update(params))
        running.register("tzk_nll", "tzk_nll-2.0.mar", like, seconds)
    assert sent["startup_timeout"] == told
    assert (sent["initial_workers"], sent["response_timeout"]) == (2, 60)


class Registering:
    """A server of version 1.0 that takes no other, and notes how long it may take."""

    def __init__(self):
        self.seconds = None

    def current(self, endpoint):
        return {"modelVersion": "1.0"}

    def versions(self, endpoint):
        return {"1.0": self.current(endpoint)}

    def register(self, endpoint, file, like, seconds):
        self.seconds = seconds
        raise WorkFailed("it is not taken here")


@pytest.mark.parametrize(
    ("endpoint", "asked", "seconds"),
    [("tzk_nll", None, 300), ("tzk_sample", None, 900), ("tzk_sample", 40, 40)],
)
def test_a_version_that_compiles_has_longer(store, tmp_path, endpoint, asked, seconds):
    server = Registering()
    started = Started(store, tmp_path / "model_log.log", "http://127.0.0.1:1")
    with pytest.raises(WorkFailed, match="not taken"):
        deploying._replace(server, started, [endpoint], "2.0", asked, lambda _: None)
    assert server.seconds == seconds
