"""What is known of every image, for each path (design, section 11)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tzk_core.config import FlowConfig, KnowledgeConfig
from tzk_core.data.images import Images
from tzk_core.errors import UsageError
from tzk_core.training.labels import UNKNOWN, existence_of
from tzk_core.training.recipe import SourceConfig


def images(labels: list[int], names: list[str], name: str = "x") -> Images:
    count = len(labels)
    return Images(
        pixels=np.zeros((count, 1, 8, 8), np.uint8),
        labels=np.array(labels, np.int64),
        label_names=names,
        native_dims=np.full(count, 64),
        name=name,
    )


def source(**options) -> SourceConfig:
    return SourceConfig(source="x", **options)


def existence(*parts) -> dict[str, list[int]]:
    known = existence_of(list(parts))
    assert known.labels.keys() == known.existence.keys()
    return {path: e.tolist() for path, e in known.existence.items()}


def test_data_sets_exclude_each_other():
    assert existence(
        (source(knowledge="a"), images([-1, -1], [])), (source(knowledge="b"), images([-1], []))
    ) == {"a": [1, 1, 0], "b": [0, 0, 1]}


def test_a_source_without_knowledge_is_none_of_the_others():
    assert existence(
        (source(knowledge="a"), images([-1], [])), (source(), images([-1, -1], []))
    ) == {"a": [1, 0, 0]}


def test_two_sources_of_one_knowledge():
    assert existence(
        (source(knowledge="a"), images([-1], [])),
        (source(knowledge="b"), images([-1], [])),
        (source(knowledge="a"), images([-1], [])),
    ) == {"a": [1, 0, 1], "b": [0, 1, 0]}


def test_classes_exclude_each_other_within_their_source_and_are_unknown_elsewhere():
    assert existence(
        (source(knowledge="a", classes=True), images([0, 1, 1], ["x", "y"])),
        (source(knowledge="b"), images([0], ["x", "y"])),
    ) == {
        "a": [1, 1, 1, 0],
        "b": [0, 0, 0, 1],
        "a/x": [1, 0, 0, UNKNOWN],
        "a/y": [0, 1, 1, UNKNOWN],
    }


def test_an_unknown_label_is_not_a_negative():
    assert existence((source(knowledge="a", classes=True), images([0, -1, 1], ["x", "y"]))) == {
        "a": [1, 1, 1],
        "a/x": [1, UNKNOWN, 0],
        "a/y": [0, UNKNOWN, 1],
    }


def test_a_child_is_unknown_unless_its_parent_is_1():
    parts = [
        (source(knowledge=name, classes=True), images(labels, ["x", "y"]))
        for name, labels in (("a", [0, 1, -1]), ("b", [1, 1]))
    ]
    known = existence_of(parts).existence
    assert set(known) == {"a", "b", "a/x", "a/y", "b/x", "b/y"}
    for path, e in known.items():
        if "/" in path:
            parent = known[path.rpartition("/")[0]]
            assert bool((e[parent != 1] == UNKNOWN).all())


def test_classes_without_a_parent():
    assert existence((source(classes=True), images([1, 0], ["x", "y"]))) == {
        "x": [0, 1],
        "y": [1, 0],
    }


def test_labels_become_names_and_are_kept_for_display():
    known = existence_of(
        [(source(knowledge="f", classes=True), images([0, 1], ["T-shirt/top", "Ankle boot"]))]
    )
    assert known.labels == {
        "f": "f",
        "f/t-shirt-top": "T-shirt/top",
        "f/ankle-boot": "Ankle boot",
    }
    # Parents come first, so that they can be added in this order.
    assert next(iter(known.labels)) == "f"


def test_classes_where_there_are_no_labels():
    with pytest.raises(UsageError, match="x has no labels"):
        existence_of([(source(classes=True), images([-1], []))])


def test_kinds_are_added_from_what_is_known():
    from tzk_core.config import TzKConfig
    from tzk_core.model import TzK
    from tzk_core.training.recipe import parse_recipe
    from tzk_core.training.run import add_known_kinds

    recipe = parse_recipe(
        {
            "name": "x",
            "data": {"sources": [{"source": "x"}]},
            "stages": [{"train": "all", "steps": 1}],
        }
    )
    recipe.model.knowledge = KnowledgeConfig(code_dim=3, z_steps=1, decoder_width=8)
    recipe.model.child_flow = FlowConfig(steps=1, width=4)
    model = TzK(TzKConfig(observation=(1, 8, 8), flow=FlowConfig(levels=1, steps=1, width=4)))
    known = existence_of([(source(knowledge="a", classes=True), images([0, 1], ["One", "Two"]))])
    add_known_kinds(model, known, recipe)
    assert model.paths() == ["a", "a/one", "a/two"]
    assert model.label("a/two") == "Two"
    assert model.find("a").config.code_dim == 3
    assert model.find("a/one").config.code_dim == 2
    # Again, with a label that is new: what was there stays.
    before = {key: value.clone() for key, value in model.state_dict().items()}
    known = existence_of(
        [(source(knowledge="a", classes=True), images([0, 2], ["One", "Two", "Three"]))]
    )
    add_known_kinds(model, known, recipe)
    assert model.paths() == ["a", "a/one", "a/two", "a/three"]
    now = model.state_dict()
    assert all(torch.equal(now[k].nan_to_num(), before[k].nan_to_num()) for k in before)
