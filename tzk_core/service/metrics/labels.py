"""Values of metrics' labels: always from a short list, never what a client wrote.

Every value of a label is a time series that Prometheus keeps, so a client that could invent them
could fill its memory.
"""

from __future__ import annotations

from http import HTTPStatus

from tzk_core import errors
from tzk_core.errors import TzkError

__all__ = ["ENDPOINT_NAMES", "OTHER", "TITLES", "endpoint_label", "error_labels", "status_class"]

# service.ENDPOINTS' keys, which cannot be imported here: the front reads labels without torch.
ENDPOINT_NAMES = ("tzk_nll", "tzk_sample", "tzk_posterior", "tzk_interpolate")

OTHER = "other"

TITLES = frozenset(getattr(errors, name).title for name in errors.__all__)
"""The title of every kind of error."""

# 499, as nginx has it, is a caller who left: no answer, but of a kind of its own.
_STATUSES = frozenset({499, *(int(status) for status in HTTPStatus)})


def endpoint_label(name: str) -> str:
    """``name`` if it is an endpoint's, else ``other``."""
    return name if name in ENDPOINT_NAMES else OTHER


def status_label(status: int) -> str:
    """A status that HTTP knows, else ``other``."""
    return str(int(status)) if status in _STATUSES else OTHER


def status_class(status: int) -> str:
    """``2xx`` to ``5xx``, else ``other``.

    >>> status_class(404)
    '4xx'
    """
    return f"{status // 100}xx" if status in _STATUSES else OTHER


def error_labels(error: TzkError) -> tuple[str, str]:
    """Title and status of an error."""
    title = error.title if error.title in TITLES else OTHER
    return title, status_label(error.status)
