"""From a raw request to what was asked: raw body, multipart fields, or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tzk_core.errors import InvalidRequest, NotAnImage, TooLarge, TzkError, UnsupportedMedia
from tzk_core.service.fields import CODES_AN_IMAGE, MOST_IMAGES, SEVERAL_COST
from tzk_core.service.negotiation import chosen_format
from tzk_core.service.problems import as_error, from_validation
from tzk_core.service.requests import Asked, InterpolateRequest
from tzk_core.service.wire import RawRequest

__all__ = ["MOST_IN_A_LIST", "Parsed", "parse"]

MOST_IN_A_LIST = 64
"""The most requests that one JSON list may hold."""

HOW = (
    "send an image as the raw body (curl -T FILE), multipart fields (curl -F image=@FILE), or "
    "JSON with the header Content-Type: application/json"
)
UNTYPED_JSON = "the body looks like JSON, but its content type does not say so; " + HOW


@dataclass(frozen=True)
class Parsed:
    """One HTTP request's items, each what was asked or what was wrong with it.

    ``listed``: the request was a JSON list, so that the answer is one too.
    """

    items: list[Asked | TzkError]
    listed: bool = False


def parse(raw: RawRequest, model: type[Asked]) -> Parsed:
    """What ``raw`` asks of the endpoint whose requests are ``model``; never raises."""
    try:
        content = _content(raw, model)
        if isinstance(content, list):
            if not 1 <= len(content) <= MOST_IN_A_LIST:
                detail = f"the list holds {len(content)} requests; send 1 to {MOST_IN_A_LIST}"
                raise TooLarge(detail) if content else InvalidRequest(detail, pointer="")
            items = [_item(one, raw, model, listed=True) for one in content]
            return _affordable(Parsed(items, listed=True))
        return _affordable(Parsed([_item(content, raw, model, listed=False)]))
    except Exception as error:
        return Parsed([as_error(error)])


def _affordable(parsed: Parsed) -> Parsed:
    """The same, if what it asks for in all is not too much: other requests wait for it.

    Raises:
        InvalidRequest: it is; the pointer is to the field with which it becomes so.
    """
    total = 0
    for index, item in enumerate(parsed.items):
        if isinstance(item, TzkError):
            continue
        images, field = item.cost
        total += images
        if total > MOST_IMAGES:
            place = f"/{index}/{field}" if parsed.listed else f"/{field}"
            raise InvalidRequest(
                f"this asks for the work of {total} images or more at once, and {MOST_IMAGES} is "
                "the most that one HTTP request may; send it in parts. An image of several kinds "
                f"counts as {SEVERAL_COST}, a draw of noise as one, {CODES_AN_IMAGE} draws of a "
                "code as one",
                pointer=place,
            )
    return parsed


def _item(values: Any, raw: RawRequest, model: type[Asked], *, listed: bool) -> Asked | TzkError:
    try:
        if not isinstance(values, Mapping):
            raise InvalidRequest(
                f"a request in JSON is an object, not {type(values).__name__}", pointer=""
            )
        asked = model.model_validate(
            _with_url_path(dict(values), raw.url_path), context={"json": not raw.fields}
        )
        return chosen_format(asked, raw.headers.get("accept", ""), listed=listed)
    except ValidationError as error:
        return from_validation(error, model)
    except Exception as error:
        return as_error(error)


def _with_url_path(values: dict[str, Any], url_path: str) -> dict[str, Any]:
    path = url_path.strip("/")
    if not path:
        return values
    for name in ("given", "path"):
        if values.get(name) not in (None, path):
            raise InvalidRequest(
                f"the URL says {path!r:.80} and the field says {values[name]!r:.80}; "
                "send one of them",
                pointer=f"/{name}",
            )
    return values | {"given": path}


def _content(raw: RawRequest, model: type[Asked]) -> Any:
    """The request's fields as a mapping, or a list of such, or whatever else JSON held."""
    if raw.fields:
        # What `curl -d '{"image": "…=="}'` sends goes for a form: a field up to the first "=".
        if any(str(name).lstrip()[:1] in ("{", "[") for name in raw.fields):
            raise UnsupportedMedia(UNTYPED_JSON)
        return _from_multipart(raw.fields, model)
    body = raw.body
    if body is None:
        return _unread(raw, model)
    if isinstance(body, str):
        body = body.encode(errors="replace")  # JSON may hold half of a surrogate pair
    if not isinstance(body, bytes | bytearray):
        return body
    body = bytes(body)
    if not body.strip():
        return _empty(model)
    if _media_type(raw).endswith("json"):
        return _from_json(body)
    if body.lstrip()[:1] in (b"{", b"["):
        raise UnsupportedMedia(UNTYPED_JSON)
    if "image" in model.model_fields:
        return {"image": body}
    if issubclass(model, InterpolateRequest):
        raise InvalidRequest(
            "one raw body is one image, and 2 or 4 are needed; send multipart fields "
            "(curl -F image1=@A -F image2=@B), or JSON with a list images",
            pointer="/images",
        )
    raise UnsupportedMedia("this endpoint takes no image; send multipart fields or JSON")


def _empty(model: type[Asked]) -> dict[str, Any]:
    if model.needs_image:
        raise NotAnImage("the body is empty; " + HOW)
    return {}


def _unread(raw: RawRequest, model: type[Asked]) -> dict[str, Any]:
    # The server drops a body that it takes for form fields and finds none in: what
    # `curl -d '{"n": 3}'` sends, for want of a content type, is one.
    if raw.headers.get("content-length", "").strip() == "0":
        return _empty(model)
    media_type = _media_type(raw)
    if media_type.endswith("json"):
        raise InvalidRequest("a request in JSON is an object, or a list of them", pointer="")
    if media_type.startswith("multipart/"):
        raise InvalidRequest("the multipart body has no field that could be read; " + HOW)
    raise UnsupportedMedia(
        f"the body was sent as {media_type or 'no content type'!r:.80}, which is not read here; "
        "for JSON add the header Content-Type: application/json; " + HOW
    )


def _media_type(raw: RawRequest) -> str:
    return raw.headers.get("content-type", "").partition(";")[0].strip().lower()


def _from_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is no JSON: {error}", pointer="") from error


def _from_multipart(fields: Mapping[str, Any], model: type[Asked]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    images: dict[str, bytes] = {}
    for name, value in fields.items():
        if isinstance(value, str):
            value = value.encode()
        if "images" in model.model_fields and name in ("image1", "image2", "image3", "image4"):
            images[name] = value
        elif name == "image" or name not in model.model_fields:
            values[name] = value  # of another name: the model says which there are
        else:
            values[name] = _text(name, value)
    if images:
        expected = [f"image{i + 1}" for i in range(len(images))]
        if sorted(images) != expected:
            raise InvalidRequest(
                f"the fields are {', '.join(sorted(images))}, and would be "
                f"{', '.join(expected)} without a gap",
                pointer="/images",
            )
        values["images"] = [images[name] for name in expected]
    return values


def _text(name: str, value: Any) -> Any:
    if not isinstance(value, bytes | bytearray):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        pointer = "/" + name.replace("~", "~0").replace("/", "~1")
        raise InvalidRequest(f"{name:.60}: this is not UTF-8 text", pointer=pointer) from error
