"""The judge of samples: it learns, the same for the same seed, and comes back from its file."""

from __future__ import annotations

import pytest
import torch

from tzk_core.errors import ModelUnavailable, UsageError
from tzk_core.evaluation.classifier import (
    ImageClassifier,
    accuracy,
    load_classifier,
    save_classifier,
    shifted,
    train_classifier,
)


@pytest.fixture(scope="module")
def bars():
    """64 images of an upright or a level bar, noise around it, and which of the two."""
    source = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 60, (64, 1, 8, 8), generator=source, dtype=torch.uint8)
    labels = torch.arange(64) % 2
    pixels[labels == 0, :, :, 3:5] = 255
    pixels[labels == 1, :, 3:5, :] = 255
    return pixels, labels


def learn(bars, seed: int, epochs: int = 20) -> ImageClassifier:
    return train_classifier(*bars, classes=2, epochs=epochs, seed=seed)


def test_it_learns(bars):
    figure = accuracy(learn(bars, 0), *bars, "bars")
    assert figure.mean == 1
    assert figure.count == 64


def test_a_seed_gives_the_same_classifier_whatever_the_global_generator_says(bars):
    first = learn(bars, 3, epochs=2).state_dict()
    torch.rand(5)
    again, other = learn(bars, 3, epochs=2).state_dict(), learn(bars, 4, epochs=2).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["last.weight"], other["last.weight"])


def test_training_leaves_the_global_generator_alone(bars):
    before = torch.get_rng_state()
    learn(bars, 0, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_comes_back_from_its_file(bars, tmp_path):
    model = learn(bars, 0, epochs=2)
    save_classifier(model, tmp_path / "judge.safetensors", {"images": "bars"})
    loaded, facts = load_classifier(tmp_path / "judge.safetensors")
    assert torch.equal(loaded(bars[0]), model(bars[0]))
    assert facts["images"] == "bars"


@pytest.mark.parametrize("content", [None, b"", b"no tensors"])
def test_a_file_that_is_no_classifier_is_refused(tmp_path, content):
    path = tmp_path / "judge.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelUnavailable, match=r"judge\.safetensors"):
        load_classifier(path)


def test_labels_that_are_unknown_are_refused(bars):
    pixels, labels = bars
    with pytest.raises(UsageError, match=r"0…1"):
        train_classifier(pixels, labels - 1, classes=2, epochs=1, seed=0)


def test_shifts_move_whole_images_by_up_to_two_pixels():
    image = torch.arange(1, 73, dtype=torch.uint8).reshape(1, 2, 6, 6)
    moved = shifted(image.expand(200, -1, -1, -1), torch.Generator().manual_seed(0))
    wide = torch.nn.functional.pad(image[0], (2, 2, 2, 2))
    places = [wide[:, i : i + 6, j : j + 6] for i in range(5) for j in range(5)]
    seen = {next(k for k, p in enumerate(places) if torch.equal(p, one)) for one in moved}
    # A place is missed by all of 200 images with probability below 25·(24/25)^200 = 0.7 %.
    assert seen == set(range(25))
