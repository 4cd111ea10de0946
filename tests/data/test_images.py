from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tzk_core.data.images import Images, content_keys, held_out, split_holdout


def _keys(images: Images) -> set[bytes]:
    return {image.tobytes() for image in images.pixels}


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_share_is_about_right(mnist, share):
    train, held = split_holdout(mnist, share, seed=0)
    assert len(train) + len(held) == len(mnist)
    assert len(held) / len(mnist) == pytest.approx(share, abs=4 * (share / len(mnist)) ** 0.5)
    assert not _keys(train) & _keys(held)


def test_equal_images_fall_on_the_same_side(mnist):
    double = mnist.subset(np.tile(np.arange(len(mnist)), 2))
    train, held = split_holdout(double, 0.3, seed=1)
    assert not _keys(train) & _keys(held)
    assert len(held) == 2 * len(_keys(held))


def test_an_image_stays_on_its_side_when_data_grow(mnist):
    _, held = split_holdout(mnist.subset(slice(0, 200)), 0.3, seed=1)
    _, more = split_holdout(mnist, 0.3, seed=1)
    assert _keys(held) <= _keys(more)


def test_equal_images_fall_on_the_same_side_in_every_source(mnist):
    """Also where a small source has its only held-out image by the exception to the rule."""
    keys = content_keys(mnist.pixels, seed=0)
    for number in range(0, 400, 2):
        few, many = keys[number : number + 2], keys
        masks = held_out([few, many], 0.05)
        assert 0 < masks[0].sum() < 2
        assert masks[0].tolist() == masks[1][number : number + 2].tolist()


def test_keys_tell_images_apart(mnist):
    keys = content_keys(mnist.pixels, seed=0)
    assert len(set(keys.tolist())) == len(_keys(mnist))
    assert (content_keys(mnist.pixels, seed=1) != keys).all()
    changed = mnist.pixels.copy()
    changed[:, 0, 31, 31] += 1
    assert (content_keys(changed, seed=0) != keys).all()


def test_the_seed_matters_and_repeats(mnist):
    first, again, other = (split_holdout(mnist, 0.3, seed)[1] for seed in (1, 1, 2))
    assert _keys(first) == _keys(again) != _keys(other)


def test_neither_side_is_empty(mnist):
    for seed in range(20):
        for share in (0.01, 0.99):
            train, held = split_holdout(mnist.subset(slice(0, 2)), share, seed)
            assert (len(train), len(held)) == (1, 1)
    train, held = split_holdout(mnist, 0, seed=0)
    assert (len(train), len(held)) == (500, 0)


@pytest.mark.parametrize("share", [-0.1, 1, float("nan")])
def test_a_wrong_share_is_refused(mnist, share):
    with pytest.raises(ValueError, match="share"):
        split_holdout(mnist, share, seed=0)


def test_subsets_keep_what_belongs_together(mnist):
    part = mnist.subset(mnist.labels == 3)
    assert len(part) == 50
    assert set(part.labels) == {3}
    assert part.label_names == mnist.label_names
    np.testing.assert_array_equal(part.pixels[0], mnist.pixels[mnist.labels == 3][0])
    assert part.pixels.flags["C_CONTIGUOUS"]


def test_attributes_go_with_their_images(mnist):
    values = np.where(mnist.labels > 4, 1, mnist.labels % 2 - 1).astype(np.int8)
    images = dataclasses.replace(mnist, attributes={"high": values})
    part = images.subset(mnist.labels == 7)
    assert part.attributes["high"].tolist() == [1] * 50
    for wrong in (values[1:], values + 3):
        with pytest.raises(ValueError, match="'high' must be 1, 0 or −1"):
            dataclasses.replace(mnist, attributes={"high": wrong})


def test_the_fingerprint_sees_pixels_and_labels(mnist):
    same = mnist.subset(slice(None))
    assert same.fingerprint == mnist.fingerprint
    assert mnist.subset(slice(1, None)).fingerprint != mnist.fingerprint
    relabelled = dataclasses.replace(mnist, labels=np.roll(mnist.labels, 1))
    assert relabelled.fingerprint != mnist.fingerprint


def test_parts_that_do_not_fit_are_refused(mnist):
    with pytest.raises(ValueError, match="uint8"):
        dataclasses.replace(mnist, pixels=mnist.pixels.astype(float))
    with pytest.raises(ValueError, match="shape"):
        dataclasses.replace(mnist, labels=mnist.labels[1:])
    with pytest.raises(ValueError, match="labels"):
        dataclasses.replace(mnist, labels=mnist.labels + 1)
