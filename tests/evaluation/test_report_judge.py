"""The judge: trained once for the same images, and on no more than it may be shown."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tzk_core.evaluation.report import judge as module
from tzk_core.evaluation.report.data import Classes
from tzk_core.evaluation.report.judge import judge_of, trained
from tzk_core.training.progress import Reporter

CPU = torch.device("cpu")


class Counting(Reporter):
    """A reporter that adds up what its tasks do."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.tasks = []

    def task(self, name: str, total: int, done: int = 0):
        self.tasks.append(super().task(name, total, done))
        return self.tasks[-1]


@pytest.fixture
def classes() -> Classes:
    """Dark and bright images."""
    pixels = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    pixels[::2] = 200
    labels = (torch.arange(40) + 1) % 2
    return Classes(
        "a",
        ["a/0", "a/1"],
        pixels,
        labels,
        torch.full((40,), 64),
        torch.arange(40),
        "f",
        lambda: (
            pixels,
            labels,
        ),
    )


def judged(classes, file, **options):
    options = {"seed": 0, "device": CPU, "reporter": Reporter(quiet=True), "shown": 2000} | options
    return judge_of(classes, file, **options)


def test_it_learns_and_is_kept(classes, tmp_path, monkeypatch):
    file = tmp_path / "deep" / "judge.safetensors"
    first = judged(classes, file)
    assert (first.classifier.classify(classes.pixels) == classes.labels).all()
    assert first.seconds > 0
    with monkeypatch.context() as patched:
        patched.setattr(module, "trained", lambda *_, **__: pytest.fail("trained again"))
        again = judged(classes, file)
    assert again.seconds == pytest.approx(first.seconds, abs=0.06)
    for one, other in zip(first.classifier.parameters(), again.classifier.parameters()):
        assert torch.equal(one, other)


@pytest.mark.parametrize("change", ["images", "seed", "shown"])
def test_it_is_trained_anew_for_others(classes, tmp_path, change):
    file = tmp_path / "judge.safetensors"
    judged(classes, file)
    before = file.read_bytes()
    if change == "images":
        judged(dataclasses.replace(classes, fingerprint="g"), file)
    else:
        judged(classes, file, **{change: 1000})
    assert file.read_bytes() != before


def test_it_is_shown_as_many_images_as_it_may_be(classes):
    for shown, expected in ((10, 10), (40, 40), (130, 120)):
        reporter = Counting()
        trained("x", *classes.training, 2, seed=0, device=CPU, reporter=reporter, shown=shown)
        [task] = reporter.tasks
        assert task.total == task.done == expected
