from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from tzk_core.data.decoding import decode_image
from tzk_core.data.preparation import Preparation


@pytest.fixture
def digit(mnist) -> Image.Image:
    """A real digit at its own 28×28."""
    return Image.fromarray(mnist.pixels[0, 0, 2:30, 2:30])


def test_a_small_image_is_padded_and_not_resized(digit, mnist):
    prepared = Preparation().apply(digit)
    np.testing.assert_array_equal(prepared.pixels, mnist.pixels[0])
    assert prepared.native_dims == 784
    assert prepared.notes == ["padded from 28×28 to 32×32"]


def test_the_right_size_is_left_alone(mnist):
    prepared = Preparation().apply(Image.fromarray(mnist.pixels[0, 0]))
    np.testing.assert_array_equal(prepared.pixels, mnist.pixels[0])
    assert (prepared.native_dims, prepared.notes) == (1024, [])


@pytest.mark.parametrize(
    ("size", "channels", "native"),
    [((28, 28), 3, 784), ((32, 32), 3, 1024), ((10, 20), 1, 200), ((31, 32), 1, 992)],
)
def test_native_dims_count_neither_padding_nor_copies(size, channels, native):
    prepared = Preparation(channels=channels).apply(Image.new("L", size, 9))
    assert prepared.pixels.shape == (channels, 32, 32)
    assert prepared.native_dims == native


def test_native_dims_of_colour():
    image = Image.new("RGB", (28, 28))
    assert Preparation(channels=3).apply(image).native_dims == 3 * 784
    assert Preparation(channels=1).apply(image).native_dims == 784
    assert Preparation(channels=3, fit="pad").apply(Image.new("RGB", (64, 32))).native_dims == 1536


def test_grey_is_copied(digit, mnist):
    prepared = Preparation(channels=3).apply(digit)
    for channel in prepared.pixels:
        np.testing.assert_array_equal(channel, mnist.pixels[0, 0])
    assert prepared.pixels.flags["C_CONTIGUOUS"]
    assert prepared.pixels.flags["WRITEABLE"]
    assert "grey copied to three channels" in prepared.notes


@pytest.mark.parametrize(
    ("fit", "said", "corner"),
    [("crop", "centre crop", 255), ("stretch", "stretched", 255), ("pad", "padded", 5)],
)
def test_fit(fit, said, corner):
    image = Image.new("L", (640, 480), 255)
    prepared = Preparation(fit=fit, pad_value=5).apply(image)
    assert prepared.notes == [f"resized from 640×480 to 32×32 (lanczos, {said})"]
    assert prepared.pixels[0, 0, 0] == corner
    assert prepared.native_dims == (32 * 24 if fit == "pad" else 1024)


def test_the_crop_takes_the_centre():
    image = Image.new("L", (96, 32), 0)
    image.paste(255, (32, 0, 64, 32))
    assert (Preparation(filter="box").apply(image).pixels == 255).all()


def test_a_line_keeps_one_pixel():
    prepared = Preparation(fit="pad").apply(Image.new("L", (5000, 1), 200))
    assert prepared.native_dims == 32
    assert np.count_nonzero(prepared.pixels) == 32


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "bicubic", "lanczos"])
def test_every_filter_keeps_a_flat_image_flat(name):
    prepared = Preparation(filter=name, padding=False).apply(Image.new("L", (45, 45), 77))
    assert (prepared.pixels == 77).all()
    assert prepared.notes == [f"resized from 45×45 to 32×32 ({name})"]


def test_without_padding_a_small_image_is_enlarged(digit):
    prepared = Preparation(padding=False).apply(digit)
    assert prepared.native_dims == 1024
    assert prepared.notes == ["resized from 28×28 to 32×32 (lanczos)"]


def test_inversion_leaves_the_padding(digit):
    prepared = Preparation(invert=True, pad_value=3).apply(digit)
    np.testing.assert_array_equal(prepared.pixels[0, 2:30, 2:30], 255 - np.asarray(digit))
    assert (prepared.pixels[0, :2] == 3).all()
    assert prepared.notes[0] == "inverted"


def test_what_decoding_did_is_told(encoded):
    data = encoded(Image.new("RGBA", (32, 32), (0, 0, 0, 0)), "PNG")
    prepared = Preparation().apply(decode_image(data))
    assert prepared.notes == ["transparent parts laid over white", "colour turned to grey"]
    assert (prepared.pixels == 255).all()


def test_any_mode_is_taken():
    for mode in ("1", "P", "RGBA", "CMYK", "I;16", "LA"):
        assert Preparation().apply(Image.new(mode, (32, 32))).pixels.shape == (1, 32, 32)


def test_it_goes_through_json():
    preparation = Preparation(size=64, channels=3, filter="box", fit="pad", invert=True)
    assert Preparation.model_validate_json(preparation.model_dump_json()) == preparation


@pytest.mark.parametrize(
    "wrong", [{"sise": 32}, {"size": 0}, {"channels": 2}, {"filter": "sinc"}, {"pad_value": 256}]
)
def test_wrong_keys_and_values_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Preparation(**wrong)
