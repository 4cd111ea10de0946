"""The recipes of an experiment: as they are packaged, and as they are run."""

from __future__ import annotations

from collections.abc import Iterable

from ..config import KnowledgeConfig
from ..errors import UsageError
from ..training.recipe import Recipe, load_recipe, parse_recipe
from .data import PaperData

__all__ = ["as_run", "check_overrides", "names_of", "packaged", "smaller"]


def packaged(name: str, scale: str) -> Recipe:
    """``recipes/paper/NAME.yaml``, or NAME-small.yaml."""
    return load_recipe(f"paper/{name}" if scale == "full" else f"paper/{name}-{scale}")


def names_of(recipe: Recipe) -> list[str]:
    """The data sets of a packaged recipe, as it names them."""
    return [source.source for source in recipe.data.sources]


def as_run(
    name: str,
    scale: str,
    data: PaperData,
    *,
    seed: int | None = None,
    overrides: Iterable[str] = (),
) -> Recipe:
    """A recipe with its sources, seed and changed keys.

    Args:
        overrides: ``KEY=VALUE`` of every recipe, or ``NAME:KEY=VALUE`` of one.

    Raises:
        UsageError: a wrong key or value, or data that cannot be found.
    """
    recipe = data.applied(packaged(name, scale))
    own = [text for owner, text in map(_addressed, overrides) if owner in (None, name)]
    if seed is not None:
        own.append(f"seed={seed}")
    return parse_recipe(recipe.model_dump(mode="json"), own, title=recipe.name) if own else recipe


def smaller(recipe: Recipe, full: Recipe) -> tuple[str, ...]:
    """What of model and training differs from the paper's, in words.

    The paper does not say for how long it trained; the full recipe's steps stand for it.
    """
    found = []
    flow, paper_flow = recipe.model.flow, full.model.flow
    if flow != paper_flow:
        found.append(
            f"a t-flow of {flow.levels} × {flow.steps} steps of width {flow.width} for "
            f"{paper_flow.levels} × {paper_flow.steps} of {paper_flow.width}"
        )
    if any(source.tells for source in full.data.sources):
        found += _other_fields("kinds", recipe.model.knowledge, full.model.knowledge)
        if any(source.classes or source.binary_digits for source in full.data.sources):
            flow, paper_flow = recipe.model.child_flow, full.model.child_flow
            if flow != paper_flow:
                found.append(
                    f"flows of codes of {flow.steps} steps of width {flow.width} for "
                    f"{paper_flow.steps} of {paper_flow.width}"
                )
            ours, theirs = recipe.model.child_knowledge, full.model.child_knowledge
            found += _other_fields("kinds of codes", ours, theirs)
        named, paper_named = (
            {stage.objective.name for stage in each.stages if stage.train != "flow"}
            for each in (recipe, full)
        )
        if named != paper_named:
            found.append(
                f"objective {', '.join(sorted(named))} for {', '.join(sorted(paper_named))}"
            )
    seen, paper_seen = _images_seen(recipe), _images_seen(full)
    if seen < paper_seen:
        found.append(f"{seen:,} images seen for {paper_seen:,}")
    preparation, paper_preparation = recipe.data.preparation, full.data.preparation
    if preparation != paper_preparation:
        found.append(f"images of {preparation.channels}×{preparation.size}×{preparation.size}")
    limited = [source for source in recipe.data.sources if source.limit is not None]
    if limited:
        most = max(source.limit for source in limited)
        found.append(f"at most {most:,} images of some data sets")
    return tuple(found)


def check_overrides(overrides: Iterable[str], names: Iterable[str]) -> None:
    """Raises for a change that is addressed to no recipe of the experiment.

    Raises:
        UsageError: naming the recipes that there are.
    """
    known = list(names)
    for owner, text in map(_addressed, overrides):
        if owner is not None and owner not in known:
            raise UsageError(f"--set {owner}:{text}: no such recipe; there are {', '.join(known)}")


def _other_fields(what: str, ours: KnowledgeConfig, paper: KnowledgeConfig) -> list[str]:
    """The fields in which kinds differ, each with ours and the paper's."""
    mine, theirs = ours.model_dump(), paper.model_dump()
    told = [
        f"{name} {mine[name]} for {theirs[name]}" for name in mine if mine[name] != theirs[name]
    ]
    return [f"{what} with {', '.join(told)}"] if told else []


def _images_seen(recipe: Recipe) -> int:
    return sum(stage.steps * stage.batch for stage in recipe.stages)


def _addressed(override: str) -> tuple[str | None, str]:
    """(recipe, KEY=VALUE); the recipe is None where the change is of all."""
    head, equals, value = override.partition("=")
    owner, colon, key = head.rpartition(":")
    return (owner, key + equals + value) if colon else (None, override)
