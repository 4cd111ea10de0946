"""Names of knowledge: what labels become, and paths of names.

A name matches ``[a-z0-9][a-z0-9_-]*``; ``/`` separates the steps of a path, so that ``mnist/3`` is
the knowledge ``3`` of the child of the knowledge ``mnist`` (design, section 11). The label that a
name was made from is kept for display by whoever made it.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import TypeVar

from tzk_core.errors import InvalidRequest

__all__ = ["below", "check_name", "shown", "slug", "slugs", "split_path", "with_ancestors"]

T = TypeVar("T")

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def slug(label: object) -> str:
    """The name of a label.

    A label with no letter or digit of ASCII in it (``"+"``, ``"猫"``) gets a name made of its
    hash, so that it has the same name in every run.

    >>> slug("T-shirt/top"), slug("Ankle boot"), slug(3), slug("café")
    ('t-shirt-top', 'ankle-boot', '3', 'cafe')
    """
    text = unicodedata.normalize("NFKD", str(label)).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9_]+", "-", text).strip("-_")
    # Lone surrogates stand for bytes of a file name that are no UTF-8.
    content = str(label).encode("utf-8", "surrogatepass")
    return name or "x" + hashlib.sha256(content).hexdigest()[:8]


def shown(text: object) -> str:
    r"""What can be displayed and written of a text that may hold bytes that are no UTF-8.

    >>> print(shown("caf\udce9"), shown("café"))
    caf\udce9 café
    """
    return str(text).encode("utf-8", "backslashreplace").decode()


def slugs(labels: Iterable[object]) -> list[str]:
    """The names of labels that must not share one: a repeated name gets ``-2``, ``-3``, …

    >>> slugs(["A", "a", "b"])
    ['a', 'a-2', 'b']
    """
    names: list[str] = []
    for label in labels:
        base = name = slug(label)
        count = 1
        while name in names:
            count += 1
            name = f"{base}-{count}"
        names.append(name)
    return names


def check_name(name: str, *, pointer: str | None = None) -> str:
    """``name`` itself, if it is one.

    Raises:
        InvalidRequest: it is not, with the name that was probably meant.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        meant = f"; did you mean {slug(name)!r}?" if isinstance(name, str) and name else ""
        raise InvalidRequest(
            f"{name!r} is not a name of knowledge: use lower-case letters, digits, '-' and '_', "
            f"beginning with a letter or digit{meant}",
            pointer=pointer,
        )
    return name


def split_path(path: str, *, pointer: str | None = None) -> tuple[str, ...]:
    """The names along a path.

    >>> split_path("mnist/3")
    ('mnist', '3')

    Raises:
        InvalidRequest: the path is empty, or a step of it is not a name.
    """
    if not isinstance(path, str) or not path:
        raise InvalidRequest(
            "a path names one kind of knowledge, such as 'mnist' or 'mnist/3'", pointer=pointer
        )
    return tuple(check_name(name, pointer=pointer) for name in path.split("/"))


def with_ancestors(path: str) -> list[str]:
    """A path and those above it, the root first.

    >>> with_ancestors("mnist/3")
    ['mnist', 'mnist/3']
    """
    names = split_path(path)
    return ["/".join(names[: depth + 1]) for depth in range(len(names))]


def below(values: Mapping[str, T], name: str) -> dict[str, T]:
    """What is said of the paths below a kind, by paths that start there.

    >>> below({"mnist": 1, "mnist/3": 2, "mnist/3/a": 3}, "mnist")
    {'3': 2, '3/a': 3}
    """
    return {
        path[len(name) + 1 :]: value
        for path, value in values.items()
        if path.startswith(name + "/")
    }
