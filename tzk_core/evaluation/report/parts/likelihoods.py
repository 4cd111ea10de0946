"""The part `likelihoods`: every estimator under its own name, on every convention of D."""

from __future__ import annotations

import math

import torch

from ...encoder_rate import encoder_rates
from ...figures import mean_of
from ...held_out import Figure
from ...likelihoods import Likelihood, Measured, likelihood_rows, measure_rows
from ..data import Source
from ..result import Result, Table, share, value
from ..work import Part, Work

__all__ = ["PART", "existence_table", "likelihoods_table"]


def _scopes(work: Work) -> list[str]:
    return [source.name for source in work.sources]


def _measure(work: Work, scope: str) -> Result:
    source, model = work.source(scope), work.model
    parent, draws = work.parent(source), work.settings.draws
    rates = _rates(work) if parent is not None else {}
    count = len(source.test)
    index = work.some(count, work.settings.likelihood_images, "likelihood")
    own, paths = _own_classes(work, source, index)
    encoder = parent is not None and not model.find(parent).encoder_rate.isnan()
    asked = likelihood_rows(model, parent, own, len(index), draws=draws, encoder=encoder)
    task = work.task(f"likelihoods of {scope}", sum(row.images for row in asked))
    native = torch.from_numpy(source.test.native_dims)[index]
    found = measure_rows(model, asked, source.pixels[index], native, seed=work.seed, tick=task)
    rows = [each.row for each in found]
    kinds = [path for path in [parent, *paths] if path is not None]
    existence = {path: float(model.find(path).existence) for path in kinds}
    gains = _gains(found, existence.get(parent), max(draws), parent)
    tables = [likelihoods_table(rows, len(index))]
    if gains:
        dims = math.prod(model.observation_shape)
        bits = dims * math.log(2)
        tables.append(
            Table(
                "Differences on the same images, paired (positive: more likely)",
                ["of", "nats", f"bits/dim on D = {dims}", "standard errors from 0"],
                [
                    [
                        each.name,
                        value(each, 2),
                        f"{each.mean / bits:.4f} ± {each.standard_error / bits:.4f}",
                        f"{each.mean / each.standard_error:.1f}" if each.standard_error else "–",
                    ]
                    for each in gains
                ],
            )
        )
    if existence:
        tables.append(existence_table(existence, rates))
    figures = {
        "images": len(index),
        "rows": rows,
        "gains": gains,
        "existence": existence,
        "encoder_rates": rates,
    }
    return Result(figures, tables)


def likelihoods_table(rows: list[Likelihood], images: int) -> Table:
    """Rows as they are shown."""
    return Table(
        f"Likelihoods of {images:,} test images (reconstruction is no likelihood of t)",
        [
            "distribution",
            "estimator",
            "nats",
            "bits an image",
            rows[0].bits.unit,
            rows[0].bits_native.unit,
            "effective sample size",
        ],
        [_row(each) for each in rows],
    )


def existence_table(existence: dict[str, float], rates: dict[str, Figure]) -> Table:
    """p(e = 1) by the decoder, and what it is by the encoder over samples of p(t)."""
    return Table(
        "How often a kind applies to what the model draws; −log p(e = 1) is what the encoder "
        "estimate gains for nothing",
        ["kind", "p(e = 1) by the decoder", "−log p(e = 1), nats", "by the encoder"],
        [
            [
                path,
                f"{p:.4f}",
                f"{-math.log(p):.3f}" if p > 0 else "∞",
                share(rates[path]) if path in rates else "",
            ]
            for path, p in existence.items()
        ],
    )


def _row(each: Likelihood) -> list[str]:
    ess = each.effective_sample_size
    nats, bit = each.nats, math.log(2)
    bits = Figure(nats.name, nats.mean / bit, nats.standard_error / bit, nats.count, "bits")
    return [
        each.distribution,
        each.estimator + (f", N = {each.draws}" if each.draws else ""),
        value(nats, 2),
        value(bits, 1),
        value(each.bits, 4),
        value(each.bits_native, 4),
        "" if ess is None else f"{ess.mean:.1f}",
    ]


def _own_classes(
    work: Work, source: Source, index: torch.Tensor
) -> tuple[list[tuple[str, torch.Tensor]], list[str]]:
    """(path, which of the images ``index`` have that class), and the paths."""
    classes = work.classes.get(source.name)
    if classes is None:
        return [], []
    labels = torch.full((len(source.test),), -1)
    labels[classes.index] = classes.labels
    mine = labels[index]
    pairs = [(path, (mine == k).nonzero().squeeze(1)) for k, path in enumerate(classes.paths)]
    return pairs, classes.paths


def _rates(work: Work) -> dict[str, Figure]:
    """The rates that the `encoder` estimator divides by: stored, or fitted now in memory.

    All root kinds are fitted together, the first time that any is asked for.
    """
    kinds, draws = work.model.kinds(), work.settings.encoder_rate_draws
    if not work.rates and draws and any(kind.encoder_rate.isnan() for kind in kinds.values()):
        task = work.task("samples of p(t), for the encoder estimate", draws)
        work.rates.update(encoder_rates(work.model, draws=draws, seed=work.seed, tick=task))
    return {
        name: work.rates.get(
            name,
            Figure(f"E p_enc(e = {name}|t)", float(kind.encoder_rate), math.nan, 0, "probability"),
        )
        for name, kind in kinds.items()
        if not kind.encoder_rate.isnan()
    }


def _gains(
    found: list[Measured], existence: float | None, draws: int, parent: str | None
) -> list[Figure]:
    """log p of the conditionals, by importance with the most draws, less others', nats."""
    by = {(m.row.distribution, m.row.estimator, m.row.draws): m.log_prob for m in found}
    prior = by["p(t)", "prior", None]
    pairs = []
    root = by.get((f"p(t|{parent})", "importance", draws))
    if root is not None:
        name = f"p(t|{parent})"
        pairs.append((f"{name} over p(t)", root, prior))
        if existence:
            pairs.append((f"{name} over p(t)/p(e = 1)", root, prior - math.log(existence)))
    above = f"{parent}/" if parent is not None else ""
    own = by.get((f"p(t|{above}own class)", "importance", draws))
    if own is not None:
        pairs.append((f"p(t|{above}own class) over p(t)", own, prior))
        if root is not None:
            pairs.append((f"p(t|{above}own class) over p(t|{parent})", own, root))
    figures = []
    for name, a, b in pairs:
        gain = (a - b)[a.isnan().logical_not()]
        figures.append(mean_of(gain, name, "nats"))
    return figures


PART = Part(
    "likelihoods",
    "Likelihoods",
    "In nats and bits an image and in bits/dim (lower is better), of the 256-level image. `prior` "
    "is exact given the noise. `importance` is a lower bound of log p(t|kind) in expectation, "
    "tight as N grows if the effective sample size does. `reconstruction` is the paper's "
    "conditional figure and no likelihood: the cost of knowing the code is left out. `encoder` is "
    "log p(t) + log p_enc(e = 1|t) − log E p_enc(e = 1|t).",
    (
        "test_images",
        "likelihood_images",
        "draws",
        "encoder_rate_draws",
        "existence_draws",
    ),
    _scopes,
    _measure,
)
