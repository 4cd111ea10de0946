"""The path of a request for an endpoint: ``/predictions/NAME[/1.0[/a/b]]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from tzk_core.front.answers import BadAddress, NoSuchAddress

__all__ = ["CONTRACT", "Target", "parse_target"]

CONTRACT = "1.0"
"""The version of the HTTP contract, the only one there is (design, section 8)."""

LONGEST = 2048
ESCAPES = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class Target:
    """What is asked.

    Args:
        endpoint: its name, as it was sent.
        rest: the knowledge path behind the version, percent-encoded, with its leading slash, or "".
    """

    endpoint: str
    rest: str = ""


def parse_target(raw_path: bytes) -> Target:
    """What the path of a URL asks for; nothing in it can mean another address.

    Raises:
        BadAddress: no text in UTF-8, a control character, a broken escape, or too long.
        NoSuchAddress: no endpoint's path, a step ``..``, or an unknown version of the contract.
    """
    if len(raw_path) > LONGEST:
        raise BadAddress(f"the path of the URL is longer than {LONGEST} bytes")
    if ESCAPES.search(raw_path):
        raise BadAddress("the URL has a % that two hexadecimal digits do not follow")
    root, *steps = [_decoded(step) for step in raw_path.split(b"/")]
    if root or len(steps) < 2 or steps[0] != "predictions" or not steps[1]:
        raise NoSuchAddress(
            "there is nothing at this address; endpoints are at /predictions/NAME/1.0, "
            "beside them there are /ready and /ping"
        )
    if any(part in (".", "..") for step in steps for part in re.split(r"[/\\]", step)):
        raise NoSuchAddress("a URL here has no steps . or ..")
    _, endpoint, *behind = steps
    if behind and behind[0] not in (CONTRACT, ""):
        raise NoSuchAddress(
            f"{behind[0][:60]!r} is no version of the HTTP contract; there is {CONTRACT}: "
            f"/predictions/{endpoint[:60]}/{CONTRACT}/…",
            known=[CONTRACT],
        )
    rest = "/".join(quote(step, safe=",") for step in behind[1:])
    return Target(endpoint, f"/{rest}" if rest else "")


def _decoded(step: bytes) -> str:
    try:
        text = unquote_to_bytes(step).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadAddress("the URL is no text in UTF-8") from error
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise BadAddress("the URL has a control character")
    return text
