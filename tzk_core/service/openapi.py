"""The HTTP contract as an OpenAPI 3.1 document, made from the models of requests and answers.

``tzk openapi`` prints it; docs/openapi.json is a copy that a test keeps current.
"""

from __future__ import annotations

import json
from typing import Any

from tzk_core.service.fields import SEVERAL_PATHS
from tzk_core.service.openapi_examples import ASKED
from tzk_core.service.openapi_responses import (
    HEADERS,
    answered,
    problem_refs,
    problem_responses,
)
from tzk_core.service.openapi_schemas import (
    REQUESTS,
    body_schema,
    form_schema,
    schemas,
)
from tzk_core.service.requests import SampleRequest
from tzk_core.service.wire import JSON

__all__ = ["CONTRACT", "document", "dumps"]

CONTRACT = "1.0"
"""The version of the contract, which stands in URLs."""

ABOUT = """\
Questions to a TzK model: how likely an image is, what it is an instance of, new images of a kind,
and images between others.

A request is the image itself as the body (`curl -T FILE`), multipart fields
(`curl -F image=@FILE -F seed=7`), JSON with base64 images, or a JSON list of such requests, which
is answered with a list whose items are answers or problems. The URL may leave the version out
(`/predictions/tzk_nll`), where no path follows it. One request may ask for the work of 256 images,
all of a list together: images drawn or between others, and draws of noise, are one each; an image
of several kinds is 16; 16 draws of a code are one.

Pictures are chosen by `format` or the Accept header: `image/png` (also for `*/*`; a grid for
several images), `application/x-npy`, `application/json`. A path in the URL is `given`.

Every random number comes from `seed`, which is echoed: the same seed gives the same answer.
Numbers are finite, or null with the reason in `reasons`.

Each address takes POST and PUT; tzk_sample takes GET too. Errors are problem details (RFC 9457).
"""
GIVEN = {
    "name": "given",
    "in": "path",
    "required": True,
    "description": "the path of a knowledge type, such as mnist or mnist/3, whose slashes stand "
    "as they are; for tzk_sample also several with commas between",
    "schema": SEVERAL_PATHS | {"minLength": 1, "maxLength": 500},
    "example": "mnist",
}
REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "an id for logs, which the answer repeats; one that does not fit is replaced",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
}
FILES = {"type": "string", "format": "binary"}


def document() -> dict[str, Any]:
    """The document as plain values of JSON."""
    paths: dict[str, Any] = {}
    for endpoint in REQUESTS:
        base = f"/predictions/{endpoint}/{CONTRACT}"
        paths[base] = _path(endpoint, below="")
        paths[base + "/{given}"] = _path(endpoint, below="Given")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tzk",
            "version": CONTRACT,
            "summary": "A TzK model over HTTP.",
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "http://127.0.0.1:8080", "description": "as tzk serve starts it"}],
        "security": [{}, {"key": []}, {"headerKey": []}],
        "tags": [
            {"name": "model", "description": "What the model is asked."},
            {"name": "health", "description": "Whether the server is well; needs no key."},
        ],
        "paths": paths | {"/ready": _ready(), "/ping": _ping()},
        "components": {
            "schemas": schemas(),
            "requestBodies": {endpoint: _body(endpoint) for endpoint in REQUESTS},
            "responses": _responses(),
            "headers": HEADERS,
            "parameters": {"given": GIVEN, "requestId": REQUEST_ID},
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "where the server has keys",
                },
                "headerKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Api-Key",
                    "description": "another way to send the same key",
                },
            },
        },
    }


def dumps() -> str:
    """The document's text."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def _path(endpoint: str, below: str) -> dict[str, Any]:
    """The operations at one address of an endpoint; ``below``: with a path of knowledge."""
    parameters = ["requestId", *(["given"] if below else [])]
    item: dict[str, Any] = {
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in parameters]
    }
    methods = ("get", "post", "put") if REQUESTS[endpoint] is SampleRequest else ("post", "put")
    for method in methods:
        name = endpoint.removeprefix("tzk_")
        operation = {
            "operationId": name + below + ("" if method == "post" else method.title()),
            "summary": (REQUESTS[endpoint].__doc__ or "").strip(),
            "tags": ["model"],
            "responses": {"200": {"$ref": f"#/components/responses/{endpoint}"}} | problem_refs(),
        }
        if method != "get":
            operation["requestBody"] = {"$ref": f"#/components/requestBodies/{endpoint}"}
        item[method] = operation
    return item


def _body(endpoint: str) -> dict[str, Any]:
    request = REQUESTS[endpoint]
    content: dict[str, Any] = {}
    if "image" in request.model_fields:
        content["image/*"] = {"schema": FILES}
        content["application/octet-stream"] = {"schema": FILES}
    content["multipart/form-data"] = {"schema": form_schema(endpoint)}
    examples = {name: {"value": value} for name, value in ASKED[endpoint].items()}
    content[JSON] = {"schema": body_schema(endpoint), "examples": examples}
    return {"required": request.needs_image, "content": content}


def _responses() -> dict[str, Any]:
    ready = {
        "type": "object",
        "properties": {
            "ready": {"const": True},
            "models": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "each model with `ready`",
            },
        },
        "required": ["ready", "models"],
    }
    ping = {
        "type": "object",
        "properties": {"status": {"const": "Healthy"}},
        "required": ["status"],
    }
    answers = {name: answered(name, request) for name, request in REQUESTS.items()}
    return (
        answers
        | {
            "Ready": {
                "description": "Every model has a live worker.",
                "content": {JSON: {"schema": ready}},
            },
            "Alive": {
                "description": "The server's front lives.",
                "content": {JSON: {"schema": ping}},
            },
        }
        | problem_responses()
    )


def _ready() -> dict[str, Any]:
    operation = {
        "operationId": "ready",
        "summary": "Can every model answer?",
        "description": "For load balancers and readiness probes; `models` of a 503 says why not.",
        "tags": ["health"],
        "security": [{}],
        "responses": {
            "200": {"$ref": "#/components/responses/Ready"},
            "503": {"$ref": "#/components/responses/Unavailable"},
        },
    }
    return {"get": operation}


def _ping() -> dict[str, Any]:
    operation = {
        "operationId": "ping",
        "summary": "Does the front live?",
        "tags": ["health"],
        "security": [{}],
        "responses": {"200": {"$ref": "#/components/responses/Alive"}},
    }
    return {"get": operation}
