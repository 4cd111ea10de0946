"""What all tests share: no network, real images, and files of every kind that a user may send."""

from __future__ import annotations

import io
import os
import signal
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

# Before `datasets` is imported anywhere: a test that asks the hub fails at once.
os.environ["HF_HUB_OFFLINE"] = "1"
# As the command line does, and for the same reason.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Prepared images of tests are kept apart, for as long as the tests run.
_CACHE = tempfile.TemporaryDirectory(prefix="tzk-test-cache-")
os.environ["TZK_CACHE"] = _CACHE.name
# A shell that starts the tests in the background ignores SIGINT for them and all they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves tests for a GPU out where there is none."""
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if not needing:
        return
    import torch

    if not torch.cuda.is_available():
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]


@pytest.fixture(scope="session")
def mnist():
    """500 real digits, 32×32 grey."""
    from tzk_core.data.sources import load

    return load("builtin/mnist", split="test")


@pytest.fixture(scope="session")
def fashion():
    """500 real garments, 32×32 grey."""
    from tzk_core.data.sources import load

    return load("builtin/fashion_mnist", split="test")


@pytest.fixture(scope="session")
def digit_png(mnist) -> bytes:
    """A real digit as a PNG file, 32×32 grey."""
    from tzk_core.data.decoding import encode_png

    return encode_png(mnist.pixels[0])


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """``encoded(image, "JPEG", **options)``: the bytes of the file that Pillow writes."""

    def encode(image: Image.Image, form: str, **options) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def bomb_png() -> bytes:
    """A PNG of 20,000×20,000 that would take 400 MB: 50 KB of well-packed zeros."""
    side = 20_000
    packer = zlib.compressobj(9)
    row = bytes((side + 7) // 8 + 1)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.fixture
def class_folder(tmp_path: Path, mnist) -> Path:
    """A folder ``digits`` with the class folders ``0``, ``1`` and ``2``, four real PNGs each."""
    from tzk_core.data.decoding import encode_png

    folder = tmp_path / "digits"
    for digit in range(3):
        (folder / str(digit)).mkdir(parents=True)
        for number, pixels in enumerate(mnist.pixels[mnist.labels == digit][:4]):
            (folder / str(digit) / f"{number}.png").write_bytes(encode_png(pixels))
    return folder
