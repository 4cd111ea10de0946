"""What a model of digits is worth: samples, codes, discriminators and likelihoods on test images.

    python benchmarks/digits.py runs/digits --data mnist
    python benchmarks/digits.py runs/digits --data builtin/mnist --samples 100 --json

It serves any run with a knowledge of the first level and classes below it. Everything is measured
on the source's test images; the classifier that judges samples is trained on its training images.
Results are written after each part to OUT/digits.json and OUT/digits.md, so that what is done is
kept if the rest fails.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from rich.console import Console
from rich.table import Table

from tzk_core._version import __version__
from tzk_core.cli.script import Script
from tzk_core.data.images import Images
from tzk_core.data.quantisation import LEVELS
from tzk_core.data.sources import load
from tzk_core.errors import UsageError
from tzk_core.evaluation.classifier import (
    ImageClassifier,
    accuracy,
    load_classifier,
    save_classifier,
    train_classifier,
)
from tzk_core.evaluation.conditional_samples import (
    ClassSamples,
    class_grid,
    class_paths,
    draw_classes,
    pixel_variance,
    read_as_asked,
)
from tzk_core.evaluation.discriminators import Binary, among, binary, logits_below, root_logits
from tzk_core.evaluation.held_out import Figure
from tzk_core.evaluation.information import code_information
from tzk_core.evaluation.likelihoods import DRAWS, likelihood_table
from tzk_core.files import write_aside
from tzk_core.likelihood import fit_existence
from tzk_core.model import TzK
from tzk_core.randomness import derived
from tzk_core.training.progress import Reporter

__all__ = ["digits"]

SHOWN = 180_000  # images that each classifier is shown: three passes over MNIST


class Rows(NamedTuple):
    """One table of the report."""

    title: str
    header: list[str]
    rows: list[list[str]]


@click.command(cls=Script)
@click.argument("run")
@click.option("--data", required=True, help="source with train and test images of the classes")
@click.option("--parent", help="knowledge above the classes  [default: the first that has some]")
@click.option(
    "--samples", type=click.IntRange(min=2), default=1000, show_default=True, help="of each class"
)
@click.option(
    "--temperature",
    "temperatures",
    type=click.FloatRange(min=0),
    multiple=True,
    default=(0.7, 1.0),
    show_default=True,
    help="of z; may be given again",
)
@click.option("--likelihood-images", type=click.IntRange(min=2), default=500, show_default=True)
@click.option("--information-images", type=click.IntRange(min=2), default=10_000, show_default=True)
@click.option("--negatives", help="source whose test images are of no root kind of the model")
@click.option(
    "--existence-draws",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="fit p(e = 1) anew, for a checkpoint; 0 takes what is stored",
)
@click.option(
    "--classifier",
    "classifier_file",
    type=click.Path(path_type=Path),
    help="where the trained classifier is kept  [default: OUT/classifier.safetensors]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--device", help="cpu, cuda, cuda:1  [default: cuda where there is one]")
@click.option(
    "--out", type=click.Path(path_type=Path), help="folder of the results  [default: RUN/digits]"
)
@click.option("--json", "as_json", is_flag=True, help="print the JSON instead of tables")
def digits(
    run: str,
    data: str,
    parent: str | None,
    samples: int,
    temperatures: tuple[float, ...],
    likelihood_images: int,
    information_images: int,
    negatives: str | None,
    existence_draws: int,
    classifier_file: Path | None,
    seed: int,
    device: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure RUN, a run folder, a checkpoint or a hub name, on the test images of --data."""
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    out = out or Path(run) / "digits"
    model = TzK.from_pretrained(run).to(where)
    parent = parent or _first_with_classes(model)
    work = _Work(model, parent, run, data, seed, where, out, Reporter())
    with work.reporter.live():
        work.read()
        if existence_draws:
            work.say("fitting p(e = 1)")
            source = derived(seed, "existence")
            fit_existence(model, draws=existence_draws, generator=source)
        work.classifier(classifier_file or out / "classifier.safetensors")
        work.discriminators(negatives)
        work.information(information_images)
        for temperature in dict.fromkeys(temperatures):
            work.samples(samples, temperature)
        work.likelihoods(likelihood_images)
    if as_json:
        click.echo(work.json())
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a file has no edge that tables must be cut to
    for table in work.tables:
        console.print(_rich(table))
    click.echo(f"{out / 'digits.json'}\n{out / 'digits.md'}")


class _Work:
    """The report as it grows."""

    def __init__(
        self,
        model: TzK,
        parent: str,
        run: str,
        source: str,
        seed: int,
        device: torch.device,
        out: Path,
        reporter: Reporter,
    ) -> None:
        self.model, self.parent, self.source = model, parent, source
        self.seed, self.device, self.out, self.reporter = seed, device, out, reporter
        self.tables: list[Rows] = []
        self.report: dict[str, Any] = {
            "run": run,
            "parent": parent,
            "tzk": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": str(device),
            "processor": (
                torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
            ),
            "threads": torch.get_num_threads(),
            "seed": seed,
            "seconds": {},
        }
        self.began = time.monotonic()

    # -- parts -----------------------------------------------------------------------------------

    def read(self) -> None:
        """The images."""
        self.say(f"reading {self.source}")
        self.train, self.test = (self._labelled(self.source, s) for s in ("train", "test"))
        if self.train.label_names != self.test.label_names:
            raise UsageError(f"{self.source} has other labels for training than for testing")
        self.paths = class_paths(self.model, self.parent, self.test.label_names)
        self.pixels, self.labels = _tensors(self.test)
        counts = {"training": len(self.train), "test": len(self.test)}
        prints = {"training": self.train.fingerprint, "test": self.test.fingerprint}
        self.report["data"] = {"source": self.source, "images": counts, "fingerprints": prints}
        self._done("reading")

    def classifier(self, file: Path) -> None:
        """The judge: loaded, if it was trained on these images, or trained."""
        facts = {"images": self.train.fingerprint, "seed": str(self.seed), "shown": str(SHOWN)}
        self.judge, seconds = None, None
        if file.exists():
            found, kept = load_classifier(file)
            if facts.items() <= kept.items():
                self.judge, seconds = found.to(self.device), float(kept["seconds"])
            else:
                self.say(f"{file} was trained otherwise: training it anew")
        if self.judge is None:
            began = time.monotonic()
            self.judge = self._trained("classifier", *_tensors(self.train))
            seconds = time.monotonic() - began
            save_classifier(self.judge, file, facts | {"seconds": f"{seconds:.1f}"})
        figure = accuracy(self.judge, self.pixels, self.labels, "classifier on test images")
        self.report["classifier"] = {"accuracy": figure, "training_seconds": round(seconds, 1)}
        self._table("Classifier", ["figure", "value"], [[figure.name, _share(figure)]])
        self._done("classifier")

    def discriminators(self, negatives: str | None) -> None:
        """p_enc(e = 1 ∣ t), of the classes and of the root kinds."""
        self.say("discriminators")
        logits = logits_below(self.model, self.paths, self.pixels, seed=self.seed)
        found = among(logits, self.labels, self.paths)
        images, present = self.pixels, torch.ones(len(self.pixels), dtype=torch.bool)
        if negatives is not None:
            others = load(negatives, split="test", preparation=self.model.preparation)
            images = torch.cat((images, torch.from_numpy(others.pixels)))
            present = torch.arange(len(images)) < len(present)
        root = self.parent.partition("/")[0]
        logit = root_logits(self.model, root, images, seed=self.seed)
        roots = [binary(logit, present, root)]
        self.report["discriminators"] = {"classes": found, "roots": roots, "negatives": negatives}
        rows = [_binary_row(each) for each in [*found.each, *roots]]
        self._table(
            f"Discriminators on {len(self.pixels):,} test images: top-1 {_share(found.top_1)}, "
            f"balanced accuracy {found.balanced_accuracy:.4f}, calibration error (of the largest, "
            f"normalised) {found.calibration_error:.4f}",
            ["kind, against the rest", "balanced accuracy", "AUROC", "calibration error", "said"],
            rows,
        )
        self._done("discriminators")

    def information(self, largest: int) -> None:
        """I(c; t) of the parent and of each class."""
        self.say("mutual information")
        groups = [(self.parent, self.pixels)]
        groups += [(path, self.pixels[self.labels == k]) for k, path in enumerate(self.paths)]
        found = [
            code_information(self.model, path, own, seed=self.seed, largest=largest)
            for path, own in groups
            if len(own) > 1
        ]
        self.report["information"] = found
        self._table(
            "Information in the codes (nats; I cannot exceed its cap, log M, of M test images)",
            ["code of", "I(c; observed)", "cap", "E log q(c|observed)", "variance of c, mean"],
            [
                [
                    each.path,
                    _value(each.information),
                    f"{each.cap:.2f}",
                    _value(each.log_encoder),
                    f"{sum(each.variance) / len(each.variance):.3f}",
                ]
                for each in found
            ],
        )
        self._done("information")

    def samples(self, n: int, temperature: float) -> None:
        """Samples of each class at one temperature."""
        title = f"samples at temperature {temperature:g}"
        task = self.reporter.task(title, n * len(self.paths))
        drawn = draw_classes(
            self.model, self.paths, n, temperature=temperature, seed=self.seed, tick=task.advance
        )
        picture = self.out / f"{self.parent.replace('/', '-')}-{temperature:g}.png"
        write_aside(picture, class_grid(drawn))
        mean, each = read_as_asked(self.judge, drawn)
        classes = len(self.paths)
        ours = pixel_variance(drawn.pixels, drawn.labels, classes)
        real = pixel_variance(self.pixels, self.labels, classes)
        entry: dict[str, Any] = {
            "temperature": temperature,
            "samples_a_class": n,
            "acceptance_rates": drawn.acceptance_rates,
            "resampled": drawn.resampled,
            "lost": int(drawn.lost.sum()),
            "read_as_asked": mean,
            "each": each,
            "pixel_variance": ours.tolist(),
            "pixel_variance_of_test_images": real.tolist(),
            "grid": picture.name,
        }
        rows = [
            [figure.name, _share(figure), f"{a:.4f}", f"{b:.4f}", f"{a / b:.2f}", f"{rate:.3f}"]
            for figure, a, b, rate in zip(
                each, ours.tolist(), real.tolist(), drawn.acceptance_rates, strict=True
            )
        ]
        a, b = ours.nanmean().item(), real.nanmean().item()
        rows.append(["mean", _share(mean), f"{a:.4f}", f"{b:.4f}", f"{a / b:.2f}", ""])
        self.report.setdefault("samples", []).append(entry)
        self._table(
            f"{n:,} samples of each class at temperature {temperature:g}; pixel variance within a "
            f"class, {LEVELS} levels being 1; {entry['lost']} were not finite, and count as wrong",
            ["kind", "read as asked", "variance", "real", "ratio", "accepted codes"],
            rows,
        )
        self._done(title)
        if temperature == 1.0:
            self._learned_from(drawn, entry)

    def _learned_from(self, drawn: ClassSamples, entry: dict[str, Any]) -> None:
        """A classifier that sees samples alone, beside one that sees as many real images."""
        order = torch.randperm(len(self.train), generator=derived(self.seed, "as many"))
        pixels, labels = _tensors(self.train)
        few = order[: len(drawn.pixels)]
        figures = []
        for title, images, classes in (
            ("trained on samples alone", drawn.pixels, drawn.labels),
            ("trained on as many real images", pixels[few], labels[few]),
        ):
            learner = self._trained(title, images, classes)
            figures.append(
                accuracy(learner, self.pixels, self.labels, f"{title} ({len(images):,})")
            )
        entry["trained_on_samples"], entry["trained_on_as_many_real_images"] = figures
        self._table(
            "Classifiers on real test images",
            ["classifier", "accuracy"],
            [[figure.name, _share(figure)] for figure in figures],
        )
        self._done("classifier of samples")

    def likelihoods(self, count: int) -> None:
        """The likelihood table on a seeded choice of test images."""
        order = torch.randperm(len(self.test), generator=derived(self.seed, "likelihood"))[:count]
        task = self.reporter.task("likelihoods", (3 * len(DRAWS) + 3) * len(order))
        found = likelihood_table(
            self.model,
            self.pixels[order],
            torch.from_numpy(self.test.native_dims)[order],
            self.labels[order],
            self.paths,
            seed=self.seed,
            draws=DRAWS,
            tick=task.advance,
        )
        self.report["likelihoods"] = {"images": len(order), "rows": found}
        self.report["existence"] = {
            path: float(self.model.find(path).existence) for path in [self.parent, *self.paths]
        }
        self._table(
            f"Likelihoods of {len(order):,} test images (reconstruction is no likelihood of t)",
            [
                "distribution",
                "estimator",
                "nats",
                found[0].bits.unit,
                found[0].bits_native.unit,
                "effective sample size",
            ],
            [
                [
                    each.distribution,
                    each.estimator + (f", N = {each.draws}" if each.draws else ""),
                    _value(each.nats, 2),
                    _value(each.bits, 4),
                    _value(each.bits_native, 4),
                    ""
                    if each.effective_sample_size is None
                    else f"{each.effective_sample_size.mean:.1f}",
                ]
                for each in found
            ],
        )
        self._done("likelihoods")

    # -- within ----------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        self.reporter.say(text)

    def json(self) -> str:
        return json.dumps(_plain(self.report), indent=2, ensure_ascii=False)

    def _labelled(self, source: str, split: str) -> Images:
        images = load(source, split=split, preparation=self.model.preparation)
        for name in images.skipped:
            self.say(f"skipped {name}")
        return images.subset(images.labels >= 0)

    def _trained(self, title: str, images: torch.Tensor, labels: torch.Tensor) -> ImageClassifier:
        epochs = max(1, round(SHOWN / len(images)))
        task = self.reporter.task(title, epochs * len(images))
        return train_classifier(
            images,
            labels,
            classes=len(self.paths),
            epochs=epochs,
            seed=self.seed,
            device=self.device,
            tick=task.advance,
        )

    def _table(self, title: str, header: list[str], rows: list[list[str]]) -> None:
        self.tables.append(Rows(title, header, rows))

    def _done(self, part: str) -> None:
        """Writes what there is."""
        now = time.monotonic()
        self.report["seconds"][part] = round(now - self.began, 1)
        self.began = now
        write_aside(self.out / "digits.json", self.json() + "\n")
        facts = (
            f"{self.report['run']} on {self.source}, {self.parent}: seed {self.seed}, "
            f"{self.report['device']} ({self.report['processor']}), {self.report['threads']} "
            f"threads, tzk {__version__}, torch {torch.__version__}. "
            "± is one standard error over images or samples."
        )
        parts = ["# Digits\n", facts + "\n", *map(_markdown, self.tables)]
        write_aside(self.out / "digits.md", "\n".join(parts))


def _first_with_classes(model: TzK) -> str:
    for name, kind in model.kinds().items():
        if kind.child is not None:
            return name
    raise UsageError(
        f"the model has no classes below a knowledge; it knows {', '.join(model.paths()) or 'none'}"
    )


def _tensors(images: Images) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(images.pixels), torch.from_numpy(images.labels)


def _plain(value: Any) -> Any:
    """What JSON can hold: NaN is null, and a figure is its fields."""
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _binary_row(each: Binary) -> list[str]:
    middle = [each.balanced_accuracy, each.auroc, each.calibration_error]
    shown = ["one kind only" if value is None else f"{value:.4f}" for value in middle]
    return [each.path, *shown, _share(each.said_present)]


def _share(figure: Figure) -> str:
    return _value(figure, 4)


def _value(figure: Figure, places: int = 3) -> str:
    mean = round(figure.mean, places) + 0.0  # no −0.000
    return f"{mean:.{places}f} ± {figure.standard_error:.{places}f}"


def _rich(table: Rows) -> Table:
    shown = Table(title=table.title, title_justify="left")
    for index, name in enumerate(table.header):
        shown.add_column(name, justify="right" if index else "left")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def _markdown(table: Rows) -> str:
    def line(cells: list[str]) -> str:
        # A bar would end the cell.
        return "| " + " | ".join(cell.replace("|", "∣") for cell in cells) + " |"

    rule = "|" + "|".join(["---"] + ["---:"] * (len(table.header) - 1)) + "|"
    return "\n".join([f"## {table.title}\n", line(table.header), rule, *map(line, table.rows), ""])


if __name__ == "__main__":
    digits()
