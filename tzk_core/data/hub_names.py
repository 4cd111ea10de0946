"""Names of well-known data sets: built in, and short ones of the hub with columns and splits."""

from __future__ import annotations

from dataclasses import dataclass, field

from tzk_core.data.table import Columns, Split

__all__ = ["BUILTIN", "HUB", "SPLIT_NAMES", "HubSource"]

BUILTIN = ("builtin/mnist", "builtin/fashion_mnist")

# What the two splits are called: the first of these that there is.
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "test": ("test", "validation", "valid", "val"),
}


@dataclass(frozen=True)
class HubSource:
    """Where the hub has a data set.

    Attributes:
        repository: its name there.
        configuration: the one that is meant, where there are several.
        columns: which say what.
        splits: names of the splits, where they are not the usual ones.
    """

    repository: str
    configuration: str | None = None
    columns: Columns = field(default_factory=Columns)
    splits: dict[Split, tuple[str, ...]] = field(default_factory=lambda: SPLIT_NAMES)


HUB: dict[str, HubSource] = {
    "mnist": HubSource("ylecun/mnist", columns=Columns("image", "label")),
    "fashion_mnist": HubSource("zalando-datasets/fashion_mnist", columns=Columns("image", "label")),
    "cifar10": HubSource("uoft-cs/cifar10", columns=Columns("img", "label")),
    "cifar100": HubSource("uoft-cs/cifar100", columns=Columns("img", "fine_label")),
    # 105×105, black ink on white. The characters of its splits (`label`) are disjoint, so the
    # alphabet is what both could share.
    "omniglot": HubSource("dpdl-benchmark/omniglot", columns=Columns("image", "alphabet")),
    "svhn": HubSource("ufldl-stanford/svhn", "cropped_digits", Columns("image", "label")),
    # Its `test` has no labels and is not the split of anybody's figures: `validation` is.
    "imagenet32": HubSource(
        "benjamin-paine/imagenet-1k-32x32",
        columns=Columns("image", "label"),
        splits={"train": ("train",), "test": ("validation",)},
    ),
    "imagenet": HubSource(
        "ILSVRC/imagenet-1k",
        columns=Columns("image", "label"),
        splits={"train": ("train",), "test": ("validation",)},
    ),
    # `celeb_id`, an integer of ten thousand people, is not taken for a class; the 40 attributes
    # are columns of booleans.
    "celeba": HubSource(
        "flwrlabs/celeba",
        "img_align+identity+attr",
        Columns("image"),
        splits={"train": ("train",), "test": ("test",)},
    ),
}
