"""What arrives and what leaves, without knowing which server carries it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

__all__ = ["JSON", "NPY", "PNG", "PROBLEM", "RawAnswer", "RawRequest", "header_text", "normalised"]

JSON = "application/json"
PROBLEM = "application/problem+json"
PNG = "image/png"
NPY = "application/x-npy"


@dataclass(frozen=True)
class RawRequest:
    """One HTTP request as a server's adapter hands it over.

    Args:
        url_path: what follows the endpoint's name and version in the URL (``"mnist/3"``).
        headers: names in lower case.
        fields: multipart fields by name, each bytes or text; empty when there are none.
        body: the raw body (bytes), or what JSON said (dict, list, …); ``None`` when the server
            could not read a body that was sent.
    """

    url_path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    body: Any = b""


@dataclass(frozen=True)
class RawAnswer:
    """One HTTP answer; the phrase is ASCII, as some servers stall on any other."""

    body: bytes
    content_type: str = JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def phrase(self) -> str:
        return HTTPStatus(self.status).phrase


def normalised(headers: Mapping[str, Any]) -> dict[str, str]:
    """Header names in lower case; entries that are not text are not headers and are left out."""
    return {name.lower(): value for name, value in headers.items() if isinstance(value, str)}


def header_text(text: str) -> str:
    """``text`` as a header can carry it: one line of ASCII, at most 1000 characters."""
    plain = text.replace("×", "x").encode("ascii", "replace").decode("ascii")
    return " ".join(plain.split())[:1000]
