"""The part `round-trip`."""

from __future__ import annotations

from ...round_trip import RoundTrip, round_trip
from ..result import Result, Table, share
from ..work import ALL, Part, Work

__all__ = ["PART"]


def _scopes(_: Work) -> list[str]:
    return [ALL]


def _measure(work: Work, _: str) -> Result:
    found = {}
    for source in work.sources:
        largest = work.settings.round_trip_images
        index = work.some(len(source.test), largest, "round trip", source.name)
        task = work.task(f"round trip of {source.name}", len(index))
        found[source.name] = round_trip(
            work.model, source.pixels[index], seed=work.seed, name=source.name, tick=task
        )
    table = Table(
        f"|decode(encode(t)) − t| in grey levels, {work.model.reference.dtype}".replace(
            "torch.", ""
        ),
        [
            "images of",
            "images",
            "largest",
            "median of an image's largest",
            "median of elements",
            "images that change",
        ],
        [_row(name, each) for name, each in found.items()],
    )
    return Result({"sources": found}, [table])


def _row(name: str, each: RoundTrip) -> list[str]:
    errors = (each.largest, each.median_of_largest, each.median)
    return [name, str(each.images), *(f"{error:.2g}" for error in errors), share(each.changed)]


PART = Part(
    "round-trip",
    "Round trip",
    "An invertible flow gives an image back but for rounding. An image that changes is one of "
    "which any level comes back another: the noise of dequantisation may lie next to a level's "
    "edge, so an error far below 1 can still move one level by one.",
    ("test_images", "round_trip_images"),
    _scopes,
    _measure,
)
