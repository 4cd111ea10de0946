"""tzk score, sample, posterior and interpolate on a run and files; archive; exit codes."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_model import PATHS, SIDE, png, tiny_model

from tzk_core.cli.main import cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, and images of which one is none."""
    folder = tmp_path_factory.mktemp("cli")
    tiny_model().save_pretrained(folder / "run")
    (folder / "images" / "deep").mkdir(parents=True)
    for i in range(3):
        (folder / "images" / f"{i}.png").write_bytes(png(seed=i))
    (folder / "images" / "deep" / "4.PNG").write_bytes(png(28))
    (folder / "images" / "bad.png").write_bytes(b"no image")
    (folder / "images" / "notes.txt").write_text("no image either")
    (folder / "folder.csv").mkdir()
    return folder


@pytest.fixture
def call(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def run(*arguments, code=0):
        result = CliRunner().invoke(cli, [str(one) for one in arguments])
        assert result.exit_code == code, result.output
        if code:
            assert "Traceback" not in result.output
        return result

    return run


def test_score_reads_folders_and_names_what_is_bad(call):
    result = call("score", "run", "images", "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["file"] for row in rows if row["error"]] == ["images/bad.png"]
    assert sum(row["nll_nats"] is not None for row in rows) == 4
    assert "images/bad.png" in result.stderr
    assert "1 of 5" in result.stderr


def test_score_is_the_same_in_any_batch(call):
    one, all_ = (
        [
            json.loads(line)
            for line in call(
                "score",
                "run",
                "images/0.png",
                "images/1.png",
                "--json",
                "--given",
                "mnist",
                "--batch",
                size,
            ).stdout.splitlines()
        ]
        for size in (1, 2)
    )
    for a, b in zip(one, all_, strict=True):
        assert a["nll_nats"] == pytest.approx(b["nll_nats"], rel=1e-5)


def test_score_writes_csv_and_parquet(call, folder):
    call("score", "run", "images", "--out", "scores.csv")
    call("score", "run", "images", "--out", "scores.parquet")
    with (folder / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(folder / "scores.parquet")
    assert table.column_names == list(rows[0])
    assert table.column("typicality").type == "double"
    assert [row["file"] for row in rows] == table.column("file").to_pylist()


def test_score_of_nothing_good_fails(call):
    assert "bad.png" in call("score", "run", "images/bad.png", code=1).output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["score", "run", "none.png"], 2, "there is no none.png"),
        (["score", "none", "images"], 1, "none does not exist"),
        (["score", "run", "images", "--draws", "3"], 2, "1, 16 or 256"),
        (["score", "run", "images", "--given", "kanji"], 2, "there is mnist"),
        (["score", "run", "images", "--out", "x.txt"], 2, ".parquet"),
        (["score", "run", "images", "--device", "tpu9"], 2, "cpu"),
        (["score", "run", "images", "--device", "cuda:999"], 2, "torch finds"),
        (["train", "quick", "--out", "none/run", "--device", "tpu9"], 2, "cpu"),
        (["score", "run", "images", "--seed", "-1"], 2, "--seed"),
        (["score", "none", "images", "--out", "images/0.png/x.csv"], 1, "cannot be written"),
        (["score", "none", "images", "--out", "folder.csv"], 1, "Is a directory"),
        (["interpolate", "run", "images/0.png", "images/1.png", "--out", "x.jpg"], 2, ".png"),
        (["sample", "run", "-n", "0"], 2, "1 to 256"),
        (["sample", "run", "kanji"], 2, "there is mnist"),
        (["sample", "run", "--temperature", "-1"], 2, "0 or more"),
        (["sample", "run", "--out", "x.jpg"], 2, ".npy"),
        (["posterior", "run", "images/bad.png"], 1, "none of the files"),
        (["interpolate", "run", "images/0.png"], 2, "2 or 4"),
        (["interpolate", "run", "images/0.png", "images/bad.png"], 1, "images/bad.png: the"),
        (["archive", "none"], 1, "none does not exist"),
        (["archive", "run", "--model-store", "images/0.png"], 1, "--model-store"),
        (
            ["archive", "run", "--bf16", "--backend", "onnx"],
            2,
            "are float32: leave one of them out",
        ),
        (["serve", "--model-store", "none"], 2, "tzk archive"),
        (["serve", "--model-store", "images"], 2, "tzk archive"),
        (["status", "--port", "1"], 1, "no server of tzk answers"),
    ],
)
def test_what_is_wrong_is_one_clear_sentence(call, arguments, code, said):
    output = call(*arguments, code=code).output
    assert said in output
    assert output.strip().splitlines()[-1].startswith("Error: ")


def test_sample_of_several_and_absent_kinds(call):
    told = call("sample", "run", "mnist", "fashion", "-n", 1, "--out", "both.png").stderr
    assert "effective sample size" in told
    told = call("sample", "run", "mnist", "--absent", "fashion", "-n", 1, "--json").stdout
    assert json.loads(told)["path"] == "mnist,-fashion"
    told = call("sample", "run", "mnist", "mnist/3", code=2).stderr
    assert "only siblings compose" in told


def test_sample_writes_pictures(call, folder):
    call("sample", "run", "mnist/3", "-n", 4, "--seed", 1, "--out", "four.png")
    assert Image.open(folder / "four.png").size == (38, 38)
    call("sample", "run", "-n", 2, "--seed", 1, "--out", "two.npy")
    assert np.load(folder / "two.npy").shape == (2, 1, SIDE, SIDE)
    told = json.loads(call("sample", "run", "mnist", "-n", 2, "--seed", 1, "--json").stdout)
    assert [one["seed"] for one in told["images"]] == [1, 2]


def test_posterior_prints_every_kind(call):
    output = call("posterior", "run", "images/0.png").stdout
    assert all(path in output for path in PATHS)
    told = json.loads(call("posterior", "run", "images/0.png", "--json").stdout)
    assert list(told["posterior"]) == PATHS


def test_interpolate_writes_a_grid(call, folder):
    call("interpolate", "run", "images/0.png", "images/1.png", "--steps", 5, "--out", "between.png")
    assert Image.open(folder / "between.png").size == (5 * 18 + 2, 20)


def test_archive_prints_what_it_wrote(call, folder):
    output = call("archive", "run", "--model-store", "store").stdout
    assert output.splitlines() == [
        f"store/tzk_{name}.mar" for name in ("nll", "sample", "posterior", "interpolate")
    ]
