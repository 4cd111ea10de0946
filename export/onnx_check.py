"""Whether onnxruntime says of real images what the library says."""

from __future__ import annotations

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
"""Of a log density, for each 1,000 dimensions of the image."""

STEPS = 4
"""Or so many steps of float32 at its size: two orders of adding it up differ by that."""

MOST_PROBABILITY = 1e-4
MOST_LEVELS, MOST_PIXELS = 1, 1e-3

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
        self._reference: dict[str, Callable] = {
            "density": self._density,
            "decoder": self._decoder,
            "sampler": self._sampler,
            "posterior": self._posterior,
            "conditional": self._conditional,
        }

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
        except onnx.checker.ValidationError as error:
            raise WorkFailed(f"{file.name} is not valid ONNX: {error}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        worst: Figures = {}
        # The whole batch and one image: neither is the size that was traced.
        for count in (len(self.pixels), 1):
            inputs = self._inputs(graph, self.pixels[:count])
            got = session.run(None, {name: value.numpy() for name, value in inputs.items()})
            wanted = self._reference[graph.kind](graph, inputs)
            outputs = {one.name: value for one, value in zip(graph.outputs, got, strict=True)}
            for name, value in self._differences(graph, outputs, wanted):
                worst[name] = max(worst.get(name, 0.0), value)
        _judge(graph.name, worst)
        return worst

    def _inputs(self, graph: Graph, pixels: Tensor) -> dict[str, Tensor]:
        sizes = {"batch": len(pixels), "draws": DRAWS}
        drawn = examples(graph.inputs, generator(1), sizes)
        inputs = {one.name: value for one, value in zip(graph.inputs, drawn, strict=True)}
        if "image" in inputs:
            inputs["image"] = pixels
        if graph.kind == "conditional":
            # Codes of these images: those drawn at random are nowhere near them.
            lineage = self._lineage(graph)
            t = dequantise(inputs["image"], inputs["noise"])
            noise = [value for name, value in inputs.items() if name.startswith("code_")]
            codes = lineage.encode(t, noise)
            inputs |= {f"code_{depth}": code for depth, code in enumerate(codes, 1)}
        return inputs

    def _differences(
        self, graph: Graph, got: dict[str, np.ndarray], wanted: dict[str, Tensor]
    ) -> Iterable[tuple[str, float]]:
        thousands = math.prod(self.model.observation_shape) / 1000
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
                continue
            difference = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
            if a.dtype == bool:
                yield f"{name}_differ", difference
            elif units[name] == "nats" and graph.kind != "posterior":
                yield f"{name}_nats_per_1000_dims", difference / thousands
                # What float32 resolves there, as a share of what is allowed.
                steps = STEPS * float(np.spacing(np.abs(b).max())) / thousands
                yield f"{name}_of_allowed", difference / thousands / max(MOST_NATS, steps)
            elif units[name] == "probability":
                yield f"{name}_probability", difference
            else:
                yield name, difference

    def _lineage(self, graph: Graph):
        about = graph.about
        return self.model.lineage(about["path"], present=bool(about["existence"]))

    # -- what the library says -------------------------------------------------------------------

    def _density(self, _: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        t = dequantise(inputs["image"], inputs["noise"])
        z, log_det = self.model.flow.encode(t)
        return {"log_prob": self.model.prior.log_prob(t), "log_det": log_det, "z": z}

    def _decoder(self, _: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"image": to_pixels(self.model.flow.decode(inputs["z"])[0])}

    def _conditional(self, graph: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        path, lineage = graph.about["path"], self._lineage(graph)
        given = {"absent": [path]} if not graph.about["existence"] else {}
        distribution = self.model.given(*([] if given else [path]), **given)
        t = dequantise(inputs["image"], inputs["noise"])
        codes = [value for name, value in inputs.items() if name.startswith("code_")]
        return {
            "log_prob": distribution.log_prob_given_code(t, codes[0]),
            "log_prior": lineage.log_prior(codes),
            "log_exists": lineage.log_exists(codes[-1]),
            "log_encoder": lineage.log_encoder(codes, t),
        }

    def _posterior(self, _: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        paths = self.model.paths()
        t = dequantise(inputs["image"], inputs["noise"])
        given = _Given(len(t), _noise_in_order(paths, inputs))
        said = self.model.posterior(t, draws=DRAWS, generator=given)
        return {
            name: torch.stack([getattr(said[path], name) for path in paths], 1)
            for name in ("encoder", "joint", "logit")
        }

    def _sampler(self, graph: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        lineage = self._lineage(graph)
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
        image = to_pixels(self.model.flow.decode(z)[0])
        return {"image": image, "accepted": torch.tensor(found)} | {
            f"code_{depth}": code for depth, code in enumerate(codes, 1)
        }


class _Given(Rows):
    """Normals that were drawn before, handed out in order."""

    def __init__(self, count: int, normals: Iterable[Tensor]) -> None:
        super().__init__(range(count))
        self._normals = iter(normals)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32, device="cpu") -> Tensor:
        return next(self._normals)


def _noise_in_order(paths: list[str], inputs: dict[str, Tensor]) -> Iterable[Tensor]:
    """The codes' noise as the library asks for it: for each path, its ancestors' from the root."""
    for path in paths:
        steps = path.split("/")
        for depth in range(1, len(steps)):
            yield inputs[f"code_noise:{'/'.join(steps[:depth])}"]


def _judge(name: str, worst: Figures) -> None:
    for figure, value in worst.items():
        most = _most(figure)
        if most is not None and not value <= most:
            raise WorkFailed(
                f"{name}: onnxruntime and the library differ by {value:.3g} in {figure}, and "
                f"{most:g} is allowed; --no-check writes the files all the same"
            )


def _most(figure: str) -> float | None:
    if figure.endswith("_of_allowed"):
        return 1.0
    if figure.endswith("_probability"):
        return MOST_PROBABILITY
    limits = {"grey_levels": MOST_LEVELS, "share_of_pixels": MOST_PIXELS, "accepted_differ": 0}
    return limits.get(figure)
