"""A run folder as four model archives for TorchServe.

Each archive is self-contained but for the installed package: a thin handler, ``config.json``,
``model.safetensors``, ``README.md``, and a manifest with the SHA-256 of the weights. That of the
whole archive is noted in the model store (:mod:`tzk_core.archive_sums`).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from tzk_core import archive_sums
from tzk_core._version import __version__
from tzk_core.errors import ModelUnavailable, UsageError, WorkFailed
from tzk_core.hub import CONFIG, WEIGHTS, load_config, sha256
from tzk_core.model_store import FIRST, VERSIONS, archive_name
from tzk_core.pretrained import run_folder
from tzk_core.service.service import ENDPOINTS

__all__ = ["archive"]


def archive(
    run: str | Path,
    model_store: str | Path,
    *,
    bf16: bool = False,
    backend: str = "torch",
    version: str = FIRST,
    names: Iterable[str] = ENDPOINTS,
) -> list[Path]:
    """Writes ``tzk_nll.mar``, ``tzk_sample.mar``, ``tzk_posterior.mar``, ``tzk_interpolate.mar``.

    They are written aside, and renamed into place when all four are whole. Version 1.0 is a new
    beginning: the store forgets which versions were deployed. Others are ``tzk_nll-2.0.mar`` and
    so on, and what is served stays.

    Args:
        run: a folder with ``config.json`` and ``model.safetensors``.
        model_store: where they go; made if it is not there.
        bf16: a GPU's workers run the t-flow's networks in bfloat16 where that is close enough
            (:mod:`tzk_core.service.precision`).
        backend: ``torch``, ``compile`` or ``onnx`` (:mod:`tzk_core.service.backends`).
        version: of the archives.
        names: the endpoints to write, all four by default.

    Returns:
        The archives' paths.

    Raises:
        ModelUnavailable: no such run, or its weights are missing or not its own.
        WorkFailed: the model store cannot be written.
        UsageError: ``torch-model-archiver`` is not installed, or bf16 is asked of onnx.
    """
    if bf16 and backend == "onnx":
        raise UsageError(
            "--bf16 and --backend onnx exclude each other, as the files of onnx are float32: "
            "leave one of them out (--bf16 is for the backends torch and compile)"
        )
    run, store = run_folder(run), Path(model_store)
    digest = _checked(run)
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store, prefix=".archiving-") as aside:
            told = {"networks": "bfloat16" if bf16 else "float32", "backend": backend}
            parts = Path(aside) / "parts"
            if backend == "onnx":
                from tzk_export.onnx_parts import write_parts

                parts.mkdir()
                told["onnx"] = write_parts(run, parts)
            made = [
                _archive(name, version, run, digest, Path(aside), told, parts) for name in names
            ]
            put = [_put(one, store) for one in made]
            archive_sums.note(store, put)
            if version == FIRST:
                (store / VERSIONS).unlink(missing_ok=True)
            return put
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


def _archive(
    name: str,
    version: str,
    run: Path,
    digest: str,
    aside: Path,
    told: dict[str, Any],
    parts: Path,
) -> Path:
    packaging, manifest_of = _archiver()
    content = aside / name
    shutil.copytree(parts, content) if parts.is_dir() else content.mkdir()
    for file in (CONFIG, WEIGHTS, "README.md"):
        if (run / file).is_file():
            shutil.copyfile(run / file, content / file)
    handler = f"{name}.py"
    source = resources.files("tzk_handlers").joinpath(handler)
    (content / handler).write_bytes(source.read_bytes())
    manifest = manifest_of(name, version, handler)
    manifest["tzk"] = {
        "weights_sha256": digest,
        "tzk_version": __version__,
        **told,
    }
    # Weights do not compress, so they are stored.
    packaging.archive(str(aside), name, str(content), json.dumps(manifest, indent=2), "zip-store")
    shutil.rmtree(content)
    return (aside / f"{name}.mar").rename(aside / archive_name(name, version))


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

    def manifest_of(name: str, version: str, handler: str) -> dict:
        model = Model(name, None, handler, model_version=version)
        return dict(Manifest("python", model).manifest_dict)

    return ModelExportUtils, manifest_of


def _put(made: Path, store: Path) -> Path:
    os.replace(made, store / made.name)
    return store / made.name
