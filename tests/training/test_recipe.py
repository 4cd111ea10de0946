"""A recipe with a wrong key or value is refused before anything starts, and the key is named."""

from __future__ import annotations

import copy

import pytest
import yaml

from tzk_core.errors import UsageError
from tzk_core.training.recipe import builtin_recipes, folder_recipe, load_recipe, parse_recipe

GOOD = {
    "name": "x",
    "data": {"sources": [{"source": "builtin/mnist", "knowledge": "mnist"}]},
    "stages": [{"train": "flow", "steps": 3}, {"train": "knowledge", "steps": 2}],
}


def good() -> dict:
    return copy.deepcopy(GOOD)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("nam=x", "nam: no such key"),
        ("data.sorces=[]", "data.sorces: no such key"),
        ("data.sources=[]", "data.sources"),
        ("data.sources.0.limits=5", "data.sources.0.limits: no such key"),
        ("data.sources.0.limit=0", "data.sources.0.limit"),
        ("data.holdout=1.5", "data.holdout"),
        ("data.preparation.size=-1", "data.preparation.size"),
        ("data.preparation.filter=cubic", "data.preparation.filter"),
        ("model.flow.levels=0", "model.flow.levels"),
        ("model.flow.depth=3", "model.flow.depth: no such key"),
        ("model.knowledge.code_dim=0", "model.knowledge.code_dim"),
        ("model.knowledge.code_log_sigma=[1, 2]", "model.knowledge.code_log_sigma"),
        ("model.knowledge.code_prior=free", "model.knowledge.code_prior"),
        ("stages=[]", "stages"),
        ("stages.0.steps=0", "stages.0.steps"),
        ("stages.0.steps=many", "stages.0.steps"),
        ("stages.1.batch=1", "stages.1.batch"),
        ("stages.1.learning_rate=0", "stages.1.learning_rate"),
        ("stages.1.ema=1", "stages.1.ema"),
        ("stages.1.train=codes", "stages.1.train"),
        ("stages.1.learning_rat=1", "stages.1.learning_rat: no such key"),
        ("stages.1.objective.name=magic", "stages.1.objective.name"),
        ("stages.1.objective.encoder_fraction=2", "stages.1.objective.encoder_fraction"),
        ("stages.1.objective.beta=1", "stages.1.objective.beta: no such key"),
        ("evaluation.held_out=1", "evaluation.held_out"),
        ("stages.0.betas=[0.9, 1]", "stages.0.betas.1"),
        ("stages.0.betas=[-0.1, 0.9]", "stages.0.betas.0"),
        ("stages.0.betas=[0.9]", "stages.0.betas.1"),
        ("stages.0.learning_rate=.inf", "stages.0.learning_rate"),
        ("stages.0.learning_rate=1e999", "stages.0.learning_rate"),
        ("stages.0.clip=.nan", "stages.0.clip"),
        ("stages.0.weight_decay=.inf", "stages.0.weight_decay"),
        ("stages.0.objective.kl_weight=.inf", "stages.0.objective.kl_weight"),
        (
            "stages.0.objective.kl_weight={start: 0, end: .nan, steps: 2}",
            "stages.0.objective.kl_weight",
        ),
        ("data.sources.0.weight=.inf", "data.sources.0.weight"),
        ("model.knowledge.code_log_sigma=[-.inf, 1]", "model.knowledge.code_log_sigma"),
        ("data.preparation.size=28", "data.preparation.size, model.flow.levels: 28×28"),
        ("model.flow.levels=6", "both sides must be multiples of 2^levels = 64"),
        ("seed=-1", "seed"),
        (f"seed={2**63}", "seed"),
    ],
)
def test_the_wrong_key_is_named(override, named):
    with pytest.raises(UsageError) as caught:
        parse_recipe(good(), [override], title="r.yaml")
    assert caught.value.detail.startswith("r.yaml is wrong at ")
    assert named in caught.value.detail
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("key", ["name", "data", "stages"])
def test_a_missing_key_is_named(key):
    values = good()
    del values[key]
    with pytest.raises(UsageError, match=f"{key}: this key is missing"):
        parse_recipe(values)


def test_all_wrong_keys_are_named_at_once():
    with pytest.raises(UsageError) as caught:
        parse_recipe(good(), ["stages.0.steps=0", "colour=red"])
    assert "stages.0.steps" in caught.value.detail
    assert "colour: no such key" in caught.value.detail


def test_what_does_not_go_together_is_told_without_the_whole_recipe():
    with pytest.raises(UsageError) as caught:
        parse_recipe(good(), ["data.preparation.size=28"], title="r.yaml")
    assert caught.value.detail == (
        "r.yaml is wrong at data.preparation.size, model.flow.levels: 28×28 images cannot go "
        "through 3 levels of the t-flow: both sides must be multiples of 2^levels = 8"
    )


def test_overrides():
    recipe = parse_recipe(
        good(),
        ["stages.0.steps=7", "model.flow.width=5", "data.sources.0.source=a b", "seed=9"],
    )
    assert recipe.stages[0].steps == 7
    assert recipe.model.flow.width == 5
    assert recipe.data.sources[0].source == "a b"
    assert recipe.seed == 9
    # The last one counts, and a value may itself hold an equals sign.
    recipe = parse_recipe(good(), ["seed=1", "seed=2", "description=a=b"])
    assert (recipe.seed, recipe.description) == (2, "a=b")
    assert parse_recipe(good(), ["stages.0={train: all, steps: 4}"]).stages[0].train == "all"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stages", "an override is key=value, not 'stages'"),
        ("=3", "an override is key=value"),
        ("stages.5.steps=3", "stages.5.steps: there is no item '5', the list has 2"),
        ("stages.first.steps=3", "stages.first.steps: there is no item 'first'"),
        ("stages.7=3", "stages.7: there is no item '7'"),
        ("name.x=3", "name.x: 'name' holds a value, not keys"),
        ("seed=[1", "seed: '[1' is not YAML"),
        ("seed=: :", "seed: ': :' is not YAML"),
    ],
)
def test_overrides_that_are_none(override, said):
    with pytest.raises(UsageError) as caught:
        parse_recipe(good(), [override])
    assert said in caught.value.detail


def test_files(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(good()))
    assert load_recipe(path) == load_recipe(str(path)) == parse_recipe(good())
    path.write_text("a: [")
    with pytest.raises(UsageError, match="is not YAML") as caught:
        load_recipe(path)
    assert "\n" not in caught.value.detail
    for text in ("- 1", "", "text"):
        path.write_text(text)
        with pytest.raises(UsageError, match="is not a mapping"):
            load_recipe(path)
    path.write_bytes(b"a: \xff")
    with pytest.raises(UsageError, match="is not YAML"):
        load_recipe(path)
    with pytest.raises(UsageError, match=r"neither a file or folder, nor one of .*quick"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", builtin_recipes())
def test_the_recipes_that_come_with_tzk_are_good(name, tmp_path):
    if name == "folder":
        recipe = folder_recipe(tmp_path, "x", True, ["stages.0.steps=5"])
        assert recipe.stages[0].steps == 5
        assert recipe.data.sources[0].classes
    else:
        recipe = load_recipe(name)
    # What is stored in the run folder is read back as the same recipe.
    again = parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json"))))
    assert again == recipe
