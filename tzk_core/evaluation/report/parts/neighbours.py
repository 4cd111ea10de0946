"""The part `neighbours`: are samples copies of training images?"""

from __future__ import annotations

import torch

from ....conditional import Prior
from ....randomness import derived
from ...conditional_samples import draw_images
from ...neighbours import Copying, Nearest, copying, nearest
from ..charts import neighbour_rows
from ..data import Source
from ..result import Picture, Result, Table, share, value
from ..work import Part, Work

__all__ = ["PART"]

SHOWN = 4  # of either: the samples nearest to a training image, and the first ones
NEAREST = 5


def _scopes(work: Work) -> list[str]:
    return [source.name for source in work.sources]


def _measure(work: Work, scope: str) -> Result:
    source, n = work.source(scope), work.settings.neighbour_images
    parent = work.parent(source)
    name = "p(t)" if parent is None else f"p(t|{parent})"
    index = work.some(len(source.test), n, "neighbours", scope)
    count, temperatures = len(index), list(dict.fromkeys(work.settings.temperatures))
    training, k = source.train.pixels, min(NEAREST, len(source.train))
    passes = (1 + len(temperatures)) * len(training)
    task = work.task(f"nearest training images of {scope}", passes)
    held = nearest(source.pixels[index], training, device=work.device, tick=task).distance[:, 0]
    found, pictures = {}, []
    for temperature in temperatures:
        # As many as test images, since the smallest of more distances is smaller.
        drawn = draw_images(
            Prior(work.model, temperature)
            if parent is None
            else work.model.given(parent, temperature=temperature),
            count,
            first=int(torch.randint(2**62, (), generator=derived(work.seed, "neighbours", scope))),
        )
        near = nearest(drawn.pixels, training, k=k, device=work.device, tick=task)
        kept = ~drawn.lost
        if not kept.any():
            return f"no sample of {name} at temperature {temperature:g} was finite"
        found[f"{temperature:g}"] = copying(near.distance[kept, 0], held)
        pictures.append(
            _picture(scope, name, temperature, drawn.pixels[kept], source, _kept(near, kept))
        )
    table = Table(
        f"Distance of {count:,} samples of {name} to the nearest of {len(training):,} training "
        "images: root mean square over all elements, grey levels",
        ["of", "mean", "smallest", "1 %", "median", "nearer than 99 % of test images", "copies"],
        [
            *(_row(f"samples at temperature {t}", each) for t, each in found.items()),
            _test_row(next(iter(found.values()))),
        ],
    )
    return Result({"samples_of": name, "temperatures": found}, [table], pictures)


def _kept(near: Nearest, kept: torch.Tensor) -> Nearest:
    return Nearest(near.distance[kept], near.index[kept])


def _picture(
    scope: str,
    name: str,
    temperature: float,
    samples: torch.Tensor,
    source: Source,
    near: Nearest,
) -> Picture:
    first = near.distance[:, 0].argsort(stable=True)[:SHOWN].tolist()
    others = [i for i in range(len(samples)) if i not in first][:SHOWN]
    rows = [
        (
            samples[i].numpy(),
            source.train.pixels[near.index[i].numpy()],
            near.distance[i].tolist(),
        )
        for i in first + others
    ]
    return Picture(
        f"neighbours-{scope}-{temperature:g}",
        neighbour_rows(rows, f"{name} at temperature {temperature:g}"),
        f"To the left samples of {name} at temperature {temperature:g}, above the {len(first)} "
        "that are nearest to a training image; to the right their nearest training images, with "
        "distances in grey levels.",
        pixels=False,
    )


def _row(name: str, each: Copying) -> list[str]:
    return _cells(name, each, "samples", share(each.nearer), each.copies)


def _test_row(each: Copying) -> list[str]:
    return _cells("test images", each, "test_images", "0.01 by definition", each.copied_test_images)


def _cells(name: str, each: Copying, which: str, nearer: str, copies: int) -> list[str]:
    smallest, low, _, median, _ = each.quantiles[which]
    return [
        name,
        value(getattr(each, which), 2),
        f"{smallest:.2f}",
        f"{low:.2f}",
        f"{median:.2f}",
        nearer,
        str(copies),
    ]


PART = Part(
    "neighbours",
    "Nearest training images",
    "Is it copying? Distances are between prepared images, over all their elements. Samples of a "
    "model that copies lie far nearer to training images than test images do: the share nearer "
    "than 99 % of the test images would be near 1, where chance gives 0.01. Samples at a low "
    "temperature are smoother than images, which alone brings them nearer.",
    ("test_images", "neighbour_images", "temperatures"),
    _scopes,
    _measure,
)
