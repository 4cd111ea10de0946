"""Every experiment has its recipes at both scales, and the small ones keep the structure."""

from __future__ import annotations

import pytest

from tzk_core.config import FlowConfig, paper_knowledge
from tzk_core.errors import UsageError
from tzk_core.reproduction import EXPERIMENTS
from tzk_core.reproduction.data import NAMES
from tzk_core.reproduction.experiment import recipes_of
from tzk_core.reproduction.recipes import names_of, packaged, smaller
from tzk_core.reproduction.registry import find
from tzk_core.training.recipe import builtin_recipes

# Steps a level of the paper's t-flows, by section: 4.1, 4.3, 4.4.
STEPS = {
    "baseline-cifar10": 32,
    "baseline-mnist": 32,
    "multi-data": 32,
    "mnist-omniglot": 32,
    "specialise-cifar-flow": 20,
    "specialise-cifar": 20,
    "specialise-multi": 20,
    "end-to-end": 20,
    "hierarchy": 10,
    "cifar-bits": 10,
}


def test_all_of_the_papers_experiments_are_there():
    assert set(EXPERIMENTS) == {
        "baselines",
        "multi-data",
        "interpolation",
        "specialise-cifar",
        "specialise-multi",
        "cost",
        "hierarchy",
        "cifar-bits",
        "end-to-end",
    }
    with pytest.raises(UsageError, match=r"no experiment 'nonesuch'; there are baselines, .*cost"):
        find("nonesuch")


def test_every_recipe_of_the_paper_is_of_an_experiment():
    used = {name for each in EXPERIMENTS.values() for name in recipes_of(each)}
    assert used == set(STEPS)
    there = {name.removeprefix("paper/") for name in builtin_recipes() if name.startswith("paper/")}
    assert there == used | {f"{name}-small" for name in used}


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda each: each.name)
def test_parts_look_at_runs_that_are_trained_before(experiment):
    trained = []
    for run in experiment.runs:
        assert run.on is None or run.on in trained
        trained.append(run.recipe)
    assert all(set(part.runs) <= set(trained) for part in experiment.parts)
    assert len({part.name for part in experiment.parts}) == len(experiment.parts)


@pytest.mark.parametrize("name", STEPS)
def test_full_recipes_have_the_papers_sizes(name):
    recipe = packaged(name, "full")
    assert recipe.name == name
    assert recipe.model.flow == FlowConfig(levels=3, steps=STEPS[name], width=512)
    assert all(stage.preset == "paper" for stage in recipe.stages)
    assert {(stage.batch, stage.learning_rate, stage.warmup) for stage in recipe.stages} == {
        (10, 1e-5, 4000)
    }
    assert recipe.data.preparation.size == 32
    assert all(source.limit is None for source in recipe.data.sources)
    if any(source.tells for source in recipe.data.sources):
        assert recipe.model.knowledge == paper_knowledge(10)
    if any(source.classes or source.binary_digits for source in recipe.data.sources):
        assert (recipe.model.child_flow.steps, recipe.model.child_flow.width) == (4, 64)
        below = recipe.model.child_knowledge
        assert (below.code_dim, below.z_steps, below.z_width) == (2, 4, 64)


@pytest.mark.parametrize("name", STEPS)
def test_small_recipes_keep_the_structure(name):
    full, small = packaged(name, "full"), packaged(name, "small")
    assert small.name == f"{name}-small"
    assert small.model.flow.levels == full.model.flow.levels
    for part in ("knowledge", "child_knowledge"):
        a, b = getattr(small.model, part), getattr(full.model, part)
        assert (a.code_dim, a.z_steps) == (b.code_dim, b.z_steps)
    assert small.data.preparation.size == full.data.preparation.size
    if name != "hierarchy":  # whose small run is of grey images
        assert small.data.preparation == full.data.preparation
    assert small.data.balance == full.data.balance
    assert names_of(small) == names_of(full)
    kinds = ("knowledge", "classes", "exclusive", "binary_digits", "invert")
    for a, b in zip(small.data.sources, full.data.sources, strict=True):
        assert [getattr(a, key) for key in kinds] == [getattr(b, key) for key in kinds]
    # What is frozen while what trains; small ones may go on with what is below.
    trains = [stage.train for stage in small.stages if stage.train != "children"]
    assert trains == [stage.train for stage in full.stages]
    assert smaller(small, full)


def test_fewer_steps_stand_for_fewer_in_the_same_order():
    steps = {n: packaged(n, "small").model.flow.steps for n in STEPS}
    assert steps["baseline-cifar10"] > steps["specialise-cifar"]
    assert steps["specialise-cifar-flow"] == steps["specialise-cifar"]


def test_the_t_flow_that_is_frozen_sees_one_data_set_and_its_kinds_two():
    assert names_of(packaged("specialise-cifar-flow", "full")) == ["cifar10"]
    assert names_of(packaged("specialise-cifar", "full")) == ["cifar10", "mnist"]


@pytest.mark.parametrize("name", ["multi-data", "specialise-multi", "hierarchy", "cifar-bits"])
def test_six_data_sets(name):
    assert sorted(names_of(packaged(name, "full"))) == sorted(NAMES)


def test_nothing_is_smaller_about_the_full_recipe():
    for name in STEPS:
        assert smaller(packaged(name, "full"), packaged(name, "full")) == ()
