"""Ends a server whose launcher was killed, so that nothing of it is left.

A launcher that gets SIGKILL, or that the kernel ends for its memory, can end nothing itself. So it
starts a guard before the server: this very file in a Python of its own, which needs nothing but the
standard library (8 MB), and holds one end of a pipe whose other end the launcher has. When the pipe
ends without a word the launcher is gone; then the guard ends the server's process group, Java with
its workers, and removes the server's private folder.

The kernel's own way (PR_SET_PDEATHSIG) is not enough: it reaches Java alone, so that a worker that
still waits to be called stays for ever, and it also comes when the thread that started the server
ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["Guard"]

PATIENCE = 2.0
"""Seconds from SIGTERM to SIGKILL: nobody is left who could hear what the server has to say."""
LOOK_SECONDS = 0.1
NEEDED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""Of the environment, by a Python that starts. Keys and tokens are not the guard's business."""
RELEASED = b"released\n"


class Guard:
    """The launcher's side.

    Args:
        folder: private to the server.
    """

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(folder)],
            cwd="/",
            env={name: os.environ[name] for name in NEEDED if name in os.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # What ends the launcher's group, Ctrl-C among it, is not to end the guard first.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def watch(self, group: int) -> None:
        """The server is there: its process group."""
        self._tell(b"%d\n" % group)

    def release(self) -> None:
        """The server has ended, or is ended by the launcher itself."""
        self._tell(RELEASED)
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, word: bytes) -> None:
        # Somebody may have killed the guard: that is no reason for the server not to serve.
        with contextlib.suppress(OSError):
            self._process.stdin.write(word)
            self._process.stdin.flush()


def main(folder: str) -> None:
    """Waits for the end of standard input, and acts if the launcher went without releasing."""
    group = None
    for line in sys.stdin.buffer:
        if line == RELEASED:
            return
        group = int(line)
    if group is not None:
        _end(group)
    shutil.rmtree(folder, ignore_errors=True)


def _end(group: int) -> None:
    """SIGTERM to every process of the group, SIGKILL to what is left of it after a while."""
    deadline = time.monotonic() + PATIENCE
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            os.killpg(group, 0)  # raises when none is left
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
