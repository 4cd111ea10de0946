"""Real requests for the OpenAPI document, and how the answers to them are made.

The images are digits of the MNIST test set. The answers are those of the model that comes with tzk;
a server with another model gives other numbers:

    python -m tzk_core.service.openapi_examples builtin
    tzk openapi --out docs/openapi.json

The first line asks the model of a run and writes the answers to openapi_answers.py. One problem is
among them, that of a name which the model does not know, as an item of a list.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tzk_core.service.service import Service

__all__ = ["ASKED", "answers_of", "literal", "module_of"]

DIGIT = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAdElEQVR4nNWQyQ0CQQwEi01sHdoQ2cxEVjwQe4DX"
    "Evzol6Vyt1uGf9LtMEeszJbvNVVz1lW1X/h60DQSqDagezi67ON9AJM1cUZ7pWe5W/yeu7yxtCyEmz43tKIQzzdd"
    "N6oKBYzf4EklTAoVzkEBJ/HVpVwP4nNH2fVosXgAAAAASUVORK5CYII="
)
OTHER = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAWElEQVR4nMWRUQqAQAgFX10sj2Ync282fUXY4hZB"
    "7PvT0UFQmp7AS+aAXeU68vSwfd78AW4ZLqkid95r7Qnu5UGjTUnyahKIUkP+WK+1e+NMAKXWIlmn5AAvnxfJV1Ew"
    "mwAAAABJRU5ErkJggg=="
)

ASKED: dict[str, dict[str, Any]] = {
    "tzk_nll": {
        "image": {"image": DIGIT, "seed": 7},
        "given": {"image": DIGIT, "given": "mnist", "seed": 7},
        "list": [{"image": DIGIT, "seed": 7}, {"image": OTHER, "given": "kanji"}],
    },
    "tzk_sample": {
        "pictures": {"given": "mnist", "n": 2, "seed": 1, "temperature": 0.7, "format": "json"},
        "everything": {},
    },
    "tzk_posterior": {"some": {"image": DIGIT, "seed": 7, "knowledge": ["mnist", "fashion"]}},
    "tzk_interpolate": {"two": {"images": [DIGIT, OTHER], "steps": 3, "seed": 7, "format": "json"}},
}
"""Requests in JSON by endpoint and name."""

PICTURES = ("everything",)
"""Requests whose answer is a picture, which JSON does not hold."""

ABOUT = '''"""Answers of a model to the requests of the OpenAPI document, by endpoint and name.

Written by openapi_examples.py, which tells how, from a model of {parameters:,} parameters whose
weights begin with {label}.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ANSWERED"]

ANSWERED: dict[str, dict[str, Any]] = '''

WIDTH = 88
"""Characters of a piece of a long string, so that a line of code has at most 100."""


def answers_of(service: Service) -> dict[str, dict[str, Any]]:
    """What a model answers in JSON, by endpoint and the request's name.

    Raises:
        WorkFailed: it refuses one, as a model without the kinds that are asked for does.
    """
    from tzk_core.errors import WorkFailed
    from tzk_core.service.wire import JSON, RawRequest

    answered: dict[str, dict[str, Any]] = {}
    for endpoint, requests in ASKED.items():
        answered[endpoint] = {}
        for name, asked in requests.items():
            if name in PICTURES:
                continue
            raw = RawRequest(body=asked, headers={"accept": JSON})
            [answer] = service.answer(endpoint, [raw])
            if answer.status != 200:
                raise WorkFailed(f"{endpoint}, {name}: {answer.body.decode()}")
            answered[endpoint][name] = json.loads(answer.body)
    return answered


def module_of(answered: dict[str, dict[str, Any]], parameters: int, label: str) -> str:
    """The text of openapi_answers.py, formatted as the project's code is."""
    return ABOUT.format(parameters=parameters, label=label) + literal(answered) + "\n"


def literal(value: Any, depth: int = 0) -> str:
    """A plain value of JSON as Python code, an entry a line.

    >>> print(literal({"a": [1, None], "b": []}))
    {
        "a": [
            1,
            None,
        ],
        "b": [],
    }
    """
    inner, outer = "    " * (depth + 1), "    " * depth
    if isinstance(value, dict) and value:
        entries = (f"{literal(k)}: {literal(v, depth + 1)}" for k, v in value.items())
    elif isinstance(value, list) and value:
        entries = (literal(one, depth + 1) for one in value)
    elif isinstance(value, str):
        quoted = [json.dumps(piece, ensure_ascii=False) for piece in _pieces(value, depth)]
        if len(quoted) <= 1:
            return "".join(quoted) or '""'
        return "(\n" + "".join(f"{inner}{piece}\n" for piece in quoted) + f"{outer})"
    else:
        return repr(value)
    begin, end = "{}" if isinstance(value, dict) else "[]"
    return begin + "\n" + "".join(f"{inner}{entry},\n" for entry in entries) + outer + end


def _pieces(text: str, depth: int) -> list[str]:
    size = WIDTH - 4 * depth
    return [text[start : start + size] for start in range(0, len(text), size)]


def main(run: str) -> None:
    """Writes openapi_answers.py beside this file."""
    from tzk_core.files import write_aside
    from tzk_core.service.service import Service

    service = Service.load(run)
    parameters = sum(parameter.numel() for parameter in service.model.parameters())
    text = module_of(answers_of(service), parameters, service.label)
    write_aside(Path(__file__).with_name("openapi_answers.py"), text)


if __name__ == "__main__":
    main(sys.argv[1])
