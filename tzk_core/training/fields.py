"""Every key of a recipe, from its fields' descriptions: ``tzk recipe fields``, docs/recipes.md.

Nothing is written by hand, so the page says what the code takes.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from .recipe import Recipe
from .settings import PRESETS

__all__ = ["document", "fields", "sections"]

HEAD = """# Recipes

A recipe is a YAML file of these keys. `tzk recipe list` names those that come with tzk, `tzk recipe
show NAME` prints one with every default filled in, and `--set stages.0.steps=10` changes a key of
any. A key that is not here is refused before anything loads.

This page is made of the fields' descriptions: `tzk recipe fields > docs/recipes.md`.
"""


def sections() -> list[tuple[type[BaseModel], list[str]]]:
    """Every mapping of a recipe and the keys that hold one, in the order in which they are met."""
    found: dict[type[BaseModel], list[str]] = {Recipe: []}
    waiting: list[tuple[type[BaseModel], str]] = [(Recipe, "")]
    while waiting:
        model, prefix = waiting.pop(0)
        for name, field in model.model_fields.items():
            for inner, several in _models(field.annotation):
                where = f"{prefix}{name}" + (".0" if several else "")
                if inner not in found:
                    found[inner] = []
                    waiting.append((inner, where + "."))
                found[inner].append(where)
    return list(found.items())


def fields() -> Iterator[tuple[type[BaseModel], str, FieldInfo]]:
    """(mapping, key, field) of every key."""
    for model, _ in sections():
        for name, field in model.model_fields.items():
            yield model, name, field


def document() -> str:
    """The page, in Markdown."""
    lines = [HEAD]
    for model, places in sections():
        title = "The recipe" if not places else ", ".join(f"`{place}`" for place in places)
        summary = (model.__doc__ or "").strip().splitlines()[0]
        lines += [f"## {title}\n", summary + "\n"]
        lines += ["| key | type | default | |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            cells = (f"`{name}`", _type(field), _default(field), field.description or "")
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    lines.append("## Presets of a stage\n")
    for name, values in PRESETS.items():
        told = ", ".join(f"`{key}: {value}`" for key, value in values.items())
        lines.append(f"`preset: {name}` is {told}; keys that the stage gives itself count more.")
    return "\n".join(lines) + "\n"


def _models(annotation: Any, several: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    """The mappings within a type, and whether there may be several of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, several
    origin = get_origin(annotation)
    if origin is not Literal:
        for inner in get_args(annotation):
            yield from _models(inner, several or origin in (list, dict))


def _type(field: FieldInfo) -> str:
    return " ".join([_told(field.annotation), _limits(field.metadata)]).strip()


def _limits(rules: list[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return ", ".join(
        f"{sign} {_number(getattr(rule, key))}"
        for rule in rules
        for key, sign in signs.items()
        if getattr(rule, key, None) is not None
    )


def _told(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is Annotated:
        kind, *rules = inner
        limits = _limits([rule for each in rules for rule in getattr(each, "metadata", [each])])
        return _told(kind) + (f" ({limits})" if limits else "")
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_told(each) for each in inner)
    if origin is list:
        return f"list of {_told(inner[0])}"
    if origin is dict:
        return f"{_told(inner[1])} by name"
    if origin is tuple:
        return "[" + ", ".join("…" if each is Ellipsis else _told(each) for each in inner) + "]"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    plain = {None: "null", True: "true", False: "false", "": "empty"}
    if value is None or isinstance(value, (bool, str)):
        return f"`{plain.get(value, value)}`"
    if isinstance(value, (list, tuple, dict)):
        return f"`{list(value) if not isinstance(value, dict) else value}`"
    return f"`{_number(value)}`"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) and value < 1 << 40 else f"{value:g}"
