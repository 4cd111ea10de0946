"""Which form the answer takes: the field ``format`` if it is there, else the Accept header."""

from __future__ import annotations

from tzk_core.errors import InvalidRequest
from tzk_core.service.requests import Asked
from tzk_core.service.wire import JSON, NPY, PNG

__all__ = ["accepted", "chosen_format"]

BY_TYPE = {PNG: "png", "image/*": "png", JSON: "json", "application/*": "json", NPY: "npy"}


def accepted(accept: str) -> list[str]:
    """The media types of an Accept header, the most wanted first; ``q=0`` is left out.

    >>> accepted("image/png;q=0.5, application/json")
    ['application/json', 'image/png']
    """
    wanted = []
    for part in accept.lower().split(","):
        media_type, *parameters = (piece.strip() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        if media_type and weight > 0:
            wanted.append((-weight, media_type))
    return [media_type for _, media_type in sorted(wanted, key=lambda one: one[0])]


def chosen_format(asked: Asked, accept: str, *, listed: bool) -> Asked:
    """``asked`` with its format settled, where its endpoint has several.

    In a list of requests every answer is JSON.
    """
    if not asked.formats:
        return asked
    if listed:
        if asked.format not in (None, "json"):
            raise InvalidRequest(
                f"format {asked.format} has no place in a list: send this request alone, or "
                "leave format out.",
                pointer="/format",
            )
        return asked.model_copy(update={"format": "json"})
    if asked.format is not None:
        return asked
    for media_type in accepted(accept):
        if BY_TYPE.get(media_type) in asked.formats:
            return asked.model_copy(update={"format": BY_TYPE[media_type]})
        if media_type == "*/*":
            break
    return asked.model_copy(update={"format": "png"})
