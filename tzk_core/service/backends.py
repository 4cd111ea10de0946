"""What runs a served model's large parts: torch itself (on a CPU by the flow prepared for it, on a
GPU by CUDA graphs), torch.compile, or onnxruntime.

A backend replaces methods of the model's parts, not the model: whatever is asked, every random
number still comes from the request's seed, and the answers are the same to the backend's rounding.
What needs gradients (several kinds at once) and what is small (codes' own flows) stays with torch.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tzk_core.data.cache import cache_folder
from tzk_core.errors import ModelUnavailable
from tzk_core.flows import ImageFlow
from tzk_core.flows.prepared import Prepared
from tzk_core.graphs import Graphed
from tzk_core.hub import sha256

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["BACKENDS", "Part", "parts", "prepare", "use_backend"]

BACKENDS = ("torch", "compile", "onnx")

Method = Callable[..., Any]


@dataclass(frozen=True)
class Part:
    """One method that a backend may run.

    Args:
        name: of its ONNX file, without the suffix.
        module, method: whose, and its name.
        inputs: the shapes of its inputs without the batch.
        outputs: how many tensors it returns.
    """

    name: str
    module: nn.Module
    method: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: int

    @property
    def function(self) -> Method:
        return getattr(self.module, self.method)


def parts(model: TzK) -> Iterator[Part]:
    """What is worth a backend: all that works on images or on z."""
    t, z = model.observation_shape, model.latent_shape
    # What scores an image asks for the levels too, and `encode` is a part of that.
    if isinstance(model.flow, ImageFlow):
        yield Part("flow-encode", model.flow, "encode_levels", (t,), 3)
    else:
        yield Part("flow-encode", model.flow, "encode", (t,), 2)
    yield Part("flow-decode", model.flow, "decode", (z,), 2)
    for name, kind in model.kinds().items():
        c = (kind.config.code_dim,)
        yield Part(f"{name}.exists", kind.t_discriminator, "forward", (t,), 1)
        for e in (0, 1):
            encoder, decoder = kind.encoders[e], kind.decoders[e]
            yield Part(f"{name}.encoder-{e}", encoder, "base", (t,), 2)
            yield Part(f"{name}.density-{e}", decoder, "log_prob", (z, c), 1)
        yield Part(f"{name}.latent-1", kind.decoders[1], "transform", (z, c), 1)


def use_backend(model: TzK, folder: Path, archived: Mapping[str, Any]) -> str:
    """Lets the archived backend run the model's parts.

    Args:
        model: loaded from ``folder``; changed in place.
        folder: where the parts' files are.
        archived: the ``tzk`` entry of the archive's manifest.

    Returns:
        The backend's name.

    Raises:
        ModelUnavailable: the backend is unknown or cannot run here, or a part's file was changed.
    """
    backend = archived.get("backend", "torch")
    if backend not in BACKENDS:
        raise ModelUnavailable(
            f"the archive asks for the backend {backend!r}; there are {', '.join(BACKENDS)}"
        )
    if backend == "torch":
        prepare(model)
    if backend == "compile":
        _compile(model)
    if backend == "onnx":
        _check(folder, archived.get("onnx") or {})
        for part in list(parts(model)):
            _replace(part, _session(folder / f"{part.name}.onnx", part.outputs))
    return backend


def prepare(model: TzK) -> None:
    """Lets torch run the model's parts as fast as it can, once weights and precision are settled.

    On a CPU that is the image flow prepared for it, on a GPU all parts as CUDA graphs.
    """
    found = list(parts(model))
    if model.device.type == "cuda":
        for part in found:
            _replace(part, Graphed(part.function))
    elif model.device.type == "cpu" and isinstance(model.flow, ImageFlow):
        prepared = Prepared(model.flow)
        for part in found:
            if part.module is model.flow:
                _replace(part, getattr(prepared, part.method))


def _replace(part: Part, run: Method) -> None:
    """Puts ``run`` in the method's place, but where a gradient is asked for, or of no rows."""
    own = part.function

    def method(*inputs: Tensor | None) -> Any:
        given = [one for one in inputs if one is not None]
        differentiated = torch.is_grad_enabled() and any(one.requires_grad for one in given)
        if differentiated or not len(given[0]):
            return own(*inputs)
        return run(*given)

    setattr(part.module, part.method, method)


def _compile(model: TzK) -> None:
    import torch._dynamo

    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise ModelUnavailable(
            "the backend compile needs a C++ compiler, and there is no g++ here (CXX names another)"
        )
    kept = cache_folder()
    if kept is not None:
        # By default it lies in the temporary folder, which a server's workers lose with the server.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(kept / "inductor"))
    found = list(parts(model))
    # Parts of one class share their code, and a code may be compiled so often: sizes 1 and more,
    # with and without inference mode, for each part.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * len(found))
    for part in found:
        _replace(part, torch.compile(part.function, dynamic=True))


def _session(file: Path, outputs: int) -> Method:
    """A function of tensors that onnxruntime works out, on the CPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelUnavailable(
            "an ONNX archive is served with onnxruntime: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait spin otherwise, at the expense of every other worker.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*tensors: Tensor) -> Any:
        where = tensors[0].device
        fed = {
            name: one.detach().cpu().contiguous().numpy()
            for name, one in zip(names, tensors, strict=True)
        }
        got = tuple(torch.from_numpy(one).to(where) for one in session.run(None, fed))
        return got if outputs > 1 else got[0]

    return run


def _check(folder: Path, digests: Mapping[str, str]) -> None:
    """Raises unless the files are those that were archived."""
    if not digests:
        raise ModelUnavailable("the archive's manifest names no ONNX files: archive again")
    for name, digest in digests.items():
        file = folder / name
        if not file.is_file() or sha256(file) != digest:
            raise ModelUnavailable(f"{name} is not what was archived: archive again")
