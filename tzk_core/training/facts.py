"""What a run folder tells of the run: versions, git state, what it was trained on."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .._version import __version__
from ..devices import hardware
from ..errors import UsageError
from .checkpoint import Checkpoint
from .dataset import Dataset
from .group import Group
from .labels import Known
from .recipe import Recipe

__all__ = ["facts_of", "git_state", "same_data", "session_of"]

_TOLD = ("accelerate", "datasets", "numpy", "pillow", "pydantic", "safetensors", "tensorboard")


def facts_of(recipe: Recipe, data: Dataset, held_out: Dataset, group: Group) -> dict:
    """The part of ``run.json`` that is known before the first step."""
    return {
        "tzk": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "packages": _versions(),
        "git": git_state(Path(__file__)),
        "system": f"{platform.system()} {platform.machine()}",
        "device": str(group.device),
        "processes": group.count,
        "threads": torch.get_num_threads(),
        "seed": recipe.seed,
        "images": {"training": len(data), "held_out": len(held_out)},
        "fingerprints": data.fingerprints,
        "known_sha256": [_known(data.known), _known(held_out.known)],
        "duplicates": data.duplicates,
        "skipped": len(data.skipped),
    }


def session_of(group: Group, start: Checkpoint | None) -> dict:
    """The process, one of those that trained a run one after the other: its machine, and the stage
    and step from which it went on."""
    return {
        "device": hardware(group.device),
        "processes": group.count,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "from": [start.stage, start.step] if start else [0, 0],
    }


def git_state(file: Path) -> dict | None:
    """The commit of the clone that ``file`` is part of, and whether the clone differs from it.

    None where it is part of none: a package that is installed below a clone (in its ``.venv``, say)
    is another's, and that clone's commit says nothing of it.
    """
    folder = file.parent
    if _git(folder, "ls-files", "--error-unmatch", "--", file.name) is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": changed != ""}


def same_data(before: dict, now: dict, out: Path) -> None:
    """Refuses to go on with other images than a run began with.

    Raises:
        UsageError: a source of the data has changed.
    """
    known = before.get("fingerprints", {})
    changed = [name for name, value in now["fingerprints"].items() if known.get(name) != value]
    if known and (changed or before["images"] != now["images"]):
        raise UsageError(
            f"{', '.join(changed) or 'the data'}: not the images that the run in {out} began with; "
            "bring those back, or start anew in another folder"
        )
    if before.get("known_sha256", now["known_sha256"]) != now["known_sha256"]:
        raise UsageError(
            f"labels or attributes are not those that the run in {out} began with; bring those "
            "back, or start anew in another folder"
        )


def _known(known: Known) -> str:
    """The SHA-256 of the kinds, and of which images have them."""
    digest = hashlib.sha256()
    for path, e in known.existence.items():
        digest.update(f"{path}={known.labels[path]}\n".encode() + e.numpy().tobytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in _TOLD:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    # Without optional locks: a run must not keep others from committing.
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
