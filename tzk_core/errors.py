"""The errors that tzk raises on purpose, each with its HTTP status and exit code.

One base carries both, so that no layer translates errors: a handler turns any of them into
problem details (RFC 9457), the command line into one sentence and an exit code.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "InvalidRequest",
    "ModelUnavailable",
    "NotAnImage",
    "OutOfDeviceMemory",
    "OutOfTime",
    "TooLarge",
    "TzkError",
    "UnknownKnowledge",
    "UnsupportedMedia",
    "UsageError",
    "WorkFailed",
]


class TzkError(Exception):
    """Something went wrong that a person can mend.

    Args:
        detail: what was wrong, where, and what would be right, in one sentence or two.
        pointer: JSON pointer (RFC 6901) to the offending field of a request, if there is one.
        extensions: further members of the problem details, e.g. ``known=[...]``.
    """

    status = 500
    title = "Internal error"
    exit_code = 1

    def __init__(self, detail: str, *, pointer: str | None = None, **extensions: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.extensions = extensions

    def problem(self) -> dict[str, Any]:
        """The body of an ``application/problem+json`` answer (RFC 9457)."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.pointer is not None:
            body["pointer"] = self.pointer
        return body | self.extensions


class NotAnImage(TzkError):
    """The bytes are no image, or one that is cut off."""

    status = 400
    title = "Not an image"


class UnknownKnowledge(TzkError):
    """No knowledge of that name; ``known`` lists those there are."""

    status = 404
    title = "No such knowledge"
    exit_code = 2


class TooLarge(TzkError):
    """A body, an image or a count beyond a limit."""

    status = 413
    title = "Too large"


class UnsupportedMedia(TzkError):
    """A content type, or a kind of image, that is not taken."""

    status = 415
    title = "Unsupported media type"


class InvalidRequest(TzkError):
    """A field with a value that it cannot have; ``pointer`` names the field."""

    status = 422
    title = "Invalid request"
    exit_code = 2


class ModelUnavailable(TzkError):
    """The model cannot answer now: missing, corrupt, of another version, or busy."""

    status = 503
    title = "Model unavailable"


class OutOfTime(TzkError):
    """The work takes longer than it may; asking again would take as long."""

    status = 504
    title = "It took too long"


class OutOfDeviceMemory(TzkError):
    """The accelerator has no memory left for this request."""

    status = 507
    title = "Out of device memory"


class UsageError(TzkError):
    """The call itself was wrong (a command-line argument, a key of a recipe)."""

    status = 422
    title = "Invalid call"
    exit_code = 2


class WorkFailed(TzkError):
    """The call was right, but the work could not be done."""
