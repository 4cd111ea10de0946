"""Which objective keeps the codes alive, and what each part of the default is worth.

    python benchmarks/objectives.py --flow runs/flow --data mnist --out runs/objectives
    python benchmarks/objectives.py --flow runs/flow --data mnist --setting kl-0.2 --setting kl-1

Every setting fits a data set as knowledge, with its classes as a hierarchy below it, on the same
frozen t-flow, from the same first weights, on the same images in the same order, for equally many
steps; sizes are those of the recipe ``digits``. Everything is measured on held-out images of the
training split, never on test images, since the default is chosen by it: the one with the highest
share of class-conditional samples at temperature 1 that an independent classifier reads as asked,
among those whose importance bound is within 0.005 bits/dim of KL weight 1's (design, section 4).
Results are written after each setting to OUT/objectives.json and OUT/objectives.md.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from tzk_core._version import __version__
from tzk_core.config import TzKConfig
from tzk_core.data.quantisation import dequantise
from tzk_core.errors import WorkFailed
from tzk_core.evaluation.classifier import (
    ImageClassifier,
    load_classifier,
    save_classifier,
    train_classifier,
)
from tzk_core.evaluation.conditional_samples import draw_classes, read_as_asked
from tzk_core.evaluation.discriminators import among, logits_below
from tzk_core.evaluation.figures import mean_of
from tzk_core.evaluation.information import code_information
from tzk_core.files import write_aside
from tzk_core.likelihood import estimate, fit_existence
from tzk_core.model import TzK
from tzk_core.randomness import Rows, derived, rows
from tzk_core.training.dataset import Dataset
from tzk_core.training.fit_workers import Never
from tzk_core.training.latents import Latents
from tzk_core.training.loop import Stage
from tzk_core.training.progress import Reporter
from tzk_core.training.recipe import Recipe, load_recipe
from tzk_core.training.run import add_known_kinds, read_data

__all__ = ["SETTINGS", "objectives"]

WITHIN = 0.005  # bits/dim of KL weight 1's bound
BASE = "kl-1"  # what the others' bounds are compared with

# What differs from the default: of the objective, and of the kind's sizes.
SETTINGS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "kl-1": ("KL weight 1", {"kl_weight": 1.0}, {}),
    "kl-0.2": ("KL weight 0.2 (the default)", {}, {}),
    "kl-0.05": ("KL weight 0.05", {"kl_weight": 0.05}, {}),
    "annealed": ("KL weight from 0.2 to 1 over the steps", {"kl_weight": "rising"}, {}),
    "blind": ("z-flow blind to c", {}, {"z_context": False}),
    "reached": ("the child's density reaches c", {"stop_child_density": False}, {}),
    "w-1": ("discriminators' weight 1", {"discriminator_weight": 1.0}, {}),
    "plain": (
        "the plain bound: KL weight 1, discriminators' weight 1, child's density reaches c, "
        "z-flow blind to c",
        {"kl_weight": 1.0, "discriminator_weight": 1.0, "stop_child_density": False},
        {"z_context": False},
    ),
    "tzk": ("the paper's form, half of the codes from the prior", {"name": "tzk"}, {}),
}


@click.command()
@click.option("--flow", required=True, help="run folder whose t-flow is taken, frozen")
@click.option("--data", required=True, help="source with classes")
@click.option("--setting", "chosen", type=click.Choice(list(SETTINGS)), multiple=True)
@click.option("--steps", type=click.IntRange(min=1), default=600, show_default=True)
@click.option("--batch", type=click.IntRange(min=2), default=64, show_default=True)
@click.option("--samples", type=click.IntRange(min=2), default=100, show_default=True)
@click.option("--images", type=click.IntRange(min=2), default=200, show_default=True)
@click.option("--draws", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--limit", type=click.IntRange(min=10), help="take so many images of the source")
@click.option("--classifier", type=click.Path(path_type=Path), help="where the judge is kept")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder of the results")
def objectives(
    flow: str,
    data: str,
    chosen: tuple[str, ...],
    steps: int,
    batch: int,
    samples: int,
    images: int,
    draws: int,
    limit: int | None,
    classifier: Path | None,
    out: Path,
) -> None:
    """Fit knowledge under each setting and compare what comes of it."""
    reporter = Reporter()
    recipe = load_recipe(
        "digits", [f"data.sources.0.source={data}", f"data.sources.0.limit={limit or 'null'}"]
    )
    with reporter.live():
        seen, held_out = read_data(recipe, reporter)
        trained = TzK.from_pretrained(flow)
        latents = _latents(trained, seen, recipe, reporter)
        judge = _judge(classifier or out / "classifier.safetensors", seen, reporter)
        bench = _Bench(trained, recipe, seen, held_out, latents, judge, out, reporter)
        bench.size = {"steps": steps, "batch": batch}
        bench.counts = {"samples": samples, "images": images, "draws": draws}
        for name in chosen or SETTINGS:
            bench.run(name)
    console = Console()
    table = Table(*HEADER, title="Objectives", title_justify="left")
    for row in bench.rows():
        table.add_row(*row)
    console.print(table)
    click.echo(f"{out / 'objectives.json'}\n{out / 'objectives.md'}")


HEADER = [
    "setting",
    "top-1 from c",
    "I(c; t), nats",
    "variance of c",
    "read at T 0.7",
    "read at T 1",
    "importance bound",
    "against KL weight 1",
]


class _Bench:
    """The report as it grows."""

    size: dict[str, int]
    counts: dict[str, int]

    def __init__(
        self,
        trained: TzK,
        recipe: Recipe,
        seen: Dataset,
        held_out: Dataset,
        latents: Latents,
        judge: ImageClassifier,
        out: Path,
        reporter: Reporter,
    ) -> None:
        self.trained, self.recipe, self.seen, self.latents = trained, recipe, seen, latents
        self.judge, self.out, self.reporter = judge, out, reporter
        self.source = recipe.data.sources[0]
        self.pixels, self.labels = _labelled(held_out, self.source.knowledge)
        self.found: dict[str, dict[str, Any]] = {}
        self.bounds: dict[str, torch.Tensor] = {}

    def run(self, name: str) -> None:
        """Fits and measures one setting, and writes what there is."""
        began = time.monotonic()
        (self.out / name).mkdir(parents=True, exist_ok=True)
        try:
            model = self._fitted(name)
        except WorkFailed as error:
            self.found[name] = {"failed": error.detail}
        else:
            self.found[name] = self._measured(name, model)
            self.found[name]["seconds"] = time.monotonic() - began
        self._write()

    def _fitted(self, name: str) -> TzK:
        _, objective, sizes = SETTINGS[name]
        if objective.get("kl_weight") == "rising":
            objective = {"kl_weight": {"start": 0.2, "end": 1.0, "steps": self.size["steps"]}}
        told = self.recipe.model_dump()
        told["model"]["knowledge"] |= sizes
        told["stages"][1] |= self.size | {"measure_every": 0}
        told["stages"][1]["objective"] |= objective
        recipe = Recipe.model_validate(told)
        model = _flow_alone(self.trained)
        add_known_kinds(model, self.seen.known, recipe)
        Stage(
            model,
            self.seen,
            recipe.stages[1],
            1,
            seed=recipe.seed,
            folder=self.out / name,
            reporter=self.reporter,
            interrupt=Never,
            resumable=False,
            latents=self.latents,
        ).run()
        fit_existence(model, draws=100_000, generator=derived(recipe.seed, "existence"))
        return model

    @torch.no_grad()
    def _measured(self, name: str, model: TzK) -> dict[str, Any]:
        seed, root = self.recipe.seed, self.source.knowledge
        paths = [path for path in self.seen.known.labels if path.startswith(f"{root}/")]
        logits = logits_below(model, paths, self.pixels, seed=seed)
        told: dict[str, Any] = {"top_1": among(logits, self.labels, paths).top_1}
        told["information"] = code_information(model, root, self.pixels, seed=seed)
        for temperature in (0.7, 1.0):
            drawn = draw_classes(
                model, paths, self.counts["samples"], temperature=temperature, seed=seed
            )
            told[f"read_{temperature:g}"] = read_as_asked(self.judge, drawn)[0]
        bits = self._bound(model, root)
        self.bounds[name] = bits
        told["bound"] = mean_of(bits, "importance bound", "bits/dim")
        return told

    def _bound(self, model: TzK, root: str) -> torch.Tensor:
        """Bits/dim of held-out images, the same with the same noise for every setting."""
        count = min(self.counts["images"], len(self.pixels))
        draws, seed = self.counts["draws"], self.recipe.seed
        t = _noisy(self.pixels[:count], derived(seed, "objectives", "noise"))
        parts = []
        for number, part in enumerate(t.split(8)):
            first = int(torch.randint(2**62, (), generator=derived(seed, "codes", number)))
            source = Rows.from_seed(first, len(part))
            lineage = model.lineage(root)
            found = estimate(
                model, lineage, part, estimator="importance", draws=draws, generator=source
            )
            parts.append(found.log_prob)
        return 8 - torch.cat(parts).double() / (math.prod(t.shape[1:]) * math.log(2))

    # -- what is told ------------------------------------------------------------------------------

    def rows(self) -> list[list[str]]:
        """A row for each setting, in the order of ``HEADER``."""
        found = []
        for name, each in self.found.items():
            title = SETTINGS[name][0]
            if "failed" in each:
                found.append([title, each["failed"], *[""] * (len(HEADER) - 2)])
                continue
            information = each["information"]
            variance = sum(information.variance) / len(information.variance)
            found.append(
                [
                    title,
                    f"{each['top_1'].mean:.3f}",
                    f"{information.information.mean:.2f} (cap {information.cap:.2f})",
                    f"{variance:.3g}",
                    each["read_0.7"].told,
                    each["read_1"].told,
                    f"{each['bound'].mean:.4f}",
                    self._against(name),
                ]
            )
        return found

    def _against(self, name: str) -> str:
        if BASE not in self.bounds or name == BASE:
            return ""
        gap = self.bounds[name] - self.bounds[BASE]
        return f"{float(gap.mean()):+.4f} ± {float(gap.std() / math.sqrt(len(gap))):.4f}"

    def _write(self) -> None:
        report = {
            "size": self.size,
            "counts": self.counts,
            "seed": self.recipe.seed,
            "held_out_images": len(self.pixels),
            "tzk": __version__,
            "torch": torch.__version__,
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "settings": {
                name: {key: _plain(value) for key, value in each.items()}
                for name, each in self.found.items()
            },
        }
        write_aside(self.out / "objectives.json", json.dumps(report, indent=2) + "\n")
        head = (
            f"{self.size['steps']} steps of {self.size['batch']}, seed {self.recipe.seed}, "
            f"{self.counts['samples']} samples a class, bound with {self.counts['draws']} draws on "
            f"{self.counts['images']} held-out images; tzk {__version__}, torch "
            f"{torch.__version__}. ± is one standard error."
        )
        table = [HEADER, ["---"] * len(HEADER), *self.rows()]
        lines = ["# Objectives\n", head + "\n", *("| " + " | ".join(row) + " |" for row in table)]
        write_aside(self.out / "objectives.md", "\n".join(lines) + "\n")


def _flow_alone(trained: TzK) -> TzK:
    config = TzKConfig(
        observation=trained.config.observation,
        flow=trained.config.flow,
        preparation=trained.preparation,
    )
    model = TzK(config, generator=derived(0, "overwritten"))
    model.flow.load_state_dict(trained.flow.state_dict())
    return model


def _latents(model: TzK, seen: Dataset, recipe: Recipe, reporter: Reporter) -> Latents:
    task = reporter.task("latent states", len(seen))
    return Latents.encode(model, seen, 1, recipe.seed, task.advance)


def _labelled(data: Dataset, root: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The images of a class, and which: the number of its path among those below ``root``."""
    classes = [e for path, e in data.known.existence.items() if path.startswith(f"{root}/")]
    known = torch.stack(classes) == 1
    index = known.any(0).nonzero().squeeze(1)
    return torch.as_tensor(data.pixels[index]), known[:, index].int().argmax(0)


def _judge(file: Path, seen: Dataset, reporter: Reporter) -> ImageClassifier:
    """The classifier in ``file``, or one trained on the training images."""
    if file.exists():
        return load_classifier(file)[0]
    root = next(iter(seen.known.labels))
    pixels, labels = _labelled(seen, root)
    task = reporter.task("classifier", 3 * len(pixels))
    classes = int(labels.max()) + 1
    judge = train_classifier(pixels, labels, classes=classes, epochs=3, seed=0, tick=task.advance)
    save_classifier(judge, file, {"images": "training images", "epochs": "3"})
    return judge


def _noisy(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = rows(generator, len(pixels)).uniform(*pixels.shape[1:])
    return dequantise(pixels, noise)


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


if __name__ == "__main__":
    objectives()
