"""The ways to serve a model, each made ready as a handler makes itself ready."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tzk_core.errors import ModelUnavailable, TzkError, WorkFailed
from tzk_core.service.backends import use_backend
from tzk_core.service.precision import bfloat16_if_close
from tzk_core.service.service import Service
from tzk_core.service.sizes import Agreed, using
from tzk_core.service.warm import agreeing_sizes, first_request
from tzk_core.service.wire import RawAnswer, RawRequest

from .cases import Case, cases_of

__all__ = ["NAMES", "Ready", "made_ready", "reason_of", "usual"]

NAMES = ("torch", "graphs", "bf16", "compile", "onnx")
"""torch, on a CPU with the t-flow prepared; by CUDA graphs; with the t-flow's networks in bfloat16;
torch.compile; ONNX."""

_NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime")}


@dataclass
class Ready:
    """A service that has been warmed up.

    Args:
        sizes: of the batches of each endpoint.
        seconds: from nothing to ready; of an ONNX archive's parts the writing counts too.
    """

    name: str
    service: Service
    sizes: dict[str, Agreed] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def cases(self) -> tuple[Case, ...]:
        """What the model can be asked."""
        return cases_of(self.service.model)

    def answer(self, endpoint: str, raws: Sequence[RawRequest]) -> list[RawAnswer]:
        """As a handler answers a batch."""
        with using(*self.sizes[endpoint]):
            return self.service.answer(endpoint, raws)


def usual(device: torch.device) -> tuple[str, ...]:
    """What is worth measuring on a device."""
    if device.type == "cuda":
        return ("torch", "graphs", "bf16", "compile")
    return ("torch", "bf16", "compile", "onnx")


def made_ready(name: str, run: str | Path, device: torch.device, folder: Path) -> Ready:
    """Loads the model, lets the backend run it, and runs every size of batch once.

    Args:
        name: one of ``NAMES``.
        run: a run folder or a hub name.
        folder: an empty one, for what a backend has to write.

    Raises:
        WorkFailed: it cannot run here, or not with this model; the reason is one sentence.
        TzkError: of the model itself.
    """
    _check(name, device)
    began = time.perf_counter()
    service = Service.load(run, device)
    if len(service.model.observation_shape) != 3 or service.model.preparation is None:
        raise ModelUnavailable(f"{run} is not a model of images, which alone are served")
    if name == "bf16" and not bfloat16_if_close(service.model):
        raise WorkFailed("bfloat16 is too far from float32 with this model")
    # torch on a GPU is served by graphs, which have a name here; as it is, it is measured beside.
    if name != "torch" or device.type == "cpu":
        use_backend(service.model, folder, _archived(name, run, folder))
    ready = Ready(name, service)
    for endpoint in dict.fromkeys(case.endpoint for case in ready.cases):
        ready.sizes[endpoint] = agreeing_sizes(service.model, endpoint)
        # A model whose requests fail says so when it is measured.
        with using(*ready.sizes[endpoint]), contextlib.suppress(TzkError):
            first_request(service, endpoint)
    ready.seconds = time.perf_counter() - began
    return ready


def reason_of(error: Exception) -> str:
    """Why a backend cannot run, in one line."""
    if isinstance(error, TzkError):
        return error.detail
    if isinstance(error, ModuleNotFoundError):
        return f"it needs {error.name}: pip install '.[export]' in the clone"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _check(name: str, device: torch.device) -> None:
    if name == "graphs" and device.type != "cuda":
        raise WorkFailed(f"CUDA graphs need a CUDA device, and this is {device}")
    if name == "onnx" and device.type != "cpu":
        raise WorkFailed("onnxruntime serves from the CPU: measure it with --device cpu")
    missing = [one for one in _NEEDED.get(name, ()) if importlib.util.find_spec(one) is None]
    if missing:
        raise WorkFailed(f"it needs {', '.join(missing)}: pip install '.[export]' in the clone")


def _archived(name: str, run: str | Path, folder: Path) -> dict[str, Any]:
    """What the manifest of such an archive says."""
    if name != "onnx":
        return {"backend": "compile" if name == "compile" else "torch"}
    from tzk_export.onnx_parts import write_parts

    return {"backend": "onnx", "onnx": write_parts(run, folder)}
