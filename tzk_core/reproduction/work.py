"""What the parts of an experiment work with: its runs' models, its test images, its sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..errors import UsageError
from ..evaluation.report.data import Source, read_source
from ..hub import WEIGHTS, sha256
from ..model import TzK
from ..randomness import derived
from ..training.progress import Reporter
from ..training.recipe import Recipe, SourceConfig
from .data import NAMES, PaperData
from .recipes import as_run, names_of, packaged, smaller
from .runs import Run
from .settings import Settings
from .verdict import Conditions

__all__ = ["Work"]


@dataclass
class Work:
    """One experiment as it runs.

    Args:
        runs: of the experiment.
        scale: ``full`` or ``small``.
        out: the folder of the results; run folders are in ``out/runs``.
        data: where the images come from.
        seed: of recipes and measurements; the recipes' own for None.
        overrides: changed keys of recipes.
        settings: how much is measured.
    """

    runs: tuple[Run, ...]
    scale: str
    out: Path
    data: PaperData
    seed: int | None
    overrides: tuple[str, ...]
    settings: Settings
    device: torch.device
    reporter: Reporter
    _models: dict[str, TzK] = field(default_factory=dict)
    _recipes: dict[str, Recipe] = field(default_factory=dict)
    _sources: dict[tuple[str, str], Source] = field(default_factory=dict)

    @property
    def measuring_seed(self) -> int:
        """Of noise, codes and samples."""
        return 0 if self.seed is None else self.seed

    def recipe(self, run: str) -> Recipe:
        """The recipe of a run, as it is run."""
        if run not in self._recipes:
            self._recipes[run] = as_run(
                run, self.scale, self.data, seed=self.seed, overrides=self.overrides
            )
        return self._recipes[run]

    def folder(self, run: str) -> Path:
        """Its run folder."""
        return self.out / "runs" / self.recipe(run).name

    def model(self, run: str) -> TzK:
        """Its trained model, on the device."""
        if run not in self._models:
            self._models.clear()  # one at a time: those of full scale are large
            self._models[run] = TzK.from_pretrained(self.folder(run)).to(self.device)
        return self._models[run]

    def weights(self, run: str) -> str:
        """SHA-256 of its weights."""
        return sha256(self.folder(run) / WEIGHTS)

    def test(self, run: str, name: str, count: int) -> Source:
        """At most ``count`` test images of a data set, prepared as a run does.

        Of a stand-in without test images they are those that the run held out.
        """
        if (run, name) not in self._sources:
            recipe = self.recipe(run)
            config = self._source(run, name)
            self._sources[run, name] = read_source(
                config,
                name,
                recipe.data.preparation,
                # All of them, of which every part takes the same first ones.
                test_images=10**9,
                seed=recipe.seed,
                holdout=recipe.data.holdout,
                cache=recipe.data.cache,
            )
        source = self._sources[run, name]
        order = derived(self.measuring_seed, "test images", name)
        some = torch.randperm(len(source.test), generator=order)[:count]
        test = source.test.subset(some.numpy())
        return Source(source.name, source.config, source.train, test, source.chosen)

    def conditions(self, *runs: str, test: Iterable[str] = ()) -> Conditions:
        """How runs, and those that they are fitted on, differ from the paper's.

        Args:
            test: the data sets whose test images are looked at.
        """
        found = Conditions(tested=self.data.replaced(test))
        for run in self.with_bases(*runs):
            own = packaged(run, self.scale)
            fewer = (*smaller(self.recipe(run), packaged(run, "full")), *self.data.reduced(own))
            found |= Conditions(fewer, self.data.replaced(names_of(own)))
        return found

    def with_bases(self, *runs: str) -> list[str]:
        """Runs, each after the one whose t-flow it is fitted on."""
        bases = {run.recipe: run.on for run in self.runs if run.on is not None}
        return list(dict.fromkeys(r for run in runs for r in (bases.get(run, run), run)))

    def told(self, *names: str) -> str:
        """Data sets for display."""
        return ", ".join(self.data.told(name) for name in names)

    def told_of(self, run: str, *test: str) -> str:
        """What figures of test images under a run depend on, for display."""
        trained = []
        for each in self.with_bases(run):
            names = names_of(packaged(each, self.scale))
            every = len(names) == len(NAMES)
            trained.append(self.data.told_together(names) if every else self.told(*names))
        return f"test: {self.told(*test)}; trained on: {', then '.join(trained)}"

    def task(self, title: str, total: int) -> Callable[[int], None]:
        """What is called as ``total`` units of work are done."""
        return self.reporter.task(title, total).advance

    def _source(self, run: str, name: str) -> SourceConfig:
        """What the recipe says of a data set, or where it is if the recipe has it not."""
        if self.data.source(name) is None:
            raise UsageError(f"{name} is left out, and test images of it are needed")
        own = packaged(run, self.scale)
        for index, source in enumerate(own.data.sources):
            if source.source == name:
                kept = [s for s in own.data.sources[:index] if self.data.source(s.source)]
                return self.recipe(run).data.sources[len(kept)]
        bare = own.model_copy(
            update={"data": own.data.model_copy(update={"sources": [SourceConfig(source=name)]})}
        )
        return self.data.applied(bare).data.sources[0]
