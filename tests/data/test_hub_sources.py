"""The paper's six data sets under the hub's names, on files of the hub's layout and schema.

The features are those of the data sets' cards; the repositories are folders, which `datasets`
loads as it loads one of the hub.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

from tzk_core.data import tables
from tzk_core.data.decoding import encode_png
from tzk_core.data.hub_names import HUB
from tzk_core.data.preparation import Preparation
from tzk_core.data.sources import Columns, load, splits
from tzk_core.errors import UsageError

datasets = pytest.importorskip("datasets", reason="the extra 'train' reads tables")

DIGITS = [str(digit) for digit in range(10)]
_TOLD = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose "
    "Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee "
    "Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard "
    "Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair "
    "Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young"
)
ATTRIBUTES = _TOLD.split()


def _label(names) -> object:
    return datasets.ClassLabel(names=list(names))


# Of each: the configuration of its card, features, the size and channels of an image, splits.
SCHEMAS = {
    "mnist": ("mnist", {"image": None, "label": _label(DIGITS)}, (28, 28, 1), "train test"),
    "cifar10": (
        "plain_text",
        {"img": None, "label": _label("abcdefghij")},
        (32, 32, 3),
        "train test",
    ),
    "omniglot": (
        "default",
        {
            "image": None,
            "alphabet": _label(f"alphabet {n}" for n in range(50)),
            "alphabet_char_id": datasets.Value("int64"),
            "label": _label(f"character {n}" for n in range(1623)),
        },
        (105, 105, 3),
        "train test small1 small2",
    ),
    "svhn": (
        "cropped_digits",
        {"image": None, "label": _label(DIGITS)},
        (32, 32, 3),
        "train test extra",
    ),
    "imagenet32": (
        "default",
        {"image": None, "label": _label(f"class {n}" for n in range(1000))},
        (32, 32, 3),
        "train validation test",
    ),
    "celeba": (
        "img_align+identity+attr",
        {"image": None, "celeb_id": datasets.Value("int64")}
        | {name: datasets.Value("bool") for name in ATTRIBUTES},
        (178, 218, 3),
        "train valid test",
    ),
}


def _image(split: int, row: int, size: tuple[int, int, int]) -> dict:
    width, height, channels = size
    pixels = np.full((channels, height, width), 10 * split + row, dtype=np.uint8)
    return {"bytes": encode_png(pixels), "path": None}


def _value(column: str, feature, row: int):
    if isinstance(feature, datasets.ClassLabel):
        return row % feature.num_classes
    return (len(column) + row) % 2 == 0 if feature.dtype == "bool" else row


@pytest.fixture(params=sorted(SCHEMAS))
def name(request, tmp_path, monkeypatch) -> str:
    """A short name whose repository is a folder here, of three images a split."""
    name = request.param
    configuration, features, size, there = SCHEMAS[name]
    features = datasets.Features(features | {next(iter(features)): datasets.Image()})
    root = tmp_path / "owner" / name
    files = []
    for number, split in enumerate(there.split()):
        columns = {
            column: [
                _image(number, row, size)
                if isinstance(feature, datasets.Image)
                # The hub's test split of ImageNet has no labels.
                else (
                    -1 if (name, split) == ("imagenet32", "test") else _value(column, feature, row)
                )
                for row in range(3)
            ]
            for column, feature in features.items()
        }
        path = f"{configuration}/{split}-00000-of-00001.parquet"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(columns, features=features).to_parquet(root / path)
        files.append({"split": split, "path": path})
    card = {"configs": [{"config_name": configuration, "data_files": files}]}
    (root / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setitem(HUB, name, dataclasses.replace(HUB[name], repository=str(root)))
    return name


def test_columns_and_splits(name):
    configuration, features, _, _ = SCHEMAS[name]
    assert HUB[name].configuration in (None, configuration)
    preparation = Preparation(channels=3)
    images = load(name, preparation=preparation, cache=True)
    assert images.pixels.shape == (3, 3, 32, 32)
    assert images.pixels[:, 0, 16, 16].tolist() == [0, 1, 2]
    column = "alphabet" if name == "omniglot" else "label"
    if column in features:
        assert images.label_names == features[column].names
        assert images.labels.tolist() == [0, 1, 2]
    else:
        assert (images.label_names, images.labels.tolist()) == ([], [-1, -1, -1])
    native = 28 * 28 if name == "mnist" else 32 * 32 * 3
    assert images.native_dims.tolist() == [native] * 3
    again = load(name, preparation=preparation, cache=True)
    assert "found in the cache" in again.notes[0]
    assert again.fingerprint == images.fingerprint
    assert splits(name) == ["train", "test"]
    test = load(name, split="test", preparation=preparation)
    number = {"imagenet32": 1, "celeba": 2}.get(name, 1)
    assert test.pixels[:, 0, 16, 16].tolist() == [10 * number, 10 * number + 1, 10 * number + 2]
    assert test.labels.tolist() == images.labels.tolist()


@pytest.mark.parametrize("name", ["celeba"], indirect=True)
def test_the_attributes_of_celeba(name):
    images = load(name, columns=Columns(attributes=True), cache=True)
    assert list(images.attributes) == ATTRIBUTES
    assert len(ATTRIBUTES) == 40
    for attribute, values in images.attributes.items():
        expected = [(len(attribute) + row) % 2 == 0 for row in range(3)]
        assert values.tolist() == [int(value) for value in expected]
    some = load(name, columns=Columns(attributes=("Male", "Bald")))
    assert list(some.attributes) == ["Male", "Bald"]
    # The people are integers, which are classes only if they are asked for.
    people = load(name, columns=Columns(label="celeb_id"))
    assert people.label_names == ["0", "1", "2"]


@pytest.mark.parametrize("name", ["omniglot"], indirect=True)
def test_another_label_column(name):
    images = load(name, columns=Columns(label="label"))
    assert images.label_names[2] == "character 2"
    with pytest.raises(UsageError, match="no column 'letter'; there are image, alphabet"):
        load(name, columns=Columns(label="letter"))


@pytest.mark.parametrize("name", ["mnist"], indirect=True)
def test_attributes_where_there_are_none(name):
    with pytest.raises(UsageError, match="no columns of booleans"):
        load(name, columns=Columns(attributes=True))


def test_a_full_name_has_the_columns_of_its_short_one():
    for source in HUB.values():
        assert tables.hub_source(source.repository) == source
    assert tables.hub_source("somebody/else").columns == Columns()


def test_every_short_name_is_a_name_of_the_hub():
    for source in HUB.values():
        assert Path(source.repository).parent.name
        assert source.repository.count("/") == 1
