from __future__ import annotations

from collections.abc import Callable

import pytest
from training.tiny_recipe import tiny_values

from tzk_core.training.recipe import Recipe, parse_recipe


@pytest.fixture(scope="session")
def values(tmp_path_factory, mnist) -> Callable[[], dict]:
    """The tiny recipe's values, its digits a folder of the classes 0 and 1."""
    from tzk_core.data.decoding import encode_png

    folder = tmp_path_factory.mktemp("digits") / "digits"
    for digit in (0, 1):
        (folder / str(digit)).mkdir(parents=True)
        for number, pixels in enumerate(mnist.pixels[mnist.labels == digit][:40]):
            (folder / str(digit) / f"{number}.png").write_bytes(encode_png(pixels))
    return lambda: tiny_values(str(folder))


@pytest.fixture(scope="session")
def tiny_recipe(values) -> Callable[..., Recipe]:
    """``tiny_recipe("stages.0.steps=3", …)``: a recipe that trains in a second."""
    return lambda *overrides: parse_recipe(values(), overrides)


@pytest.fixture(scope="module")
def one_thread():
    """So that sums are added up in the same order here and in a process of its own."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
