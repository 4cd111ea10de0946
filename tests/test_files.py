"""Files are written whole or not at all, and nothing is left beside them."""

from __future__ import annotations

import pytest

from tzk_core.errors import WorkFailed
from tzk_core.files import folder_aside, must_be_writable, write_aside


def test_a_file_is_written_whole(tmp_path):
    write_aside(tmp_path / "deep" / "x.txt", "one")
    write_aside(tmp_path / "deep" / "x.txt", b"two")
    assert (tmp_path / "deep" / "x.txt").read_text() == "two"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.txt"]


@pytest.mark.parametrize("write", [must_be_writable, lambda path: write_aside(path, "x")])
def test_what_cannot_be_written_leaves_nothing(tmp_path, write):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "folder", tmp_path / "file" / "x"):
        with pytest.raises(WorkFailed, match=f"{path} cannot be written: "):
            write(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


def test_asking_whether_a_file_can_be_written_writes_none(tmp_path):
    must_be_writable(tmp_path / "x.txt")
    assert not list(tmp_path.iterdir())


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with folder_aside(tmp_path / "run") as aside:
        (aside / "x").write_text("old")

    def half_way():
        with folder_aside(tmp_path / "run") as aside:
            (aside / "x").write_text("new")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half"):
        half_way()
    assert (tmp_path / "run" / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
