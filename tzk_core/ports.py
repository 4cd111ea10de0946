"""Ports on the loopback address."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping

from tzk_core.errors import UsageError, WorkFailed

__all__ = ["HOST", "free_port", "must_be_free"]

HOST = "127.0.0.1"


def free_port() -> int:
    """A port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def must_be_free(ports: Mapping[str, int]) -> None:
    """Raises unless nothing listens on any of ``ports``, given by the option that sets each.

    Raises:
        UsageError: a port that cannot be one, or is named twice.
        WorkFailed: one is in use or not allowed.
    """
    if len(set(ports.values())) < len(ports):
        told = ", ".join(f"{option} {port}" for option, port in ports.items())
        raise UsageError(f"each of the ports must be another one: {told}")
    for option, port in ports.items():
        if not 1 <= port <= 65535:
            raise UsageError(f"{option} {port} is no port: use 1 to 65535")
        with socket.socket() as probe:
            # As the server will: a connection that still lingers is no obstacle, a listener is.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                why = "in use" if error.errno == errno.EADDRINUSE else f"not free ({error})"
                raise WorkFailed(
                    f"port {port} is {why}: stop what listens there, or choose another with "
                    f"{option}"
                ) from error
