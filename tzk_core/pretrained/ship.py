"""Makes of a run the model that comes with tzk: half the size, its card, its recipe.

    python -m tzk_core.pretrained.ship RUN --recipe builtin --data mnist --data fashion_mnist

The card is generated: what the run tells of itself, what storing it in half the size changes, and
the tables of ``tzk evaluate``, where a folder of its results is given.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import click
import torch
import yaml
from safetensors.torch import save_file

from ..data.quantisation import dequantise
from ..data.sources import load
from ..errors import UsageError
from ..evaluation.held_out import Figure
from ..evaluation.pictures import sample_grids
from ..evaluation.report.store import JSON
from ..files import folder_aside, write_aside
from ..hub import CONFIG, WEIGHTS, sha256
from ..model import TzK
from ..randomness import derived
from ..training.card import card
from ..training.recipe import load_recipe, parse_recipe
from ..training.run import FACTS, RECIPE
from . import _FOLDER, compact
from .limits import limits

__all__ = ["ship"]

MOST_BITS = 0.002  # by which log p may change, bits/dim
MOST_BYTES = 12_000_000
BATCH = 100


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--recipe", required=True, help="Of the run, by its name: it has no folder's name.")
@click.option("--data", multiple=True, required=True, help="Test images to measure the change on.")
@click.option("--images", default=1000, show_default=True, help="Of each.")
@click.option("--evaluation", type=click.Path(path_type=Path, exists=True), help="Its results.")
@click.option("--out", type=click.Path(path_type=Path), default=_FOLDER)
def ship(run: Path, recipe: str, data: tuple[str, ...], images: int, evaluation, out: Path) -> None:
    """Store RUN in half the size, measure what that changes, and write its card."""
    model, wanted = TzK.from_pretrained(run), load_recipe(recipe)
    told = parse_recipe(yaml.safe_load((run / RECIPE).read_text()))
    for mine, theirs in zip(told.data.sources, wanted.data.sources, strict=True):
        mine.source = theirs.source  # the same images by their name
    if told != wanted:
        raise UsageError(f"{run} was not trained by the recipe {recipe}")
    facts = json.loads((run / FACTS).read_text())
    out.mkdir(parents=True, exist_ok=True)
    state = compact(model)
    config = model.config.model_dump(mode="json")
    with folder_aside(out / ".stored") as aside:
        save_file(state, aside / WEIGHTS, metadata={"format": "pt"})
        config["weights_sha256"] = sha256(aside / WEIGHTS)
        (aside / CONFIG).write_text(json.dumps(config, separators=(",", ":")) + "\n")
    for name in (WEIGHTS, CONFIG):
        (out / ".stored" / name).replace(out / name)
    (out / ".stored").rmdir()
    stored = TzK.from_pretrained(out)
    changes = [_change(model, stored, source, images) for source in data]
    figures = [Figure(**figure) for figure in facts["figures"]]
    grids = sample_grids(stored, out / "samples", seed=wanted.seed)
    text = card(stored, wanted, facts, figures, grids, out)
    if evaluation is not None:
        text += limits(json.loads((evaluation / JSON).read_text()))
    text += _half(changes) + _licences()
    if evaluation is not None:
        text += _evaluated(evaluation)
    write_aside(out / "README.md", text)
    record = yaml.safe_dump(wanted.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_aside(out / RECIPE, record)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    click.echo(f"{out}: {size / 1e6:.2f} MB")
    for source, mean, largest in changes:
        click.echo(f"{source}: |Δ log p| {mean:.5f} bits/dim on average, at most {largest:.5f}")
    worst = max(mean for _, mean, _ in changes)
    if worst >= MOST_BITS or size > MOST_BYTES:
        raise click.ClickException(f"{size:,} bytes and {worst:.5f} bits/dim are too much")


@torch.no_grad()
def _change(model: TzK, stored: TzK, source: str, images: int) -> tuple[str, float, float]:
    """(source, mean, largest) of what storing changes log p(t) by, bits/dim, test images."""
    found = load(source, split="test", preparation=model.preparation, limit=images)
    pixels = torch.from_numpy(found.pixels.copy())
    noise = torch.rand(pixels.shape, generator=derived(0, "half"))
    changes = []
    for x, u in zip(pixels.split(BATCH), noise.split(BATCH), strict=True):
        t = dequantise(x, u)
        changes.append((model.prior.log_prob(t) - stored.prior.log_prob(t)).abs())
    bits = torch.cat(changes) / (math.prod(model.observation_shape) * math.log(2))
    return Path(source).name, float(bits.mean()), float(bits.max())


def _half(changes: list[tuple[str, float, float]]) -> str:
    lines = [
        "\n## Stored in half the size\n",
        "Matrices and kernels are stored in float16 and worked with in float32. What that changes "
        "log p(t) of test images by, bits/dim on D = 1024:\n",
        "| images | on average | at most |",
        "|---|---|---|",
        *(f"| {source} | {mean:.5f} | {largest:.5f} |" for source, mean, largest in changes),
    ]
    return "\n".join(lines) + "\n"


def _licences() -> str:
    """What the data set's owners ask for, as it lies beside the built-in images."""
    source = Path(__file__).parents[1] / "data" / "builtin" / "SOURCE.md"
    rows = [line for line in source.read_text().splitlines() if line.startswith("|")]
    told = (
        "The weights are under tzk's own licence. The images that they learned from are not in "
        "them, and are under the licences below."
    )
    return "\n".join(["\n## Data\n", told, "", *rows]) + "\n"


def _evaluated(folder: Path) -> str:
    """The report's own Markdown one heading down, without pictures, which would weigh too much."""
    lines, picture = [], False
    for line in (folder / "evaluation.md").read_text().splitlines():
        if line.startswith("!["):
            picture = True  # its caption follows
        elif picture:
            picture = not line
        else:
            lines.append(f"#{line}" if line.startswith("#") else line)
    return "\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    ship()
