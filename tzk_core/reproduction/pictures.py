"""Pictures of an experiment: samples, learning curves, and lines of figures along a way."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch

from ..conditional import Observations
from ..data.decoding import encode_png, grid
from ..evaluation.conditional_samples import draw_images
from ..evaluation.report.result import Picture
from ..randomness import derived
from .work import Work

__all__ = ["learning_curve", "lines", "samples"]

COLUMNS = 8
TEMPERATURES = (1.0, 0.7)
DPI = 100
ENLARGED = 2  # times as large as its pixels is a sample shown


def samples(work: Work, run: str, kind: str | None = None) -> Picture:
    """Samples of p(t), or of p(t | kind): the upper half at temperature 1, as the paper draws, the
    lower half at 0.7."""
    model = work.model(run)
    name = run if kind is None else f"{run}-{kind.replace('/', '-')}"
    count = work.settings.grid // len(TEMPERATURES)
    first = int(torch.randint(2**62, (), generator=derived(work.measuring_seed, "grid", name)))
    drawn = [draw_images(_at(model, kind, t), count, first=first).pixels for t in TEMPERATURES]
    shown = grid(torch.cat(drawn).numpy(), columns=COLUMNS)
    shown = shown.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    of = "p(t)" if kind is None else f"p(t|{kind})"
    return Picture(
        f"{name}-samples",
        encode_png(shown),
        f"Samples of {of} of the run {run}: above at temperature 1, below at 0.7.",
    )


def learning_curve(work: Work, *runs: str) -> Picture:
    """Bits/dim of training batches and of held-out images over the images seen."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for run in runs:
        recipe = work.recipe(run)
        before = [0]
        for stage in recipe.stages:
            before.append(before[-1] + stage.steps * stage.batch)
        for row in _rows(work.folder(run) / "metrics.jsonl"):
            stage, step = row.get("stage", 0), row.get("step", 0)
            if stage >= len(recipe.stages):
                continue
            seen = before[stage] + (step + 1) * recipe.stages[stage].batch
            for key, what in (("bits_per_dim", "batches"), ("held_out_bits_per_dim", "held out")):
                if isinstance(row.get(key), (int, float)):
                    trained = row.get("kind") or recipe.stages[stage].train
                    name = f"{run}: {trained}, {what}"
                    x, y = series.setdefault(name, ([], []))
                    x.append(seen)
                    y.append(row[key])
    title = "−log p(t) (kinds: the reconstruction) while it trained"
    png = lines(series, title, "images seen", "bits/dim on D", clip=True)
    return Picture("-".join((runs[0], "curve")), png, f"{title}: {', '.join(runs)}.", pixels=False)


def lines(
    series: dict[str, tuple[list[float], list[float]]],
    title: str,
    x: str,
    y: str,
    *,
    clip: bool = False,
) -> bytes:
    """A line for each of some series, as a PNG of the same bytes for the same figures.

    Args:
        series: (x, y) by name.
        clip: leave out what lies far above most of the figures (the first steps of training).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, (across, up) in series.items():
        many = len(across) > 60
        axes.plot(across, up, linewidth=1, marker=None if many else "o", markersize=3, label=name)
    every = sorted(value for _, up in series.values() for value in up)
    if clip and every:
        middle, low = every[len(every) // 2], every[0]
        axes.set_ylim(low - 0.05 * (middle - low + 0.1), middle + 2 * (middle - low) + 0.1)
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(title, fontsize=10)
    if series:
        axes.legend(fontsize=7)
    buffer = io.BytesIO()
    # Without the version of matplotlib, which would be the one thing that varies.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _at(model, kind: str | None, temperature: float) -> Observations:
    if kind is None:
        return type(model.prior)(model, temperature)
    return model.given(kind, temperature=temperature)


def _rows(file: Path) -> list[dict]:
    """The rows of a run's metrics; none where it has none."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]
