"""Where images come from: given, stood in for, left out, or missing with how to get them."""

from __future__ import annotations

import numpy as np
import pytest

from tzk_core.errors import UsageError
from tzk_core.reproduction import PaperData
from tzk_core.reproduction.recipes import as_run, check_overrides, packaged


@pytest.fixture
def inked(tmp_path, mnist):
    """A folder with a train split of 40 digits, light on dark or dark on light."""
    from tzk_core.data.decoding import encode_png

    def make(dark: bool, split: str = "train"):
        folder = tmp_path / f"{'dark' if dark else 'light'}-{split}"
        (folder / split).mkdir(parents=True)
        for number, pixels in enumerate(mnist.pixels[:40]):
            image = 255 - pixels if dark else pixels
            (folder / split / f"{number}.png").write_bytes(encode_png(np.ascontiguousarray(image)))
        return folder

    return make


@pytest.mark.parametrize(
    ("given", "stand_ins", "said"),
    [
        (["minst=x"], [], "no data set 'minst'; there are cifar10, mnist, omniglot"),
        (["mnist"], [], "--data is NAME=SOURCE, not 'mnist'"),
        (["mnist="], [], "--data is NAME=SOURCE, not 'mnist='"),
        (["mnist=a", "mnist=b"], [], "--data names mnist twice"),
        ([], ["svhn"], "--stand-in is NAME=SOURCE"),
        (["svhn=a"], ["svhn=b"], "svhn is given and has a stand-in"),
    ],
)
def test_wrong_options(given, stand_ins, said):
    with pytest.raises(UsageError, match=said):
        PaperData.parsed(given, stand_ins)


def test_what_cannot_be_had_is_named_with_how_to_get_it(tmp_path):
    # The hub cannot be reached in the tests.
    data = PaperData.parsed(["mnist=builtin/mnist"])
    data.check([packaged("baseline-mnist", "small")])
    with pytest.raises(UsageError) as caught:
        data.check([packaged("multi-data", "small")])
    said = caught.value.detail
    assert "uoft-cs/cifar10" in said
    assert "--data cifar10=FOLDER" in said
    assert "--stand-in cifar10=SOURCE" in said
    with pytest.raises(UsageError) as caught:
        PaperData.parsed([f"mnist={tmp_path / 'none'}"]).check([packaged("baseline-mnist", "full")])
    assert str(tmp_path / "none") in caught.value.detail
    assert "--data mnist=builtin/mnist" in caught.value.detail


def test_sources_that_are_given(inked):
    folder = inked(dark=False)
    data = PaperData.parsed([f"cifar10={folder}", "mnist=builtin/mnist"])
    recipe = as_run("specialise-cifar", "small", data)
    cifar, mnist = recipe.data.sources
    assert (cifar.source, cifar.split, cifar.knowledge) == (str(folder), "train", "cifar10")
    assert (mnist.source, mnist.limit) == ("builtin/mnist", 20000)
    assert data.replaced(["cifar10", "mnist"]) == ()
    assert data.reduced(packaged("specialise-cifar", "small")) == ("4,000 images of MNIST",)
    assert data.told("mnist") == "MNIST (built-in part)"
    # The place on this machine is not told.
    assert data.told("cifar10") == "CIFAR-10"


def test_stand_ins_are_marked_and_may_have_test_images_alone(inked):
    folder = inked(dark=False, split="test")
    stand_ins = [f"svhn={folder}", "imagenet32=none", "celeba=builtin/fashion_mnist"]
    data = PaperData.parsed(
        ["cifar10=builtin/mnist", "mnist=builtin/mnist", "omniglot=builtin/mnist"], stand_ins
    )
    recipe = as_run("multi-data", "small", data)
    assert len(recipe.data.sources) == 5
    svhn = recipe.data.sources[3]
    assert (svhn.source, svhn.split) == (str(folder), "test")
    assert data.replaced(["mnist", "svhn", "imagenet32"]) == ("SVHN", "ImageNet")
    assert data.told("svhn") == f"SVHN (stand-in: {folder.name})"
    assert data.told("imagenet32") == "ImageNet (left out)"
    assert data.told_together(["mnist", "svhn", "imagenet32", "celeba"]) == (
        "six data sets, stand-ins for SVHN, CelebA, without ImageNet"
    )


def test_a_kind_cannot_be_left_out():
    data = PaperData.parsed(["cifar10=builtin/mnist"], ["mnist=none"])
    with pytest.raises(UsageError, match="mnist cannot be left out: specialise-cifar-small learns"):
        as_run("specialise-cifar", "small", data)


@pytest.mark.parametrize("dark", [True, False])
def test_the_ink_of_omniglot_is_looked_at(inked, dark):
    data = PaperData.parsed([f"omniglot={inked(dark)}", "mnist=builtin/mnist"])
    omniglot = as_run("mnist-omniglot", "small", data).data.sources[1]
    assert omniglot.invert is dark


def test_changes_are_of_every_recipe_or_of_one():
    data = PaperData.parsed(["mnist=builtin/mnist"])
    overrides = ["stages.0.steps=7", "baseline-mnist:stages.0.batch=5", "hierarchy:seed=3"]
    recipe = as_run("baseline-mnist", "small", data, seed=9, overrides=overrides)
    assert (recipe.stages[0].steps, recipe.stages[0].batch, recipe.seed) == (7, 5, 9)
    check_overrides(overrides, ["baseline-mnist", "hierarchy"])
    with pytest.raises(UsageError, match="hierarchy:seed=3: no such recipe; there are baseline"):
        check_overrides(overrides, ["baseline-mnist"])
    with pytest.raises(UsageError, match="no such key"):
        as_run("baseline-mnist", "small", data, overrides=["stages.0.stepz=1"])
