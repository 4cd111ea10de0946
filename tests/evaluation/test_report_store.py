"""What is kept of an evaluation, taken again, forgotten, and shown."""

from __future__ import annotations

import base64
import io
import json
import re

import pytest
import torch
from PIL import Image

from tzk_core.data.decoding import encode_png
from tzk_core.evaluation.held_out import Figure
from tzk_core.evaluation.report.result import Picture, Result, Table, file_name, plain, value
from tzk_core.evaluation.report.showing import markdown_table
from tzk_core.evaluation.report.store import Store
from tzk_core.evaluation.report.work import Part

PNG = encode_png(torch.full((1, 8, 8), 7, dtype=torch.uint8).numpy())
PART = Part("figures", "Figures & <more>", "What they mean.", ("samples",), None, None)
OTHER = PART._replace(name="others", title="Others")
KEY = {"weights": "a", "seed": 0, "settings": {"samples": 3, "temperatures": (0.7, 1.0)}}


def facts(weights="a" * 64) -> dict:
    source = {
        "name": "mnist",
        "source": "<b>|x",
        "kind": "mnist",
        "test_images": "its test split",
        "images": {"training": 3, "test": 2},
    }
    return {
        "run": "runs/<x>",
        "weights": weights,
        "observation": "1×8×8",
        "parameters": 12,
        "knowledge": ["mnist"],
        "tzk": "0",
        "torch": "2",
        "device": "cpu",
        "processor": "x",
        "threads": 1,
        "notes": ["A note."],
        "data": [source],
    }


def result() -> Result:
    figure = Figure("f", 0.5, float("nan"), 3, "share")
    table = Table("A <title>", ["of", "a|b"], [["<i>", "1 & 2"]])
    return Result({"f": figure}, [table], [Picture("p(t)-0.7", PNG, "a [caption] <c>")])


@pytest.fixture
def store(tmp_path) -> Store:
    found = Store(tmp_path, facts(), [PART, OTHER])
    found.add(PART, "mnist", KEY, result(), 1.23)
    return found


def test_a_part_is_written_at_once(store, tmp_path):
    report = json.loads((tmp_path / "evaluation.json").read_text())
    entry = report["parts"]["figures"]["mnist"]
    assert entry["figures"] == {
        "f": {"name": "f", "mean": 0.5, "standard_error": None, "count": 3, "unit": "share"}
    }
    assert entry["seconds"] == 1.2
    [picture] = entry["pictures"]
    assert picture["file"] == "pictures/p.t.-0.7.png"
    assert (tmp_path / picture["file"]).read_bytes() == PNG


def test_the_same_key_is_taken_and_another_is_not(store, tmp_path):
    again = Store(tmp_path, facts(), [PART, OTHER])
    # A key from the file has lists where there were tuples.
    assert again.entry(PART, "mnist", KEY)["seconds"] == 1.2
    for other in (KEY | {"seed": 1}, KEY | {"settings": {"samples": 4}}):
        assert again.entry(PART, "mnist", other) is None
    assert again.entry(PART, "fashion", KEY) is None
    assert again.entry(OTHER, "mnist", KEY) is None


def test_what_lost_its_pictures_keeps_its_figures_and_stops_nothing_else(store, tmp_path):
    (tmp_path / "pictures" / "p.t.-0.7.png").unlink()
    again = Store(tmp_path, facts(), [PART, OTHER])
    assert again.entry(PART, "mnist", KEY) is None
    again.add(OTHER, "all", KEY, "no images", 0)  # writes the HTML file, which holds all pictures
    assert "no images" in (tmp_path / "evaluation.html").read_text()
    kept = json.loads((tmp_path / "evaluation.json").read_text())["parts"]["figures"]["mnist"]
    assert kept["figures"]["f"]["mean"] == 0.5
    assert "![" not in (tmp_path / "evaluation.md").read_text()


def test_what_other_weights_left_is_forgotten(store, tmp_path):
    assert Store(tmp_path, facts(), [PART, OTHER]).report["parts"]
    assert not Store(tmp_path, facts("b" * 64), [PART, OTHER]).report["parts"]


def test_what_is_not_measured_any_more_is_forgotten(store):
    store.add(PART, "fashion", KEY, "there is nothing", 0)
    store.only(PART, ["fashion"])
    assert list(store.report["parts"]["figures"]) == ["fashion"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 0}', '{"format": 1, "parts": 3}'])
def test_a_file_that_cannot_be_read_is_begun_anew(tmp_path, content):
    (tmp_path / "evaluation.json").write_text(content)
    store = Store(tmp_path, facts(), [PART])
    store.add(PART, "all", KEY, "no images", 0)
    assert json.loads((tmp_path / "evaluation.json").read_text())["parts"]["figures"]


def test_html_is_one_file_and_escaped(store, tmp_path):
    store.add(OTHER, "all", KEY, "a <reason>", 0)
    page = (tmp_path / "evaluation.html").read_text()
    for text in ("Figures &amp; &lt;more&gt;", "A &lt;title&gt;", "&lt;i&gt;", "runs/&lt;x&gt;"):
        assert text in page
    assert "Not measured: a &lt;reason&gt;." in page
    assert not re.search(r"<(title|i|b|c|x|more|reason)>(?!Evaluation)", page)
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert {source[:5] for source in sources} == {"#part", "data:"}
    [data] = [source for source in sources if source.startswith("data:")]
    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as picture:
        assert picture.size == (8, 8)
    assert 'width="32"' in page  # of 8 pixels, four times enlarged


def test_markdown(store, tmp_path):
    text = (tmp_path / "evaluation.md").read_text()
    assert "## Figures & <more>" in text
    assert "| <i> | 1 & 2 |" in text
    assert "| of | a∣b |" in text
    assert "![p.t.-0.7](pictures/p.t.-0.7.png)\n\na [caption] <c>" in text
    assert "seed 0, samples 3, temperatures 0.7/1.0; 1 s" in text


def test_a_table_in_markdown():
    table = Table("T", ["a", "b"], [["1", "2"], ["3", "4"]])
    lines = markdown_table(table, 3).splitlines()
    assert lines[0] == "### T"
    assert lines[2:] == ["| a | b |", "|---|---:|", "| 1 | 2 |", "| 3 | 4 |"]


def test_plain_values():
    assert plain({1: (float("nan"), torch.tensor([1.0, float("inf")]))}) == {
        "1": [None, [1.0, None]]
    }
    assert plain(Table("t", [], [])) == {"title": "t", "header": [], "rows": []}
    json.dumps(plain({"figure": Figure("x", 1.0, float("nan"), 2, "u")}), allow_nan=False)


def test_values_and_names():
    assert value(Figure("x", -0.0001, 0.002, 2, "u")) == "0.000 ± 0.002"
    assert value(Figure("x", 1.0, float("nan"), 1, "u"), 1) == "1.0"
    assert file_name("../a/b c") == "a.b.c"
