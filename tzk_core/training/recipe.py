"""Recipes: one YAML file an experiment, validated before anything loads."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..config import FlowConfig, KnowledgeConfig
from ..data.preparation import Preparation
from ..errors import UsageError
from ..objective import ObjectiveConfig

__all__ = [
    "DataConfig",
    "Recipe",
    "SourceConfig",
    "StageConfig",
    "builtin_recipes",
    "folder_recipe",
    "load_recipe",
    "parse_recipe",
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SourceConfig(_Section):
    """One source of images and what is known of it."""

    source: str = Field(description="builtin/NAME, a folder, a parquet file, or a hub name")
    knowledge: str | None = Field(
        None, description="the name of the data set as knowledge; none if empty"
    )
    classes: bool = Field(
        False, description="whether its labels become knowledge, below `knowledge` if that is set"
    )
    exclusive: bool = Field(
        False, description="whether exactly one of its classes applies to an image (ten digits)"
    )
    limit: int | None = Field(None, ge=1, description="at most so many images")


class DataConfig(_Section):
    """Where images come from and how they become observations."""

    sources: list[SourceConfig] = Field(min_length=1)
    preparation: Preparation = Field(default_factory=Preparation)
    holdout: float = Field(
        0.1, gt=0, lt=1, description="share of the training images kept out, by their content"
    )
    max_bad_share: float = Field(
        0.01, ge=0, lt=1, description="share of a source's images that may be unreadable: skipped"
    )


class ModelConfig(_Section):
    """The sizes of the model."""

    flow: FlowConfig = Field(default_factory=FlowConfig)
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


class StageConfig(_Section):
    """One stage of training."""

    train: Literal["flow", "knowledge", "all"] = Field(
        description="the t-flow, the knowledge on the frozen t-flow, or both together"
    )
    steps: int = Field(ge=1, description="optimiser steps")
    batch: int = Field(64, ge=2, description="images a step")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam, at its highest")
    scale_rate: float = Field(
        20.0, gt=0, description="ActNorm's log scales learn so many times faster than the rest"
    )
    warmup: int = Field(50, ge=0, description="steps of linear rise")
    decay: Literal["cosine", "none"] = Field("cosine", description="fall after the rise")
    clip: float = Field(
        100.0, gt=0, description="largest norm of the gradient (of the loss in bits/dim)"
    )
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights, 0 for none")
    latent_draws: int = Field(
        2, ge=1, description="noise draws of each image whose z is kept, on a frozen t-flow"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)


class EvaluationConfig(_Section):
    """What is fitted and measured at the end."""

    existence_draws: int = Field(1_000_000, ge=1000, description="codes for p(e = 1)")
    encoder_rate_draws: int = Field(
        0, ge=0, description="samples for the `encoder` estimator; 0 leaves it out"
    )
    held_out: int = Field(1000, ge=10, description="held-out images for figures and percentiles")
    draws: int = Field(16, ge=1, description="codes of the importance estimate")


class Recipe(_Section):
    """One experiment."""

    name: str = Field(description="short name of the experiment")
    description: str = Field("", description="what it is for, in a sentence")
    seed: int = Field(0, ge=0, lt=2**63, description="of everything random in the run")
    data: DataConfig
    model: ModelConfig = Field(default_factory=ModelConfig)
    stages: list[StageConfig] = Field(min_length=1)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)


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
            f"{'.'.join(str(p) for p in e['loc'])}: {_reason(e)}" for e in error.errors()
        )
        raise UsageError(f"{title} is wrong at {wrong}") from error


def builtin_recipes() -> dict[str, Any]:
    """The recipes that come with tzk, by name."""
    try:
        folder = resources.files("tzk_recipes")
    except ModuleNotFoundError:
        # A checkout on the path without an installation has them beside the library.
        folder = Path(__file__).parents[2] / "recipes"
    found = {f.name.removesuffix(".yaml"): f for f in folder.iterdir() if f.name.endswith(".yaml")}
    return dict(sorted(found.items()))


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
    return f"{error['msg']} (got {error['input']!r})"
