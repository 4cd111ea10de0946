from __future__ import annotations

import pytest

from tzk_core.data.names import check_name, shown, slug, slugs, split_path
from tzk_core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("T-shirt/top", "t-shirt-top"),
        ("Ankle boot", "ankle-boot"),
        (3, "3"),
        ("__init__", "init"),
        ("Çà et là", "ca-et-la"),
        ("a_b", "a_b"),
        ("...", slug("...")),
    ],
)
def test_slugs_are_names(label, name):
    assert slug(label) == name
    assert check_name(slug(label)) == name


def test_labels_without_ascii_get_different_names():
    assert len({slug("猫"), slug("犬"), slug("+"), slug("")}) == 4
    assert slug("猫") == slug("猫")


def test_no_two_labels_share_a_name():
    assert slugs(["A", "a", "A!", "a-2", "b"]) == ["a", "a-2", "a-3", "a-2-2", "b"]


@pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a b", "a/b", "a.b", "ä", "a\n", None, 3])
def test_what_is_no_name(name):
    with pytest.raises(InvalidRequest) as caught:
        check_name(name, pointer="/given")
    assert caught.value.pointer == "/given"


def test_paths():
    assert split_path("mnist") == ("mnist",)
    assert split_path("mnist/3/bit-0") == ("mnist", "3", "bit-0")


@pytest.mark.parametrize("path", ["", "/", "a/", "/a", "a//b", "../a", "A/b", None])
def test_what_is_no_path(path):
    with pytest.raises(InvalidRequest):
        split_path(path)


def test_bytes_that_are_no_utf8():
    """A label of them alone still has a name, and one that can be displayed."""
    assert slug("\udce9\udcff") == slug("\udce9\udcff") != slug("\udce9")
    assert shown("caf\udce9 é") == "caf\\udce9 é"
