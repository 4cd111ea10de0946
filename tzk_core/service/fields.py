"""The types of request fields, and how text, bytes and JSON become them."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from tzk_core.errors import NotAnImage
from tzk_core.randomness import SEEDS

__all__ = [
    "MOST_IMAGES",
    "Count",
    "DecoderDraws",
    "Draws",
    "Encoded",
    "Knowledge",
    "Names",
    "Number",
    "Seed",
    "Steps",
]

MOST_IMAGES = 256
"""The most images that one request may ask for."""


def _no_boolean(value: Any) -> Any:
    # pydantic reads true as 1, which no client means.
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number")
    return value


def _whole(value: Any) -> Any:
    _no_boolean(value)
    is_digits = isinstance(value, str) and re.fullmatch(r"\s*\d{1,6}\s*", value)
    return int(value) if is_digits else value


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
        value = re.split(r"\s*[x×,]\s*", value.strip())
    parts = value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(parts) <= 2:
        raise ValueError("steps are one number, or rows and columns")
    try:
        steps = tuple(int(_no_boolean(part)) for part in parts)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{value!r:.60} is not a number, nor rows and columns") from error
    if any(not 1 <= step <= MOST_IMAGES for step in steps):
        raise ValueError(f"each of the steps is 1 to {MOST_IMAGES}")
    return steps


Encoded = Annotated[
    bytes,
    PlainValidator(_encoded),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
"""The bytes of an image file: as they are from a body or a multipart field, base64 in JSON."""

Count = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1, le=MOST_IMAGES)]
Seed = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0, lt=SEEDS)]
Number = Annotated[float, BeforeValidator(_no_boolean), Field(ge=0, allow_inf_nan=False)]
Draws = Annotated[Literal[1, 16, 256], BeforeValidator(_whole)]
DecoderDraws = Annotated[Literal[0, 256], BeforeValidator(_whole)]
Knowledge = Annotated[str, Field(min_length=1, max_length=500)]
Names = Annotated[list[Knowledge], BeforeValidator(_names), Field(min_length=1, max_length=1000)]
Steps = Annotated[
    tuple[int, ...],
    PlainValidator(_steps),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MOST_IMAGES},
                {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 1, "maximum": MOST_IMAGES},
                    "minItems": 2,
                    "maxItems": 2,
                },
            ]
        }
    ),
]
"""``8``, ``[4, 8]`` or the text ``"4x8"``, as a tuple of one or two numbers."""
