"""SIGKILL of whoever started a server: nothing of it is left within seconds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tzk_core.launcher import Server, Settings
from tzk_core.launcher.guard import Guard

SECONDS = 10
"""2 s of patience, and what a busy machine takes."""
START_SECONDS = 300
"""For a worker's process to appear, where others take the processors; else it takes a few."""
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) > 1:
    subprocess.Popen([sys.executable, "-c", sys.argv[1]])  # a worker in the same group
print(os.getpid(), flush=True)
time.sleep(60)
"""
LAUNCHER = """
import subprocess, sys, time
from pathlib import Path
from tzk_core.launcher.guard import Guard
guard = Guard(Path(sys.argv[1]))
server = subprocess.Popen(
    [sys.executable, "-c", sys.argv[2], sys.argv[2]], stdout=subprocess.PIPE, start_new_session=True
)
guard.watch(server.pid)
[worker] = {int(server.stdout.readline()) for _ in range(2)} - {server.pid}
print(guard.pid, server.pid, worker, flush=True)
if sys.argv[3] == "stop":
    sys.stdin.readline()
    server.kill()
    guard.release()
    print("released", flush=True)
time.sleep(60)
"""


def ended(processes) -> list[psutil.Process]:
    """Those that are still there after a while."""
    return psutil.wait_procs(processes, timeout=SECONDS)[1]


@pytest.fixture
def launched(tmp_path):
    """``start(then)``: a launcher, its guard, a server and its worker, deaf to SIGTERM."""
    started = []

    def start(then="wait"):
        folder = tmp_path / "private"
        folder.mkdir()
        (folder / "archive").write_text("unpacked")
        command = [sys.executable, "-c", LAUNCHER, str(folder), STUBBORN, then]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        everyone = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        started.append((process, everyone))
        return process, everyone, folder

    yield start
    for process, everyone in started:
        process.kill()
        process.communicate()
        for one in everyone:
            if one.is_running():
                one.kill()


def test_a_server_that_does_not_listen_is_ended_with_its_workers(launched):
    process, everyone, folder = launched()
    process.kill()
    assert ended(everyone) == []
    assert not folder.exists()


def test_who_stops_in_order_is_left_alone(launched, tmp_path):
    process, everyone, folder = launched("stop")
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "released\n"
    guard, _, worker = everyone
    assert ended([guard]) == []
    assert folder.exists()  # its owner removes it
    assert worker.is_running()
    assert worker.status() != psutil.STATUS_ZOMBIE


def test_a_guard_knows_no_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("TZK_API_KEYS", "secret")
    guard = Guard(tmp_path)
    try:
        assert "TZK_API_KEYS" not in psutil.Process(guard.pid).environ()
    finally:
        guard.release()


def test_a_guard_that_is_gone_hinders_nobody(tmp_path):
    guard = Guard(tmp_path)
    os.kill(guard.pid, signal.SIGKILL)
    time.sleep(0.1)
    guard.watch(os.getpgid(0))
    guard.release()


# -- a real server ---------------------------------------------------------------------------------


@pytest.fixture
def serve(store, tmp_path):
    """``start()``: ``tzk serve`` of one archive, with all that is temporary in one folder."""
    (tmp_path / "store").mkdir()
    shutil.copy(store / "tzk_nll.mar", tmp_path / "store")
    options = ["--model-store", str(tmp_path / "store"), "--port", "0", "--device", "cpu"]
    command = [sys.executable, "-m", "tzk_core.cli.main", "serve", *options]
    started = []

    def start():
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def of(process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def killed(process, tmp_path) -> None:
    """Kills it and sees that nothing is left."""
    everyone = of(process)
    process.kill()
    process.wait()
    assert ended(everyone) == []
    assert not list(tmp_path.glob("tzk-*"))


def test_nothing_is_left_of_a_server_whose_launcher_is_killed(serve, tmp_path):
    process = serve()
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("ready:"):
            break
    assert said[-1].startswith("ready:"), said
    assert len(of(process)) >= 4  # Java, a worker, the front and the guard
    killed(process, tmp_path)


def test_nothing_is_left_of_one_that_was_still_starting(serve, tmp_path):
    process = serve()
    deadline = time.monotonic() + START_SECONDS

    def worker():
        return any("model_service_worker" in " ".join(one.cmdline()) for one in of(process))

    while not worker():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    killed(process, tmp_path)


def test_it_does_not_matter_which_thread_started_it(serve, store, tmp_path):
    """The kernel's own signal at a parent's death comes when the thread ends."""
    import threading

    (tmp_path / "store").mkdir(exist_ok=True)
    server = Server(
        Settings(model_store=tmp_path / "store", port=0, device="cpu", threads=1, start_timeout=300)
    )
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        server.wait_until_ready()
        server.check()
    finally:
        server.stop()
