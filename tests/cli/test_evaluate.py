"""``tzk evaluate`` from end to end: on a model that was trained, and on every kind of model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from tiny_model import tiny_model
from training.tiny_recipe import tiny_values

from tzk_core.cli.main import cli
from tzk_core.config import KnowledgeConfig
from tzk_core.data.decoding import encode_png
from tzk_core.data.quantisation import dequantise
from tzk_core.errors import WorkFailed
from tzk_core.evaluation.report.parts import PARTS
from tzk_core.evaluation.report.parts import neighbours as neighbours_part
from tzk_core.evaluation.settings import PARTS as NAMES
from tzk_core.randomness import generator
from tzk_core.training.recipe import parse_recipe
from tzk_core.training.run import train
from tzk_core.typicality import Typicality
from tzk_core.typicality_statistics import forward, statistic_names, statistics

SIZES = {
    "test-images": 40,
    "round-trip-images": 4,
    "likelihood-images": 6,
    "encoder-rate-draws": 20,
    "consistency-images": 3,
    "consistency-draws": 16,
    "typicality-images": 20,
    "information-images": 20,
    "interpolation-side": 3,
    "neighbour-images": 4,
    "samples": 2,
    "shown": 64,
}
SMALL = ["--quick", "--device", "cpu", "--draws", "1", "--draws", "16"]
SMALL += [part for name, size in SIZES.items() for part in (f"--{name}", str(size))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, mnist) -> Path:
    """The tiny recipe's run: mnist with two classes, and fashion without."""
    folder = tmp_path_factory.mktemp("evaluate")
    for digit in (0, 1):
        (folder / "digits" / str(digit)).mkdir(parents=True)
        for number, pixels in enumerate(mnist.pixels[mnist.labels == digit][:40]):
            path = folder / "digits" / str(digit) / f"{number}.png"
            path.write_bytes(encode_png(pixels))
    values = tiny_values(str(folder / "digits"))
    train(parse_recipe(values), out=folder / "run", device="cpu", quiet=True)
    return folder / "run"


def call(*arguments, code=0):
    result = CliRunner().invoke(cli, ["evaluate", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def report_of(out: Path) -> dict:
    return json.loads((out / "evaluation.json").read_text())


def without_times(report: dict) -> dict:
    for entries in report["parts"].values():
        for entry in entries.values():
            entry.pop("seconds")
            entry["figures"].get("classifier", {}).pop("training_seconds", None)
    return report


@pytest.fixture(scope="module")
def evaluated(trained):
    """What is printed."""
    return call(trained, *SMALL, "--against", "builtin/fashion_mnist")


def test_parts_are_named_in_their_order():
    assert tuple(part.name for part in PARTS) == NAMES


def test_everything_that_applies_is_measured(trained, evaluated):
    report = report_of(trained / "evaluation-quick")
    scopes = {name: list(entries) for name, entries in report["parts"].items()}
    assert scopes == {
        "round-trip": ["all"],
        "likelihoods": ["mnist", "fashion"],
        "discriminators": ["first level", "mnist"],
        "consistency": ["first level", "mnist"],
        "typicality": ["all"],
        "information": ["mnist", "fashion"],
        "interpolation": ["mnist", "fashion"],
        "neighbours": ["mnist", "fashion"],
        "samples": ["p(t)", "data sets", "mnist"],
    }
    parts = report["parts"]
    assert "no statistics" in parts["typicality"]["all"]["skipped"]
    rows = [
        (row["distribution"], row["estimator"], row["draws"])
        for row in parts["likelihoods"]["mnist"]["figures"]["rows"]
    ]
    assert rows == [
        ("p(t)", "prior", None),
        ("p(t|mnist)", "importance", 1),
        ("p(t|mnist)", "importance", 16),
        ("p(t|mnist)", "reconstruction", None),
        ("p(t|mnist)", "encoder", None),
        ("p(t|mnist) by the child's prior", "importance", 1),
        ("p(t|mnist) by the child's prior", "importance", 16),
        ("p(t|mnist/own class)", "importance", 1),
        ("p(t|mnist/own class)", "importance", 16),
        ("p(t|mnist/own class)", "reconstruction", None),
    ]
    nats = {
        (row["distribution"], row["estimator"], row["draws"]): row["nats"]["mean"]
        for row in parts["likelihoods"]["mnist"]["figures"]["rows"]
    }
    by_importance, prior = nats["p(t|mnist)", "importance", 16], nats["p(t)", "prior", None]
    existence = parts["likelihoods"]["mnist"]["figures"]["existence"]["mnist"]
    gains = [gain["mean"] for gain in parts["likelihoods"]["mnist"]["figures"]["gains"]]
    assert gains[0] == pytest.approx(prior - by_importance)
    assert gains[1] == pytest.approx(prior - by_importance + math.log(existence))
    [gap] = parts["consistency"]["first level"]["figures"]["priors"]
    assert gap["path"] == "mnist"
    assert gap["gap"]["mean"] == pytest.approx(gap["own"]["mean"] - gap["child"]["mean"])
    assert parts["consistency"]["mnist"]["figures"]["top_1"].keys() == {"encoder", "decoder"}
    digits = parts["samples"]["mnist"]["figures"]["samples"]
    assert [entry["temperature"] for entry in digits] == [0.7, 1.0]
    assert "trained_on_samples" in digits[1]
    assert parts["discriminators"]["first level"]["figures"]["against"].keys() == {"fashion_mnist"}


def test_what_it_prints_and_writes(trained, evaluated):
    out = trained / "evaluation-quick"
    assert evaluated.stdout.rstrip().endswith(str(out / "evaluation.html"))
    markdown, page = ((out / f"evaluation.{end}").read_text() for end in ("md", "html"))
    for part in PARTS:
        for text in (evaluated.stdout, markdown, page):
            assert part.title in text
    for entry in (e for each in report_of(out)["parts"].values() for e in each.values()):
        for picture in entry["pictures"]:
            assert (out / picture["file"]).read_bytes().startswith(b"\x89PNG")
            assert f"]({picture['file']})" in markdown
    assert page.count("<img") == markdown.count("![")


def test_the_same_call_takes_everything_from_the_file(trained, evaluated, monkeypatch):
    out = trained / "evaluation-quick"
    before = report_of(out)
    result = call(trained, *SMALL, "--against", "builtin/fashion_mnist", "--json")
    assert json.loads(result.stdout)["parts"] == before["parts"]  # times too


def test_a_seed_gives_the_same_anew(trained, evaluated, tmp_path):
    first = without_times(report_of(trained / "evaluation-quick"))
    parts = ("round-trip", "likelihoods", "consistency", "samples", "neighbours")
    chosen = [option for part in parts for option in ("--part", part)]
    call(trained, *SMALL, *chosen, "--out", tmp_path)
    again = without_times(report_of(tmp_path))
    assert set(again["parts"]) == set(parts)
    for part in parts:
        assert again["parts"][part] == first["parts"][part]
    pictures = [path.name for path in (tmp_path / "pictures").iterdir()]
    assert pictures
    for name in pictures:
        old = trained / "evaluation-quick" / "pictures" / name
        assert (tmp_path / "pictures" / name).read_bytes() == old.read_bytes()
    call(trained, *SMALL, "--part", "likelihoods", "--seed", "1", "--out", tmp_path)
    other = without_times(report_of(tmp_path))
    assert other["parts"]["likelihoods"] != first["parts"]["likelihoods"]
    assert other["parts"]["samples"] == first["parts"]["samples"]  # kept, and of its own seed


def test_what_is_done_is_kept_if_a_later_part_fails(trained, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise WorkFailed("no neighbours today")

    options = [*SMALL, "--out", tmp_path, "--part", "round-trip", "--part", "neighbours"]
    with monkeypatch.context() as patched:
        patched.setattr(neighbours_part, "nearest", fails)
        result = call(trained, *options, code=1)
    assert "no neighbours today" in result.stderr
    kept = report_of(tmp_path)["parts"]
    assert list(kept) == ["round-trip"]
    assert "Round trip" in (tmp_path / "evaluation.html").read_text()
    call(trained, *options)
    after = report_of(tmp_path)["parts"]
    assert after["round-trip"] == kept["round-trip"]
    assert list(after["neighbours"]) == ["mnist", "fashion"]


# -- other models ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory, mnist, fashion) -> Path:
    """Folders digits and garments with the classes 3 and 4 each, below train and test."""
    folder = tmp_path_factory.mktemp("sources")
    for name, images in (("digits", mnist), ("garments", fashion)):
        for split, first in (("train", 0), ("test", 8)):
            for label in (3, 4):
                where = folder / name / split / str(label)
                where.mkdir(parents=True)
                own = images.pixels[images.labels == label][first : first + 8]
                for number, pixels in enumerate(own):
                    (where / f"{number}.png").write_bytes(encode_png(pixels))
    return folder


def saved(folder: Path, *paths: str, statistics: dict | None = None) -> Path:
    """An untrained model of some paths."""
    model = tiny_model()
    model.statistics.update(statistics or {})
    for name in list(model.kinds()):
        model.remove_knowledge(name)
    for path in paths:
        small = KnowledgeConfig(code_dim=2, code_steps=1, code_width=8, z_steps=1, z_width=8)
        model.add_knowledge(path, small, generator=generator(0))
    model.save_pretrained(folder)
    return folder


def typicality_of(images) -> dict:
    """Fitted to digits, of the model that `saved` saves."""
    model, pixels = tiny_model(), torch.from_numpy(images.pixels[:200, :, ::2, ::2].copy())
    with torch.no_grad():
        t = dequantise(pixels, torch.rand(pixels.shape, generator=generator(0)))
        values = statistics(forward(model, t), pixels)
    made = Typicality.fit(statistic_names(model), values[:80], values[80:])
    return made.model_dump(mode="json")


def scopes_of(run: Path) -> dict[str, dict[str, str | None]]:
    parts = report_of(run / "evaluation-quick")["parts"]
    return {
        name: {scope: entry["skipped"] for scope, entry in each.items()}
        for name, each in parts.items()
    }


def test_a_model_without_knowledge(tmp_path, digits, mnist):
    run = saved(tmp_path / "run", statistics={"typicality": typicality_of(mnist)})
    call(run, *SMALL, "--data", digits / "digits")
    found = scopes_of(run)
    assert tuple(found) == NAMES
    for part in ("discriminators", "consistency", "information"):
        assert found[part] == {"all": "it is of knowledge, and the model has none"}
    assert found["likelihoods"] == {"digits": None}
    assert found["samples"] == {"p(t)": None}
    assert found["neighbours"] == {"digits": None}
    typicality = report_of(run / "evaluation-quick")["parts"]["typicality"]["all"]["figures"]
    # No other source was named: its own images altered.
    assert len(typicality["auroc"]) == 2
    for told in typicality["auroc"].values():
        assert told["long PNG"]["count"] == 16  # halves, so that no image is on both sides


def test_a_checkpoint_to_resume_from_says_what_it_is(trained):
    """Its p(e = 1) is fitted anew: the stored one is of the averaged model when last measured."""
    [*_, state] = sorted((trained / "checkpoints").glob("[0-9]*-[0-9]*"))
    result = call(state, *SMALL, "--part", "likelihoods")
    assert "is a checkpoint that training goes on from" in " ".join(result.stderr.split())
    report = report_of(state / "evaluation-quick")
    assert "fitted anew with 10,000 codes" in report["notes"][1]
    assert report["notes"][0] in (state / "evaluation-quick" / "evaluation.md").read_text()
    key = report["parts"]["likelihoods"]["mnist"]["key"]
    assert key["settings"]["existence_draws"] == 10_000


def test_other_training_images_are_told(trained, digits):
    """Samples are compared with those that are there, which the model may never have seen."""
    call(trained, *SMALL, "--part", "round-trip", "--data", f"mnist={digits / 'digits'}")
    [note] = report_of(trained / "evaluation-quick")["notes"]
    assert note.startswith("The training images of mnist, to which samples are compared")
    assert "the 16 of" in note
    assert f"the model's recipe names {trained.parent / 'digits'}, which" in note


@pytest.mark.slow
def test_one_kind_without_children(tmp_path, digits, mnist):
    run = saved(tmp_path / "run", "mnist", statistics={"typicality": typicality_of(mnist)})
    call(run, *SMALL, "--data", f"mnist={digits / 'digits'}", "--against", digits / "garments")
    found = scopes_of(run)
    assert found["discriminators"] == {"first level": None}
    assert found["consistency"] == {"first level": None}
    assert found["samples"] == {"p(t)": None}
    assert list(found["information"]) == ["mnist"]
    typicality = report_of(run / "evaluation-quick")["parts"]["typicality"]["all"]["figures"]
    assert typicality["uniform"]["mnist"]["images"] == 16
    assert 0 < typicality["uniform"]["mnist"]["distance"] <= 1
    assert 0.5 < typicality["auroc"]["garments"]["typicality"]["mean"] <= 1


@pytest.mark.slow
def test_several_kinds_with_classes_each(tmp_path, digits):
    run = saved(
        tmp_path / "run", "mnist", "mnist/3", "mnist/4", "fashion", "fashion/3", "fashion/4"
    )
    both = [
        "--data",
        f"mnist={digits / 'digits'}",
        "--data",
        f"fashion={digits / 'garments'}",
    ]
    call(run, *SMALL, *both)
    found = scopes_of(run)
    assert list(found["discriminators"]) == ["first level", "mnist", "fashion"]
    assert list(found["samples"]) == ["p(t)", "data sets", "mnist", "fashion"]
    parts = report_of(run / "evaluation-quick")["parts"]
    assert [each["path"] for each in parts["information"]["fashion"]["figures"]["codes"]] == [
        "fashion",
        "fashion/3",
        "fashion/4",
    ]
    # Of one source alone, what the other was measured of is forgotten.
    call(run, *SMALL, *both[:2])
    assert list(scopes_of(run)["samples"]) == ["p(t)", "mnist"]


@pytest.mark.slow
def test_binary_digits_below_a_kind(tmp_path, digits):
    """3 is 011 and 4 is 100, so bit 2 is whether it is a 4."""
    run = saved(tmp_path / "run", "mnist", *(f"mnist/bit{digit}" for digit in range(3)))
    source = {"source": str(digits / "digits"), "knowledge": "mnist", "binary_digits": True}
    recipe = {"name": "x", "data": {"sources": [source]}, "stages": [{"train": "flow", "steps": 1}]}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    call(run, *SMALL, "--part", "discriminators", "--part", "information")
    parts = report_of(run / "evaluation-quick")["parts"]
    assert list(parts["discriminators"]) == ["first level", "other kinds"]
    kinds = parts["discriminators"]["other kinds"]["figures"]["kinds"]
    assert [(each["path"], each["positives"], each["negatives"]) for each in kinds] == [
        ("mnist/bit0", 8, 8),
        ("mnist/bit1", 8, 8),
        ("mnist/bit2", 8, 8),
    ]
    assert len(parts["information"]["mnist"]["figures"]["codes"]) == 4


@pytest.mark.slow
def test_classes_of_the_first_level(tmp_path, digits):
    run = saved(tmp_path / "run", "3", "4")
    call(run, *SMALL, "--data", digits / "digits")
    found = report_of(run / "evaluation-quick")["parts"]
    assert list(found["samples"]) == ["p(t)", "digits"]
    assert found["discriminators"]["first level"]["figures"]["among"] is not None
    rows = found["likelihoods"]["digits"]["figures"]["rows"]
    assert {row["distribution"] for row in rows} == {"p(t)", "p(t|own class)"}


# -- what is wrong ---------------------------------------------------------------------------------


def test_wrong_calls(tmp_path, digits, trained):
    run = saved(tmp_path / "run", "mnist")
    assert "no recipe.yaml" in call(run, code=2).stderr
    assert "no kind 'x'" in call(run, "--data", f"x={digits / 'digits'}", code=2).stderr
    assert "'sampels'" in call(run, "--part", "sampels", code=2).stderr
    assert "does not exist" in call(tmp_path / "nothing", code=1).stderr
    assert "device" in call(trained, "--device", "tpu", code=2).stderr
    (tmp_path / "file").touch()
    result = call(run, "--data", f"mnist={digits / 'digits'}", "--out", tmp_path / "file", code=1)
    assert "cannot be written" in result.stderr
