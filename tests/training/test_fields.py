"""Every key of a recipe tells what it is, and docs/recipes.md is what the code takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tzk_core.cli.main import cli
from tzk_core.training.fields import document, fields, sections
from tzk_core.training.recipe import load_recipe, parse_recipe

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def test_every_field_has_a_description():
    assert [f"{m.__name__}.{name}" for m, name, f in fields() if not f.description] == []


def test_no_mapping_is_forgotten():
    names = {model.__name__ for model, _ in sections()}
    assert {
        "Recipe",
        "SourceConfig",
        "Preparation",
        "FlowConfig",
        "KnowledgeConfig",
        "StageConfig",
        "ObjectiveConfig",
        "Ramp",
        "WatchConfig",
        "EvaluationConfig",
    } <= names
    # And so the keys of a resolved recipe are all there, however deep.
    told = {(model, name) for model, name, _ in fields()}

    def walk(value) -> None:
        if hasattr(value, "model_fields_set"):
            for name in type(value).model_fields:
                assert (type(value), name) in told
                walk(getattr(value, name))
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk(load_recipe("digits"))


def test_the_page_is_current():
    assert PAGE.read_text() == document(), "run: tzk recipe fields > docs/recipes.md"


def test_on_the_command_line():
    assert CliRunner().invoke(cli, ["recipe", "fields"]).stdout == document()
    shown = CliRunner().invoke(
        cli, ["recipe", "show", "quick", "--set", "stages.0.steps=7", "--set", "seed=5"]
    )
    recipe = parse_recipe(yaml.safe_load(shown.stdout))
    assert recipe == load_recipe("quick", ["stages.0.steps=7", "seed=5"])
    assert (recipe.stages[0].steps, recipe.seed) == (7, 5)
    wrong = CliRunner().invoke(cli, ["recipe", "show", "quick", "--set", "stages.0.step=7"])
    assert wrong.exit_code == 2
    assert "stages.0.step: no such key" in wrong.stderr


@pytest.mark.parametrize(
    ("cell", "key"),
    [
        ("integer ≥ 1 | required", "steps"),
        ("`adam` or `adamw` or `adamax` | `adam`", "optimiser"),
        ("number > 0, < 1 | `0.1`", "holdout"),
        ("number or mapping | `0.2`", "kl_weight"),
        ("list of mapping | required", "sources"),
        ("[number (≥ 0, < 1), number (≥ 0, < 1)] | `[0.9, 0.999]`", "betas"),
    ],
)
def test_types_limits_and_defaults(cell, key):
    assert f"| `{key}` | {cell} |" in document()
