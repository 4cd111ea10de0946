"""Section 4.2, Fig. 5: what lies between images of three data sets, in z."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ...data.quantisation import dequantise, to_pixels
from ...evaluation.between import CORNERS, between
from ...evaluation.figures import mean_of
from ...evaluation.held_out import Figure
from ...evaluation.report.charts import sheets
from ...evaluation.report.result import Picture, value
from ...model import TzK
from ...randomness import derived, rows
from ..experiment import Experiment, Part
from ..paper import BITS
from ..pictures import lines
from ..rows import NONE, Outcome, Row, claim_row, other_row
from ..runs import Run
from ..verdict import ERRORS
from ..work import Work

__all__ = ["INTERPOLATION", "Ways", "darkening", "depth", "ways"]

ALONE, SEVERAL = "baseline-cifar10", "multi-data"
TITLES = {ALONE: "CIFAR-10 alone", SEVERAL: "multi-data"}
DATA = ("cifar10", "mnist", "svhn")
# Of which data sets the ends of the ways are, in turn.
ENDS = (("cifar10", "mnist"), ("cifar10", "svhn"), ("mnist", "svhn"), ("cifar10", "cifar10"))
GREY = "grey levels"
NEARLY_ALL = 0.95  # the share of ways for which the paper's expectation is taken to hold


class Ways(NamedTuple):
    """Straight lines in z between pairs of images."""

    bits: Tensor  # −log p(t) along each way, bits/dim on D, float64 (pairs, points); ends included
    grey: Tensor  # mean of each image, grey levels from 0 to 255, float64 (pairs, points)
    dims: int


def depth(bits: Tensor) -> Tensor:
    """By how much the worst point between is worse than the worse end, bits/dim, (pairs,).

    Not above 0 where all points between have a density at least as high as one of the ends. What
    is not finite is infinitely bad.
    """
    inside = bits[:, 1:-1].nan_to_num(nan=math.inf).amax(1)
    return inside - torch.maximum(bits[:, 0], bits[:, -1])


def darkening(grey: Tensor) -> Tensor:
    """By how much the darkest point between is darker than the darker end, grey levels, (pairs,).

    Negative where all points between are lighter than that end.
    """
    inside = grey[:, 1:-1].amin(1)
    return torch.minimum(grey[:, 0], grey[:, -1]) - inside


@torch.no_grad()
def ways(model: TzK, a: Tensor, b: Tensor, points: int) -> Ways:
    """The ways from each observation of ``a`` to that of ``b``, (pairs, C, H, W) each.

    In z the density of every point between is at least that of one end, whatever the model: a ball
    is convex. What is measured is the density of the image that the t-flow makes of it.
    """
    dims = math.prod(a.shape[1:])
    found = [model.interpolate(torch.stack(pair), steps=points) for pair in zip(a, b, strict=True)]
    log_p = torch.stack([each.log_prob.double().cpu() for each in found])
    # Of the images as they are shown: what is beyond black or white is that.
    shown = [to_pixels(each.images) for each in found]
    grey = torch.stack([each.double().cpu().flatten(1).mean(1) for each in shown])
    return Ways(8 - log_p / (dims * math.log(2)), grey, dims)


def _measure(work: Work) -> Outcome:
    pairs = work.settings.pairs
    names = _names(work)
    chosen = {name: work.test(SEVERAL, name, 2 * pairs + 4).pixels for name in names}
    possible = [pair for pair in ENDS if set(pair) <= set(names)]
    ends = [possible[number % len(possible)] for number in range(pairs)]
    first = [chosen[a][n % len(chosen[a])] for n, (a, _) in enumerate(ends)]
    # From the back, so that no image is both ends of a way.
    last = [chosen[b][-1 - n % len(chosen[b])] for n, (_, b) in enumerate(ends)]
    noise = rows(derived(work.measuring_seed, "ways"), 2 * pairs).uniform(*first[0].shape)
    t = dequantise(torch.stack(first + last), noise)
    found = {}
    for run in (ALONE, SEVERAL):
        model = work.model(run)
        a, b = t.to(model.reference).split(pairs)
        found[run] = ways(model, a, b, work.settings.points)
    return Outcome(_rows(work, found), _pictures(work, found, ends, chosen))


def _rows(work: Work, found: dict[str, Ways]) -> list[Row]:
    names, out = _names(work), []
    conditions = {run: work.conditions(run, test=names) for run in (ALONE, SEVERAL)}
    for run in (ALONE, SEVERAL):
        holds = mean_of(depth(found[run].bits) <= 0, "at least as high", "of the ways")
        what = "points between are at least as likely as one of the ends"
        if run == ALONE:
            why = "the paper expects it of a Gaussian prior, and finds deficiencies, by eye"
            told = work.told_of(run, *names)
            out.append(other_row(f"{what}: {TITLES[run]}", NONE, "4.2", "prior", holds, told, why))
            continue
        out.append(
            claim_row(
                f"of {NEARLY_ALL:g} of the ways, {what}: {TITLES[run]}",
                "expected of a Gaussian prior",
                "4.2",
                "prior",
                _above(holds, NEARLY_ALL),
                work.told_of(run, *names),
                conditions[run],
                shown=f"{value(holds)} {holds.unit}",
                also={"share": holds},
            )
        )
    a, b = (_finite(depth(found[run].bits)) for run in (ALONE, SEVERAL))
    unit = f"{BITS} on D = {found[ALONE].dims}"
    deep = {ALONE: mean_of(a, "depth", unit), SEVERAL: mean_of(b, "depth", unit)}
    row = other_row(
        "how far the worst point between is below the worse end, multi-data against CIFAR-10 alone",
        "superior interpolation (by eye)",
        "4.2, Fig. 5",
        "prior",
        mean_of(b - a, "deeper", unit),
        work.told_of(SEVERAL, *names),
        "the paper judges by eye; log p(t) does not, being high for blank images",
    )
    shown = f"{value(deep[SEVERAL])} against {value(deep[ALONE])} {unit}"
    out.append(replace(row, ours=shown, figures=row.figures | deep))
    return [*out, _dark_row(work, found)]


def _dark_row(work: Work, found: dict[str, Ways]) -> Row:
    """The one deficiency that the paper names, darkened images, in grey levels."""
    names = _names(work)
    each = {run: mean_of(darkening(found[run].grey), "darker", GREY) for run in found}
    less = mean_of(darkening(found[ALONE].grey) - darkening(found[SEVERAL].grey), "less", GREY)
    return claim_row(
        "the darkest point between is darker than the darker end by less under multi-data",
        "darkened images in 5a, much better in 5b",
        "4.2, Fig. 5",
        NONE,
        less,
        work.told_of(SEVERAL, *names),
        work.conditions(ALONE, SEVERAL, test=names),
        sized=True,
        shown=f"{value(each[SEVERAL], 1)} against {value(each[ALONE], 1)} {GREY}",
        also=each,
    )


def _above(share: Figure, least: float) -> Figure:
    """By how much a share is above ``least``, with Wilson's error of it (Wilson 1927).

    So that a share of 1 has one: two of these errors below it is Wilson's lower limit.
    """
    n, p, z = share.count, share.mean, ERRORS
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return replace(share, mean=p - least, standard_error=(p - (centre - half)) / z)


def _finite(values: Tensor) -> Tensor:
    """What is infinitely bad counts as the worst that is finite."""
    finite = values[values.isfinite()]
    return values if not len(finite) else values.clamp(max=float(finite.max()))


def _pictures(work: Work, found: dict[str, Ways], ends, chosen) -> list[Picture]:
    corner_of = (*chosen, *DATA)[:CORNERS]
    corners = torch.stack([chosen[name][n] for n, name in enumerate(corner_of)])
    sheet = {}
    for run in (ALONE, SEVERAL):
        own = between(work.model(run), corners, side=work.settings.side, seed=work.measuring_seed)
        sheet[run] = replace(own, way=TITLES[run])
    title = (
        f"Between four images ({work.told(*corner_of)}), linear in z; below −log p(t), bits/dim on "
        "D"
    )
    along = torch.linspace(0, 1, work.settings.points).tolist()
    series = {}
    for run, way in found.items():
        for pair in dict.fromkeys(ends):
            mine = torch.tensor([each == pair for each in ends])
            bits = way.bits[mine]
            bits = bits[bits.isfinite().all(1)]
            if len(bits):
                series[f"{TITLES[run]}: {pair[0]} to {pair[1]}"] = (along, bits.mean(0).tolist())
    chart = "−log p(t) along the ways in z, means"
    return [
        Picture("interpolation-sheets", sheets(list(sheet.values()), title), title, pixels=False),
        Picture(
            "interpolation-ways",
            lines(series, chart, "from one end to the other", "bits/dim on D"),
            f"{chart}.",
            pixels=False,
        ),
    ]


def _names(work: Work) -> list[str]:
    """The data sets of the ends that are not left out."""
    return [name for name in DATA if work.data.source(name) is not None]


INTERPOLATION = Experiment(
    name="interpolation",
    title="Interpolation",
    section="4.2",
    about=(
        "Images of CIFAR-10, MNIST and SVHN are taken to z, and what lies on the straight lines "
        "between them is taken back. The paper expects points between to have a density at least "
        "as high as one of the ends, finds dark and poor images in the t-flow of CIFAR-10 alone "
        "(Fig. 5a), and better ones in that of six data sets (Fig. 5b). It judges by eye; here the "
        "pictures stand beside log p(t) along the way, which is no judge of them: blank images "
        "have a high density. So it is measured too how dark the images between become."
    ),
    runs=(Run(ALONE), Run(SEVERAL)),
    parts=(Part("between", (ALONE, SEVERAL), _measure),),
)
