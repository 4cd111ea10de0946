"""The part `typicality`: is it uniform on own test images, and does it tell others apart?"""

from __future__ import annotations

import torch

from ....randomness import derived
from ....typicality import Typicality, ks_uniform, stored_typicality
from ...auroc import auroc_of
from ...separation import ks_chance, scored
from ..charts import histograms
from ..result import Picture, Result, Table, value
from ..work import ALL, Part, Work

__all__ = ["PART"]

TOGETHER = "all, as often as in training"


def _scopes(_: Work) -> list[str]:
    return [ALL]


def _measure(work: Work, _: str) -> Result | str:
    fitted = stored_typicality(work.model)
    if isinstance(fitted, str):
        return fitted
    largest = work.settings.typicality_images
    orders = {
        s.name: work.some(len(s.test), 2 * largest, "typicality", s.name) for s in work.sources
    }
    # Without other sources a half is altered, so that no image is on both sides.
    sizes = {
        name: min(largest, len(order) if work.against else (len(order) + 1) // 2)
        for name, order in orders.items()
    }
    chosen = {s.name: s.pixels[orders[s.name][: sizes[s.name]]] for s in work.sources}
    others = {
        images.name: torch.from_numpy(images.pixels)[
            work.some(len(images), largest, "typicality", images.name)
        ]
        for images in work.against
    }
    if not others:
        others = _altered(work, [s.pixels[orders[s.name][sizes[s.name] :]] for s in work.sources])
    total = sum(map(len, chosen.values())) + sum(map(len, others.values()))
    task = work.task("typicality", total)
    own, other = (
        {
            name: scored(work.model, fitted, pixels, seed=work.seed, name=name, tick=task)
            for name, pixels in each.items()
        }
        for each in (chosen, others)
    )
    counts = _as_in_training(
        [len(pixels) for pixels in chosen.values()], [len(source.train) for source in work.sources]
    )
    joined = {
        key: torch.cat([each.odd[key][:n] for each, n in zip(own.values(), counts)])
        for key in next(iter(own.values())).odd
    }
    tails = {name: each.typicality for name, each in own.items()}
    if len(tails) > 1:
        tails |= {TOGETHER: -joined["typicality"]}
    uniform = {name: _uniform(each, fitted) for name, each in tails.items()}
    aurocs = {
        name: {key: auroc_of(joined[key], each.odd[key], f"{key}, {name}") for key in joined}
        for name, each in other.items()
    }
    tables = [
        Table(
            "Kolmogorov–Smirnov distance of typicality from uniform on own test images",
            ["images of", "images", "distance", "exceeded by chance once in 20 times"],
            [
                [name, f"{each['images']:,}", f"{each['distance']:.4f}", f"{each['chance']:.4f}"]
                for name, each in uniform.items()
            ],
        )
    ]
    if aurocs:
        tables.append(
            Table(
                "AUROC, own test images against other sources' (of one-sided scores read 1 − x "
                "where the other side is odd)",
                ["told from", *joined],
                [[name, *map(value, each.values())] for name, each in aurocs.items()],
            )
        )
    shown = {f"{n} (own)": v for n, v in tails.items() if n != TOGETHER}
    shown |= {name: each.typicality for name, each in other.items()}
    shown = {name: values[values.isfinite()] for name, values in shown.items()}
    picture = Picture(
        "typicality",
        histograms(shown, "typicality of test images", "typicality"),
        "Shares of images by typicality, in tenths: own images should lie along 0.1, others to the "
        "left.",
        pixels=False,
    )
    return Result({"uniform": uniform, "auroc": aurocs}, tables, [picture])


def _altered(work: Work, spare: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """What there is to be told from own images where no other source is named."""
    own = torch.cat(spare)
    if not len(own):
        return {}
    order = torch.randperm(
        own.shape[2:].numel(), generator=derived(work.seed, "typicality", "order")
    )
    return {
        "own images, negative": 255 - own,
        "own images, their pixels in another order": own.flatten(2)[:, :, order].view_as(own),
    }


def _as_in_training(available: list[int], training: list[int]) -> list[int]:
    """How many images of each source make a mixture like the training images'.

    Typicality is calibrated on the mixture, so only on such a one is it uniform.

    >>> _as_in_training([100, 100], [600, 300])
    [100, 50]
    """
    scale = min(have / of for have, of in zip(available, training, strict=True))
    return [max(1, round(scale * of)) for of in training]


def _uniform(tails: torch.Tensor, fitted: Typicality) -> dict[str, float | int]:
    finite = tails[tails.isfinite()]
    return {
        "images": len(tails),
        "distance": ks_uniform(finite),
        "chance": ks_chance(max(len(finite), 1), len(fitted.calibration)),
        "not_finite": len(tails) - len(finite),
    }


PART = Part(
    "typicality",
    "Typicality",
    "Typicality is the share of held-out training images that are at least as unusual as an image. "
    "It should be uniform on the model's own test images (of several sources, on their mixture), "
    "and small on others; the AUROC says how well it and simpler scores tell others (those "
    "of --against, or else own images altered) from own. It is no probability of being out of "
    "distribution.",
    ("test_images", "typicality_images"),
    _scopes,
    _measure,
    against=True,
    version=2,
)
