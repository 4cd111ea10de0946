"""A run folder as four model archives for TorchServe.

Each archive is self-contained but for the installed package: a thin handler, ``config.json``,
``model.safetensors``, ``README.md``, and a manifest with the SHA-256 of the weights.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from importlib import resources
from pathlib import Path

from tzk_core._version import __version__
from tzk_core.errors import ModelUnavailable, UsageError, WorkFailed
from tzk_core.hub import CONFIG, WEIGHTS, load_config, sha256
from tzk_core.service.service import ENDPOINTS

__all__ = ["VERSION", "archive"]

VERSION = "1.0"
"""The version of the HTTP contract, which is the archives' version in a URL."""


def archive(run: str | Path, model_store: str | Path) -> list[Path]:
    """Writes ``tzk_nll.mar``, ``tzk_sample.mar``, ``tzk_posterior.mar``, ``tzk_interpolate.mar``.

    They are written aside, and renamed into place when all four are whole.

    Args:
        run: a folder with ``config.json`` and ``model.safetensors``.
        model_store: where they go; made if it is not there.

    Returns:
        The archives' paths.

    Raises:
        ModelUnavailable: no such run, or its weights are missing or not its own.
        WorkFailed: the model store cannot be written.
        UsageError: ``torch-model-archiver`` is not installed.
    """
    run, store = Path(run), Path(model_store)
    digest = _checked(run)
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store, prefix=".archiving-") as aside:
            made = [_archive(name, run, digest, Path(aside)) for name in ENDPOINTS]
            return [_put(one, store) for one in made]
    except OSError as error:
        reason = error.strerror or str(error)
        raise WorkFailed(
            f"the archives of {run} cannot be written to {store}: {reason}; choose a folder that "
            "can be written with --model-store"
        ) from error


def _checked(run: Path) -> str:
    """The SHA-256 of the run's weights, which are those that its configuration names."""
    _, wanted = load_config(run)
    weights = run / WEIGHTS
    if not weights.is_file():
        raise ModelUnavailable(f"{run} has no {WEIGHTS}: its training has not saved a model yet")
    digest = sha256(weights)
    if wanted and digest != wanted:
        raise ModelUnavailable(
            f"{weights} is not the file that {CONFIG} was written with (its SHA-256 differs): "
            "it is corrupt or belongs to another run"
        )
    return digest


def _archive(name: str, run: Path, digest: str, aside: Path) -> Path:
    packaging, manifest_of = _archiver()
    content = aside / name
    content.mkdir()
    for file in (CONFIG, WEIGHTS, "README.md"):
        if (run / file).is_file():
            shutil.copyfile(run / file, content / file)
    handler = f"{name}.py"
    source = resources.files("tzk_handlers").joinpath(handler)
    (content / handler).write_bytes(source.read_bytes())
    manifest = manifest_of(name, handler)
    manifest["tzk"] = {"weights_sha256": digest, "tzk_version": __version__}
    # Weights do not compress, so they are stored.
    packaging.archive(str(aside), name, str(content), json.dumps(manifest, indent=2), "zip-store")
    shutil.rmtree(content)
    return aside / f"{name}.mar"


def _archiver():
    """torch-model-archiver's packing, and its manifest of a handler.

    Its command line is not used: that deletes ``<temporary folder>/<model name>`` first.
    """
    try:
        from model_archiver.manifest_components.manifest import Manifest
        from model_archiver.manifest_components.model import Model
        from model_archiver.model_packaging_utils import ModelExportUtils
    except ImportError as error:
        raise UsageError(
            "archives need torch-model-archiver: pip install '.[serve]' in the clone"
        ) from error

    def manifest_of(name: str, handler: str) -> dict:
        model = Model(name, None, handler, model_version=VERSION)
        return dict(Manifest("python", model).manifest_dict)

    return ModelExportUtils, manifest_of


def _put(made: Path, store: Path) -> Path:
    os.replace(made, store / made.name)
    return store / made.name
