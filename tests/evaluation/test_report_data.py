"""Which images an evaluation is of, and what is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_model import tiny_model

from tzk_core.config import KnowledgeConfig
from tzk_core.data.decoding import encode_png
from tzk_core.data.images import content_keys, held_out
from tzk_core.data.preparation import Preparation
from tzk_core.data.sources import load
from tzk_core.errors import UsageError
from tzk_core.evaluation.report.asked import read_against, read_asked, recipe_of, weights_of
from tzk_core.evaluation.report.data import classes_of, data_sets, known, read_source
from tzk_core.evaluation.settings import QUICK, Settings
from tzk_core.hub import sha256
from tzk_core.training.progress import Reporter
from tzk_core.training.recipe import SourceConfig, parse_recipe

QUIET = Reporter(quiet=True)
SMALL = Preparation(size=16)


def folder(path: Path, pixels: np.ndarray) -> str:
    path.mkdir(parents=True)
    for number, image in enumerate(pixels):
        (path / f"{number:03}.png").write_bytes(encode_png(image))
    return str(path)


@pytest.fixture
def digits(tmp_path, mnist) -> str:
    """Class folders 3, 4 and 5 below train and test."""
    for split, first in (("train", 0), ("test", 12)):
        for digit in (3, 4, 5):
            own = mnist.pixels[mnist.labels == digit][first : first + 12]
            folder(tmp_path / "digits" / split / str(digit), own)
    return str(tmp_path / "digits")


def source(config: SourceConfig, name="mnist", **options):
    options = {"test_images": 1000, "seed": 0, "holdout": 0.1} | options
    return read_source(config, name, SMALL, **options)


def test_test_images_are_those_of_the_test_split(digits):
    found = source(SourceConfig(source=digits, knowledge="mnist", classes=True))
    test = load(digits, split="test", preparation=SMALL)
    assert np.array_equal(found.test.pixels, test.pixels)
    assert found.chosen == "its test split"
    assert found.facts["images"] == {"training": 36, "test": 36}
    assert len(source(found.config, test_images=9).test) == 9


def test_without_a_test_split_they_are_what_training_held_out(tmp_path, mnist):
    where = folder(tmp_path / "digits", mnist.pixels[:60])
    config = SourceConfig(source=where, knowledge="mnist")
    found = source(config, seed=7, holdout=0.25)
    every = load(where, preparation=SMALL)
    [held] = held_out([content_keys(every.pixels, 7)], 0.25)
    assert np.array_equal(found.test.pixels, every.pixels[held])
    assert np.array_equal(found.train.pixels, every.pixels[~held])
    assert "seed 7" in found.chosen


def test_it_is_the_split_of_training(tmp_path, mnist):
    """What `tzk train` trained on is none of the test images."""
    from tzk_core.training.dataset import load_data

    where = folder(tmp_path / "digits", mnist.pixels[:60])
    recipe = parse_recipe(
        {
            "name": "x",
            "seed": 5,
            "data": {"preparation": {"size": 16}, "holdout": 0.2, "sources": [{"source": where}]},
            "stages": [{"train": "flow", "steps": 1}],
        }
    )
    train, held = load_data(recipe.data, recipe.seed)
    found = source(recipe.data.sources[0], seed=recipe.seed, holdout=0.2)
    assert np.array_equal(found.train.pixels, np.asarray(train.pixels))
    assert np.array_equal(found.test.pixels, np.asarray(held.pixels))


def test_classes_are_those_that_the_model_knows(digits):
    found = source(SourceConfig(source=digits, knowledge="mnist", classes=True))
    paths = ["mnist", "mnist/5", "mnist/3"]
    classes = classes_of(found, paths)
    assert (classes.name, classes.parent, classes.paths) == ("mnist", "mnist", paths[:0:-1])
    names = [found.test.label_names[label] for label in found.test.labels[classes.index]]
    assert [classes.paths[label] for label in classes.labels] == [f"mnist/{n}" for n in names]
    pixels, labels = classes.training
    assert (len(pixels), labels.unique().tolist()) == (24, [0, 1])
    whole = classes_of(found, ["mnist", "mnist/3", "mnist/4", "mnist/5"])
    assert whole.fingerprint == found.train.fingerprint != classes.fingerprint
    assert classes_of(found, ["mnist", "mnist/3"]) is None
    assert classes_of(source(found.config.model_copy(update={"classes": False})), paths) is None


def test_test_labels_that_training_has_not_are_unknown(digits, mnist):
    folder(Path(digits) / "test" / "7", mnist.pixels[mnist.labels == 7][:5])
    found = source(SourceConfig(source=digits, knowledge="mnist", classes=True))
    assert (found.test.labels == -1).sum() == 5
    assert found.test.label_names == ["3", "4", "5"]


def test_data_sets_exclude_each_other_unless_they_overlap(digits, tmp_path, fashion):
    garments = folder(tmp_path / "garments" / "train", fashion.pixels[:9])
    folder(tmp_path / "garments" / "test", fashion.pixels[9:12])
    configs = [
        SourceConfig(source=digits, knowledge="mnist"),
        SourceConfig(source=str(Path(garments).parent), knowledge="fashion"),
    ]
    sources = [source(each, each.knowledge) for each in configs]
    found = data_sets(sources, ["mnist", "fashion"])
    assert found.paths == ["mnist", "fashion"]
    assert found.parent is None
    assert found.labels.tolist() == [0] * 36 + [1] * 3
    assert found.training[1].tolist() == [0] * 36 + [1] * 9
    assert found.index.tolist() == list(range(39))
    e = known(sources).existence
    assert e["mnist"].tolist() == [1] * 36 + [0] * 3
    assert data_sets(sources, ["mnist"]) is None
    sources[0].config.overlaps = ["fashion"]
    assert data_sets(sources, ["mnist", "fashion"]) is None


# -- what is asked ---------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, digits) -> Path:
    """A model of mnist with 3 and 4, and of fashion; its recipe tells of mnist."""
    small = KnowledgeConfig(code_dim=2, code_steps=1, code_width=8, z_steps=1, z_width=8)
    tiny_model().add_knowledge("mnist/4", small).save_pretrained(tmp_path / "run")
    recipe = {
        "name": "x",
        "data": {"sources": [{"source": digits, "knowledge": "mnist", "classes": True}]},
        "stages": [{"train": "flow", "steps": 1}],
    }
    (tmp_path / "run" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path / "run"


def asked(run, *data):
    return read_asked(run, tiny_model(), data, QUICK, QUIET)


def test_without_data_it_is_the_recipes(run, digits):
    [found] = asked(run)
    assert (found.name, found.config.source, found.config.classes) == ("mnist", digits, True)
    # of a checkpoint too
    assert recipe_of(run / "checkpoints" / "1-000005") == recipe_of(run)
    assert recipe_of(run / "checkpoints") is None


def test_data_takes_what_the_recipe_says_of_the_kind(run, digits):
    both = asked(run, f"mnist={digits}", f"fashion={digits}")
    assert [(s.name, s.config.classes) for s in both] == [("mnist", True), ("fashion", False)]
    # without a recipe, classes are what the model knows of the labels
    (run / "recipe.yaml").unlink()
    assert [s.config.classes for s in asked(run, f"mnist={digits}")] == [True]
    with pytest.raises(UsageError, match=r"no recipe\.yaml.*KIND=SOURCE.*mnist, fashion"):
        asked(run)


def test_what_is_wrong_is_named(run, digits):
    with pytest.raises(UsageError, match="no kind 'cifar'; it knows mnist, fashion"):
        asked(run, f"cifar={digits}")
    with pytest.raises(UsageError, match=f"KIND={digits}, KIND one of mnist, fashion"):
        asked(run, digits)
    (run / "recipe.yaml").write_text("data: [")
    with pytest.raises(UsageError, match="not YAML"):
        asked(run)


def test_a_model_without_knowledge_takes_any_source(run, digits):
    model = tiny_model().remove_knowledge("mnist").remove_knowledge("fashion")
    (run / "recipe.yaml").unlink()
    [found] = read_asked(run, model, [digits], QUICK, QUIET)
    assert (found.name, found.config.knowledge) == ("digits", None)
    with pytest.raises(UsageError, match="it knows none: give --data SOURCE"):
        read_asked(run, model, [f"mnist={digits}"], QUICK, QUIET)
    with pytest.raises(UsageError, match="--data SOURCE"):
        read_asked(run, model, [], QUICK, QUIET)


def test_classes_of_the_first_level(run, digits):
    small = KnowledgeConfig(code_dim=2, code_steps=1, code_width=8, z_steps=1, z_width=8)
    model = tiny_model().add_knowledge("3", small).add_knowledge("5", small)
    (run / "recipe.yaml").unlink()
    [found] = read_asked(run, model, [digits], QUICK, QUIET)
    assert classes_of(found, model.paths()).paths == ["3", "5"]


def test_against_takes_test_images_where_there_are_some(digits, tmp_path, fashion):
    plain = folder(tmp_path / "plain", fashion.pixels[:4])
    found = read_against([digits, plain], tiny_model(), Settings(test_images=20), QUIET)
    assert [(images.name, len(images)) for images in found] == [("digits", 20), ("plain", 4)]


def test_weights_are_those_of_the_file(run):
    model = tiny_model()
    weights, config = weights_of(run, model)
    assert weights == sha256(run / "model.safetensors")
    other, again = weights_of("owner/name", model)
    assert (again, other) == (config, weights_of("owner/name", tiny_model())[0])
    model.statistics["typicality"] = {"changed": 1}
    assert weights_of("owner/name", model) == (other, weights_of(run, model)[1])
    assert weights_of(run, model)[1] != config


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="samples must be at least 2, not 1"):
        Settings(samples=1)
    with pytest.raises(UsageError, match="temperatures"):
        Settings(temperatures=(float("nan"),))
    with pytest.raises(UsageError, match="draws"):
        Settings(draws=())
