"""What every part of an evaluation works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...data.images import Images
from ...model import TzK
from ...randomness import derived
from ...training.labels import Known
from ...training.progress import Reporter
from ..held_out import Figure
from ..settings import Settings
from .data import Classes, Source, classes_of, data_sets, known
from .result import Result

__all__ = ["ALL", "NO_KINDS", "Part", "Work"]

ALL = "all"  # the scope of a part that is measured of everything at once
NO_KINDS = "it is of knowledge, and the model has none"


@dataclass
class Work:
    """A model, its images, and how much of them is looked at."""

    model: TzK
    sources: list[Source]
    against: list[Images]  # test images of sources that are none of the model's
    settings: Settings
    seed: int
    out: Path
    reporter: Reporter
    rates: dict[str, Figure] = field(default_factory=dict)  # E p_enc(e=1|t), fitted for this

    @property
    def device(self) -> torch.device:
        return self.model.device

    @cached_property
    def classes(self) -> dict[str, Classes]:
        """The classes of each source that has some, by the source's name."""
        found = {s.name: classes_of(s, self.model.paths()) for s in self.sources}
        return {name: each for name, each in found.items() if each is not None}

    @cached_property
    def data_sets(self) -> Classes | None:
        """The data sets as kinds of the first level, where there are several."""
        return data_sets(self.sources, self.model.kinds())

    @cached_property
    def known(self) -> Known:
        """e of the test images of all sources, laid end to end."""
        return known(self.sources)

    @cached_property
    def pixels(self) -> Tensor:
        """The test images of all sources, laid end to end."""
        return torch.cat([source.pixels for source in self.sources])

    def source(self, name: str) -> Source:
        return next(source for source in self.sources if source.name == name)

    def parent(self, source: Source) -> str | None:
        """The kind that all images of a source have, if the model knows it."""
        name = source.config.knowledge
        return name if name in self.model.kinds() else None

    def some(self, count: int, largest: int, *purpose: str) -> Tensor:
        """A seeded choice of at most ``largest`` of ``count`` images, in random order."""
        return torch.randperm(count, generator=derived(self.seed, *purpose))[:largest]

    def task(self, title: str, total: int) -> Callable[[int], None]:
        """What is called as ``total`` units of work are done."""
        return self.reporter.task(title, total).advance


class Part(NamedTuple):
    """One part of an evaluation."""

    name: str  # as it is asked for
    title: str
    about: str  # what its figures mean
    settings: tuple[str, ...]  # fields of Settings that its figures depend on
    # Of what it is measured, one after the other, or why it does not apply to the model.
    scopes: Callable[[Work], list[str] | str]
    measure: Callable[[Work, str], Result | str]  # a scope's figures, or why there are none
    against: bool = False  # whether its figures depend on the other sources
    version: int = 1  # one more, when the same settings give other figures than before
