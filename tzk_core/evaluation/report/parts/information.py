"""The part `information`: how much a code tells of the image."""

from __future__ import annotations

from ...information import CodeInformation, code_information
from ..result import Result, Table, value
from ..work import NO_KINDS, Part, Work

__all__ = ["PART", "information_table"]


def _scopes(work: Work) -> list[str] | str:
    return list(work.model.kinds()) or NO_KINDS


def _measure(work: Work, scope: str) -> Result | str:
    groups = []
    for path in work.model.paths():
        e = work.known.existence.get(path)
        if path.partition("/")[0] == scope and e is not None and int((e == 1).sum()) > 1:
            groups.append((path, (e == 1).nonzero().squeeze(1)))
    if not groups:
        return f"the data have no two images that are known to be {scope}"
    task = work.task(f"information in the codes of {scope}", len(groups))
    found = []
    for path, index in groups:
        found.append(
            code_information(
                work.model,
                path,
                work.pixels[index],
                seed=work.seed,
                largest=work.settings.information_images,
            )
        )
        task(1)
    return Result({"codes": found}, [information_table(found)])


def information_table(found: list[CodeInformation]) -> Table:
    return Table(
        "Information in the codes (nats; I cannot exceed its cap, log M, of M test images)",
        ["code of", "I(c; observed)", "cap", "E log q(c|observed)", "variance of c, mean"],
        [
            [
                each.path,
                value(each.information),
                f"{each.cap:.2f}",
                value(each.log_encoder),
                f"{sum(each.variance) / len(each.variance):.3f}",
            ]
            for each in found
        ],
    )


PART = Part(
    "information",
    "Information",
    "I(c; t) between a kind's code and what it encodes: the image, or the code above it. 0 is a "
    "dead code; near its cap, the code tells every image from all others, and more images would "
    "show more. A variance of c that falls to 0 is a code that shrinks away.",
    ("test_images", "information_images"),
    _scopes,
    _measure,
)
