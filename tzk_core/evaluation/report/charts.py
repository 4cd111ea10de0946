"""Charts by matplotlib, each a PNG of the same bytes for the same figures.

Nothing here touches pyplot, whose state is global, or needs a display.
"""

from __future__ import annotations

import io
import textwrap

import numpy as np
import torch
from torch import Tensor

from ..reliability import Bin

__all__ = ["histograms", "neighbour_rows", "reliability_diagram", "scatter", "sheets"]

DPI = 110
OWN, OTHER = "#1f77b4", "#d95f02"


def reliability_diagram(curves: dict[str, list[Bin]], title: str) -> bytes:
    """What happened against what was said; a line a kind, with ± one standard error."""
    figure, [[axes, counts]] = _figure(1, 2, width=9.5, height=4.2, ratios=(1.2, 1))
    axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", label="calibrated")
    for name, bins in curves.items():
        axes.errorbar(
            [b.said for b in bins],
            [b.happened for b in bins],
            yerr=[b.standard_error for b in bins],
            marker="o",
            markersize=4,
            linewidth=1,
            capsize=2,
            label=name,
        )
        said = [b.said for b in bins]
        counts.plot(said, [b.count for b in bins], marker="o", markersize=4, linewidth=1)
    within = (-0.03, 1.03)  # so that a point at the edge is seen whole
    axes.set(xlabel="probability said", ylabel="share of images", xlim=within, ylim=within)
    axes.set_title(title, fontsize=10)
    counts.set(xlabel="probability said", ylabel="images", yscale="log", xlim=within)
    counts.set_title("how many", fontsize=10)
    axes.legend(fontsize=7, loc="upper left", framealpha=0.8)
    return _png(figure)


def scatter(encoder: Tensor, decoder: Tensor, error: Tensor, present: Tensor, title: str) -> bytes:
    """The decoder's logit against the encoder's, coloured by e.

    Args:
        encoder, decoder, error: (N,), finite.
        present: int (N,), 1, 0 or −1 for unknown.
    """
    figure, [[axes]] = _figure(1, 1, width=5.4, height=5.2)
    for e, name, colour in ((1, "has it", OWN), (0, "has it not", OTHER), (-1, "unknown", "gray")):
        own = present == e
        if own.any():
            axes.errorbar(
                encoder[own].numpy(),
                decoder[own].numpy(),
                yerr=error[own].numpy(),
                fmt="o",
                markersize=3,
                elinewidth=0.6,
                alpha=0.7,
                color=colour,
                label=name,
            )
    both = torch.cat((encoder, decoder - error, decoder + error)).abs()
    edge = 1.5 * max(float(both.max()), 1.0)
    axes.plot([-edge, edge], [-edge, edge], color="#999999", linestyle=":", label="the same")
    axes.axhline(0, color="#999999", linewidth=0.6)
    axes.axvline(0, color="#999999", linewidth=0.6)
    axes.set(xlabel="encoder: logit of p(e = 1 | t)", ylabel="decoder: log Z₁ − log Z₀")
    # Linear to 10. Logits of the decoder are differences of log p over all pixels: to thousands.
    axes.set_xscale("symlog", linthresh=10)
    axes.set_yscale("symlog", linthresh=10)
    axes.set(xlim=(-edge, edge), ylim=(-edge, edge))
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    return _png(figure)


def histograms(parts: dict[str, Tensor], title: str, label: str) -> bytes:
    """Shares of images by typicality, in tenths; a flat line at 0.1 is what is expected of own."""
    figure, [[axes]] = _figure(1, 1, width=7, height=3.8)
    edges = np.linspace(0, 1, 11)
    for name, values in parts.items():
        shares = np.histogram(values.numpy(), edges)[0] / max(len(values), 1)
        axes.stairs(shares, edges, label=name, linewidth=1.5)
    axes.axhline(0.1, color="#999999", linestyle=":")
    axes.set(xlabel=label, ylabel="share of images", xlim=(0, 1), ylim=(0, None))
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8)
    return _png(figure)


def sheets(found: list, title: str) -> bytes:
    """Sheets between the same four images: the images above, bits/dim below.

    Args:
        found: :class:`tzk_core.evaluation.between.Sheet`, of one size.
    """
    figure, axes = _figure(2, len(found), width=3.6 * len(found), height=6.6)
    values = np.stack([sheet.bits.numpy() for sheet in found])
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0, 1)
    for column, sheet in enumerate(found):
        side = len(sheet.bits)
        _picture(axes[0][column], _tiled(sheet.pixels.numpy(), side))
        axes[0][column].set_title(sheet.way, fontsize=10)
        heat = axes[1][column].imshow(values[column], vmin=low, vmax=high, cmap="viridis")
        axes[1][column].set(xticks=[], yticks=[])
        axes[1][column].set_title(
            f"corners {sheet.corners:.2f}, between {sheet.inside:.2f}", fontsize=9
        )
        figure.colorbar(heat, ax=axes[1][column], shrink=0.75)
    figure.suptitle(textwrap.fill(title, 48 * len(found)), fontsize=10)
    return _png(figure)


def neighbour_rows(rows: list[tuple[np.ndarray, np.ndarray, list[float]]], title: str) -> bytes:
    """Images with what is nearest to them among the training images, a row each.

    Args:
        rows: (image (C, H, W), nearest (k, C, H, W), their distances in grey levels).
    """
    columns = 1 + len(rows[0][1])
    figure, axes = _figure(len(rows), columns, width=1.15 * columns, height=1.3 * len(rows) + 0.4)
    for row, (image, near, distances) in zip(axes, rows, strict=True):
        _picture(row[0], image)
        for spine in row[0].spines.values():
            spine.set(color=OTHER, linewidth=2)
        for axis, neighbour, distance in zip(row[1:], near, distances, strict=True):
            _picture(axis, neighbour)
            axis.set_title(f"{distance:.1f}", fontsize=8, pad=2)
    figure.suptitle(title, fontsize=9)
    return _png(figure)


def _tiled(pixels: np.ndarray, side: int) -> np.ndarray:
    """(side², C, H, W) → (C, side·H, side·W)."""
    _, channels, height, width = pixels.shape
    cells = pixels.reshape(side, side, channels, height, width).transpose(2, 0, 3, 1, 4)
    return cells.reshape(channels, side * height, side * width)


def _picture(axes, pixels: np.ndarray) -> None:
    shown = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def _figure(rows: int, columns: int, *, width: float, height: float, ratios=None):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, width_ratios=ratios)


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    # Without the version of matplotlib, which would be the one thing that varies.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
