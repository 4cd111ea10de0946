from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tzk_core.data import sources
from tzk_core.data.decoding import encode_png
from tzk_core.data.hub_names import HubSource
from tzk_core.data.preparation import Preparation
from tzk_core.data.sources import load, splits
from tzk_core.errors import UsageError, WorkFailed

datasets = pytest.importorskip("datasets", reason="the extra 'train' reads tables")


def _write(path: Path, columns: dict, features=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
    return path


def _png(level: int, side: int = 32) -> dict:
    return {"bytes": encode_png(np.full((1, side, side), level, dtype=np.uint8)), "path": None}


# --- built-in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sources.BUILTIN)
def test_builtin_is_balanced_and_real(name):
    for split, count in (("train", 4000), ("test", 500)):
        images = load(name, split=split)
        assert images.pixels.shape == (count, 1, 32, 32)
        assert images.name == name.partition("/")[2]
        assert (np.bincount(images.labels) == count // 10).all()
        assert (images.native_dims == 784).all()
        assert not images.skipped
        assert not images.pixels[:, :, :2].any()  # the padding
        assert len({image.tobytes() for image in images.pixels}) > 0.99 * count
    assert splits(name) == ["train", "test"]


def test_builtin_is_what_it_was():
    """The pixels that figures in the documentation were made with."""
    digits, garments = (load(name, split="test") for name in sources.BUILTIN)
    assert digits.label_names == [str(d) for d in range(10)]
    assert garments.label_names[0] == "T-shirt/top"
    assert hashlib.sha256(digits.pixels.tobytes()).hexdigest()[:16] == "0a27ffa97dd01c98"
    assert hashlib.sha256(garments.pixels.tobytes()).hexdigest()[:16] == "34d5565cc5c29869"


def test_builtin_is_small():
    folder = Path(sources.__file__).parent / "builtin"
    assert sum(file.stat().st_size for file in folder.rglob("*.parquet")) <= 4_000_000


def test_loading_twice_gives_the_same(mnist):
    assert load("builtin/mnist", split="test").fingerprint == mnist.fingerprint


def test_the_limit_spreads_over_the_source(class_folder):
    images = load(class_folder, limit=6)
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(load(class_folder, limit=100)) == 12
    with pytest.raises(UsageError, match="at least 1"):
        load(class_folder, limit=0)


def test_progress_is_told(mnist):
    told = []
    load("builtin/mnist", split="test", progress=lambda done, total: told.append((done, total)))
    assert told == [(256, 500), (500, 500)]


# --- folders ------------------------------------------------------------------------------------


def test_class_folders(class_folder, mnist):
    images = load(str(class_folder))
    assert images.name == "digits"
    assert images.label_names == ["0", "1", "2"]
    assert np.bincount(images.labels).tolist() == [4, 4, 4]
    np.testing.assert_array_equal(images.pixels[4], mnist.pixels[mnist.labels == 1][0])
    assert splits(class_folder) == ["train"]


def test_a_folder_without_classes(class_folder):
    images = load(class_folder / "1")
    assert (images.labels == -1).all()
    assert images.label_names == []


def test_nested_hidden_and_foreign_files(class_folder):
    (class_folder / "0" / "deeper").mkdir()
    shutil.copy(class_folder / "0" / "0.png", class_folder / "0" / "deeper" / "UPPER.PNG")
    (class_folder / "0" / "notes.txt").write_text("no image")
    (class_folder / "0" / ".hidden.png").write_text("no image")
    (class_folder / "__MACOSX").mkdir()
    shutil.copy(class_folder / "0" / "0.png", class_folder / "__MACOSX" / "0.png")
    (class_folder / "empty").mkdir()
    (class_folder / "0" / "again").symlink_to(class_folder / "0", target_is_directory=True)
    images = load(class_folder)
    assert images.label_names == ["0", "1", "2"]
    assert np.bincount(images.labels).tolist() == [5, 4, 4]


def test_a_folder_with_splits(class_folder, tmp_path):
    root = tmp_path / "divided"
    shutil.copytree(class_folder, root / "train")
    shutil.copytree(class_folder / "2", root / "val" / "2")
    assert splits(root) == ["train", "test"]
    assert len(load(root)) == 12
    test = load(root, split="test")
    assert (len(test), test.label_names) == (4, ["2"])


def test_a_class_that_is_called_like_a_split(class_folder):
    (class_folder / "1").rename(class_folder / "train")
    assert splits(class_folder) == ["train"]
    images = load(class_folder)
    assert (len(images), images.label_names) == (12, ["0", "2", "train"])
    (class_folder / "train").rename(class_folder / "test")
    assert splits(class_folder) == ["train"]
    assert load(class_folder).label_names == ["0", "2", "test"]


def test_folders_that_may_be_splits_or_classes(class_folder, tmp_path):
    root = tmp_path / "divided"
    shutil.copytree(class_folder, root / "train")
    (root / "notes").mkdir()  # without images
    assert len(load(root)) == 12
    shutil.copytree(class_folder / "0", root / "extra")
    told = "has 'train', called like splits, beside 'extra'"
    with pytest.raises(UsageError, match=told):
        load(root)
    shutil.copytree(class_folder / "2", root / "test")
    for split in ("train", "test"):
        with pytest.raises(UsageError, match="has 'test' and 'train', called like"):
            load(root, split=split)
    assert len(load(root / "train")) == 12
    shutil.rmtree(root / "extra")
    assert splits(root) == ["train", "test"]
    shutil.rmtree(root / "train")
    with pytest.raises(UsageError, match=r"no train split \(it has a test split\)"):
        load(root)


def test_other_kinds_of_images_are_counted_and_told(class_folder):
    Image.new("L", (32, 32), 9).save(class_folder / "0" / "phone.JFIF", "JPEG")
    for name in ("0/a.heic", "1/b.HEIC", "c.avif", ".d.heic"):
        (class_folder / name).write_bytes(b"not read")
    (class_folder / "notes.txt").write_text("no image")
    for cache in (False, True, True):
        images = load(class_folder, cache=cache)
        assert len(images) == 13
        assert images.notes[1:] == [
            "digits: 3 files look like images and are not read (2 .heic, 1 .avif): save them as "
            "PNG or JPEG"
        ]
    (class_folder / "3").mkdir()
    (class_folder / "3" / "a.heic").write_bytes(b"not read")
    with pytest.raises(UsageError, match=r"holds no images .*; 1 files look like images"):
        load(class_folder / "3")


def test_colour_that_is_turned_to_grey_is_told(class_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TZK_CACHE", str(tmp_path / "cache"))
    Image.new("RGB", (32, 32), (255, 0, 0)).save(class_folder / "0" / "photo.png")
    for cache in (False, True, True):  # in memory, newly cached, found in the cache
        assert load(class_folder, cache=cache).notes[1:] == [
            "digits: 1 of 13 images have colour channels and are turned to grey; "
            "--set data.preparation.channels=3 keeps colour"
        ]
    for preparation in (Preparation(channels=3), None):
        if preparation is None:
            (class_folder / "0" / "photo.png").unlink()
        assert len(load(class_folder, preparation=preparation, cache=True).notes) == 1


def test_sizes_and_kinds_are_mixed(class_folder):
    Image.new("RGB", (640, 480), (255, 0, 0)).save(class_folder / "0" / "photo.jpg")
    Image.new("L", (28, 28), 255).save(class_folder / "0" / "small.png")
    images = load(class_folder, preparation=Preparation(channels=3))
    assert images.pixels.shape == (14, 3, 32, 32)
    assert sorted(images.native_dims.tolist()) == [784, *[1024] * 12, 3072]


def test_a_bad_file_is_skipped_and_named(class_folder):
    bad = class_folder / "1" / "2.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(WorkFailed, match=r"1 of 12 .*1\.00%.*2\.png.*cut off"):
        load(class_folder)
    images = load(class_folder, max_bad_share=0.1)
    assert len(images) == 11
    assert np.bincount(images.labels).tolist() == [4, 3, 4]
    assert len(images.skipped) == 1
    assert str(bad) in images.skipped[0]
    assert images.pixels[6].any()


def test_a_file_that_may_not_be_read_is_skipped(class_folder):
    (class_folder / "1" / "gone.png").symlink_to(class_folder / "nowhere.png")
    images = load(class_folder, max_bad_share=0.1)
    assert len(images) == 12
    assert images.skipped[0].endswith("gone.png: No such file or directory")


def test_a_corrupt_folder_stops_early(tmp_path):
    for number in range(2000):
        (tmp_path / f"{number}.png").write_bytes(b"junk")
    told = []
    with pytest.raises(WorkFailed, match="256 of 2000"):
        load(tmp_path, progress=lambda *done: told.append(done))
    assert not told


def test_a_bomb_in_a_folder_is_one_bad_file(class_folder, bomb_png):
    (class_folder / "0" / "bomb.png").write_bytes(bomb_png)
    images = load(class_folder, max_bad_share=0.1)
    assert len(images) == 12
    assert "megapixels" in images.skipped[0]


# --- parquet ------------------------------------------------------------------------------------


def test_parquet_file_and_folder(tmp_path):
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["Cat", "Dog"])}
    )
    columns = {"image": [_png(1), _png(2), _png(3)], "label": [1, 0, -1]}
    file = _write(tmp_path / "pets" / "train.parquet", columns, features)
    _write(tmp_path / "pets" / "test.parquet", {"image": [_png(9)], "label": [0]}, features)
    images = load(file)
    assert images.name == "train"
    assert images.pixels[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert images.labels.tolist() == [1, 0, -1]
    assert images.label_names == ["Cat", "Dog"]
    folder = tmp_path / "pets"
    assert load(folder).fingerprint == images.fingerprint
    assert load(folder).name == "pets"
    assert load(folder, split="test").pixels[0, 0, 0, 0] == 9
    assert splits(folder) == ["train", "test"]


def test_the_hubs_shards(tmp_path):
    for shard in range(2):
        name = f"train-{shard:05}-of-00002.parquet"
        _write(
            tmp_path / "data" / name, {"img": [_png(shard)], "fine_label": ["b" if shard else "a"]}
        )
    images = load(tmp_path)
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 1]
    assert images.label_names == ["a", "b"]
    with pytest.raises(UsageError, match="no test split"):
        load(tmp_path, split="test")


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        ([7, 3, 7], [1, 0, 1], ["3", "7"]),
        (["b", None, "a"], [1, -1, 0], ["a", "b"]),
        ([-1, None, 5], [-1, -1, 0], ["5"]),
        ([True, False, True], [1, 0, 1], ["False", "True"]),
        (None, [-1, -1, -1], []),
    ],
)
def test_labels_of_other_kinds(tmp_path, labels, numbers, names):
    columns = {"image": [_png(1), _png(2), _png(3)]}
    if labels is not None:
        columns["label"] = labels
    images = load(_write(tmp_path / "x.parquet", columns))
    assert images.labels.tolist() == numbers
    assert images.label_names == names


def test_columns_that_hold_bare_bytes_or_paths(tmp_path):
    bare = {"image": [_png(4)["bytes"]]}
    assert load(_write(tmp_path / "bare.parquet", bare)).pixels[0, 0, 0, 0] == 4
    (tmp_path / "there.png").write_bytes(_png(6)["bytes"])
    path = {"image": [{"bytes": None, "path": "there.png"}]}
    assert load(_write(tmp_path / "path.parquet", path)).pixels[0, 0, 0, 0] == 6


def test_files_that_rows_name_are_read_anew_though_the_table_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("TZK_CACHE", str(tmp_path / "cache"))
    there = tmp_path / "there.png"
    there.write_bytes(_png(6)["bytes"])
    path = {"image": [{"bytes": None, "path": "there.png"}]}
    table = _write(tmp_path / "path.parquet", path)
    for level in (6, 7):
        there.write_bytes(_png(level)["bytes"])
        assert load(table, cache=True).pixels[0, 0, 0, 0] == level


def test_bad_rows_are_named(tmp_path):
    columns = {"image": [_png(1), {"bytes": b"junk", "path": None}, _png(3)], "label": [0, 1, 2]}
    images = load(_write(tmp_path / "x.parquet", columns), max_bad_share=0.5)
    assert images.labels.tolist() == [0, 1]
    assert images.label_names == ["0", "2"]
    assert "x.parquet, row 1: the 4 bytes are no image" in images.skipped[0]


def test_files_that_are_no_tables_of_images(tmp_path):
    (tmp_path / "junk.parquet").write_bytes(b"junk" * 100)
    with pytest.raises(WorkFailed, match="cannot be read as parquet"):
        load(tmp_path / "junk.parquet")
    with pytest.raises(UsageError, match="no column of images"):
        load(_write(tmp_path / "x.parquet", {"text": ["a"]}))
    cut = _write(tmp_path / "cut.parquet", {"image": [_png(1)]})
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(WorkFailed, match="cannot be read as parquet"):
        load(cut)
    empty = datasets.Features({"image": datasets.Image()})
    with pytest.raises(UsageError, match="holds no images"):
        load(_write(tmp_path / "empty.parquet", {"image": []}, empty))


# --- the hub ------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A data set in the hub's own layout, which `datasets` loads as it loads one of the hub."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])}
    )
    for split, levels in (("train", [1, 2, 3]), ("validation", [4])):
        columns = {"img": [_png(level) for level in levels], "label": [1] * len(levels)}
        name = f"{split}-00000-of-00001.parquet"
        _write(tmp_path / "owner" / "toy" / "data" / name, columns, features)
    monkeypatch.setitem(sources.HUB, "toy", HubSource(str(tmp_path / "owner" / "toy")))


@pytest.mark.usefixtures("hub")
def test_hub_names():
    images = load("toy")
    assert images.pixels[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert images.labels.tolist() == [1, 1, 1]
    assert images.label_names == ["x", "y"]
    assert load("toy", split="test").pixels[0, 0, 0, 0] == 4
    assert splits("toy") == ["train", "test"]


def test_what_is_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "file.txt").write_text("")
    absent = [
        "nowhere",
        "./nowhere",
        "../a",
        "~/nowhere",
        "here/b",
        "/a/b/c",
        "x.parquet",
        "b/x.parquet",
    ]
    for name in absent:
        with pytest.raises(UsageError, match="there is no file or folder"):
            load(name)
        with pytest.raises(UsageError, match="there is no file or folder"):
            splits(name)
    with pytest.raises(UsageError, match="built in are builtin/mnist"):
        load("builtin/kmnist")
    with pytest.raises(UsageError, match="holds no images"):
        load("here")
    with pytest.raises(UsageError, match="neither a folder nor"):
        load("file.txt")
    with pytest.raises(UsageError, match="'train' or 'test'"):
        load("builtin/mnist", split="valid")


def test_the_hub_that_does_not_answer():
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(WorkFailed, match="did not give nobody/nothing"):
        load("nobody/nothing")
