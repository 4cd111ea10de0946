"""The model card: generated from the run, not typed."""

from __future__ import annotations

from pathlib import Path

import yaml
from huggingface_hub import ModelCardData

from ..evaluation.held_out import Figure
from ..model import TzK
from .recipe import Recipe

__all__ = ["card"]


def card(
    model: TzK, recipe: Recipe, facts: dict, figures: list[Figure], grids: list[Path], out: Path
) -> str:
    """The Markdown of a run's ``README.md``, with the hub's metadata at its head."""
    head = ModelCardData(library_name="tzk", license="mit", tags=["normalizing-flow", "tzk"])
    count = sum(p.numel() for p in model.parameters())
    lines = [
        f"---\n{head.to_yaml()}\n---\n",
        f"# {recipe.name}\n",
        recipe.description + "\n" if recipe.description else "",
        "A TzK model (Livne & Fleet, 2019): one invertible flow over images of "
        f"{'×'.join(map(str, model.observation_shape))} and knowledge about them.\n",
        f"- knowledge: {', '.join(f'`{p}`' for p in model.paths()) or 'none'}",
        f"- parameters: {count:,}",
        f"- trained on: {', '.join(s.source for s in recipe.data.sources)} "
        f"({facts['images']['training']:,} images, {facts['images']['held_out']:,} held out)",
        f"- on: {_sessions(facts['sessions'])}; {facts['seconds']:,} s in all, seed "
        f"{facts['seed']}, tzk {facts['tzk']}\n",
        "## Figures on held-out images\n",
        "Mean ± standard error over images. `reconstruction` is the paper's conditional figure and "
        "not a likelihood of the image: the cost of knowing the code is left out.\n",
        "| what | figure | unit | images |",
        "|---|---|---|---|",
    ]
    lines += [f"| {f.name.replace('|', '∣')} | {f.told} | {f.unit} | {f.count} |" for f in figures]
    lines += ["\n## Samples at temperature 0.7\n"]
    lines += [f"![{g.stem}]({g.relative_to(out).as_posix()})" for g in grids]
    lines += [
        "\n## Intended use and limits\n",
        "Density, sampling and classification of images like those it was trained on. A high "
        "likelihood alone does not say that an image is usual: flows give simple images a high "
        "likelihood whatever they were trained on.\n",
        "## Recipe\n",
        "```yaml",
        yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False).rstrip(),
        "```",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _sessions(sessions: list[dict]) -> str:
    """Where it was trained, one after the other."""
    told = []
    for one in sessions:
        stage, step = one["from"]
        place = f"from step {step:,} of stage {stage} " if len(sessions) > 1 else ""
        seconds = f"{one['seconds']:,} s" if "seconds" in one else "killed, its time is not known"
        told.append(
            f"{one['device']} ({place}{seconds}, {one['threads']} threads, torch {one['torch']})"
        )
    return "; ".join(told)
