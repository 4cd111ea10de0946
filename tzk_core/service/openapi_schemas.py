"""The pydantic models of requests and answers as the JSON schemas of an OpenAPI 3.1 document."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from tzk_core.service.answers import (
    InterpolateAnswer,
    NllAnswer,
    PosteriorAnswer,
    SampleAnswer,
)
from tzk_core.service.parsing import MOST_IN_A_LIST
from tzk_core.service.problems import Problem
from tzk_core.service.requests import (
    InterpolateRequest,
    NllRequest,
    PosteriorRequest,
    SampleRequest,
)

__all__ = ["ANSWERS", "REQUESTS", "answer_schema", "body_schema", "form_schema", "schemas"]

REQUESTS = {
    "tzk_nll": NllRequest,
    "tzk_sample": SampleRequest,
    "tzk_posterior": PosteriorRequest,
    "tzk_interpolate": InterpolateRequest,
}
ANSWERS = {
    "tzk_nll": "NllAnswer",
    "tzk_sample": "SampleAnswer",
    "tzk_posterior": "PosteriorAnswer",
    "tzk_interpolate": "InterpolateAnswer",
}
FILE = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}


class _Untitled(GenerateJsonSchema):
    """Without the titles that only repeat the fields' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schemas() -> dict[str, Any]:
    """``components.schemas``: every request, answer and problem, and what they are made of."""
    answers = (NllAnswer, SampleAnswer, PosteriorAnswer, InterpolateAnswer, Problem)
    inputs = [(model, "validation", TypeAdapter(model)) for model in REQUESTS.values()]
    inputs += [(model, "serialization", TypeAdapter(model)) for model in answers]
    found, shared = TypeAdapter.json_schemas(
        inputs, ref_template="#/components/schemas/{model}", schema_generator=_Untitled
    )
    named = shared["$defs"] | {"PosteriorAnswer": found[PosteriorAnswer, "serialization"]}
    described = "Each path with what holds for it; the values need not sum to one."
    named["PosteriorAnswer"] = {"description": described} | named["PosteriorAnswer"]
    for endpoint in REQUESTS:
        named[_form_name(endpoint)] = _form(endpoint, named)
    return dict(sorted(named.items()))


def body_schema(endpoint: str) -> dict[str, Any]:
    """A request in JSON, or a list of them."""
    one = ref(REQUESTS[endpoint].__name__)
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1} | _MOST]}


def answer_schema(endpoint: str) -> dict[str, Any]:
    """An answer in JSON, or for a list one answer or problem an item."""
    one = ref(ANSWERS[endpoint])
    items = {"anyOf": [one, ref("Problem")]}
    return {"anyOf": [one, {"type": "array", "items": items, "minItems": 1} | _MOST]}


def form_schema(endpoint: str) -> dict[str, Any]:
    """A request as multipart fields."""
    return ref(_form_name(endpoint))


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_MOST = {"maxItems": MOST_IN_A_LIST}


def _form_name(endpoint: str) -> str:
    return REQUESTS[endpoint].__name__.replace("Request", "Form")


def _form(endpoint: str, named: dict[str, Any]) -> dict[str, Any]:
    """The request's schema with files for images, and text for what is a list in JSON."""
    request = named[REQUESTS[endpoint].__name__]
    properties: dict[str, Any] = {}
    for name, schema in request["properties"].items():
        if name == "images":
            corners = ("top left", "top right", "bottom left", "bottom right")
            for number, corner in enumerate(corners, start=1):
                described = f"an image file; {corner} of four" if number > 2 else "an image file"
                properties[f"image{number}"] = FILE | {"description": described}
        elif name == "image":
            properties[name] = FILE | {"description": "an image file"}
        else:
            properties[name] = _as_text(schema)
    required = [one for one in request.get("required", []) if one != "images"]
    if "images" in request["properties"]:
        required = ["image1", "image2", *required]
    form = {"type": "object", "properties": properties, "additionalProperties": False}
    if "images" in request["properties"]:
        form["dependentRequired"] = {"image3": ["image4"], "image4": ["image3"]}
    form["description"] = request["description"]
    return form | ({"required": required} if required else {})


def _as_text(schema: dict[str, Any]) -> dict[str, Any]:
    """A property without what a form cannot hold: lists, and null, which is a field left out."""
    kept = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    choices = _choices(schema)
    scalars = [one for one in choices if one.get("type") not in ("array", "null")]
    if not choices:
        return kept
    return kept | (scalars[0] if len(scalars) == 1 else {"anyOf": scalars})


def _choices(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of a schema, those inside an alternative among them."""
    return [
        choice
        for one in schema.get("anyOf", [])
        for choice in (_choices(one) if "anyOf" in one else [one])
    ]
