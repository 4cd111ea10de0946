"""Recipes: one YAML file an experiment, validated before anything loads."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from ..config import FlowConfig, KnowledgeConfig
from ..data.names import check_name
from ..data.preparation import Preparation
from ..data.table import Columns
from ..errors import InvalidRequest, UsageError
from .settings import EvaluationConfig, Section, StageConfig, WatchConfig

__all__ = [
    "DataConfig",
    "EvaluationConfig",
    "ModelConfig",
    "Recipe",
    "SourceConfig",
    "StageConfig",
    "WatchConfig",
    "builtin_recipes",
    "folder_recipe",
    "load_recipe",
    "parse_recipe",
]


class SourceConfig(Section):
    """One source of images and what is known of it."""

    source: str = Field(description="builtin/NAME, a folder, a parquet file, or a hub name")
    split: Literal["train", "test"] = Field(
        "train", description="which of its splits is trained on (some have only a test split)"
    )
    knowledge: str | None = Field(
        None,
        description="the name of the data set as knowledge; if empty, whether its images are of "
        "the other data sets is unknown",
    )
    classes: bool = Field(
        False, description="whether its labels become knowledge, below `knowledge` if that is set"
    )
    exclusive: bool = Field(
        False, description="whether exactly one of its classes applies to an image (ten digits)"
    )
    limit: int | None = Field(None, ge=1, description="at most so many images")
    label: str | None = Field(
        None, description="the column of its labels, where it is not called label"
    )
    attributes: bool | list[str] = Field(
        False,
        description="columns of true and false that become knowledge, several of which may apply "
        "to an image: their names, or `true` for all columns of booleans",
    )
    binary_digits: bool = Field(
        False,
        description="whether the binary digits of its labels become knowledge: bit0 (the lowest), "
        "bit1, … (label 3 of ten is 0011)",
    )
    at_root: bool = Field(
        False,
        description="whether attributes and binary digits become knowledge of the first level, "
        "not below `knowledge`",
    )
    overlaps: list[str] = Field(
        default_factory=list,
        description="names of other data sets that may also apply to its images, and its name to "
        "theirs: unknown, where data sets otherwise exclude each other",
    )
    weight: float | None = Field(
        None,
        gt=0,
        description="how often it is drawn, relative to the weights of the other sources; without "
        "weights each is drawn as often as it has images",
    )
    invert: bool = Field(
        False,
        description="swap black and white of its images, against what data.preparation says: for "
        "dark ink among data sets of light ink",
    )

    @field_validator("knowledge")
    @classmethod
    def _name(cls, knowledge: str | None) -> str | None:
        try:
            return check_name(knowledge) if knowledge else None
        except InvalidRequest as error:
            raise ValueError(error.detail) from error

    @property
    def tells(self) -> bool:
        """Whether anything is known of its images."""
        return bool(self.knowledge or self.classes or self.attributes or self.binary_digits)

    @property
    def roots(self) -> bool:
        """Whether kinds of the first level come of it that are not its classes."""
        here = self.attributes or self.binary_digits
        return bool(self.knowledge or (here and (self.at_root or not self.knowledge)))

    @model_validator(mode="after")
    def _one_meaning(self) -> SourceConfig:
        here = self.attributes or self.binary_digits
        if self.exclusive and here and not (self.at_root and self.knowledge):
            raise ValueError(
                "exclusive says that exactly one of the kinds below `knowledge` applies, and "
                "attributes or binary digits among them overlap: leave exclusive out, or set "
                "at_root"
            )
        return self

    @property
    def columns(self) -> Columns:
        """What it says of its columns."""
        several = isinstance(self.attributes, list)
        return Columns(
            label=self.label, attributes=tuple(self.attributes) if several else self.attributes
        )


class DataConfig(Section):
    """Where images come from and how they become observations."""

    sources: list[SourceConfig] = Field(min_length=1, description="where the images come from")
    preparation: Preparation = Field(
        default_factory=Preparation, description="how an image becomes an observation"
    )
    holdout: float = Field(
        0.1, gt=0, lt=1, description="share of the training images kept out, by their content"
    )
    max_bad_share: float = Field(
        0.01, ge=0, lt=1, description="share of a source's images that may be unreadable: skipped"
    )
    test: bool = Field(
        False,
        description="measure on the test splits instead, of the sources that have one; images of "
        "them that are also trained on are left out and counted. Nothing is measured while it "
        "trains then, and no best is kept: what is tested on may not choose",
    )
    flips: bool = Field(
        False,
        description="mirror half of the training images, anew each time they are seen; where "
        "latent states are kept, once for each of their draws",
    )
    balance: bool = Field(
        False,
        description="stages of knowledge see as many images that have a kind as images that have "
        "it not; the discriminators' logits are set right for how rare it is afterwards",
    )
    cache: bool = Field(
        True,
        description="keep prepared images as memory maps in $TZK_CACHE (~/.cache/tzk), so that "
        "they are decoded once; without it they are in memory",
    )

    def with_source(self, source: SourceConfig) -> DataConfig:
        """The same with one more source, in the place of one with the same knowledge.

        Where sources have weights, one that comes without is drawn as often as they are on average.
        """
        kept = [s for s in self.sources if s.knowledge != source.knowledge]
        weights = [s.weight for s in kept if s.weight is not None]
        if weights and source.weight is None:
            source = source.model_copy(update={"weight": sum(weights) / len(weights)})
        return self.model_copy(update={"sources": [*kept, source]})

    @model_validator(mode="after")
    def _fits_together(self) -> DataConfig:
        weights = [source.weight is not None for source in self.sources]
        if any(weights) and not all(weights):
            raise ValueError("either every source has a weight, or none has")
        exclusive = [s.classes and s.exclusive and not s.knowledge for s in self.sources]
        for number, source in enumerate(self.sources):
            if source.roots and any(exclusive):
                raise ValueError(
                    f"sources.{exclusive.index(True)} says that exactly one of the kinds of the "
                    f"first level applies, and sources.{number} adds others there: give the first "
                    "a `knowledge`, or leave exclusive out"
                )
        names = {source.knowledge for source in self.sources}
        for number, source in enumerate(self.sources):
            for name in source.overlaps:
                if name not in names or name == source.knowledge:
                    raise ValueError(
                        f"sources.{number}.overlaps names {name!r}, which is no other source's "
                        "knowledge"
                    )
        return self


class ModelConfig(Section):
    """The sizes of the model."""

    flow: FlowConfig = Field(default_factory=FlowConfig, description="the t-flow")
    knowledge: KnowledgeConfig = Field(
        default_factory=KnowledgeConfig, description="of the kinds on images"
    )
    child_flow: FlowConfig = Field(
        default_factory=lambda: FlowConfig(steps=4, width=64), description="of a child TzK"
    )
    child_knowledge: KnowledgeConfig = Field(
        default_factory=lambda: KnowledgeConfig(
            code_dim=2, encoder_width=64, decoder_width=64, discriminator_width=64
        ),
        description="of the kinds on codes",
    )


class Recipe(Section):
    """One experiment."""

    name: str = Field(description="short name of the experiment")
    description: str = Field("", description="what it is for, in a sentence")
    seed: int = Field(0, ge=0, lt=2**63, description="of everything random in the run")
    data: DataConfig = Field(description="what it trains on")
    model: ModelConfig = Field(default_factory=ModelConfig, description="the model's sizes")
    stages: list[StageConfig] = Field(
        min_length=1, description="stages of training, one after the other"
    )
    watch: WatchConfig = Field(
        default_factory=WatchConfig, description="what is shown and kept meanwhile"
    )
    evaluation: EvaluationConfig = Field(
        default_factory=EvaluationConfig, description="what is fitted and measured at the end"
    )

    @model_validator(mode="after")
    def _flow_fits(self) -> Recipe:
        size = self.data.preparation.size
        try:
            self.model.flow.check_sides(size, size)
        except ValueError as error:
            raise ValueError(f"data.preparation.size, model.flow.levels: {error}") from error
        return self


def load_recipe(name: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """A recipe from a YAML file, or by the name of one that comes with tzk.

    Args:
        name: ``path/to/recipe.yaml`` or a bare name such as ``quick``.
        overrides: ``key=value``, the key dotted (``stages.0.steps=10``), the value YAML.

    Raises:
        UsageError: no such recipe, not YAML, or a wrong key or value, which the error names.
    """
    path = Path(name)
    if path.is_file():
        text = path.read_bytes()  # YAML says itself how it is encoded
    elif str(name) in builtin_recipes():
        text = builtin_recipes()[str(name)].read_text()
    else:
        raise UsageError(
            f"no recipe {str(name)!r}: neither a file or folder, nor one of "
            f"{', '.join(builtin_recipes())} that come with tzk"
        )
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    return parse_recipe(values, overrides, title=str(name))


def parse_recipe(
    values: Any, overrides: list[str] | tuple[str, ...] = (), *, title: str = "the recipe"
) -> Recipe:
    """A recipe from plain values; every wrong key or value is named.

    Raises:
        UsageError: as :func:`load_recipe`.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{title} is not a mapping of keys to values")
    for override in overrides:
        _override(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(
            ": ".join([*filter(None, [".".join(str(p) for p in e["loc"])]), _reason(e)])
            for e in error.errors()
        )
        raise UsageError(f"{title} is wrong at {wrong}") from error


def builtin_recipes() -> dict[str, Any]:
    """The recipes that come with tzk, by name; ``paper/NAME`` are those of ``tzk reproduce``."""
    try:
        folder = resources.files("tzk_recipes")
    except ModuleNotFoundError:
        # A checkout on the path without an installation has them beside the library.
        folder = Path(__file__).parents[2] / "recipes"
    places = {"": folder, "paper/": folder / "paper"}
    found = {
        prefix + file.name.removesuffix(".yaml"): file
        for prefix, place in places.items()
        for file in place.iterdir()
        if file.name.endswith(".yaml")
    }
    # Those of the paper's experiments last.
    return dict(sorted(found.items(), key=lambda item: ("/" in item[0], item[0])))


def folder_recipe(
    folder: Path, knowledge: str, classes: bool, overrides: list[str] | tuple[str, ...] = ()
) -> Recipe:
    """The recipe of ``tzk train FOLDER``: ``recipes/folder.yaml`` with that source."""
    values = yaml.safe_load(builtin_recipes()["folder"].read_text())
    values["name"] = knowledge
    values["data"]["sources"] = [
        {
            "source": str(folder),
            "knowledge": knowledge,
            "classes": classes,
            "exclusive": classes,
        }
    ]
    return parse_recipe(values, overrides, title="the recipe for a folder")


def _override(values: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"an override is key=value, not {override!r}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{key}: {text!r} is not YAML") from error
    *parents, last = key.split(".")
    here: Any = values
    for part in parents:
        if isinstance(here, list):
            if not part.isdigit() or int(part) >= len(here):
                raise UsageError(f"{key}: there is no item {part!r}, the list has {len(here)}")
            here = here[int(part)]
        else:
            here = here.setdefault(part, {})
        if not isinstance(here, (dict, list)):
            raise UsageError(f"{key}: {part!r} holds a value, not keys")
    if isinstance(here, list):
        if not last.isdigit() or int(last) >= len(here):
            raise UsageError(f"{key}: there is no item {last!r}, the list has {len(here)}")
        here[int(last)] = value
    else:
        here[last] = value


def _reason(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "no such key"
    if error["type"] == "missing":
        return "this key is missing"
    if error["type"] == "value_error" and isinstance(error["input"], dict):
        return str(error["ctx"]["error"])  # of keys that do not go together, which it names
    return f"{error['msg']} (got {error['input']!r})"
