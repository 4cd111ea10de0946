"""The responses of an OpenAPI document: what each status means, and the headers."""

from __future__ import annotations

from typing import Any

from tzk_core.service.openapi_answers import ANSWERED
from tzk_core.service.openapi_schemas import answer_schema, ref
from tzk_core.service.requests import Asked
from tzk_core.service.wire import JSON, NPY, PNG, PROBLEM

__all__ = ["HEADERS", "PROBLEMS", "answered", "problem_refs", "problem_responses"]

HEADERS = {
    "X-Tzk-Seed": {
        "description": "the effective seed; for a list one an item, with commas between, empty "
        "where the item is a problem",
        "schema": {"type": "string", "pattern": "^[0-9]*(,[0-9]*)*$"},
    },
    "X-Tzk-Path": {
        "description": "the knowledge that was given; `mnist,-fashion` where fashion is absent",
        "schema": {"type": "string"},
    },
    "X-Tzk-Notes": {
        "description": "what a picture's answer has no other place for: how images were prepared, "
        "warnings",
        "schema": {"type": "string"},
    },
    "X-Request-Id": {
        "description": "of this request, the one that was sent or a new one; logs have it too",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    },
    "Retry-After": {
        "description": "seconds after which to ask again",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {"description": "Bearer", "schema": {"type": "string"}},
    "Allow": {"description": "the methods there are", "schema": {"type": "string"}},
}

UNKNOWN = ANSWERED["tzk_nll"]["list"][1]
"""The problem of a name that the model does not know."""

# status: (name in components, what it means, its own headers)
PROBLEMS = {
    400: ("NotAnImage", "Not an image, or a URL that cannot be read.", ()),
    401: ("KeyNeeded", "The server has keys, and none of them was sent.", ("WWW-Authenticate",)),
    404: ("NotFound", "No such knowledge (`known` lists those there are), or address.", ()),
    405: ("NotAllowed", "The method does nothing here.", ("Allow",)),
    413: ("TooLarge", "A body, a picture of more than 64 megapixels, or a list too long.", ()),
    415: ("NotRead", "A content type or a kind of image that is not read.", ()),
    422: ("Invalid", "A field has a value it cannot have; `pointer` names it.", ()),
    431: ("HeadersTooLarge", "More or longer headers than are read.", ()),
    500: ("Failed", "An error of the server, whose log tells of it.", ()),
    502: ("Lost", "The model's answer was lost on its way.", ()),
    503: ("Unavailable", "No worker for this now, or too many ask.", ("Retry-After",)),
    504: ("TooSlow", "It took longer than it may.", ()),
    507: ("OutOfMemory", "The device has no memory for this; ask for less.", ()),
}


def problem_responses() -> dict[str, Any]:
    """``components.responses``."""
    responses = {}
    for status, (name, meaning, own) in PROBLEMS.items():
        content: dict[str, Any] = {"schema": ref("Problem")}
        if status == 404:
            content["examples"] = {"unknown": {"value": UNKNOWN}}
        responses[name] = {
            "description": meaning,
            "headers": _headers(*own, "X-Request-Id"),
            "content": {PROBLEM: content},
        }
    return responses


def problem_refs() -> dict[str, Any]:
    """Every problem's response by its status, for an operation."""
    return {
        str(status): {"$ref": f"#/components/responses/{name}"}
        for status, (name, _, _) in PROBLEMS.items()
    }


def answered(endpoint: str, request: type[Asked]) -> dict[str, Any]:
    """The response 200 of an endpoint."""
    content: dict[str, Any] = {}
    told = ["X-Tzk-Seed"]
    if request.formats:
        picture = {"type": "string", "format": "binary"}
        content[PNG] = {"schema": picture | {"contentMediaType": PNG}}
        content[NPY] = {"schema": picture | {"contentMediaType": NPY}}
        told.append("X-Tzk-Notes")
    if endpoint == "tzk_sample":
        told.append("X-Tzk-Path")
    examples = {name: {"value": value} for name, value in ANSWERED[endpoint].items()}
    content[JSON] = {"schema": answer_schema(endpoint), "examples": examples}
    return {
        "description": "The answer; for a list of requests, a list.",
        "headers": _headers(*told, "X-Request-Id"),
        "content": content,
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
