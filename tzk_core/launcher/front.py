"""The front's process: its sockets, its start and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO

import httpx

from tzk_core.errors import WorkFailed
from tzk_core.front.keys import KEYS_VARIABLE
from tzk_core.front.settings import FrontSettings
from tzk_core.ports import HOST

__all__ = ["Front", "listening"]

BACKLOG = 1024
START_SECONDS = 60.0
END_SECONDS = 10.0
"""For the front to end once its requests are done, or their time is over."""


def listening(host: str, port: int, option: str) -> socket.socket:
    """A socket on an address; port 0 takes any free one.

    Raises:
        WorkFailed: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise WorkFailed(
            f"{host}, port {port} cannot be listened on ({reason}): choose another with {option}"
        ) from error


class Front:
    """The process that runs ``tzk_core.front``.

    Args:
        public, admin: listening sockets, which are handed over.
        settings: makes its settings from the two sockets' descriptors.
        environment: variables beside the present ones.
        output: where it writes what it has to say.
    """

    def __init__(
        self,
        public: socket.socket,
        admin: socket.socket,
        settings: Callable[[int, int], FrontSettings],
        environment: dict[str, str],
        output: IO[bytes],
    ) -> None:
        self.port = public.getsockname()[1]
        self.admin_port = admin.getsockname()[1]
        descriptors = public.fileno(), admin.fileno()
        made = settings(*descriptors)
        self.drain = made.drain
        # Its own session: Ctrl-C in the terminal reaches us alone, and we end it in order.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tzk_core.front"],
            env={k: v for k, v in os.environ.items() if k != KEYS_VARIABLE} | environment,
            stdin=subprocess.PIPE,
            stdout=None if made.access_log == "-" else output,
            stderr=output,
            pass_fds=descriptors,
            start_new_session=True,
        )
        # As long as this pipe is open we live; it ends with us, and the front then ends too.
        self._process.stdin.write(made.to_json().encode() + b"\n")
        self._process.stdin.flush()
        self._output = output
        # Nobody listens any more when the front closes its copies.
        public.close()
        admin.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Until it answers and knows a live worker of every model.

        Raises:
            WorkFailed: it ended instead, or it takes too long.
        """
        deadline = time.monotonic() + START_SECONDS
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            while True:
                self.check()
                with contextlib.suppress(httpx.TransportError):
                    answer = client.post(f"http://{HOST}:{self.admin_port}/refresh")
                    if answer.is_success and answer.json()["ready"]:
                        return
                if time.monotonic() > deadline:
                    raise WorkFailed(f"the front was not ready within {START_SECONDS:g} s")
                time.sleep(0.05)

    def check(self) -> None:
        """Raises WorkFailed if it has ended."""
        code = self._process.poll()
        if code is not None:
            raise WorkFailed(f"the front ended by itself with exit code {code}: {self._tail()}")

    def stop(self) -> None:
        """No new request is taken, those in flight are finished; kills it when it takes longer."""
        try:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
                self._process.wait(self.drain + END_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # it is killed below
        finally:
            if self._process.poll() is None:
                self._process.kill()
            self._process.stdin.close()
            self._process.wait()

    def _tail(self) -> str:
        with open(self._output.name, encoding="utf-8", errors="replace") as file:
            said = file.read().strip().splitlines()
        return " | ".join(said[-5:]) or "it said nothing"
