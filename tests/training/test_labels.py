"""What is known of every image, for each path (design, section 11)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tzk_core.config import FlowConfig, KnowledgeConfig
from tzk_core.data.images import Images
from tzk_core.errors import UsageError
from tzk_core.training.labels import UNKNOWN, Known, binary_digits, existence_of
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


def test_images_of_a_source_without_knowledge_are_no_negatives():
    """Semi-supervised: what is not labelled trains the t-flow only."""
    assert existence(
        (source(knowledge="a"), images([-1], [])),
        (source(), images([-1, -1], [])),
        (source(knowledge="b"), images([-1], [])),
    ) == {"a": [1, UNKNOWN, UNKNOWN, 0], "b": [0, UNKNOWN, UNKNOWN, 1]}


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


# --- overlaps, attributes, binary digits ----------------------------------------------------------


def test_data_sets_that_overlap_are_unknown_of_each_other():
    parts = [
        (source(knowledge="faces", overlaps=["photos"]), images([-1], [])),
        (source(knowledge="photos"), images([-1, -1], [])),
        (source(knowledge="digits"), images([-1], [])),
    ]
    u = UNKNOWN
    assert existence(*parts) == {
        "faces": [1, u, u, 0],
        "photos": [u, 1, 1, 0],
        "digits": [0, 0, 0, 1],
    }


def test_a_source_that_nobody_names_may_hold_all():
    """What it says that it overlaps with, and the rest."""
    assert existence(
        (source(knowledge="faces"), images([-1], [])),
        (source(knowledge="digits"), images([-1], [])),
        (source(overlaps=["faces"]), images([-1], [])),
    ) == {"faces": [1, 0, UNKNOWN], "digits": [0, 1, UNKNOWN]}


def with_attributes(labels: list[int], names: list[str], **attributes) -> Images:
    plain = images(labels, names)
    return dataclasses.replace(
        plain, attributes={k: np.array(v, np.int8) for k, v in attributes.items()}
    )


def test_attributes_are_given_as_they_are():
    faces = with_attributes([-1, -1, -1], [], Wearing_Hat=[1, 0, -1], Young=[1, 1, 0])
    asked = source(knowledge="faces", attributes=True)
    u = UNKNOWN
    other = (source(knowledge="digits"), images([-1], []))
    assert existence((asked, faces), other) == {
        "faces": [1, 1, 1, 0],
        "faces/wearing_hat": [1, 0, u, u],
        "faces/young": [1, 1, 0, u],
        "digits": [0, 0, 0, 1],
    }
    at_root = existence((asked.model_copy(update={"at_root": True}), faces), other)
    assert at_root["wearing_hat"] == [1, 0, u, u]
    assert "faces/young" not in at_root
    alone = existence((source(attributes=["Young"]), with_attributes([-1], [], Young=[1])))
    assert alone == {"young": [1]}
    known = existence_of([(asked, faces)])
    assert known.labels["faces/wearing_hat"] == "Wearing_Hat"


def test_attributes_of_two_sources_at_the_root_are_one_kind():
    parts = [
        (source(knowledge=name, attributes=True, at_root=True), with_attributes([-1], [], Old=[v]))
        for name, v in (("a", 1), ("b", 0))
    ]
    assert existence(*parts) == {"a": [1, 0], "b": [0, 1], "old": [1, 0]}


def test_binary_digits_of_the_label():
    """Label 3 of ten is 0011 (paper, Section 4.4)."""
    cifar = images([3, 9, 4, -1], [f"class {n}" for n in range(10)])
    u = UNKNOWN
    expected = {
        "bit0": [1, 1, 0, u],
        "bit1": [1, 0, 0, u],
        "bit2": [0, 0, 1, u],
        "bit3": [0, 1, 0, u],
    }
    assert existence((source(binary_digits=True), cifar)) == expected
    below = existence((source(knowledge="cifar10", binary_digits=True), cifar))
    assert below == {"cifar10": [1] * 4} | {f"cifar10/{k}": v for k, v in expected.items()}


def test_labels_that_are_numbers_are_those_numbers():
    """The names of class folders are in the order of text: 0, 10, 2."""
    digits = binary_digits(images([0, 1, 2], ["0", "10", "2"]))
    assert digits.tolist() == [[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 0, 0]]
    with pytest.raises(UsageError, match="no labels, but its recipe says binary_digits"):
        existence_of([(source(binary_digits=True), images([-1], []))])


def test_two_kinds_of_one_name():
    faces = with_attributes([0], ["Young"], young=[1])
    with pytest.raises(UsageError, match="two kinds called 'young'"):
        existence_of([(source(classes=True, attributes=True), faces)])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"sources": [{"source": "x", "exclusive": True, "binary_digits": True}]}, "exclusive"),
        ({"sources": [{"source": "x", "knowledge": "a", "overlaps": ["b"]}]}, "overlaps"),
        ({"sources": [{"source": "x", "knowledge": "a", "overlaps": ["a"]}]}, "overlaps"),
        ({"sources": [{"source": "x", "weight": 1}, {"source": "y"}]}, "weight"),
        ({"sources": [{"source": "x", "weight": 0}]}, "weight"),
    ],
)
def test_recipes_that_contradict_themselves(data, told):
    from tzk_core.training.recipe import parse_recipe

    with pytest.raises(UsageError, match=told):
        parse_recipe({"name": "x", "data": data, "stages": [{"train": "flow", "steps": 1}]})


def test_an_attribute_of_the_first_level_is_a_job_of_its_own():
    """Its source's knowledge, whose classes exclude each other, is no kind of the job's model."""
    from tzk_core.config import TzKConfig
    from tzk_core.model import TzK
    from tzk_core.training.dataset import Dataset
    from tzk_core.training.fit_job import job_of
    from tzk_core.training.recipe import parse_recipe
    from tzk_core.training.run import add_known_kinds

    asked = {
        "source": "x",
        "knowledge": "faces",
        "classes": True,
        "exclusive": True,
        "attributes": ["smile"],
        "at_root": True,
    }
    recipe = parse_recipe(
        {
            "name": "x",
            "data": {"sources": [asked]},
            "stages": [{"train": "flow", "steps": 1}, {"train": "knowledge", "steps": 1}],
        }
    )
    recipe.model.child_flow = FlowConfig(steps=1, width=4)
    faces = with_attributes([0, 1], ["x", "y"], smile=[1, 0])
    data = Dataset(
        pixels=torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
        native_dims=torch.full((2,), 64),
        known=existence_of([(recipe.data.sources[0], faces)]),
        names=["faces"],
        origin=torch.zeros(2, dtype=torch.int64),
        fingerprints={},
        skipped=[],
    )
    for name, paths in (("smile", ["smile"]), ("faces", ["faces", "faces/x", "faces/y"])):
        job = job_of(name, data, recipe, recipe.stages[1], 1, [], "cpu")
        model = TzK(TzKConfig(observation=(1, 8, 8), flow=FlowConfig(levels=1, steps=1, width=4)))
        known = Known(job.labels, {k: torch.tensor(e) for k, e in job.existence.items()})
        add_known_kinds(model, known, job.recipe)
        assert model.paths() == paths
        if name == "faces":
            assert model.find("faces").child._base_config.exclusive
    assert recipe.data.sources[0].exclusive
