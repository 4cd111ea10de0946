"""Which columns of a table in the hub's schema hold images, labels and attributes."""

from __future__ import annotations

from typing import Any

from tzk_core.data.table import Columns
from tzk_core.errors import UsageError

__all__ = ["LABEL_COLUMNS", "Found", "find_columns"]

IMAGE_COLUMNS = ("image", "img", "picture", "pixels")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class")


class Found:
    """The columns of one table.

    Attributes:
        image: the column of the images.
        label: that of the labels, if there is one.
        label_names: the labels' names if the table tells them; None if only the labels do.
        attributes: the columns of attributes that were asked for.
    """

    def __init__(
        self, image: str, label: str | None, label_names: list[str] | None, attributes: list[str]
    ) -> None:
        self.image, self.label = image, label
        self.label_names, self.attributes = label_names, attributes

    @property
    def all(self) -> list[str]:
        return [self.image, *([self.label] if self.label else []), *self.attributes]


def find_columns(features: Any, wanted: Columns, where: object) -> Found:
    """The columns of a table with `datasets`' ``features``.

    Raises:
        UsageError: a column that was named is not there or of another kind, or there are no
            images.
    """
    import datasets

    image = _named(features, wanted.image, where) or next(
        (c for c in IMAGE_COLUMNS if c in features),
        next((c for c, kind in features.items() if isinstance(kind, datasets.Image)), None),
    )
    if image is None:
        raise UsageError(
            f"{where} has no column of images: it would be called 'image', as on the hub; there "
            f"are {', '.join(features)}"
        )
    label = _named(features, wanted.label, where)
    if label is not None and not _is_label(features[label]):
        raise UsageError(f"the column {label!r} of {where} does not hold one class an image")
    if label is None:
        label = next(
            (c for c in LABEL_COLUMNS if c in features and _is_label(features[c])),
            next((c for c, k in features.items() if isinstance(k, datasets.ClassLabel)), None),
        )
    names = [] if label is None else getattr(features[label], "names", None)
    return Found(
        image,
        label,
        None if names is None else list(names),
        _attributes(features, wanted, label, where),
    )


def _attributes(features: Any, wanted: Columns, label: str | None, where: object) -> list[str]:
    if isinstance(wanted.attributes, tuple):
        for column in wanted.attributes:
            _named(features, column, where)
            if not _is_label(features[column]):
                raise UsageError(f"the column {column!r} of {where} does not hold true or false")
        return list(wanted.attributes)
    if not wanted.attributes:
        return []
    booleans = [c for c, k in features.items() if _dtype(k) == "bool" and c != label]
    if not booleans:
        raise UsageError(
            f"{where} has no columns of booleans to take as attributes; name those that hold 0 "
            f"and 1 from {', '.join(features)}"
        )
    return booleans


def _named(features: Any, column: str | None, where: object) -> str | None:
    if column is not None and column not in features:
        raise UsageError(f"{where} has no column {column!r}; there are {', '.join(features)}")
    return column


def _is_label(feature: Any) -> bool:
    """Whether a column holds one class an image: a ClassLabel, a text, an integer or a boolean."""
    kind = _dtype(feature)
    return kind in ("string", "large_string", "bool") or kind.startswith(("int", "uint"))


def _dtype(feature: Any) -> str:
    return str(getattr(feature, "dtype", ""))
