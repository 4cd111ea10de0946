"""What both clients make of an address, a key, and an answer that did not come."""

from __future__ import annotations

import ipaddress
import os
import string
from typing import Any, TypeVar

import httpx
from PIL import Image

from tzk_core.client.building import Call
from tzk_core.client.errors import Unreachable, checked
from tzk_core.client.retrying import Outcome
from tzk_core.errors import UsageError

__all__ = ["KEY_VARIABLE", "address", "read", "response_of", "settings"]

KEY_VARIABLE = "TZK_API_KEY"
IN_A_HEADER = frozenset(string.printable) - frozenset(string.whitespace)

Answer = TypeVar("Answer")


def address(url: str) -> httpx.URL:
    """The address of a server.

    Raises:
        UsageError: it is none.
    """
    try:
        found = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise UsageError(f"the address of the server cannot be read: {error}") from error
    if found.scheme not in ("http", "https") or not found.host:
        # Without what may be a password in it.
        raise UsageError(
            f"the address of a server starts with http:// or https://, as http://127.0.0.1:8080 "
            f"does, and this one with {found.scheme or 'neither'!r}"
        )
    return found


def settings(url: httpx.URL, key: str | None, timeout: float) -> dict[str, Any]:
    """The arguments of httpx's clients.

    Raises:
        UsageError: no header can carry the key. The sentence does not have it.
    """
    key = key or os.environ.get(KEY_VARIABLE)
    if key and not IN_A_HEADER.issuperset(key):
        raise UsageError("the key has characters other than printable ASCII without spaces")
    return {
        "base_url": url,
        "timeout": timeout,
        # A proxy of the environment has no business between here and loopback.
        "trust_env": not _is_loopback(url.host),
        "headers": {"Authorization": f"Bearer {key}"} if key else None,
    }


def response_of(outcome: Outcome, url: httpx.URL, tries: int) -> httpx.Response:
    """The last try's response.

    Raises:
        Refused: it is an error.
        Unreachable: there is none.
    """
    if isinstance(outcome, httpx.Response):
        return checked(outcome)
    where = _shown(url)
    after = "" if tries == 1 else f" after {tries} tries"
    if isinstance(outcome, httpx.TimeoutException) and not isinstance(
        outcome, httpx.ConnectTimeout
    ):
        raise Unreachable(
            f"the server at {where} did not answer in time{after}: ask for less at a time, or "
            "give it a longer timeout"
        ) from outcome
    reason = str(outcome) or type(outcome).__name__
    raise Unreachable(
        f"no server answers at {where}{after} ({reason}): check the address, and that the server "
        f"runs (tzk status --url {where})"
    ) from outcome


def read(call: Call[Answer], response: httpx.Response, url: httpx.URL) -> Answer:
    """The typed answer.

    Raises:
        Unreachable: it is not what this endpoint answers.
    """
    try:
        return call.read(response)
    # Of JSON and arrays; of broken PNGs Pillow raises any of them.
    except (ValueError, OSError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unreachable(
            f"what answers at {_shown(url)} is no answer of {call.endpoint} that this version of "
            "tzk can read: check the address, and the versions of the server and here"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(url: httpx.URL) -> str:
    """Scheme, host and port: what is before an @ may be a password."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"
