"""The paper's data sets: where each comes from, and what stands in for one that cannot be had.

The recipes name them as the hub's short names do. ``--data NAME=SOURCE`` says where the same images
are; ``--stand-in NAME=SOURCE`` takes others in their place, ``--stand-in NAME=none`` leaves them
out; either is marked in every row that depends on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..data.hub_names import BUILTIN, HUB
from ..data.preparation import Preparation
from ..data.sources import load, splits
from ..errors import UsageError, WorkFailed
from ..training.recipe import Recipe, SourceConfig, parse_recipe

__all__ = ["NAMES", "NO_DATA", "PaperData"]

NO_DATA = "none"

# As the paper calls them (Table 1), in its order.
NAMES = {
    "cifar10": "CIFAR-10",
    "mnist": "MNIST",
    "omniglot": "Omniglot",
    "svhn": "SVHN",
    "imagenet32": "ImageNet",
    "celeba": "CelebA",
}
# Black ink on white on the hub, white on black in other copies: looked at, not assumed.
_EITHER_INK = {"omniglot"}
_LOOKED_AT = 64


@dataclass(frozen=True)
class PaperData:
    """Where the images of each name come from."""

    given: Mapping[str, str] = field(default_factory=dict)  # the same images elsewhere
    stand_ins: Mapping[str, str] = field(default_factory=dict)  # others in their place, or NO_DATA

    def __post_init__(self) -> None:
        for name in (*self.given, *self.stand_ins):
            if name not in NAMES:
                raise UsageError(f"there is no data set {name!r}; there are {', '.join(NAMES)}")
        for name in self.given:
            if name in self.stand_ins:
                raise UsageError(f"{name} is given and has a stand-in: one of the two")

    @classmethod
    def parsed(cls, given: Iterable[str], stand_ins: Iterable[str] = ()) -> PaperData:
        """From ``NAME=SOURCE`` texts.

        Raises:
            UsageError: one is no such text, or its name is none of the paper's data sets.
        """
        return cls(_pairs("--data", given), _pairs("--stand-in", stand_ins))

    def source(self, name: str) -> str | None:
        """Where the images of a name are; None where they are left out."""
        found = self.given.get(name) or self.stand_ins.get(name) or name
        return None if found == NO_DATA else found

    def options(self) -> list[str]:
        """The options that say all this, with DIR for the places of this machine."""
        return [
            f"{option} {name}={_placeless(source)}"
            for option, known in (("--data", self.given), ("--stand-in", self.stand_ins))
            for name, source in sorted(known.items())
        ]

    def told(self, name: str) -> str:
        """A name for display, without the place on this machine."""
        source = self.source(name)
        title = NAMES[name]
        if source is None:
            return f"{title} (left out)"
        if name in self.stand_ins:
            return f"{title} (stand-in: {_shown(source)})"
        return f"{title} (built-in part)" if source in BUILTIN else title

    def told_together(self, names: Iterable[str]) -> str:
        """All six data sets for display: which have stand-ins, and which are left out."""
        own = [name for name in names if name in self.stand_ins]
        others = [NAMES[name] for name in own if self.source(name) is not None]
        without = [NAMES[name] for name in own if self.source(name) is None]
        told = "six data sets"
        if others:
            told += f", stand-ins for {', '.join(others)}"
        return told + (f", without {', '.join(without)}" if without else "")

    def replaced(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of some data sets that others stand for, or that are left out, as titles."""
        return tuple(NAMES[name] for name in names if name in self.stand_ins)

    def reduced(self, recipe: Recipe) -> tuple[str, ...]:
        """The sources of a packaged recipe that are a part of the paper's images, in words."""
        names = [source.source for source in recipe.data.sources]
        return tuple(
            f"4,000 images of {NAMES[name]}"
            for name in names
            if name in self.given and self.given[name] in BUILTIN
        )

    def check(self, recipes: Iterable[Recipe]) -> None:
        """Finds before anything trains that a source of packaged recipes cannot be had.

        Raises:
            UsageError: naming it and how to get it.
        """
        wanted = {source.source for recipe in recipes for source in recipe.data.sources}
        for name in (name for name in NAMES if name in wanted):
            source = self.source(name)
            if source is None:
                continue
            try:
                found = splits(source)
            except (UsageError, WorkFailed) as error:
                raise UsageError(f"{error.detail}; {_how(name)}") from error
            if not found:
                raise UsageError(f"{source} holds no images; {_how(name)}")

    def applied(self, recipe: Recipe) -> Recipe:
        """A packaged recipe with the sources that are meant.

        Raises:
            UsageError: a kind of the recipe is left out.
        """
        sources = []
        for own in recipe.data.sources:
            found = self._of(own)
            if found is not None:
                sources.append(found.model_dump(mode="json"))
            elif own.tells:
                raise UsageError(f"{own.source} cannot be left out: {recipe.name} learns it")
        values = recipe.model_dump(mode="json")
        values["data"]["sources"] = sources
        return parse_recipe(values, title=recipe.name)

    def _of(self, own: SourceConfig) -> SourceConfig | None:
        name = own.source
        if name not in NAMES:
            return own
        source = self.source(name)
        if source is None:
            return None
        if source == name:
            return own
        # A path of this machine means the same wherever the command is started.
        place = Path(source).expanduser()
        changes: dict = {"source": str(place.resolve()) if place.exists() else source}
        if "train" not in splits(source):
            changes["split"] = "test"
        if own.invert or name in _EITHER_INK:
            split = changes.get("split", own.split)
            changes["invert"] = name in _EITHER_INK and _dark_ink(source, split)
        return own.model_copy(update=changes)


def _dark_ink(source: str, split) -> bool:
    """Whether most of the images' area is light."""
    images = load(source, split=split, preparation=Preparation(channels=1), limit=_LOOKED_AT)
    return float(images.pixels.mean()) > 127.5


def _pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not (name and equals and source):
            raise UsageError(f"{option} is NAME=SOURCE, not {text!r}")
        if name in found:
            raise UsageError(f"{option} names {name} twice")
        found[name] = source
    return found


def _shown(source: str) -> str:
    """The last step of a source: its folder or its name on the hub."""
    return Path(os.path.normpath(source)).name or source


def _placeless(source: str) -> str:
    """A source as a command names it, but for the folder that it is in on this machine."""
    return f"DIR/{_shown(source)}" if Path(source).exists() else source


def _how(name: str) -> str:
    """How to get a data set, in words."""
    hub = HUB[name]
    part = f" ({hub.configuration})" if hub.configuration else ""
    ways = [f"the hub has it as {hub.repository}{part}"]
    if f"builtin/{name}" in BUILTIN:
        ways.append(f"a part of it is built in: --data {name}=builtin/{name}")
    ways.append(f"--data {name}=FOLDER takes a folder of it (train.parquet, test.parquet)")
    if f"builtin/{name}" not in BUILTIN:
        ways.append(f"--stand-in {name}=SOURCE takes other images, and marks every row")
    return f"of {NAMES[name]}: {'; '.join(ways)}"
