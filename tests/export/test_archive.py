"""The four archives: whole, checkable, and written at once or not at all."""

from __future__ import annotations

import json
import zipfile

import pytest
from rewriting import rewritten
from tiny_model import tiny_model

from tzk_core import archive_sums
from tzk_core.archive_sums import ARCHIVES
from tzk_core.errors import ModelUnavailable, WorkFailed
from tzk_core.hub import CONFIG, WEIGHTS, sha256
from tzk_core.launcher import Settings
from tzk_core.service.service import ENDPOINTS
from tzk_export.archive import archive


@pytest.fixture
def run(tmp_path):
    tiny_model().save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def test_archives_are_self_contained(run, tmp_path):
    store = tmp_path / "new" / "store"
    made = archive(run, store)
    assert {path.name for path in store.iterdir()} == {f"{n}.mar" for n in ENDPOINTS} | {ARCHIVES}
    assert [path.stem for path in made] == list(ENDPOINTS)
    for path in made:
        with zipfile.ZipFile(path) as whole:
            wanted = {f"{path.stem}.py", CONFIG, WEIGHTS, "README.md", "MAR-INF/MANIFEST.json"}
            assert set(whole.namelist()) == wanted
            manifest = json.loads(whole.read("MAR-INF/MANIFEST.json"))
            assert whole.read(WEIGHTS) == (run / WEIGHTS).read_bytes()
        assert manifest["model"]["modelVersion"] == "1.0"
        assert manifest["model"]["handler"] == f"{path.stem}.py"
        assert manifest["tzk"]["weights_sha256"] == sha256(run / WEIGHTS)


@pytest.mark.parametrize(("bf16", "networks"), [(False, "float32"), (True, "bfloat16")])
def test_the_manifest_tells_the_networks_precision(run, tmp_path, bf16, networks):
    for path in archive(run, tmp_path / "store", bf16=bf16):
        with zipfile.ZipFile(path) as whole:
            manifest = json.loads(whole.read("MAR-INF/MANIFEST.json"))
        assert manifest["tzk"]["networks"] == networks


@pytest.mark.parametrize("changed", ["tzk_nll.py", CONFIG, WEIGHTS])
def test_an_archive_that_was_changed_is_refused_by_name(run, tmp_path, changed, caplog):
    archive(run, tmp_path, names=["tzk_nll", "tzk_sample"])
    settings = Settings(model_store=tmp_path)
    settings.check_archives(["tzk_nll", "tzk_sample"])
    rewritten(tmp_path / "tzk_nll.mar", tmp_path / "tzk_nll.mar", {changed: b"# changed"})
    with pytest.raises(ModelUnavailable, match=r"tzk_nll\.mar is not the file that was archived"):
        settings.check_archives(["tzk_nll", "tzk_sample"])
    settings.check_archives(["tzk_sample"])
    assert not caplog.records
    # Archived again it is served; so is one of which nothing is known, with a word in the log.
    archive(run, tmp_path, names=["tzk_nll"])
    settings.check_archives(["tzk_nll"])
    rewritten(tmp_path / "tzk_nll.mar", tmp_path / "tzk_nll.mar", {changed: b"# changed"})
    archive_sums.forget(tmp_path, [tmp_path / "tzk_nll.mar"])
    settings.check_archives(["tzk_nll", "tzk_sample"])
    assert "tzk_nll.mar has no SHA-256" in caplog.text


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_notes_that_are_broken_are_told(tmp_path, text):
    (tmp_path / ARCHIVES).write_text(text)
    with pytest.raises(WorkFailed, match="cannot be understood"):
        archive_sums.check(tmp_path, "tzk_nll.mar")


def test_no_run(tmp_path):
    with pytest.raises(ModelUnavailable, match="does not exist"):
        archive(tmp_path / "none", tmp_path)


def test_no_weights(run, tmp_path):
    (run / WEIGHTS).unlink()
    with pytest.raises(ModelUnavailable, match=f"has no {WEIGHTS}"):
        archive(run, tmp_path / "store")


def test_changed_weights(run, tmp_path):
    (run / WEIGHTS).write_bytes((run / WEIGHTS).read_bytes() + b"x")
    with pytest.raises(ModelUnavailable, match="SHA-256"):
        archive(run, tmp_path / "store")


def test_store_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(WorkFailed, match="--model-store"):
        archive(run, tmp_path / "file")


def test_a_failure_leaves_the_old_archives(run, tmp_path, monkeypatch):
    store = tmp_path / "store"
    archive(run, store)
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    from model_archiver.model_packaging_utils import ModelExportUtils

    real, count = ModelExportUtils.archive, iter(range(9))

    def full(*arguments):
        if next(count) == 2:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(ModelExportUtils, "archive", staticmethod(full))
    with pytest.raises(WorkFailed, match="No space left"):
        archive(run, store)
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before
