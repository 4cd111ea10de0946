from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from tzk_core.data.decoding import NOTES, decode_image, encode_png, grid, to_plain
from tzk_core.data.preparation import Preparation
from tzk_core.errors import NotAnImage, TooLarge, UnsupportedMedia


@pytest.fixture(scope="module")
def colour(fashion) -> Image.Image:
    """A colour picture made of three real garments, smoothly enlarged so that JPEG keeps it."""
    image = Image.merge("RGB", [Image.fromarray(pixels[0]) for pixels in fashion.pixels[:3]])
    return image.resize((128, 96), Image.Resampling.BICUBIC)


def test_png_round_trip_is_exact(mnist, colour):
    for pixels in (mnist.pixels[0], np.asarray(colour).transpose(2, 0, 1)):
        image = decode_image(encode_png(pixels))
        back = np.asarray(image)
        back = back[None] if back.ndim == 2 else back.transpose(2, 0, 1)
        np.testing.assert_array_equal(back, pixels)
        assert image.info[NOTES] == []


@pytest.mark.parametrize("form", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_each_format_shows_the_picture(form, colour, encoded):
    image = decode_image(encoded(colour, form))
    assert (image.mode, image.size) == ("RGB", colour.size)
    difference = np.abs(np.asarray(image).astype(int) - np.asarray(colour))
    assert difference.mean() < (12 if form in ("GIF", "JPEG", "WEBP") else 1e-9)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_transparent_parts_are_laid_over_white(form, encoded):
    rgba = np.zeros((2, 3, 4), dtype=np.uint8)
    rgba[0, 0] = (200, 100, 0, 255)
    rgba[0, 1] = (0, 0, 0, 128)
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    image = decode_image(encoded(Image.fromarray(rgba), form, **options))
    assert image.getpixel((0, 0)) == (200, 100, 0)
    assert image.getpixel((1, 0)) == (127, 127, 127)
    assert image.getpixel((2, 1)) == (255, 255, 255)
    assert image.info[NOTES] == ["transparent parts laid over white"]


def test_opaque_alpha_changes_nothing(colour, encoded):
    opaque = colour.copy()
    opaque.putalpha(255)
    image = decode_image(encoded(opaque, "PNG"))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(colour))
    assert image.info[NOTES] == []


def test_grey_with_alpha_stays_grey(encoded):
    image = Image.fromarray(np.array([[[10, 255], [10, 0]]], dtype=np.uint8), "LA")
    assert list(decode_image(encoded(image, "PNG")).tobytes()) == [10, 255]


def test_palette_with_transparency(encoded):
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    plain = decode_image(encoded(image, "PNG"))
    assert [plain.getpixel((x, 0)) for x in range(3)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    clear = decode_image(encoded(image, "PNG", transparency=1))
    assert clear.getpixel((1, 0)) == (255, 255, 255)
    assert clear.getpixel((2, 0)) == (0, 0, 255)


def test_a_grey_palette_gives_grey(mnist, encoded):
    image = Image.fromarray(mnist.pixels[0, 0]).convert("RGB").quantize(256)
    plain = decode_image(encoded(image, "PNG"))
    assert plain.mode == "L"
    np.testing.assert_array_equal(np.asarray(plain), mnist.pixels[0, 0])


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_a_colour_that_stands_for_transparent(mode, encoded):
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((1, 0), {"L": 9, "RGB": (9, 9, 9), "1": 255}[mode])
    key = (0, 0, 0) if mode == "RGB" else 0
    plain = decode_image(encoded(image, "PNG", transparency=key))
    white = 255 if plain.mode == "L" else (255, 255, 255)
    assert plain.getpixel((0, 0)) == white
    assert plain.getpixel((1, 0)) == {"L": 9, "RGB": (9, 9, 9), "1": 255}[mode]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(form, encoded):
    levels = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    image = decode_image(encoded(Image.fromarray(levels), form))
    assert image.mode == "L"
    assert list(image.tobytes()) == [0, 0, 1, 1, 128, 255]
    assert image.info[NOTES] == ["16-bit levels scaled to 8 bits"]


def test_sixteen_bits_big_endian(encoded):
    image = Image.frombytes("I;16B", (3, 1), np.array([0, 257, 65535], dtype=">u2").tobytes())
    assert list(decode_image(encoded(image, "TIFF")).tobytes()) == [0, 1, 255]
    assert list(to_plain(image).tobytes()) == [0, 1, 255]


def test_sixteen_bits_where_zero_is_white(encoded):
    image = Image.fromarray(np.array([[0, 65535]], dtype=np.uint16))
    assert list(decode_image(encoded(image, "TIFF", tiffinfo={262: 0})).tobytes()) == [255, 0]


def test_sixteen_bits_with_a_transparent_level(encoded):
    image = Image.fromarray(np.array([[300, 65535, 514]], dtype=np.uint16))
    plain = decode_image(encoded(image, "PNG", transparency=300))
    assert list(plain.tobytes()) == [255, 255, 2]


def sixteen_bit_png(
    levels: np.ndarray, colour_type: int, *, key: bytes = b"", interlace=0
) -> bytes:
    """A PNG file of 16-bit levels (H, W, C), which Pillow does not write.

    Each row but the first is filtered by the difference to the pixel before it, as real files are.
    With ``interlace`` it is of one row of two pixels, which are in passes of their own.
    """
    height, width, channels = levels.shape
    rows = levels.astype(">u2").view(np.uint8).reshape(height, width, 2 * channels)
    moved = rows - np.pad(rows, ((0, 0), (1, 0), (0, 0)))[:, :-1]  # bytes modulo 256
    lines = [b"\0" + rows[0].tobytes(), *(b"\1" + row.tobytes() for row in moved[1:])]
    if interlace:
        lines = [b"\0" + pixel.tobytes() for pixel in rows[0]]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"tRNS", key) if key else b"")
        + chunk(b"IDAT", zlib.compress(b"".join(lines)))
        + chunk(b"IEND", b"")
    )


# 128 and 129 are on both sides of half a level; 255 and 511 have the high byte of a level below.
WIDE = np.array([0, 128, 129, 255, 257, 511, 32768, 65278, 65535, 12345, 54321, 40000])
EIGHT = (WIDE + 128) // 257


def test_sixteen_bit_colours_are_rounded_as_grey_is():
    image = decode_image(sixteen_bit_png(WIDE.reshape(2, 2, 3), 2))
    np.testing.assert_array_equal(np.asarray(image), EIGHT.reshape(2, 2, 3))
    assert image.info[NOTES] == ["16-bit levels scaled to 8 bits"]
    image = decode_image(sixteen_bit_png(WIDE[:6].reshape(1, 2, 3), 2, interlace=1))
    np.testing.assert_array_equal(np.asarray(image), EIGHT[:6].reshape(1, 2, 3))


def test_sixteen_bit_colours_with_alpha():
    levels = np.array([[[257, 514, 65535, 65535], [257, 514, 771, 0]]] * 2)
    image = decode_image(sixteen_bit_png(levels, 6))
    assert np.asarray(image).tolist() == [[[1, 2, 255], [255, 255, 255]]] * 2
    assert image.info[NOTES] == [
        "16-bit levels scaled to 8 bits",
        "transparent parts laid over white",
    ]


def test_sixteen_bit_grey_with_alpha_is_grey():
    """So that it has one native dimension a pixel, not three."""
    levels = np.stack([WIDE, np.full(12, 65535)], -1).reshape(3, 4, 2)
    levels[0, 0, 1] = 0
    data = sixteen_bit_png(levels, 4)
    image = decode_image(data)
    assert image.mode == "L"
    assert list(image.tobytes()) == [255, *EIGHT[1:]]
    prepared = Preparation(size=4, channels=3).apply(image)
    assert prepared.native_dims == 12


def test_a_sixteen_bit_colour_that_stands_for_transparent():
    """By all its bits: 257 and 258 have the same level of 8 bits."""
    levels = np.array([[[257, 257, 257], [258, 257, 257]]])
    image = decode_image(sixteen_bit_png(levels, 2, key=struct.pack(">HHH", 257, 257, 257)))
    assert np.asarray(image).tolist() == [[[255, 255, 255], [1, 1, 1]]]
    assert image.info[NOTES][1:] == ["transparent parts laid over white"]


def test_a_large_sixteen_bit_image_is_put_together_by_rows():
    levels = np.arange(600 * 2 * 3).reshape(600, 2, 3) * 17
    image = decode_image(sixteen_bit_png(levels, 2))
    np.testing.assert_array_equal(np.asarray(image), (levels + 128) // 257)


def sixteen_bit_tiff(levels: np.ndarray, order: str, *, planes: int = 1) -> bytes:
    """A TIFF file of 16-bit RGB levels (H, W, 3) in one strip; ``order`` is < or >."""
    height, width, _ = levels.shape
    data = levels.astype(f"{order}u2").tobytes()
    entries = [(256, width), (257, height), (258, None), (259, 1), (262, 2), (273, None)]
    entries += [(277, 3), (278, height), (279, len(data)), (284, planes)]
    after = 8 + 2 + 12 * len(entries) + 4
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    directory = struct.pack(f"{order}H", len(entries))
    for tag, value in entries:
        count = 3 if tag == 258 else 1
        value = {258: after, 273: after + 6}.get(tag, value)
        kind = 4 if tag in (273, 279) else 3
        form = f"{order}HHII" if count * (2 if kind == 3 else 4) > 2 else f"{order}HHIHH"
        more = (value,) if form.endswith("II") else (value, 0)
        directory += struct.pack(form, tag, kind, count, *more)
    return head + directory + struct.pack(f"{order}IHHH", 0, 16, 16, 16) + data


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_colours_of_a_tiff(order):
    levels = WIDE.reshape(2, 2, 3)
    image = decode_image(sixteen_bit_tiff(levels, order))
    np.testing.assert_array_equal(np.asarray(image), EIGHT.reshape(2, 2, 3))
    with pytest.raises(UnsupportedMedia, match="separate planes"):
        decode_image(sixteen_bit_tiff(levels, order, planes=2))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_modes_without_black_and_white_are_refused(dtype, encoded):
    image = Image.fromarray(np.ones((4, 4), dtype=dtype))
    with pytest.raises(UnsupportedMedia, match="no fixed black and white"):
        decode_image(encoded(image, "TIFF"))


def test_lab_is_refused(encoded):
    with pytest.raises(UnsupportedMedia, match="LAB"):
        decode_image(encoded(Image.new("LAB", (4, 4)), "TIFF"))


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk(form, colour, encoded):
    image = decode_image(encoded(colour.convert("CMYK"), form))
    difference = np.abs(np.asarray(image).astype(int) - np.asarray(colour))
    assert image.mode == "RGB"
    assert difference.mean() < 4


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(form, orientation, encoded):
    """The corner that is black as stored goes where EXIF says that it is."""
    stored = Image.new("L", (32, 16), 255)
    stored.paste(0, (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(encoded(stored.convert("RGB"), form, exif=exif)).convert("L")
    assert image.size == ((32, 16) if orientation <= 4 else (16, 32))
    width, height = image.size
    right, bottom = {
        1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1),
    }[orientation]  # fmt: skip
    x, y = width // 4 + right * width // 2, height // 4 + bottom * height // 2
    assert image.getpixel((x, y)) < 30
    assert np.asarray(image).mean() == pytest.approx(255 * 0.75, abs=4)


def test_a_tiff_whose_next_frame_has_no_width_is_damaged_not_a_fault(encoded):
    frames = [Image.new("L", (8, 8), level) for level in (90, 200)]
    data = bytearray(encoded(frames[0], "tiff", save_all=True, append_images=frames[1:]))
    width = data.rindex(b"\x00\x01\x04\x00")  # the tag ImageWidth, 256, a long
    data[width : width + 2] = b"\x00\x7f"
    with pytest.raises(NotAnImage, match="damaged"):
        decode_image(bytes(data))


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused(form, encoded):
    frames = [Image.new("L", (8, 8), level) for level in (0, 90, 200)]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    with pytest.raises(UnsupportedMedia, match="3 frames"):
        decode_image(data)


def test_a_phones_preview_is_no_second_frame(colour, encoded):
    data = encoded(colour, "MPO", save_all=True, append_images=[colour.resize((16, 12))])
    assert decode_image(data).size == colour.size


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_cut_off_files_are_no_images(form, share, colour, encoded):
    data = encoded(colour, form)
    with pytest.raises(NotAnImage):
        decode_image(data[: max(1, int(len(data) * share))])


def test_damaged_files_never_raise_anything_else(colour, encoded, rng):
    """200 files with bytes overwritten: each is read, or refused by one of our own errors."""
    for form in ("PNG", "JPEG", "GIF", "TIFF", "WEBP"):
        whole = np.frombuffer(encoded(colour, form), dtype=np.uint8)
        for _ in range(40):
            data = whole.copy()
            where = rng.integers(0, len(data), size=rng.integers(1, 20))
            data[where] = rng.integers(0, 256, size=len(where))
            try:
                assert decode_image(data.tobytes()).mode in ("L", "RGB")
            except (NotAnImage, TooLarge, UnsupportedMedia):
                continue


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("data", [b"", b"\0", b"{}", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_image(data):
    with pytest.raises(NotAnImage):
        decode_image(data)


def test_a_bomb_is_refused_from_its_header(bomb_png):
    assert len(bomb_png) < 60_000
    tracemalloc.start()
    with pytest.raises(TooLarge, match=r"64 megapixels that are taken$"):
        decode_image(bomb_png)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000  # nothing was unpacked


def test_the_limit_counts_pixels(colour, encoded):
    data = encoded(colour, "PNG")
    assert decode_image(data, max_pixels=128 * 96).size == (128, 96)
    with pytest.raises(TooLarge, match="128×96"):
        decode_image(data, max_pixels=128 * 96 - 1)


def test_grid_puts_images_row_by_row(mnist):
    picture = grid(mnist.pixels[:5], columns=3, margin=1, background=7)
    assert picture.shape == (1, 2 * 33 + 1, 3 * 33 + 1)
    np.testing.assert_array_equal(picture[:, 1:33, 34:66], mnist.pixels[1])
    np.testing.assert_array_equal(picture[:, 34:66, 1:33], mnist.pixels[3])
    assert (picture[:, 34:66, 67:99] == 7).all()
    assert (picture[:, 0] == 7).all()
    assert (picture[:, :, -1] == 7).all()
    assert grid(mnist.pixels[:5]).shape == (1, 2 * 34 + 2, 3 * 34 + 2)


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (4, 4), (1, 2, 4, 4)])
def test_grid_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"grid|shape"):
        grid(np.zeros(shape, dtype=np.uint8))
