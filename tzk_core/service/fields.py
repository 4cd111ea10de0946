"""The types of request fields, and how text, bytes and JSON become them.

A multipart field is text, so text becomes a number there. JSON has numbers of its own: with
``context={"json": True}`` a number or truth value is one, so that what is taken is what the
published schema says.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from tzk_core.errors import NotAnImage
from tzk_core.randomness import SEEDS

__all__ = [
    "CODES_AN_IMAGE",
    "MOST_IMAGES",
    "SEVERAL_COST",
    "SEVERAL_PATHS",
    "Count",
    "DecoderDraws",
    "Draws",
    "Encoded",
    "Flag",
    "Knowledge",
    "Names",
    "Number",
    "Seed",
    "Steps",
]

MOST_IMAGES = 256
"""The most images that one HTTP request may ask for, a JSON list of requests together."""

SEVERAL_COST = 16
"""Images that an image of several kinds counts as: 64 particles are moved many times for it."""

CODES_AN_IMAGE = 16
"""Draws of a code that count as one image: each passes the small flow of a kind."""

# A name, a path of names, and several paths, as tzk_core.data.names reads them.
_NAME = "[a-z0-9][a-z0-9_-]*"
_PATH = f"{_NAME}(?:/{_NAME})*"
_PATHS = rf"\s*{_PATH}\s*(?:,\s*{_PATH}\s*)*"
_STEPS = r"\s*[0-9]{1,3}\s*(?:[x×,]\s*[0-9]{1,3}\s*)?"


def _is_json(info: ValidationInfo) -> bool:
    return bool(info.context and info.context.get("json"))


def _no_boolean(value: Any) -> Any:
    # pydantic reads true as 1, which no client means.
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number")
    return value


def _number(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str) and _is_json(info):
        raise ValueError("a number in JSON stands without quotes")
    return _no_boolean(value)


def _whole(value: Any, info: ValidationInfo) -> Any:
    _number(value, info)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    is_digits = isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,6}\s*", value)
    return int(value) if is_digits else value


def _flag(value: Any, info: ValidationInfo) -> Any:
    if _is_json(info) and not isinstance(value, bool):
        raise ValueError("in JSON this is true or false")
    return value


def _encoded(value: Any) -> bytes:
    if isinstance(value, str):
        text = re.sub(r"^data:[^,]{0,100},", "", value)
        try:
            value = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"this is not base64 ({error})") from error
    if not isinstance(value, bytes | bytearray):
        raise ValueError(f"{type(value).__name__} is no image")
    if not value:
        raise NotAnImage("the image is empty; send the bytes of a PNG or JPEG file")
    return bytes(value)


def _names(value: Any) -> Any:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _steps(value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        if not re.fullmatch(_STEPS, value):
            raise ValueError(f"{value!r:.60} is not a number, nor rows and columns")
        value = [int(part) for part in re.split("[x×,]", value)]
    parts = value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(parts) <= 2:
        raise ValueError("steps are one number, or rows and columns")
    for part in parts:
        _no_boolean(part)
        if not isinstance(part, int) and not (isinstance(part, float) and part.is_integer()):
            raise ValueError(f"{part!r:.60} is not a whole number")
    steps = tuple(int(part) for part in parts)
    if any(not 1 <= step <= MOST_IMAGES for step in steps):
        raise ValueError(f"each of the steps is 1 to {MOST_IMAGES}")
    return steps


Encoded = Annotated[
    bytes,
    PlainValidator(_encoded),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "minLength": 1}),
]
"""The bytes of an image file: as they are from a body or a multipart field, base64 in JSON."""

Count = Annotated[int, BeforeValidator(_number), Field(ge=1, le=MOST_IMAGES)]
Seed = Annotated[int, BeforeValidator(_number), Field(ge=0, lt=SEEDS)]
Number = Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
Draws = Annotated[Literal[1, 16, 256], BeforeValidator(_whole)]
DecoderDraws = Annotated[Literal[0, 256], BeforeValidator(_whole)]
Flag = Annotated[bool, BeforeValidator(_flag)]

# The schemas say what a name looks like; it is checked where the model's own names are at hand,
# whose error says which name was probably meant.
_ONE = {"type": "string", "minLength": 1, "maxLength": 500, "pattern": f"^{_PATH}$"}
SEVERAL_PATHS = {"type": "string", "pattern": f"^{_PATHS}$"}
Knowledge = Annotated[str, Field(min_length=1, max_length=500), WithJsonSchema(_ONE)]
Names = Annotated[
    list[Knowledge],
    BeforeValidator(_names),
    Field(min_length=1, max_length=1000),
    WithJsonSchema(
        {
            "anyOf": [
                SEVERAL_PATHS,
                {"type": "array", "items": _ONE, "minItems": 1, "maxItems": 1000},
            ]
        }
    ),
]
_STEP = {"type": "integer", "minimum": 1, "maximum": MOST_IMAGES}
Steps = Annotated[
    tuple[int, ...],
    PlainValidator(_steps),
    WithJsonSchema(
        {
            "anyOf": [
                _STEP,
                {"type": "array", "items": _STEP, "minItems": 1, "maxItems": 2},
                {"type": "string", "pattern": f"^{_STEPS}$"},
            ]
        }
    ),
]
"""``8``, ``[4, 8]`` or the text ``"4x8"``, as a tuple of one or two numbers."""
