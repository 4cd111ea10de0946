"""Another version into a running server: requests flow, none is lost, and back again."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from dataclasses import replace

import httpx
import pytest
from click.testing import CliRunner
from filelock import FileLock
from rewriting import rewritten
from tiny_model import png, tiny_model

from tzk_core import archive_sums
from tzk_core.archive_sums import ARCHIVES
from tzk_core.cli.main import cli
from tzk_core.config import KnowledgeConfig
from tzk_core.errors import UsageError, WorkFailed
from tzk_core.launcher import Serving, Settings
from tzk_core.launcher import deploy as deploying
from tzk_core.launcher.running import Running
from tzk_core.model_store import VERSIONS, Versions
from tzk_core.randomness import generator
from tzk_export.archive import archive

NAMES = ("tzk_nll", "tzk_sample")
ADDED = "/predictions/tzk_sample/1.0/stripes"
SMALL = KnowledgeConfig(
    code_dim=4,
    code_steps=1,
    code_width=8,
    encoder_width=8,
    decoder_stem=8,
    decoder_width=8,
    z_steps=1,
    z_width=8,
    discriminator_width=8,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A model, the same with a kind more, and one whose worker cannot load it."""
    folder = tmp_path_factory.mktemp("runs")
    tiny_model().save_pretrained(folder / "old")
    more = tiny_model()
    more.add_knowledge("stripes", SMALL, generator=generator(1))
    more.eval().save_pretrained(folder / "more")
    return folder


@pytest.fixture(scope="module")
def store(runs):
    archive(runs / "old", runs / "store", names=NAMES)
    return runs / "store"


@pytest.fixture
def deployable(store, tmp_path):
    shutil.copytree(store, tmp_path / "store")
    return settings(tmp_path / "store")


def settings(folder):
    return Settings(model_store=folder, port=0, device="cpu", threads=1, start_timeout=300)


def tzk_deploy(serving, *arguments):
    ports = [
        f"{option}={serving.ports[option]}" for option in ("--management-port", "--metrics-port")
    ]
    return CliRunner().invoke(cli, ["deploy", *ports, *map(str, arguments)])


class Load:
    """Requests from several threads, to both endpoints, until the block ends."""

    def __init__(self, url):
        self.url = url
        self.statuses = Counter()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(4)]

    def __enter__(self):
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for one in self._threads:
            one.join(120)

    def _ask(self, number):
        with httpx.Client(base_url=self.url, trust_env=False, timeout=60) as client:
            while not self._end.is_set():
                try:
                    if number % 2:
                        answer = client.put("/predictions/tzk_nll/1.0", content=png(seed=number))
                    else:
                        answer = client.get("/predictions/tzk_sample/1.0/mnist")
                    self.statuses[answer.status_code] += 1
                except httpx.HTTPError as error:
                    self.statuses[repr(error)] += 1


def test_a_kind_is_added_to_a_live_server_and_taken_back(runs, deployable, batch_delay):
    folder = deployable.model_store
    with (
        Serving(deployable) as serving,
        httpx.Client(base_url=serving.url, trust_env=False, timeout=60) as client,
        Running(serving.ports["--management-port"], serving.ports["--metrics-port"]) as running,
    ):
        assert client.get(ADDED).status_code == 404
        with Load(serving.url) as load:
            told = tzk_deploy(serving, runs / "more")
            assert told.exit_code == 0, told.output
            assert told.stdout == "2.0\n"
            assert client.get(ADDED).status_code == 200
            for name in NAMES:
                (version,) = running.versions(name).values()
                assert version["modelVersion"] == "2.0"
                assert (version["minWorkers"], version["batchSize"]) == (1, 16)
                assert version["maxBatchDelay"] == batch_delay
                assert version["responseTimeout"] == 120
                assert version["startupTimeout"] == 300
            told = tzk_deploy(serving, "--rollback")
            assert told.exit_code == 0, told.output
            assert told.stdout == "1.0\n"
            assert client.get(ADDED).status_code == 404
            assert client.get("/ready").status_code == 200
            told = tzk_deploy(serving, "--rollback")
            assert (told.exit_code, told.stdout) == (0, "2.0\n"), told.output
            _corrupt(folder / "tzk_nll.mar")
            told = tzk_deploy(serving, "--rollback")
            assert told.exit_code == 1
            assert "tzk_nll.mar is not the file that was archived" in told.stderr
            assert client.get(ADDED).status_code == 200
        assert set(load.statuses) == {200}
        assert load.statuses[200] > 20
    # Started again, the server has what was deployed last, with the same batches.
    with (
        Serving(replace(settings(folder), start_timeout=301)) as serving,
        Running(serving.ports["--management-port"], serving.ports["--metrics-port"]) as running,
    ):
        assert httpx.get(serving.url + ADDED, trust_env=False, timeout=60).status_code == 200
        version = running.current("tzk_nll")
        assert version["startupTimeout"] == 301
        assert (version["modelVersion"], version["batchSize"]) == ("2.0", 16)
        assert version["maxBatchDelay"] == batch_delay


def test_what_cannot_load_leaves_the_old_version(runs, deployable, monkeypatch):
    folder = deployable.model_store
    files = sorted(path.name for path in folder.iterdir())
    noted_before = json.loads((folder / ARCHIVES).read_text())
    with (
        Serving(deployable) as serving,
        Running(serving.ports["--management-port"], serving.ports["--metrics-port"]) as running,
    ):

        def corrupting(run, folder, **options):
            made = archive(run, folder, **options)
            _corrupt(made[0])
            return made

        def corrupting_and_noting(run, folder, **options):
            made = corrupting(run, folder, **options)
            archive_sums.note(folder, made)  # so that it comes as far as a worker
            return made

        for writing, said in (
            (corrupting_and_noting, "ModelUnavailable: model.safetensors is not what was archived"),
            (corrupting, "tzk_nll-2.0.mar is not the file that was archived"),
        ):
            monkeypatch.setattr("tzk_export.archive.archive", writing)
            told = tzk_deploy(serving, runs / "more")
            assert told.exit_code == 1
            assert said in told.stderr
        monkeypatch.undo()
        told = tzk_deploy(serving, runs / "none")
        assert told.exit_code == 1
        answer = httpx.get(f"{serving.url}/predictions/tzk_sample", trust_env=False, timeout=60)
        assert answer.status_code == 200
        assert httpx.get(f"{serving.url}/ready", trust_env=False).status_code == 200
        for name in NAMES:
            assert list(running.versions(name)) == ["1.0"]
        left = {path.name for path in folder.iterdir()} - {".deploying.lock"}
        assert sorted(left) == files
        assert json.loads((folder / ARCHIVES).read_text()) == noted_before
        with pytest.raises(UsageError, match="no version before"):
            deploying.roll_back(running)
        with pytest.raises(UsageError, match="model store is"):
            deploying.deploy(runs / "more", running, store=runs)
        with FileLock(folder / ".deploying.lock"), pytest.raises(WorkFailed, match="another tzk"):
            deploying.deploy(runs / "more", running)


def test_a_call_without_a_server_or_a_run_says_so(tmp_path):
    told = CliRunner().invoke(cli, ["deploy"])
    assert (told.exit_code, told.stderr) == (2, "Error: give either a RUN or --rollback\n")
    told = CliRunner().invoke(cli, ["deploy", str(tmp_path), "--metrics-port", "1"])
    assert told.exit_code == 1
    assert "no server of tzk answers" in told.stderr


def test_archiving_begins_anew(runs, tmp_path):
    archive(runs / "old", tmp_path, version="2.0", names=["tzk_nll"])
    Versions("2.0", "1.0").write(tmp_path)
    assert Settings(model_store=tmp_path).archives() == ["tzk_nll"]
    archive(runs / "old", tmp_path, names=["tzk_sample"])
    assert Versions.read(tmp_path) == Versions("1.0", None)
    assert Settings(model_store=tmp_path).archives() == ["tzk_sample"]


@pytest.mark.parametrize("text", ["{", "[]", '{"current": "../x", "previous": null}', '{"a": 1}'])
def test_a_file_of_versions_that_is_broken_is_told(tmp_path, text):
    (tmp_path / VERSIONS).write_text(text)
    with pytest.raises(WorkFailed, match="cannot be understood"):
        Versions.read(tmp_path)


def _corrupt(path):
    """Other weights, whose SHA-256 in the manifest stays."""
    rewritten(path, path, {"model.safetensors": b"other"})
