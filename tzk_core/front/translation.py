"""TorchServe's own errors as problem details with the statuses of the contract."""

from __future__ import annotations

import json

from tzk_core.errors import OutOfTime, TzkError
from tzk_core.front.answers import BadAddress, BadBody, BadGateway, NoSuchAddress, NotNow
from tzk_core.front.answers import TooLargeBody as TooLarge

__all__ = ["VersionGone", "as_problem"]

TOO_LONG = "the model took longer than it may; ask for less"
SERVER_LOG = "the server could not answer; its log says why, under the id of this request"

# What its parser of forms throws: of a part's headers without a name, or cut off within one.
FORM_KINDS = ("DataDecoderException", "ArrayIndexOutOfBoundsException")


class VersionGone(Exception):
    """TorchServe has this version of the model no longer: another is current."""


def as_problem(status: int, body: bytes, *, out_of_time: bool = False) -> TzkError:
    """The error that TorchServe's answer stands for.

    TorchServe kills the worker of a batch that passes its time limit, and says no more than of any
    death. Such a request is not to be sent again: it would cost another worker.

    Args:
        status, body: of the answer.
        out_of_time: it came no earlier than the time limit of a batch.

    ======================================  ===============================================
    TorchServe 0.12                         here
    ======================================  ===============================================
    404 ModelVersionNotFoundException       raises ``VersionGone``
    404, anything else                      404
    500 or 507 "Worker died."               503, Retry-After: what was asked changed nothing;
                                            504 when it is ``out_of_time``
    503 "has no worker …", a full queue     503, Retry-After
    408, 500 or 504 of a time limit         504
    413, "TooLongFrameException"            413
    500 of a kind in ``FORM_KINDS``         400: a multipart body or form that it cannot read
    400, 403, other 4xx of its parser       400
    else                                    500
    ======================================  ===============================================
    """
    kind, message = _told(body)
    if kind == "ModelVersionNotFoundException":
        raise VersionGone
    if "Worker died" in message and out_of_time:
        return OutOfTime(TOO_LONG)
    if "Worker died" in message:
        return NotNow("the worker died with this request in hand; try again in 2 s", retry_after=2)
    if status == 404:
        return NoSuchAddress("there is nothing at this address")
    if status == 503:
        return NotNow("there is no worker for this request now; try again in 1 s")
    if status in (408, 504) or "timed out" in message or "timeout" in message.lower():
        return OutOfTime(TOO_LONG)
    if status == 413 or "TooLong" in kind:
        return TooLarge("the request is larger than this server takes")
    if any(each in kind for each in FORM_KINDS):
        return BadBody("the form in the body cannot be read; send it as curl -F does")
    if 400 <= status < 500:
        return BadAddress("this request cannot be understood")
    if status >= 500:
        return TzkError(SERVER_LOG)
    return BadGateway("the model's answer cannot be understood")


def _told(body: bytes) -> tuple[str, str]:
    try:
        told = json.loads(body)
        return str(told.get("type", "")), str(told.get("message", ""))
    except (ValueError, AttributeError):
        return "", ""
