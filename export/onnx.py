"""A run as ONNX files, for whatever runs ONNX (issue "Export"; docs/onnx.md has the fields).

Every random number is an input, every file takes batches of any size, and all share one file of
weights. They are checked against the library on real images before they are put in place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tzk_core._version import __version__
from tzk_core.errors import ModelUnavailable, UsageError
from tzk_core.files import folder_aside
from tzk_core.hub import WEIGHTS, load_config, sha256

if TYPE_CHECKING:
    import onnx

    from tzk_core.model import TzK

    from .onnx_graphs import Graph

__all__ = ["REPORT", "SHARED", "export"]

REPORT = "export.json"
SHARED = "weights.data"

Progress = Callable[[str, dict[str, float]], None]


def export(
    run: str | Path,
    to: str | Path,
    *,
    paths: Sequence[str] | None = None,
    absent: bool = False,
    check: bool = True,
    images: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes a run's ONNX files, their weights and ``export.json``.

    Args:
        run: a folder with ``config.json`` and ``model.safetensors``.
        to: a folder that becomes the export: a new or empty one, or an earlier export.
        paths: of the samplers and conditional densities; every path by default.
        absent: samplers and conditional densities of e = 0 too.
        check: run every file by onnxruntime against the library, on real images.
        images: a folder of them; the built-in digits and garments by default.
        progress: told the name of each file when it is done, and its check's figures.

    Returns:
        What ``export.json`` holds.

    Raises:
        ModelUnavailable: no such run, or a run of no images.
        UnknownKnowledge: a path that is not there.
        UsageError: ``to`` holds other things.
        WorkFailed: torch cannot export the model, a check fails, or ``to`` cannot be written.
        ModuleNotFoundError: the extra ``export`` is not installed; the command line names it.
    """
    import onnx
    import onnxruntime
    import torch

    from tzk_core.model import TzK
    from tzk_core.pretrained import run_folder

    from .onnx_check import Checker, real_images
    from .onnx_graphs import graphs
    from .onnx_pieces import Pieces
    from .onnx_trace import OPSET
    from .onnx_weights import SharedWeights

    run, to = run_folder(run), Path(to)
    load_config(run)  # a name on the hub is no run folder
    _must_be_free(to)
    model = TzK.from_pretrained(run).float().requires_grad_(False)
    if len(model.observation_shape) != 3:
        raise ModelUnavailable(f"{run} is a model of codes, not of images")
    wanted = graphs(model, paths=paths, absent=absent)
    checker = Checker(model, real_images(model, images)) if check else None
    about = {
        "tzk_version": __version__,
        "torch_version": torch.__version__,
        "onnx_version": onnx.__version__,
        "onnxruntime_version": onnxruntime.__version__,
        "opset": OPSET,
        "weights_sha256": sha256(run / WEIGHTS),
        "observation": list(model.observation_shape),
        "knowledge": model.paths(),
        "preparation": _preparation(model),
    }
    report: dict[str, Any] = {**about, "files": {}}
    with folder_aside(to) as folder:
        weights, pieces = SharedWeights(folder / SHARED), Pieces()
        for graph in wanted:
            proto = pieces.model_of(graph)
            _describe(proto, graph, about)
            weights.take_from(proto)
            file = folder / f"{graph.name}.onnx"
            onnx.save_model(proto, str(file))
            figures = checker(graph, file) if checker else {}
            report["files"][file.name] = _entry(graph, sha256(file), figures)
            if progress:
                progress(file.name, figures)
        report["shared_weights"] = {"file": SHARED, "sha256": sha256(folder / SHARED)}
        text = json.dumps(report, indent=2) + "\n"
        (folder / REPORT).write_text(text)
    return json.loads(text)


def _must_be_free(to: Path) -> None:
    """Raises unless ``to`` holds nothing but what an export put there."""
    if not to.exists():
        return
    there = {path.name for path in to.iterdir()} if to.is_dir() else {to.name}
    if not there:
        return
    try:
        own = {REPORT, SHARED, *json.loads((to / REPORT).read_text())["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        own = set()
    if there - own:
        raise UsageError(
            f"{to} holds {sorted(there - own)[0]}, which is not of an export: choose a new folder"
        )


def _describe(proto: onnx.ModelProto, graph: Graph, about: dict[str, Any]) -> None:
    """Puts into the model itself what it is, each value as JSON but for plain text."""
    own = {
        "kind": graph.kind,
        **about,
        **graph.about,
        "inputs": [asdict(one) for one in graph.inputs],
        "outputs": [asdict(one) for one in graph.outputs],
    }
    for key, value in own.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        proto.metadata_props.add(key=key, value=text)
    proto.producer_name, proto.producer_version = "tzk", __version__


def _entry(graph: Graph, digest: str, figures: dict[str, float]) -> dict[str, Any]:
    return {
        "kind": graph.kind,
        **graph.about,
        "sha256": digest,
        "inputs": [asdict(one) for one in graph.inputs],
        "outputs": [asdict(one) for one in graph.outputs],
        "check": figures,
    }


def _preparation(model: TzK) -> dict[str, Any] | None:
    return None if model.preparation is None else model.preparation.model_dump(mode="json")
