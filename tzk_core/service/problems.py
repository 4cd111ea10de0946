"""Whatever went wrong, as problem details (RFC 9457)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tzk_core.errors import InvalidRequest, OutOfDeviceMemory, TzkError
from tzk_core.service.wire import PROBLEM, RawAnswer

__all__ = ["Problem", "as_error", "from_validation", "problem_answer"]

MOST_ERRORS = 10

log = logging.getLogger(__name__)


class WrongField(BaseModel):
    """One of several wrong fields."""

    pointer: str = Field(description="JSON pointer (RFC 6901) to it")
    detail: str = Field(description="what is wrong with it, and what would be right")


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: Literal["about:blank"] = Field(description="the title says all")
    title: str = Field(description="the kind of error")
    status: int = Field(description="the HTTP status", ge=400, le=599)
    detail: str = Field(description="what was wrong, and what would be right")
    pointer: str | None = Field(
        None, description='JSON pointer (RFC 6901) to the field that is wrong; "" is the body'
    )
    known: list[str] | None = Field(None, description="what there is, where something is unknown")
    errors: list[WrongField] | None = Field(None, description="every wrong field")
    models: dict[str, str] | None = Field(
        None, description="of /ready: each model with `ready`, or why it is not"
    )


def as_error(error: Exception) -> TzkError:
    """Any exception as one of ours; one that nobody foresaw is logged with its traceback."""
    if isinstance(error, TzkError):
        return error
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return OutOfDeviceMemory("there is not enough memory for this request; ask for less")
    log.error("A request failed", exc_info=error)
    return TzkError("the answer could not be computed; the server's log says why")


def problem_answer(error: TzkError) -> RawAnswer:
    """The answer that tells a client of ``error``."""
    return RawAnswer(json.dumps(error.problem()).encode(), PROBLEM, error.status)


def from_validation(error: ValidationError, model: type[BaseModel]) -> InvalidRequest:
    """Each wrong field with its JSON pointer, what is wrong and what would be right."""
    errors = [_explained(one, model) for one in error.errors(include_url=False)[:MOST_ERRORS]]
    first = errors[0]
    more = "" if len(errors) == 1 else f" ({len(errors) - 1} more: see errors)"
    return InvalidRequest(first["detail"] + more, pointer=first["pointer"], errors=errors)


def _explained(one: dict, model: type[BaseModel]) -> dict[str, str]:
    where = one["loc"]
    name = str(where[0]) if where else ""
    field = model.model_fields.get(name)
    if one["type"] == "missing":
        wrong = "it is missing"
    elif one["type"] == "extra_forbidden":
        wrong = "there is no such field"
    else:
        wrong = one["msg"].removeprefix("Value error, ")
    if field is not None and field.description:
        right = field.description
    else:
        right = "fields are " + ", ".join(model.model_fields)
    got = one.get("input")
    shown = f" (got {got!r:.60})" if isinstance(got, str | int | float) and field else ""
    subject = f"{name:.60}: " if name else ""
    detail = f"{subject}{wrong}{shown}" + (f"; right would be: {right}" if name else "")
    return {"pointer": _pointer(where), "detail": detail}


def _pointer(where: Iterable[str | int]) -> str:
    # RFC 6901; "" is the whole document.
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in where)
