"""What a client raises: one class a kind of refusal, so that callers can tell them apart."""

from __future__ import annotations

import httpx

from tzk_core.errors import TzkError

__all__ = [
    "Busy",
    "Invalid",
    "NotFound",
    "OutOfMemory",
    "Refused",
    "TooLarge",
    "Unauthorized",
    "Unreachable",
    "checked",
    "refusal",
]


class Refused(TzkError):
    """The server's answer was an error.

    Args:
        status: of HTTP.
        detail, pointer, extensions: the server's own (RFC 9457).
        request_id: by which the server's logs know the request.
    """

    title = "Refused"

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        pointer: str | None = None,
        request_id: str | None = None,
        **extensions: object,
    ) -> None:
        super().__init__(detail, pointer=pointer, **extensions)
        self.status = status
        self.request_id = request_id


class Unauthorized(Refused):
    """401: the server has keys, and none of them was sent."""

    title = "A key is needed"
    exit_code = 2


class NotFound(Refused):
    """404: no such knowledge (``extensions["known"]`` lists those there are), or address."""

    title = "Not found"
    exit_code = 2


class Invalid(Refused):
    """400 or 415: not an image that is read; 422: ``pointer`` names the field that is wrong."""

    title = "Invalid"

    @property
    def exit_code(self) -> int:
        return 2 if self.status == 422 else 1


class TooLarge(Refused):
    """413: a body, an image or a list beyond a limit."""

    title = "Too large"


class Busy(Refused):
    """503: no worker for this now, or too many ask; it was asked again as ``Retry`` says."""

    title = "Busy"


class OutOfMemory(Refused):
    """507: the server's device has no memory for this; ask for less."""

    title = "Out of memory"


class Unreachable(TzkError):
    """No answer came, or none that can be read."""

    status = 503
    title = "Unreachable"


KINDS: dict[int, type[Refused]] = {
    400: Invalid,
    401: Unauthorized,
    404: NotFound,
    413: TooLarge,
    415: Invalid,
    422: Invalid,
    503: Busy,
    507: OutOfMemory,
}


def checked(answer: httpx.Response) -> httpx.Response:
    """``answer``, unless it is an error.

    Raises:
        Refused: of the class of its status.
    """
    if answer.is_success:
        return answer
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    raise refusal(problem, answer)


def refusal(problem: object, answer: httpx.Response) -> Refused:
    """The error that problem details tell of: of a whole answer, or of one item in its list."""
    told = problem if isinstance(problem, dict) else {}
    status = told.get("status")
    if answer.is_error or not isinstance(status, int):
        status = answer.status_code
    # "message" is TorchServe's own form, which the front does not let through.
    detail = told.get("detail") or told.get("message") or answer.reason_phrase or f"status {status}"
    pointer = told.get("pointer")
    known = {name: told[name] for name in ("known", "errors", "models") if name in told}
    return KINDS.get(status, Refused)(
        status,
        str(detail),
        pointer=pointer if isinstance(pointer, str) else None,
        request_id=answer.headers.get("X-Request-Id"),
        **known,
    )
