"""Whether onnxruntime says of real images what the library says.

Log densities are held against the library in float64, of the same inputs: two ways to work them out
in float32 differ by the errors of both, and neither is the truth. Everything else is held against
the library in float32, as it is served.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tzk_core.data.preparation import Preparation
from tzk_core.data.quantisation import dequantise, to_pixels
from tzk_core.data.sources import BUILTIN, load
from tzk_core.densities import standard_normal
from tzk_core.errors import UsageError, WorkFailed
from tzk_core.randomness import Rows, generator

from .onnx_graphs import Graph
from .onnx_trace import examples

if TYPE_CHECKING:
    from tzk_core.model import TzK

__all__ = ["Checker", "real_images"]

IMAGES = 16
DRAWS = 16
MOST_NATS = 1e-3
"""Error of a log density for each 1,000 dimensions of the image."""

TIMES_ITS_OWN = 2.0
"""Or so many times the library's own error in float32, where a flow makes much of rounding."""

MOST_PROBABILITY = 1e-4
MOST_OF_LARGEST = 1e-2
"""Of the largest element of latent states, codes and logits: it finds what is wrong. Rounding is
judged by the log densities."""
OF_LARGEST = "_of_its_largest"
MOST_LEVELS, MOST_PIXELS = 1, 1e-3

# Of an output in nats: between file and library, and of each against the library in float64.
PER = "_nats_per_1000_dims"
ERROR = "_error" + PER
OWN_ERROR = "_library_error" + PER

Figures = dict[str, float]


def real_images(model: TzK, source: str | Path | None = None) -> Tensor:
    """uint8 images as the model takes them: a source's, or built-in digits and garments.

    Raises:
        UsageError: the source is none, or its images are not what the model observes.
    """
    channels, height, breadth = model.observation_shape
    preparation = model.preparation
    if preparation is None:
        if height != breadth:
            raise UsageError("a model of images that are not square has no check: use --no-check")
        preparation = Preparation(size=height, channels=channels)
    sources = [*BUILTIN] if source is None else [source]
    count = IMAGES // len(sources)
    found = [
        load(one, split="test" if source is None else "train", preparation=preparation, limit=count)
        for one in sources
    ]
    return torch.from_numpy(np.concatenate([np.asarray(images.pixels) for images in found]))


class Checker:
    """Compares files with the model that they were exported from.

    Args:
        model: on the CPU, in float32.
        pixels: uint8, (B, C, H, W).
    """

    def __init__(self, model: TzK, pixels: Tensor) -> None:
        self.model, self.pixels = model, pixels
        self.exact = copy.deepcopy(model).double()

    @torch.no_grad()
    def __call__(self, graph: Graph, file: Path) -> Figures:
        """The largest differences between onnxruntime and the library.

        Raises:
            WorkFailed: one is larger than it may be, or the file is not valid ONNX.
        """
        import onnx
        import onnxruntime

        try:
            onnx.checker.check_model(str(file), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise WorkFailed(f"{file.name} is not valid ONNX: {error}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        worst: Figures = {}
        # The whole batch and one image: neither is the size that was traced.
        for count in (len(self.pixels), 1):
            inputs = self.inputs(graph, self.pixels[:count])
            got = session.run(None, {name: value.numpy() for name, value in inputs.items()})
            outputs = {one.name: value for one, value in zip(graph.outputs, got, strict=True)}
            wanted = REFERENCES[graph.kind](self.model, graph, inputs)
            exact = {}
            if graph.kind in ("density", "encoder", "conditional"):
                exact = REFERENCES[graph.kind](self.exact, graph, inputs)
            for name, value in self._differences(graph, outputs, wanted, exact):
                worst[name] = float(np.maximum(worst.get(name, 0.0), value))  # NaN stays
        _judge(graph.name, worst)
        return worst

    def inputs(self, graph: Graph, pixels: Tensor) -> dict[str, Tensor]:
        """What a file is asked of some of the images, by name."""
        sizes = {"batch": len(pixels), "draws": DRAWS}
        drawn = examples(graph.inputs, generator(1), sizes)
        inputs = {one.name: value for one, value in zip(graph.inputs, drawn, strict=True)}
        if "image" in inputs:
            inputs["image"] = pixels
        if graph.kind == "decoder":
            noise = torch.rand(pixels.shape, generator=generator(1))
            inputs["z"] = self.model.flow.encode(dequantise(pixels, noise))[0]
        if graph.kind == "conditional":
            # Codes of these images: those drawn at random are nowhere near them.
            lineage = _lineage(self.model, graph)
            t = dequantise(inputs["image"], inputs["noise"])
            noise = [value for name, value in inputs.items() if name.startswith("code_")]
            codes = lineage.encode(t, noise)
            inputs |= {f"code_{depth}": code for depth, code in enumerate(codes, 1)}
        return inputs

    def _differences(
        self,
        graph: Graph,
        got: dict[str, np.ndarray],
        wanted: dict[str, Tensor],
        exact: dict[str, Tensor],
    ) -> Iterable[tuple[str, float]]:
        units = {one.name: one.unit for one in graph.outputs}
        for name, tensor in wanted.items():
            a, b = got[name], tensor.numpy()
            if a.shape != b.shape or a.dtype != b.dtype:
                raise WorkFailed(
                    f"{graph.name} gives {name} as {a.dtype} {a.shape}, not {b.dtype} {b.shape}"
                )
            if a.dtype == np.uint8:
                apart = np.abs(a.astype(int) - b.astype(int))
                yield "grey_levels", float(apart.max())
                yield "share_of_pixels", float((apart > 0).mean())
            elif a.dtype == bool:
                yield f"{name}_differ", _largest(a, b)
            elif name in exact and units[name] == "nats":
                thousands = math.prod(self.model.observation_shape) / 1000
                truth = exact[name].numpy()
                yield f"{name}{PER}", _largest(a, b) / thousands
                yield f"{name}{ERROR}", _largest(a, truth) / thousands
                yield f"{name}{OWN_ERROR}", _largest(b, truth) / thousands
            elif units[name] == "probability":
                yield f"{name}_probability", _largest(a, b)
            else:
                yield f"{name}{OF_LARGEST}", _largest(a, b) / max(1.0, float(np.abs(b).max()))


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    """NaN where either has one; two infinities of one sign are equal."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    apart = np.subtract(a, b, out=np.zeros_like(a), where=a != b)
    return float(np.abs(apart).max())


# -- what the library says, in the model's own precision -------------------------------------------


def _density(model: TzK, _: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    t = _observation(model, inputs)
    z, log_det = model.flow.encode(t)
    terms = [standard_normal(part) for part in z.split(model.flow.level_channels, 1)]
    return {
        "log_prob": model.prior.log_prob(t),
        "level_terms": torch.stack(terms, 1),
        "log_det": log_det,
        "z": z,
    }


def _decoder(model: TzK, _: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    t = model.flow.decode(inputs["z"])[0]
    return {"image": to_pixels(t), "finite": torch.isfinite(t).flatten(1).all(1)}


def _conditional(model: TzK, graph: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    path, lineage = graph.about["path"], _lineage(model, graph)
    given = {"absent": [path]} if not graph.about["existence"] else {}
    distribution = model.given(*([] if given else [path]), **given)
    t = _observation(model, inputs)
    codes = [value.to(t.dtype) for name, value in inputs.items() if name.startswith("code_")]
    return {
        "log_prob": distribution.log_prob_given_code(t, codes[0]),
        "log_prior": lineage.log_prior(codes),
        "log_exists": lineage.log_exists(codes[-1]),
        "log_encoder": lineage.log_encoder(codes, t),
    }


def _encoder(model: TzK, graph: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    lineage, t = _lineage(model, graph), _observation(model, inputs)
    noise = [value.to(t.dtype) for name, value in inputs.items() if name.startswith("code_noise_")]
    codes = lineage.encode(t, noise)
    found = {f"code_{depth}": code for depth, code in enumerate(codes, 1)}
    return found | {"log_encoder": lineage.log_encoder(codes, t)}


def _posterior(model: TzK, _: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    paths, t = model.paths(), _observation(model, inputs)
    noise = list(_noise_in_order(paths, inputs))
    given = _Given(len(t), noise)
    said = model.posterior(t, draws=DRAWS, generator=given)
    if given.handed_out != len(noise):
        raise RuntimeError(f"the library drew {given.handed_out} codes' noise, not {len(noise)}")
    return {
        name: torch.stack([getattr(said[path], name) for path in paths], 1)
        for name in ("encoder", "joint", "logit")
    }


def _sampler(model: TzK, graph: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    lineage = _lineage(model, graph)
    noise = inputs["candidate_noise"]
    candidates = lineage.last.code_prior.transform(noise.flatten(0, 1)).reshape(noise.shape)
    picked, found = [], []
    for row, u, spare in zip(
        candidates, inputs["candidate_uniform"], inputs["resample_uniform"], strict=True
    ):
        log_p = lineage.log_exists(row)
        accepted = (u.log() < log_p).nonzero().flatten().tolist()
        resampled = torch.searchsorted(log_p.softmax(0).cumsum(0), spare)
        picked.append(row[accepted[0] if accepted else min(int(resampled), len(row) - 1)])
        found.append(bool(accepted))
    above = [value for name, value in inputs.items() if name.startswith("code_noise_")]
    codes = lineage.ascend(torch.stack(picked), above)
    z = lineage.decoder.transform(inputs["latent_noise"], codes[0])
    t = model.flow.decode(z)[0]
    finite = torch.isfinite(t).flatten(1).all(1)
    return {"image": to_pixels(t), "finite": finite, "accepted": torch.tensor(found)} | {
        f"code_{depth}": code for depth, code in enumerate(codes, 1)
    }


REFERENCES: dict[str, Callable[[TzK, Graph, dict[str, Tensor]], dict[str, Tensor]]] = {
    "density": _density,
    "decoder": _decoder,
    "sampler": _sampler,
    "posterior": _posterior,
    "encoder": _encoder,
    "conditional": _conditional,
}


def _observation(model: TzK, inputs: dict[str, Tensor]) -> Tensor:
    """t as the files make it, in float32, whatever the model's precision."""
    return dequantise(inputs["image"], inputs["noise"]).to(model.reference.dtype)


def _lineage(model: TzK, graph: Graph):
    about = graph.about
    return model.lineage(about["path"], present=bool(about["existence"]))


class _Given(Rows):
    """Normals that were drawn before, handed out in order."""

    def __init__(self, count: int, normals: Iterable[Tensor]) -> None:
        super().__init__(range(count))
        self._normals = iter(normals)
        self.handed_out = 0

    def streams(self) -> Callable[[str], Rows]:
        return lambda name: self

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32, device="cpu") -> Tensor:
        self.handed_out += 1
        return next(self._normals).to(dtype)


def _noise_in_order(paths: list[str], inputs: dict[str, Tensor]) -> Iterable[Tensor]:
    """The codes' noise as the library asks for it: for each path, its ancestors' from the root."""
    for path in paths:
        steps = path.split("/")
        for depth in range(1, len(steps)):
            yield inputs[f"code_noise:{'/'.join(steps[:depth])}"]


def _judge(name: str, worst: Figures) -> None:
    for figure, value in worst.items():
        most = _most(figure, worst)
        if most is not None and not value <= most:
            raise WorkFailed(
                f"{name}: onnxruntime and the library differ by {value:.3g} in {figure}, and "
                f"{most:g} is allowed; --no-check writes the files all the same"
            )


def _most(figure: str, worst: Figures) -> float | None:
    if figure.endswith(OWN_ERROR):
        return None
    if figure.endswith(ERROR):
        own = worst[figure.removesuffix(ERROR) + OWN_ERROR]
        return max(MOST_NATS, TIMES_ITS_OWN * own) if math.isfinite(own) else MOST_NATS
    if figure.endswith("_probability"):
        return MOST_PROBABILITY
    if figure.endswith(OF_LARGEST):
        return MOST_OF_LARGEST
    if figure.endswith("_differ"):
        return 0
    return {"grey_levels": MOST_LEVELS, "share_of_pixels": MOST_PIXELS}.get(figure)
