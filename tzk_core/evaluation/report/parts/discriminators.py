"""The part `discriminators`: how well p_enc(e = 1 ∣ t) tells which knowledge applies."""

from __future__ import annotations

import torch
from torch import Tensor

from ...discriminators import Among, Binary, among, binary, logits_below, root_logits
from ...figures import mean_of
from ...reliability import Bin, reliability
from ..charts import reliability_diagram
from ..data import Classes
from ..result import Picture, Result, Table, share
from ..work import NO_KINDS, Part, Work

__all__ = ["PART", "discriminators_table"]

FIRST = "first level"
OTHERS = "other kinds"
CURVES = 10  # in a diagram: more lines cannot be told apart


def _scopes(work: Work) -> list[str] | str:
    if not work.model.kinds():
        return NO_KINDS
    below = [name for name, classes in work.classes.items() if classes.parent is not None]
    return [FIRST, *below, *([OTHERS] if _others(work) else [])]


def _measure(work: Work, scope: str) -> Result | str:
    if scope == FIRST:
        return _first_level(work)
    if scope == OTHERS:
        return _other_kinds(work)
    return _classes(work, work.classes[scope])


def _classes(work: Work, classes: Classes) -> Result:
    task = work.task(f"discriminators of {classes.name}", len(classes.pixels))
    logits = logits_below(work.model, classes.paths, classes.pixels, seed=work.seed, tick=task)
    found = among(logits, classes.labels, classes.paths)
    curves = _curves(logits, classes)
    return Result(
        {"classes": found, "reliability": curves},
        [discriminators_table(found.each, len(classes.pixels), found)],
        [_diagram(curves, f"reliability-{classes.name}")],
    )


def _first_level(work: Work) -> Result:
    """Every root kind on the test images of all sources, and what it says of others."""
    model, pixels = work.model, work.pixels
    names = list(model.kinds())
    others = [images for images in work.against if len(images)]
    total = len(names) * (len(pixels) + sum(map(len, others)))
    task = work.task("discriminators of the first level", total)
    logits = {name: root_logits(model, name, pixels, seed=work.seed, tick=task) for name in names}
    each, curves = [], {}
    for name in names:
        e = work.known.existence.get(name)
        if e is None or not (e >= 0).any():
            continue
        told, present = logits[name][e >= 0], e[e >= 0] == 1
        each.append(binary(told, present, name))
        if len(curves) < CURVES:
            curves[name] = reliability(told.sigmoid(), present)
    found, exclusive = None, _exclusive(work)
    if exclusive is not None:
        columns = torch.stack([logits[path] for path in exclusive.paths], 1)[exclusive.index]
        found = among(columns, exclusive.labels, exclusive.paths)
        curves |= _curves(columns, exclusive)
    said = {
        images.name: [
            mean_of(
                root_logits(model, name, torch.from_numpy(images.pixels), seed=work.seed, tick=task)
                > 0,
                name,
                "share",
            )
            for name in names
        ]
        for images in others
    }
    tables = []
    if each:
        tables.append(discriminators_table(each, len(pixels), found))
    if said:
        tables.append(
            Table(
                "Share of other sources' images that are said to be of a kind",
                ["images of", *names],
                [[name, *map(share, row)] for name, row in said.items()],
            )
        )
    if not tables:
        return "of no kind of the first level is known which test images have it"
    pictures = [_diagram(curves, "reliability-first-level")] if curves else []
    figures = {"kinds": each, "among": found, "against": said, "reliability": curves}
    return Result(figures, tables, pictures)


def _other_kinds(work: Work) -> Result:
    """Attributes and binary digits below a kind, each on the images of which e is known."""
    each, curves = [], {}
    for parent, paths in _others(work).items():
        e = torch.stack([work.known.existence[path] for path in paths])
        index = (e >= 0).any(0).nonzero().squeeze(1)
        task = work.task(f"discriminators below {parent}", len(index))
        logits = logits_below(work.model, paths, work.pixels[index], seed=work.seed, tick=task)
        for k, path in enumerate(paths):
            mine = e[k][index]
            told, present = logits[mine >= 0, k], mine[mine >= 0] == 1
            each.append(binary(told, present, path))
            if len(curves) < CURVES:
                curves[path] = reliability(told.sigmoid(), present)
    return Result(
        {"kinds": each, "reliability": curves},
        [discriminators_table(each, len(work.pixels), None)],
        [_diagram(curves, "reliability-other-kinds")],
    )


def _others(work: Work) -> dict[str, list[str]]:
    """Paths below the first level that the data tell of and that are no classes, by parent."""
    classes = {path for each in work.classes.values() for path in each.paths}
    found: dict[str, list[str]] = {}
    for path in work.model.paths():
        parent, _, _ = path.rpartition("/")
        e = work.known.existence.get(path)
        if parent and path not in classes and e is not None and (e >= 0).any():
            found.setdefault(parent, []).append(path)
    return found


def _exclusive(work: Work) -> Classes | None:
    """Kinds of the first level of which an image has exactly one."""
    if work.data_sets is not None:
        return work.data_sets
    roots = [(name, each) for name, each in work.classes.items() if each.parent is None]
    # Positions are those within one source, so it must be the only one.
    return roots[0][1] if len(work.sources) == 1 and roots else None


def _curves(logits: Tensor, classes: Classes) -> dict[str, list[Bin]]:
    top = logits.softmax(1).max(1)
    return {"the largest, normalised": reliability(top.values, top.indices == classes.labels)}


def _diagram(curves: dict[str, list[Bin]], name: str) -> Picture:
    return Picture(
        name,
        reliability_diagram(curves, "what happened against what was said"),
        "Reliability: where p is said, a share p should be. Bars are one standard error; to the "
        "right how many images were told each probability.",
        pixels=False,
    )


def discriminators_table(each: list[Binary], images: int, found: Among | None) -> Table:
    """Every kind against the rest, and in the title the figures of all together."""
    together = (
        ""
        if found is None
        else f": top-1 {share(found.top_1)}, balanced accuracy {share(found.balanced_accuracy)}, "
        "calibration error (of the largest, normalised) "
        f"{share(found.calibration_error)}"
    )
    return Table(
        f"Discriminators on {images:,} test images{together}",
        ["kind, against the rest", "balanced accuracy", "AUROC", "calibration error", "said"],
        [_row(one) for one in each],
    )


def _row(each: Binary) -> list[str]:
    middle = [each.balanced_accuracy, each.auroc, each.calibration_error]
    shown = ["one kind only" if one is None else share(one) for one in middle]
    return [each.path, *shown, share(each.said_present)]


PART = Part(
    "discriminators",
    "Discriminators",
    "How well p_enc(e = 1|t) tells which kinds apply: each against the rest, and the largest "
    "among kinds that exclude each other (top-1). A model that always says no has a balanced "
    "accuracy and an AUROC of 0.5. The calibration error is the mean distance between the "
    "probability said and the share that is so, over 15 bins. `said` is the share of images said "
    "to be of the kind.",
    ("test_images",),
    _scopes,
    _measure,
    against=True,
    version=2,
)
