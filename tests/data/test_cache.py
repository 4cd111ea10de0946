"""Prepared images are decoded once, kept as memory maps, and never mistaken for others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tzk_core.data import reading
from tzk_core.data.cache import cache_folder
from tzk_core.data.preparation import Preparation
from tzk_core.data.sources import Columns, load
from tzk_core.errors import WorkFailed


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TZK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The titles of the images that were decoded."""
    titles: list[str] = []
    prepare = reading._prepare

    def counted(item, preparation):
        titles.append(item.title)
        return prepare(item, preparation)

    monkeypatch.setattr(reading, "_prepare", counted)
    return titles


def _entries(cache: Path) -> list[Path]:
    return [e for e in (cache / "images").iterdir() if not e.name.startswith(".")]


def _same(a, b) -> None:
    np.testing.assert_array_equal(a.pixels, b.pixels)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.native_dims, b.native_dims)
    assert (a.label_names, a.name, a.skipped) == (b.label_names, b.name, b.skipped)
    assert a.fingerprint == b.fingerprint


def test_the_second_use_decodes_nothing(class_folder, decoded):
    plain = load(class_folder)
    del decoded[:]
    first = load(class_folder, cache=True)
    assert len(decoded) == 12
    told = []
    second = load(class_folder, cache=True, progress=lambda *done: told.append(done))
    assert len(decoded) == 12
    assert told == [(12, 12)]
    _same(first, plain)
    _same(second, plain)
    assert "decoded in" in first.notes[0]
    assert "found in the cache" in second.notes[0]


def test_pixels_are_a_map_of_the_file(class_folder):
    images = load(class_folder, cache=True)
    base = images.pixels
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images.pixels[0] = 0


def test_what_changes_the_images_makes_a_new_entry(class_folder, private_cache, decoded):
    load(class_folder, cache=True)
    file = class_folder / "0" / "0.png"
    changes = [
        lambda: Image.new("L", (32, 32), 7).save(file),
        lambda: os.utime(file, ns=(0, 0)),
        lambda: file.rename(file.with_name("z.png")),
        lambda: (class_folder / "2" / "0.png").unlink(),
    ]
    for number, change in enumerate(changes):
        change()
        del decoded[:]
        _same(load(class_folder, cache=True), load(class_folder))
        assert len(_entries(private_cache)) == 2 + number
    for options in ({"limit": 3}, {"preparation": Preparation(size=8, padding=False)}):
        _same(load(class_folder, cache=True, **options), load(class_folder, **options))
    assert len(_entries(private_cache)) == 7


def test_other_columns_of_metadata_make_a_new_entry(class_folder):
    rows = [f"{k}/{n}.png,{n % 2},{n}" for k in range(3) for n in range(4)]
    (class_folder / "metadata.csv").write_text("\n".join(["file_name,label,kind", *rows]))
    for column, names in ((None, ["0", "1"]), ("kind", ["0", "1", "2", "3"])):
        columns = Columns(label=column)
        _same(load(class_folder, cache=True, columns=columns), load(class_folder, columns=columns))
        assert load(class_folder, cache=True, columns=columns).label_names == names


@pytest.mark.skipif(os.name == "nt", reason="names are not bytes there")
def test_names_that_are_no_utf8(class_folder, tmp_path):
    """Of a folder, a class and files; what is displayed of them can be written."""
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        class_folder.rename(root)
    except OSError:
        pytest.skip("the file system takes no such names")
    (root / "0").rename(root / os.fsdecode(b"z\xff"))
    (root / "1" / os.fsdecode(b"\xfe.png")).write_bytes(b"junk")
    for cache in (True, True, False):
        images = load(root, cache=cache, max_bad_share=0.1)
        assert (images.name, images.label_names) == ("caf\\udce9", ["1", "2", "z\\udcff"])
        assert images.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert images.skipped[0].split(":")[0].endswith("/caf\\udce9/1/\\udcfe.png")
        "".join([*images.notes, *images.skipped]).encode()


def test_bad_files_are_told_again_and_counted_again(class_folder, decoded):
    (class_folder / "1" / "2.png").write_bytes(b"junk")
    first = load(class_folder, max_bad_share=0.1, cache=True)
    count = len(decoded)
    second = load(class_folder, max_bad_share=0.1, cache=True)
    assert len(decoded) == count
    _same(first, second)
    assert "2.png" in second.skipped[0]
    with pytest.raises(WorkFailed, match="1 of 12"):
        load(class_folder, max_bad_share=0.01, cache=True)


def test_what_could_not_be_opened_for_now_is_tried_again(class_folder, private_cache, monkeypatch):
    real, failing = Path.read_bytes, [True]

    def read(self):
        if failing[0] and self.suffix == ".png" and self.parent.parent == class_folder:
            failing[0] = False
            raise PermissionError(13, "Permission denied")
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", read)
    first = load(class_folder, cache=True, max_bad_share=1.0)
    assert len(first.skipped) == 1
    assert not np.isnan(first.pixels.sum())  # what was read can be used all the same
    second = load(class_folder, cache=True)
    assert not second.skipped
    assert len(second.pixels) == len(first.pixels) + 1


def test_nothing_is_left_of_a_read_that_fails(class_folder, private_cache):
    for file in class_folder.rglob("*.png"):
        file.write_bytes(b"junk")
    with pytest.raises(WorkFailed):
        load(class_folder, cache=True)
    assert _entries(private_cache) == []
    assert not [e for e in (private_cache / "images").iterdir() if e.is_dir()]


KILLED = """
import sys, time
from tzk_core.data import reading
from tzk_core.data.sources import load
plain = reading._prepare

def slowly(item, preparation):
    if "/1/" in item.title:
        print("half-way", flush=True)
        time.sleep(600)
    return plain(item, preparation)

reading._prepare = slowly
load(sys.argv[1], cache=True)
"""


def _half_way(folder: Path) -> subprocess.Popen:
    """A process that has begun an entry of these images, and goes no further."""
    command = [sys.executable, "-c", KILLED, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "half-way\n"
    return process


def test_what_a_killed_process_left_is_swept_and_not_what_a_live_one_writes(
    class_folder, private_cache, tmp_path
):
    """A real SIGKILL; the leftovers are of the same images, and of others."""
    other = tmp_path / "other"
    shutil.copytree(class_folder, other)
    for folder in (class_folder, other):
        process = _half_way(folder)
        process.kill()
        process.communicate(timeout=60)
    left = set((private_cache / "images").glob(".*-*"))
    assert len(left) == 1  # the second process has swept what the first one left
    shutil.copytree(class_folder, tmp_path / "third")
    alive = _half_way(tmp_path / "third")
    try:
        [being_written] = set((private_cache / "images").glob(".*-*"))
        assert being_written not in left
        (private_cache / "images" / ".of-nobody").mkdir()
        _same(load(class_folder, cache=True), load(class_folder))
        assert set((private_cache / "images").glob(".*-*")) == {
            being_written,
            private_cache / "images" / ".of-nobody",
        }
        assert (being_written / "pixels.npy").exists()
    finally:
        alive.kill()
        alive.communicate(timeout=60)


@pytest.mark.parametrize("file", ["pixels.npy", "labels.npy", "facts.json"])
def test_a_damaged_entry_is_made_again(class_folder, private_cache, file):
    whole = load(class_folder, cache=True)
    [entry] = _entries(private_cache)
    (entry / file).unlink()  # and not cut off in place, which would pull the map from under `whole`
    (entry / file).write_bytes(b"")
    _same(load(class_folder, cache=True), load(class_folder))
    _same(load(class_folder, cache=True), whole)
    assert _entries(private_cache) == [entry]


def test_off(class_folder, private_cache, monkeypatch):
    for word in ("off", "0"):
        monkeypatch.setenv("TZK_CACHE", word)
        assert cache_folder() is None
        _same(load(class_folder, cache=True), load(class_folder))
    assert not private_cache.exists()
    assert not Path("off").exists()


def test_the_usual_place(monkeypatch):
    monkeypatch.delenv("TZK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/tzk")


def test_a_place_that_cannot_be_written(class_folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TZK_CACHE", str(tmp_path / "file"))
    images = load(class_folder, cache=True)
    _same(images, load(class_folder))
    assert "kept in memory" in images.notes[0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk(class_folder, private_cache, monkeypatch):
    """The pixels of an entry go to a device without room: the images are kept in memory."""
    from tzk_core.data import cache

    class Full(cache.Writer):
        def __init__(self, aside, path, shape):
            (aside / "pixels.npy").symlink_to("/dev/full")
            super().__init__(aside, path, shape)

    monkeypatch.setattr(cache, "Writer", Full)
    images = load(class_folder, cache=True)
    _same(images, load(class_folder))
    assert "No space left" in images.notes[0]
    assert _entries(private_cache) == []


def test_processes_at_once_make_one_entry(class_folder, private_cache):
    """Four real processes start together; one decodes, and all see the same."""
    code = (
        "import sys; from tzk_core.data.sources import load\n"
        "images = load(sys.argv[1], cache=True)\n"
        "print(images.fingerprint, 'decoded' in images.notes[0])"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(class_folder)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    answers = [process.communicate(timeout=300)[0].split() for process in started]
    assert {fingerprint for fingerprint, _ in answers} == {load(class_folder).fingerprint}
    assert sorted(made for _, made in answers) == ["False", "False", "False", "True"]
    assert len(_entries(private_cache)) == 1
