"""Clients of the four endpoints: typed answers, and the server's problem as an exception."""

from __future__ import annotations

from tzk_core.client.asynchronous import AsyncTzkClient
from tzk_core.client.blocking import TzkClient
from tzk_core.client.errors import (
    Busy,
    Invalid,
    NotFound,
    OutOfMemory,
    Refused,
    TooLarge,
    Unauthorized,
    Unreachable,
    checked,
)
from tzk_core.client.images import pixels_of
from tzk_core.client.retrying import Retry

__all__ = [
    "AsyncTzkClient",
    "Busy",
    "Invalid",
    "NotFound",
    "OutOfMemory",
    "Refused",
    "Retry",
    "TooLarge",
    "TzkClient",
    "Unauthorized",
    "Unreachable",
    "checked",
    "pixels_of",
]
