"""``tzk train --processes N``: the same command N times on this machine.

What `accelerate launch` or torchrun do across machines, with one sentence for an error instead of
a traceback for each process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

from ..devices import processors
from ..errors import UsageError
from ..ports import HOST, free_port
from .group import PEER_LOST, launched
from .interrupt import LAUNCHER

__all__ = ["launch"]

GRACE = 5.0  # seconds for the others to end by themselves once one has


def launch(arguments: list[str], count: int) -> int:
    """Runs ``tzk ARGUMENTS`` as ``count`` processes that find each other over loopback.

    Ctrl-C and SIGTERM reach all of them; when one fails, the others are ended. The first process
    writes to this one's streams; what the others say is shown if they fail by themselves.

    Returns:
        The exit code: 0 if all ended well.

    Raises:
        UsageError: this is one of several processes already.
    """
    if launched():
        raise UsageError("--processes is for a command that no other launcher started")
    threads = max(1, processors() // count)
    shared = os.environ | {
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        LAUNCHER: str(os.getpid()),
    }
    shared.setdefault("OMP_NUM_THREADS", str(threads))
    command = [sys.executable, "-m", "tzk_core.cli.main", *arguments]
    with ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(1, count)]
        started: list[subprocess.Popen] = []
        before = {
            number: signal.signal(number, lambda n, _: _pass_on(started, n))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            for index in range(count):
                where = None if index == 0 else said[index - 1]
                started.append(
                    subprocess.Popen(
                        command,
                        env=shared | {"RANK": str(index), "LOCAL_RANK": str(index)},
                        stdout=where,
                        stderr=where,
                        # A terminal's Ctrl-C comes to this process alone, which passes it on.
                        start_new_session=True,
                    )
                )
            codes = _wait(started)
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
        return _outcome(codes, said)


def _wait(started: list[subprocess.Popen]) -> list[int]:
    deadline = None
    while any(process.poll() is None for process in started):
        if deadline is None and any(process.poll() for process in started):
            deadline = time.monotonic() + GRACE
        if deadline is not None and time.monotonic() > deadline:
            for process in started:
                process.kill()
        time.sleep(0.05)
    return [process.returncode for process in started]


def _outcome(codes: list[int], said: list) -> int:
    """The exit code of all; tells why others failed where the first process only lost them."""
    if codes[0] > 0 and codes[0] != PEER_LOST:
        return codes[0]
    failed = [index for index, code in enumerate(codes) if code not in (0, PEER_LOST)]
    for index in failed:
        line = f"it was ended by signal {-codes[index]}"
        if codes[index] > 0:
            said[index - 1].seek(0)
            lines = said[index - 1].read().splitlines()
            line = next((text for text in reversed(lines) if text.startswith("Error: ")), line)
        print(f"process {index}: {line.removeprefix('Error: ')}", file=sys.stderr)
    return 1 if any(codes) else 0


def _pass_on(started: list[subprocess.Popen], number: int) -> None:
    for process in started:
        if process.poll() is None:
            process.send_signal(number)
