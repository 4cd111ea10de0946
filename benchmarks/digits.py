"""What a model of digits is worth: samples, codes, discriminators and likelihoods on test images.

    python benchmarks/digits.py runs/digits --data mnist
    python benchmarks/digits.py runs/digits --data builtin/mnist --samples 100 --json

It serves any run with a knowledge of the first level and classes below it. Everything is measured
on the source's test images; the classifier that judges samples is trained on its training images.
Results are written after each part to OUT/digits.json and OUT/digits.md, so that what is done is
kept if the rest fails. What is measured is the library's (tzk_core/evaluation/report), as is the
whole of ``tzk evaluate``; here it is of one knowledge and its classes, under the options and in the
files of old.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import torch

from tzk_core._version import __version__
from tzk_core.cli.script import Script
from tzk_core.data.images import Images
from tzk_core.data.sources import load
from tzk_core.devices import conditions_on
from tzk_core.errors import UsageError
from tzk_core.evaluation.conditional_samples import class_paths
from tzk_core.evaluation.discriminators import among, binary, logits_below, root_logits
from tzk_core.evaluation.information import code_information
from tzk_core.evaluation.likelihoods import likelihood_table
from tzk_core.evaluation.report.class_samples import judged, learned_from, sampled
from tzk_core.evaluation.report.data import Classes, tensors
from tzk_core.evaluation.report.judge import Judge, judge_of
from tzk_core.evaluation.report.parts.discriminators import discriminators_table
from tzk_core.evaluation.report.parts.information import information_table
from tzk_core.evaluation.report.parts.likelihoods import likelihoods_table
from tzk_core.evaluation.report.result import Result, Table, plain
from tzk_core.evaluation.report.showing import console, markdown_table, print_table
from tzk_core.evaluation.settings import DRAWS, SHOWN
from tzk_core.files import write_aside
from tzk_core.likelihood import fit_existence
from tzk_core.model import TzK
from tzk_core.randomness import derived
from tzk_core.training.progress import Reporter

__all__ = ["digits"]


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
        judge = work.judge(classifier_file or out / "classifier.safetensors")
        work.discriminators(negatives)
        work.information(information_images)
        for temperature in dict.fromkeys(temperatures):
            work.samples(judge, samples, temperature)
        work.likelihoods(likelihood_images)
    if as_json:
        click.echo(work.json())
        return
    shown = console()
    for table in work.tables:
        print_table(shown, table)
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
        self.tables: list[Table] = []
        self.report: dict[str, Any] = {
            "run": run,
            "parent": parent,
            **conditions_on(device),
            "seed": seed,
            "seconds": {},
        }
        self.began = time.monotonic()

    # -- parts -----------------------------------------------------------------------------------

    def read(self) -> None:
        """The images."""
        self.say(f"reading {self.source}")
        train, test = (self._labelled(self.source, split) for split in ("train", "test"))
        if train.label_names != test.label_names:
            raise UsageError(f"{self.source} has other labels for training than for testing")
        pixels, labels = tensors(test)
        self.classes = Classes(
            name=self.parent,
            paths=class_paths(self.model, self.parent, test.label_names),
            pixels=pixels,
            labels=labels,
            native_dims=torch.from_numpy(test.native_dims),
            index=torch.arange(len(test)),
            fingerprint=train.fingerprint,
            read_training=lambda: tensors(train),
        )
        counts = {"training": len(train), "test": len(test)}
        prints = {"training": train.fingerprint, "test": test.fingerprint}
        self.report["data"] = {"source": self.source, "images": counts, "fingerprints": prints}
        self._done("reading")

    def judge(self, file: Path) -> Judge:
        """The classifier: loaded, if it was trained on these images, or trained."""
        judge = judge_of(self.classes, file, shown=SHOWN, **self._options)
        found = judged(judge, self.classes)
        self.report |= found.figures
        self._done("classifier", found)
        return judge

    def discriminators(self, negatives: str | None) -> None:
        """p_enc(e = 1 ∣ t), of the classes and of the root kinds."""
        self.say("discriminators")
        pixels, labels, paths = self.classes.pixels, self.classes.labels, self.classes.paths
        logits = logits_below(self.model, paths, pixels, seed=self.seed)
        found = among(logits, labels, paths)
        images, present = pixels, torch.ones(len(pixels), dtype=torch.bool)
        if negatives is not None:
            others = load(negatives, split="test", preparation=self.model.preparation)
            images = torch.cat((images, torch.from_numpy(others.pixels)))
            present = torch.arange(len(images)) < len(present)
        root = self.parent.partition("/")[0]
        logit = root_logits(self.model, root, images, seed=self.seed)
        roots = [binary(logit, present, root)]
        self.report["discriminators"] = {"classes": found, "roots": roots, "negatives": negatives}
        table = discriminators_table([*found.each, *roots], len(pixels), found)
        self._done("discriminators", Result({}, [table]))

    def information(self, largest: int) -> None:
        """I(c; t) of the parent and of each class."""
        self.say("mutual information")
        pixels, labels = self.classes.pixels, self.classes.labels
        groups = [(self.parent, pixels)]
        groups += [(path, pixels[labels == k]) for k, path in enumerate(self.classes.paths)]
        found = [
            code_information(self.model, path, own, seed=self.seed, largest=largest)
            for path, own in groups
            if len(own) > 1
        ]
        self.report["information"] = found
        self._done("information", Result({}, [information_table(found)]))

    def samples(self, judge: Judge, n: int, temperature: float) -> None:
        """Samples of each class at one temperature."""
        found, drawn = sampled(
            self.model,
            self.classes,
            judge,
            n,
            temperature,
            name=self.parent.replace("/", "-"),
            seed=self.seed,
            reporter=self.reporter,
        )
        self.report.setdefault("samples", []).append(found.figures)
        self._done(f"samples at temperature {temperature:g}", found)
        if temperature == 1.0:
            more = learned_from(drawn, self.classes, shown=SHOWN, **self._options)
            found.figures |= more.figures
            self._done("classifier of samples", more)

    def likelihoods(self, count: int) -> None:
        """The likelihood table on a seeded choice of test images."""
        classes = self.classes
        source = derived(self.seed, "likelihood")
        order = torch.randperm(len(classes.pixels), generator=source)[:count]
        task = self.reporter.task("likelihoods", (3 * len(DRAWS) + 3) * len(order))
        found = likelihood_table(
            self.model,
            classes.pixels[order],
            classes.native_dims[order],
            classes.labels[order],
            classes.paths,
            seed=self.seed,
            draws=DRAWS,
            tick=task.advance,
        )
        self.report["likelihoods"] = {"images": len(order), "rows": found}
        self.report["existence"] = {
            path: float(self.model.find(path).existence) for path in [self.parent, *classes.paths]
        }
        self._done("likelihoods", Result({}, [likelihoods_table(found, len(order))]))

    # -- within ----------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        self.reporter.say(text)

    def json(self) -> str:
        return json.dumps(plain(self.report), indent=2, ensure_ascii=False)

    @property
    def _options(self) -> dict[str, Any]:
        return {"seed": self.seed, "device": self.device, "reporter": self.reporter}

    def _labelled(self, source: str, split: str) -> Images:
        images = load(source, split=split, preparation=self.model.preparation)
        for name in images.skipped:
            self.say(f"skipped {name}")
        return images.subset(images.labels >= 0)

    def _done(self, part: str, found: Result | None = None) -> None:
        """Writes what there is."""
        now = time.monotonic()
        self.report["seconds"][part] = round(now - self.began, 1)
        self.began = now
        if found is not None:
            self.tables += found.tables
            for picture in found.pictures:
                write_aside(self.out / f"{picture.name}.png", picture.png)
        write_aside(self.out / "digits.json", self.json() + "\n")
        facts = (
            f"{self.report['run']} on {self.source}, {self.parent}: seed {self.seed}, "
            f"{self.report['device']} ({self.report['processor']}), {self.report['threads']} "
            f"threads, tzk {__version__}, torch {torch.__version__}. "
            "± is one standard error over images or samples."
        )
        parts = ["# Digits\n", facts + "\n", *map(markdown_table, self.tables)]
        write_aside(self.out / "digits.md", "\n".join(parts))


def _first_with_classes(model: TzK) -> str:
    for name, kind in model.kinds().items():
        if kind.child is not None:
            return name
    raise UsageError(
        f"the model has no classes below a knowledge; it knows {', '.join(model.paths()) or 'none'}"
    )


if __name__ == "__main__":
    digits()
