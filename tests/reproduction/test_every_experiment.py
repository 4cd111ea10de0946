"""The experiments that test_reproduce.py does not run, from end to end, at sizes of seconds."""

from __future__ import annotations

import pytest
from reproduction.tiny_experiment import DATA, TINY, changes

from tzk_core.reproduction import EXPERIMENTS, reproduce


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One folder for all of them, since they take each other's runs."""
    return tmp_path_factory.mktemp("experiments")


@pytest.mark.parametrize(
    "name", ["multi-data", "interpolation", "specialise-multi", "cifar-bits", "end-to-end"]
)
def test_from_its_recipes_to_its_table(out, name):
    report = reproduce(
        name,
        out=out,
        data=DATA,
        overrides=changes(name),
        settings=TINY,
        device="cpu",
        quiet=True,
    )
    assert list(report["parts"]) == [part.name for part in EXPERIMENTS[name].parts]
    for part in report["parts"].values():
        assert all(row["verdict"]["word"] and row["cells"] for row in part["rows"])
        for picture in part["pictures"]:
            assert (out / picture["file"]).read_bytes().startswith(b"\x89PNG")
    text = (out / f"{name}.md").read_text()
    # The command that makes it, and the seeds that differ: of recipes, and of measurements.
    assert f"tzk reproduce {name} --scale small --data mnist=builtin/mnist --stand-in" in text
    assert "training images, seed 1, " in text
    assert "Measured with seed 0 " in text
    assert str(out) not in text
