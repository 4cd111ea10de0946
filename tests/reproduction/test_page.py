"""The page is made of results as they were written, and says what was not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tzk_core.errors import UsageError
from tzk_core.evaluation.held_out import Figure
from tzk_core.evaluation.report.result import Picture
from tzk_core.reproduction import EXPERIMENTS, page
from tzk_core.reproduction.paper import SAID
from tzk_core.reproduction.rows import Outcome, share_row
from tzk_core.reproduction.store import Store
from tzk_core.reproduction.verdict import Conditions

PNG = b"\x89PNG not read by the page"


def facts(scale: str = "small") -> dict:
    return {
        "title": "MNIST and its digits as a hierarchy",
        "scale": scale,
        "command": "tzk reproduce hierarchy --scale small --stand-in svhn=DIR/svhn_gray",
        "order": ["discriminators", "samples"],
        "seed": 0,
        "stand_ins": ["SVHN (stand-in: svhn_gray)"],
        "changed": ["stages.0.steps=3"],
        "tzk": "1",
        "torch": "2",
        "device": "cpu",
        "processor": "x86_64",
        "threads": 2,
    }


def outcome(share: float) -> Outcome:
    figure = Figure("top-1", share, 0.01, 100, "share")
    row = share_row("digit|read", SAID["hierarchy accuracy"], figure, "test: MNIST", Conditions())
    return Outcome([row], [Picture("digits", PNG, "One digit [a row].")], ["A note."])


@pytest.fixture
def stored(tmp_path):
    """Results of one part of the hierarchy, with so large a share."""

    def make(folder: str, share: float, scale: str = "small"):
        store = Store(tmp_path / folder, "hierarchy", facts(scale), facts()["order"])
        store.add("discriminators", {"seed": 0}, outcome(share), 1.0)
        return tmp_path / folder

    return make


def test_a_part_is_kept_under_its_key_while_its_pictures_are_there(stored, tmp_path):
    out = stored("a", 0.9)
    again = Store(out, "hierarchy", facts(), facts()["order"])
    assert again.has("discriminators", {"seed": 0})
    assert not again.has("discriminators", {"seed": 1})
    assert not again.has("samples", {"seed": 0})
    (out / "pictures" / "digits.png").unlink()
    assert not again.has("discriminators", {"seed": 0})
    with pytest.raises(UsageError, match=r"holds results of scale small; name another --out"):
        Store(out, "hierarchy", facts("full"), facts()["order"])


def test_what_is_written(stored):
    out = stored("a", 0.9)
    report = json.loads((out / "hierarchy.json").read_text())
    [row] = report["parts"]["discriminators"]["rows"]
    assert row["verdict"]["word"] == "reproduced"
    assert row["figures"]["share"]["mean"] == 0.9
    text = (out / "hierarchy.md").read_text()
    assert "| digit∣read | 0.87 | 4.4 | – | 0.900 ± 0.010 | – | test: MNIST |" in text
    assert "Rows: 1 reproduced. Still to come: samples." in text
    assert "Stand-ins: SVHN (stand-in: svhn_gray)." in text
    assert "Changed by --set: stages.0.steps=3." in text
    assert "![One digit (a row).](pictures/digits.png)" in text
    assert "A note." in text


def test_without_results_every_experiment_says_that_it_was_not_run(tmp_path):
    page(tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert text.count("Not run yet at scale small.") == len(EXPERIMENTS)
    assert text.count("Not run yet at scale full.") == len(EXPERIMENTS)
    for name, experiment in EXPERIMENTS.items():
        assert f"## {experiment.title}: `{name}`" in text
    # The rule is the one that the code tells.
    assert "0.05 bits/dim" in text


def test_the_page_in_docs_describes_the_experiments_as_they_are(tmp_path):
    """What does not depend on results: the head, the rule, and what each experiment is."""
    page(tmp_path / "page.md")
    kept = Path(__file__).parents[2] / "docs" / "reproduction.md"
    written, docs = ((tmp_path / "page.md").read_text(), kept.read_text())
    assert docs.partition("\n## ")[0] == written.partition("\n## ")[0]
    for name in EXPERIMENTS:
        mark = f"<!-- results of {name} -->"
        sections = [text.partition(mark)[0].rpartition("\n## ")[2] for text in (docs, written)]
        assert sections[0] == sections[1], "tzk reproduce --page docs/reproduction.md --results …"


def test_results_stand_in_their_place_and_the_later_folder_counts(stored, tmp_path):
    earlier, later = stored("a", 0.5), stored("b", 0.9)
    full = stored("c", 0.7, "full")
    target = tmp_path / "docs" / "reproduction.md"
    page(target, [earlier, later, full])
    text = target.read_text()
    place = text.partition("<!-- results of hierarchy -->")[2].partition("<!-- end of")[0]
    assert "0.900 ± 0.010" in place
    assert "0.700 ± 0.010" in place
    assert "0.500" not in text
    assert "Not run yet" not in place
    name = "images/reproduction/hierarchy-small-digits.png"
    assert f"]({name})" in place
    assert (target.parent / name).read_bytes() == PNG
    assert str(tmp_path) not in text
    page(target, [earlier, later, full])
    assert target.read_text() == text


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no results"):
        page(tmp_path / "page.md", [tmp_path])
    assert not (tmp_path / "page.md").exists()
