"""Samples of classes, and the figures taken on them."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image
from tiny_model import SIDE, tiny_model

from tzk_core.config import KnowledgeConfig
from tzk_core.errors import UsageError
from tzk_core.evaluation.classifier import ImageClassifier, train_classifier
from tzk_core.evaluation.conditional_samples import (
    ClassSamples,
    class_grid,
    class_paths,
    draw_classes,
    pixel_variance,
    read_as_asked,
)
from tzk_core.randomness import generator

CLASSES = ["mnist/3", "mnist/4"]


@pytest.fixture(scope="module")
def model():
    small = KnowledgeConfig(code_dim=2, code_steps=1, code_width=8, z_steps=1, z_width=8)
    return tiny_model().add_knowledge("mnist/4", small, generator=generator(0)).eval()


@pytest.fixture(scope="module")
def drawn(model) -> ClassSamples:
    return draw_classes(model, CLASSES, 5, temperature=1.0, seed=0)


def test_there_are_n_of_each_class(drawn):
    assert drawn.pixels.shape == (10, 1, SIDE, SIDE)
    assert drawn.pixels.dtype == torch.uint8
    assert drawn.labels.tolist() == [0] * 5 + [1] * 5
    assert all(0 < rate <= 1 for rate in drawn.acceptance_rates)
    assert not drawn.resampled


def test_a_seed_gives_them_again_whatever_the_batch(model, drawn):
    again = draw_classes(model, CLASSES, 5, temperature=1.0, seed=0, batch=2)
    # To one level: a batch of another size rounds otherwise (design, section 8).
    assert (again.pixels.int() - drawn.pixels.int()).abs().max() <= 1
    other = draw_classes(model, CLASSES, 5, temperature=1.0, seed=1)
    assert not torch.equal(other.pixels, drawn.pixels)


def test_temperature_is_that_of_z(model):
    cold = draw_classes(model, ["mnist/3"], 40, temperature=0.1, seed=0)
    warm = draw_classes(model, ["mnist/3"], 40, temperature=1.0, seed=0)
    spread = [float(pixel_variance(s.pixels, s.labels, 1)) for s in (cold, warm)]
    assert spread[0] < 0.5 * spread[1]


def test_a_sample_that_is_not_finite_is_lost_and_never_right():
    model = tiny_model()
    with torch.no_grad():
        model.find("mnist").decoders[1].head.last.bias.fill_(torch.nan)
    drawn = draw_classes(model, ["mnist/3"], 2, temperature=1.0, seed=0)
    assert drawn.lost.tolist() == [True, True]
    assert not drawn.pixels.any()

    class SaysYes:
        def classify(self, pixels):
            return torch.zeros(len(pixels), dtype=torch.int64)

    assert read_as_asked(SaysYes(), drawn)[0].mean == 0


def test_paths_follow_the_labels(model):
    assert class_paths(model, "mnist", ["4", "3"]) == ["mnist/4", "mnist/3"]
    with pytest.raises(UsageError, match="mnist/5"):
        class_paths(model, "mnist", ["3", "5"])


def test_read_as_asked_counts_by_class():
    pixels = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    pixels[20:] = 255
    labels = torch.arange(2).repeat_interleave(20)
    judge = train_classifier(pixels, labels, classes=2, epochs=60, seed=0)
    pixels[:5] = 255  # five samples of the first class that look like the second
    none = torch.zeros(40, dtype=torch.bool)
    samples = ClassSamples(pixels, labels, ["a/0", "a/1"], 1.0, 0, [1.0, 1.0], False, none)
    mean, (first, second) = read_as_asked(judge, samples)
    assert (first.mean, second.mean, mean.mean) == (0.75, 1.0, 0.875)
    assert mean.count == 40
    assert mean.standard_error == pytest.approx(first.standard_error / 2)


def test_samples_can_be_judged_and_learned_from(drawn):
    judge = ImageClassifier((1, SIDE, SIDE), 2, generator(0)).eval()
    assert 0 <= read_as_asked(judge, drawn)[0].mean <= 1
    learner = train_classifier(drawn.pixels, drawn.labels, classes=2, epochs=1, seed=0)
    assert learner.classify(drawn.pixels).shape == (10,)


def test_pixel_variance_is_within_a_class():
    levels = torch.tensor([0, 128, 64, 64, 9], dtype=torch.uint8)
    pixels = levels.reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    found = pixel_variance(pixels, torch.tensor([0, 0, 1, 1, 2]), 3)
    assert found[:2].tolist() == [0.5**2 / 2, 0]
    assert found[2].isnan()


def test_the_grid_has_one_class_a_row(drawn):
    with Image.open(io.BytesIO(class_grid(drawn, columns=4))) as picture:
        width, height = picture.size
    assert width > 4 * SIDE
    assert 2 * SIDE < height < 3 * SIDE
