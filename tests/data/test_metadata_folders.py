"""Folders with a metadata file, in the convention of the hub's imagefolder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tzk_core.data.sources import Columns, class_names, load
from tzk_core.errors import UsageError, WorkFailed

ROWS = [
    {"file_name": "b.png", "label": "dog", "smiling": True, "hat": None, "age": 7},
    {"file_name": "a.png", "label": "cat", "smiling": False, "hat": True, "age": 9},
    {"file_name": "deep/c.png", "label": None, "smiling": None, "hat": False, "age": 7},
]


def _write(folder: Path, kind: str, rows=ROWS) -> None:
    if kind == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        names = list(rows[0])
        cells = [["" if row[n] is None else str(row[n]) for n in names] for row in rows]
        text = "\n".join(",".join(line) for line in [names, *cells]) + "\n"
    (folder / f"metadata.{kind}").write_text(text)


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "faces"
    (root / "deep").mkdir(parents=True)
    for level, name in enumerate(("a.png", "b.png", "deep/c.png", "d.png")):
        Image.new("L", (32, 32), level).save(root / name)
    return root


def _known(images, file: int) -> tuple:
    """(label, attributes) of the image of level ``file``, whatever the order."""
    [index] = [i for i, image in enumerate(images.pixels) if image[0, 0, 0] == file]
    label = images.labels[index]
    attributes = {name: int(values[index]) for name, values in images.attributes.items()}
    return (None if label < 0 else images.label_names[label]), attributes


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_and_attributes(folder, kind):
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "metadata.parquet")
    else:
        _write(folder, kind)
    for cache in (True, True, False):
        images = load(folder, columns=Columns(attributes=True), cache=cache)
        assert len(images) == 4
        assert images.label_names == ["cat", "dog"]
        assert _known(images, 0) == ("cat", {"smiling": 0, "hat": 1})
        assert _known(images, 1) == ("dog", {"smiling": 1, "hat": -1})
        assert _known(images, 2) == (None, {"smiling": -1, "hat": 0})
        # No row tells of it.
        assert _known(images, 3) == (None, {"smiling": -1, "hat": -1})
    assert class_names(folder) == ["cat", "dog"]


def test_named_columns(folder):
    _write(folder, "csv")
    images = load(folder, columns=Columns(label="age", attributes=("hat",)))
    assert images.label_names == ["7", "9"]
    assert _known(images, 2) == ("7", {"hat": 0})
    with pytest.raises(UsageError, match=r"no column 'beard'; it has label, smiling, hat, age"):
        load(folder, columns=Columns(attributes=("beard",)))
    with pytest.raises(UsageError, match=r"'9' in the column 'age'; an attribute is true or false"):
        load(folder, columns=Columns(attributes=("age",)))


def test_numbers_in_a_csv_are_in_the_order_of_numbers(folder):
    rows = [{"file_name": f, "label": n} for f, n in (("a.png", 10), ("b.png", 9), ("d.png", 100))]
    _write(folder, "csv", rows)
    assert load(folder).label_names == ["9", "10", "100"]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([1, "cat"], "holds number and str as labels"),
        ([True, "cat"], "holds bool and str"),
        ([["cat", "dog"], ["dog"]], "holds list"),
        ([{"name": "cat"}, "dog"], "holds dict and str"),
    ],
)
def test_labels_that_cannot_be_put_in_order(folder, labels, told):
    rows = [{"file_name": f, "label": v} for f, v in zip(("a.png", "b.png"), labels)]
    _write(folder, "jsonl", rows)
    for read in (load, class_names):
        with pytest.raises(UsageError, match=f"the column 'label' of faces {told}"):
            read(folder)


def test_numbers_of_both_kinds_are_labels_and_nan_is_none(folder):
    rows = [{"file_name": f, "label": v} for f, v in (("a.png", 2.5), ("b.png", 2))]
    _write(folder, "jsonl", [*rows, {"file_name": "d.png", "label": float("nan")}])
    images = load(folder)
    assert images.label_names == ["2", "2.5"]
    assert _known(images, 3)[0] is None


def test_lists_are_no_attributes(folder):
    rows = [{"file_name": f, "tags": ["x"], "old": v} for f, v in (("a.png", 1), ("b.png", 0))]
    _write(folder, "jsonl", [row | {"old": bool(row["old"])} for row in rows])
    assert list(load(folder, columns=Columns(attributes=True)).attributes) == ["old"]


def test_minus_one_for_absent_is_refused(folder):
    """As CelebA's own list has it: it would become unknown, and no image a negative."""
    rows = [{"file_name": f, "bald": v} for f, v in (("a.png", 1), ("b.png", -1), ("d.png", -1))]
    _write(folder, "csv", rows)
    with pytest.raises(UsageError, match="'bald' of faces is 1 or −1 and never 0"):
        load(folder, columns=Columns(attributes=("bald",)))


def test_class_folders_count_where_the_metadata_has_no_label(folder, class_folder):
    rows = [{"file_name": "0/1.png", "old": True}, {"file_name": "1/0.png", "old": False}]
    _write(class_folder, "jsonl", rows)
    images = load(class_folder, columns=Columns(attributes=True))
    assert images.label_names == ["0", "1", "2"]
    assert images.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert images.attributes["old"].tolist() == [-1, 1, -1, -1, 0, *[-1] * 7]


def test_one_file_for_all_splits(folder, tmp_path):
    root = tmp_path / "divided"
    for split, name in (("train", "a.png"), ("train", "b.png"), ("test", "d.png")):
        (root / split).mkdir(parents=True, exist_ok=True)
        (root / split / name).write_bytes((folder / name).read_bytes())
    rows = [
        {"file_name": "train/a.png", "label": "x"},
        {"file_name": "train/b.png", "label": "y"},
        {"file_name": "test/d.png", "label": "x"},
    ]
    _write(root, "csv", rows)
    train, test = load(root), load(root, split="test")
    assert (_known(train, 0)[0], _known(train, 1)[0], len(train)) == ("x", "y", 2)
    assert (_known(test, 3)[0], len(test)) == ("x", 1)


def test_a_file_that_is_not_there_is_skipped_and_named(folder):
    _write(folder, "csv", [*ROWS, dict(ROWS[0], file_name="gone.png")])
    with pytest.raises(WorkFailed, match=r"1 of 5.*gone\.png: No such file"):
        load(folder)
    assert len(load(folder, max_bad_share=0.5)) == 4


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("metadata.csv", "name,label\na.png,x\n", "no column 'file_name'"),
        ("metadata.csv", "file_name,label\na.png,x,y\n", "more or fewer fields"),
        ("metadata.csv", "file_name,label\na.png,x\na.png,y\n", "names a.png twice"),
        ("metadata.csv", "file_name,label\n,x\n", "row 0: there is no file_name"),
        ("metadata.csv", "", "no column 'file_name'"),
        ("metadata.jsonl", "{]", "cannot be read as metadata"),
        ("metadata.jsonl", "3\n", "not an object"),
        ("metadata.parquet", "junk", "cannot be read as metadata"),
    ],
)
def test_metadata_that_is_wrong(folder, file, text, told):
    (folder / file).write_text(text)
    with pytest.raises(UsageError, match=told):
        load(folder)


def test_two_metadata_files(folder):
    _write(folder, "csv")
    _write(folder, "jsonl")
    with pytest.raises(UsageError, match=r"metadata\.csv and metadata\.jsonl"):
        load(folder)


def test_attributes_without_metadata(folder):
    with pytest.raises(UsageError, match="no metadata"):
        load(folder, columns=Columns(attributes=("smiling",)))
