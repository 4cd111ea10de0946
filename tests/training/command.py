"""``tzk train`` as a process of its own, from this checkout, on one thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

__all__ = ["ROOT", "environment", "rows", "start", "written"]

ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    """The environment of such a process."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | more


def written(folder: Path, recipe) -> Path:
    """A recipe as a file."""
    path = folder / "recipe-of-the-test.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return path


def start(recipe: Path, out: Path, *options: str, before: tuple[str, ...] = ()) -> subprocess.Popen:
    """``BEFORE python -m tzk_core.cli.main train RECIPE --out OUT --device cpu OPTIONS``."""
    command = [sys.executable, "-m", "tzk_core.cli.main", "train", str(recipe), "--out", str(out)]
    return subprocess.Popen(
        [*before, *command, "--device", "cpu", *options],
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def rows(out: Path) -> list[dict]:
    """The rows of a run's metrics, without what depends on the clock."""
    lines = (out / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k != "images_per_s"} for row in found]
