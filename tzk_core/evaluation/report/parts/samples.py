"""The part `samples`: are conditional samples what was asked for, and as varied as images are?"""

from __future__ import annotations

import torch

from ....conditional import Prior
from ....data.decoding import encode_png, grid
from ....randomness import derived
from ...conditional_samples import draw_images
from ..class_samples import judged, learned_from, sampled
from ..judge import judge_of
from ..result import Picture, Result, file_name
from ..work import Part, Work

__all__ = ["PART"]

PRIOR = "p(t)"
GRID = 64


def _scopes(work: Work) -> list[str]:
    groups = [work.data_sets] if work.data_sets is not None else []
    return [PRIOR, *(each.name for each in (*groups, *work.classes.values()))]


def _measure(work: Work, scope: str) -> Result:
    if scope == PRIOR:
        return _unconditional(work)
    everything = [*([work.data_sets] if work.data_sets else []), *work.classes.values()]
    classes = next(each for each in everything if each.name == scope)
    settings, options = work.settings, {"seed": work.seed, "reporter": work.reporter}
    options["shown"] = settings.shown
    file = work.out / "classifiers" / f"{file_name(scope)}.safetensors"
    judge = judge_of(classes, file, device=work.device, **options)
    whole = judged(judge, classes)
    whole.figures["samples"] = []
    for temperature in dict.fromkeys(settings.temperatures):
        found, drawn = sampled(
            work.model,
            classes,
            judge,
            settings.samples,
            temperature,
            name=file_name(scope),
            seed=work.seed,
            reporter=work.reporter,
        )
        whole.figures["samples"].append(found.figures)
        whole.tables += found.tables
        whole.pictures += found.pictures
        if temperature == 1.0:
            more = learned_from(drawn, classes, device=work.device, **options)
            found.figures |= more.figures
            whole.tables += more.tables
    return whole


def _unconditional(work: Work) -> Result:
    """A grid of p(t), and one of each kind of the first level, at each temperature."""
    temperatures = list(dict.fromkeys(work.settings.temperatures))
    kinds = [PRIOR, *work.model.kinds()]
    task = work.task("sample grids", GRID * len(kinds) * len(temperatures))
    pictures, lost = [], {}
    for temperature in temperatures:
        for name in kinds:
            drawn = draw_images(
                Prior(work.model, temperature)
                if name == PRIOR
                else work.model.given(name, temperature=temperature),
                GRID,
                first=int(torch.randint(2**62, (), generator=derived(work.seed, "grid", name))),
                batch=GRID,
                tick=task,
            )
            title = name if name == PRIOR else f"p(t|{name})"
            pictures.append(
                Picture(
                    f"samples-{file_name(name)}-{temperature:g}",
                    encode_png(grid(drawn.pixels.numpy())),
                    f"{title} at temperature {temperature:g}",
                )
            )
            lost[f"{title} at temperature {temperature:g}"] = int(drawn.lost.sum())
    return Result({"not_finite": lost, "of": GRID}, [], pictures)


PART = Part(
    "samples",
    "Samples",
    "`read as asked` is the share of a kind's samples that an independent classifier, trained on "
    "real training images, reads as that kind. One template a class would be read rightly every "
    "time; so there are the variance of a pixel within a class beside the real one, and, at "
    "temperature 1, a classifier that was trained on nothing but samples and reads real test "
    "images.",
    ("test_images", "samples", "temperatures", "shown"),
    _scopes,
    _measure,
)
