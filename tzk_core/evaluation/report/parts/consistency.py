"""The part `consistency`: encoder against decoder, and a code's prior against its child's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ....data.quantisation import dequantise, nll_nats
from ....likelihood import estimate
from ....randomness import derived, rows
from ...consistency import Consistency, Posteriors, consistency, posteriors
from ...figures import mean_of
from ...held_out import Figure
from ...likelihoods import log_prob_by_child
from ..charts import scatter
from ..result import Picture, Result, Table, share, value
from ..work import NO_KINDS, Part, Work

__all__ = ["PART", "PriorGap"]

FIRST = "first level"
BATCH = 64


@dataclass(frozen=True)
class PriorGap:
    """log p(t ∣ a) by the child's prior of a's code less that by a's own, on the same images."""

    path: str
    own: Figure  # nats an image, of its 256 levels
    child: Figure
    gap: Figure  # nats; positive where the child's prior is the better one
    own_sample_size: Figure
    child_sample_size: Figure


def _scopes(work: Work) -> list[str] | str:
    if not work.model.kinds():
        return NO_KINDS
    return [FIRST, *(n for n, classes in work.classes.items() if classes.parent is not None)]


def _measure(work: Work, scope: str) -> Result | str:
    return _first_level(work) if scope == FIRST else _classes(work, scope)


def _first_level(work: Work) -> Result | str:
    starts = torch.tensor([0, *(len(source.test) for source in work.sources)]).cumsum(0)
    index = torch.cat(
        [
            start + work.some(len(s.test), work.settings.consistency_images, "consistency", s.name)
            for start, s in zip(starts, work.sources)
        ]
    )
    t = _observations(work, work.pixels[index], FIRST)
    kinds = work.model.kinds()
    task = work.task("consistency of the first level", len(kinds) * len(t))
    draws, found, gaps, both = work.settings.consistency_draws, [], [], {}
    for name, kind in kinds.items():
        e = work.known.existence.get(name)
        present = torch.full((len(t),), -1) if e is None else e[index]
        both[name] = posteriors(work.model, name, t, seed=work.seed, draws=draws, tick=task)
        found.append(consistency(both[name], present))
        if kind.child is not None and (present == 1).any():
            gaps.append(_prior_gap(work, name, t[present == 1], draws))
    tables = [_table(found, len(t), draws)]
    if gaps:
        tables.append(_gap_table(gaps, draws))
    everything = {name: (posts, _known(work, name, index)) for name, posts in both.items()}
    pictures = _pictures(everything, "consistency")
    return Result({"kinds": found, "priors": gaps, "draws": draws}, tables, pictures)


def _classes(work: Work, scope: str) -> Result:
    classes, draws = work.classes[scope], work.settings.consistency_draws
    largest = work.settings.consistency_images
    index = work.some(len(classes.pixels), largest, "consistency", scope, "classes")
    labels, t = classes.labels[index], _observations(work, classes.pixels[index], scope)
    task = work.task(f"consistency of {scope}'s classes", len(classes.paths) * len(t))
    both = {
        path: posteriors(work.model, path, t, seed=work.seed, draws=draws, tick=task)
        for path in classes.paths
    }
    found = [consistency(each, (labels == k).int()) for k, each in enumerate(both.values())]
    top = {
        who: mean_of(
            torch.stack([getattr(each, who) for each in both.values()]).argmax(0) == labels,
            f"top-1 by the {who}",
            "share",
        )
        for who in ("encoder", "decoder")
    }
    tables = [
        _table(found, len(t), draws),
        Table(
            "Top-1 among the classes",
            ["by", "share right"],
            [[f"the {who}", share(figure)] for who, figure in top.items()],
        ),
    ]
    flat = {
        "all classes": (
            Posteriors(
                "all classes",
                *(
                    torch.cat([getattr(each, name) for each in both.values()])
                    for name in ("encoder", "decoder", "error", "sample_size")
                ),
            ),
            torch.cat([(labels == k).int() for k in range(len(both))]),
        )
    }
    pictures = _pictures(flat, f"consistency-{scope}")
    return Result({"kinds": found, "top_1": top, "draws": draws}, tables, pictures)


@torch.no_grad()
def _prior_gap(work: Work, name: str, t: Tensor, draws: int) -> PriorGap:
    parts: dict[str, list[Tensor]] = {"own": [], "child": [], "own_size": [], "child_size": []}
    for start in range(0, len(t), BATCH):
        part = t[start : start + BATCH]

        def source(which: str, start=start, part=part):
            return rows(derived(work.seed, "prior gap", name, which, start), len(part))

        own = estimate(
            work.model, work.model.lineage(name), part, draws=draws, generator=source("own")
        )
        child = log_prob_by_child(work.model, name, part, draws=draws, source=source("child"))
        values = own.log_prob, child[0], own.effective_sample_size, child[1]
        for kept, column in zip(parts.values(), values):
            kept.append(column.double().cpu())
    joined = {key: torch.cat(columns) for key, columns in parts.items()}
    dims = math.prod(work.model.observation_shape)
    own, child = (nll_nats(joined[key], dims) for key in ("own", "child"))
    return PriorGap(
        path=name,
        own=mean_of(own, f"p(t|{name})", "nats"),
        child=mean_of(child, f"p(t|{name}) by the child's prior", "nats"),
        gap=mean_of(own - child, f"p(t|{name}), gain by the child's prior", "nats"),
        own_sample_size=mean_of(joined["own_size"], name, "draws"),
        child_sample_size=mean_of(joined["child_size"], name, "draws"),
    )


def _known(work: Work, name: str, index: Tensor) -> Tensor:
    e = work.known.existence.get(name)
    return torch.full((len(index),), -1) if e is None else e[index]


def _observations(work: Work, pixels: Tensor, scope: str) -> Tensor:
    source = rows(derived(work.seed, "consistency", scope, "noise"), len(pixels))
    return dequantise(pixels, source.uniform(*pixels.shape[1:])).to(work.model.reference)


def _table(found: list[Consistency], images: int, draws: int) -> Table:
    def right(figure: Figure | None) -> str:
        return "unknown" if figure is None else share(figure)

    return Table(
        f"p_enc(e = 1|t) against p_dec(e = 1|t) by {draws} draws, on {images} test images",
        [
            "kind",
            "agree",
            "|p_enc − p_dec|",
            "encoder − decoder, nats",
            "median distance",
            "decoder's own error",
            f"effective sample size of {draws}",
            "encoder right",
            "decoder right",
        ],
        [
            [
                each.path,
                share(each.agreement),
                value(each.probability_gap),
                value(each.difference, 2),
                f"{each.median_distance:.2f}",
                f"{each.error:.2f}",
                f"{each.sample_size.mean:.1f}",
                right(each.encoder_right),
                right(each.decoder_right),
            ]
            for each in found
        ],
    )


def _gap_table(gaps: list[PriorGap], draws: int) -> Table:
    return Table(
        f"−log p(t|kind) by the kind's own prior of its code and by the child's, {draws} draws: "
        "nats an image, and the first less the second, paired",
        [
            "kind",
            "by its own",
            "by the child's",
            "difference",
            "images",
            "effective sample size, own",
            "child's",
        ],
        [
            [
                each.path,
                value(each.own, 2),
                value(each.child, 2),
                value(each.gap, 2),
                str(each.gap.count),
                f"{each.own_sample_size.mean:.1f}",
                f"{each.child_sample_size.mean:.1f}",
            ]
            for each in gaps
        ],
    )


def _pictures(both: dict[str, tuple[Posteriors, Tensor]], name: str) -> list[Picture]:
    found = []
    for title, (each, present) in both.items():
        finite = each.encoder.isfinite() & each.decoder.isfinite() & each.error.isfinite()
        if finite.any():
            columns = (each.encoder, each.decoder, each.error, present)
            found.append(
                Picture(
                    f"{name}-{title}",
                    scatter(*(column[finite] for column in columns), title),
                    f"{title}: a dot an image; in the upper right and the lower left quarter both "
                    "say the same. Bars are the decoder's own standard errors.",
                    pixels=False,
                )
            )
    return found


PART = Part(
    "consistency",
    "Encoder against decoder",
    "The paper claims that p_enc(e = 1|t), one network's answer, agrees with what is worked out "
    "from the decoder, p_dec(e = 1|t) = Z₁/(Z₀ + Z₁). `agree` is the share of images of which "
    "both say yes or both say no; the difference of logits is in nats. A large difference counts "
    "for little where the effective sample size is near 1: there the decoder's answer is one "
    "draw's. The gap of the two priors of a code is 0 where the child models what its parent's "
    "encoder gives.",
    ("test_images", "consistency_images", "consistency_draws", "existence_draws"),
    _scopes,
    _measure,
)
