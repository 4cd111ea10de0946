"""What each ONNX file computes: a small module over the library's public methods, and its fields.

Nothing is worked out anew here: the modules take uint8 images and noise where the library takes
observations and generators, since a graph has neither a generator nor a loop without a bound
(design, section 11).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tzk_core.data.quantisation import dequantise, to_pixels
from tzk_core.densities import standard_normal

if TYPE_CHECKING:
    from tzk_core.knowledge import CodeEncoder
    from tzk_core.lineage import Lineage
    from tzk_core.model import TzK

__all__ = [
    "CANDIDATES",
    "Field",
    "Graph",
    "Piece",
    "conditional",
    "decoder",
    "density",
    "encoder",
    "graphs",
    "posterior",
    "sampler",
]

CANDIDATES = 64
"""Candidate codes a sampler tries (design, section 11)."""

IMAGE_LEVELS = "levels 0 to 255"


@dataclass(frozen=True)
class Field:
    """An input or output of a file.

    Args:
        name: in the graph.
        shape: numbers, and the names of those that may differ from call to call.
        dtype: as numpy calls it.
        unit: of the numbers; for noise, the distribution they are drawn from.
        meaning: in a few words.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class Piece:
    """What a file, or a part of it, computes.

    Args:
        module: takes the inputs in order, returns the outputs in order.
        name: of a piece that is in several files; others have none.
    """

    module: nn.Module
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    name: str = ""


@dataclass(frozen=True)
class Graph:
    """One file.

    Args:
        name: of the file, without ``.onnx``.
        kind: density, decoder, sampler, posterior, encoder or conditional.
        pieces: what it computes, one after the other. What a piece takes is an input of the file or
            an output of an earlier piece; the file's outputs are outputs of any of them.
        about: what holds of this file alone, such as its path.
    """

    name: str
    kind: str
    pieces: tuple[Piece, ...]
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    about: dict = field(default_factory=dict)


def graphs(model: TzK, *, paths: Sequence[str] | None = None, absent: bool = False) -> list[Graph]:
    """All files of a model.

    Args:
        paths: of the samplers and conditional densities; every path by default.
        absent: samplers, encoders and conditional densities of e = 0 too.

    Raises:
        UnknownKnowledge: a path that is not there.
    """
    paths = model.paths() if paths is None else list(dict.fromkeys(paths))
    found = [density(model), decoder(model)]
    if model.paths():
        found.append(posterior(model))
    for present in (True, False) if absent else (True,):
        for path in paths:
            found.append(sampler(model, path, present=present))
            found.append(encoder(model, path, present=present))
            found.append(conditional(model, path, present=present))
    return found


# -- p(t) ------------------------------------------------------------------------------------------


def density(model: TzK) -> Graph:
    """uint8 image and dequantisation noise → log p(t), its terms, z."""
    levels = len(model.flow.level_channels)
    outputs = (
        Field("log_prob", ("batch",), "float32", "nats", "log p(t) of t = (image + noise)/256 − ½"),
        Field(
            "level_terms",
            ("batch", levels),
            "float32",
            "nats",
            "log N(z; 0, I) of each level's share of z, finest first",
        ),
        Field(
            "log_det",
            ("batch",),
            "float32",
            "nats",
            "log |det ∂z/∂t|; log_prob is this plus the sum of level_terms",
        ),
        Field("z", ("batch", *model.latent_shape), "float32", "none", "the latent state"),
    )
    flow = _encode(model)
    terms = Piece(_Terms(model), flow.outputs[1:], outputs[:2])
    return Graph("density", "density", (flow, terms), flow.inputs, outputs)


class _Terms(nn.Module):
    def __init__(self, model: TzK) -> None:
        super().__init__()
        self.channels = model.flow.level_channels

    def forward(self, z: Tensor, log_det: Tensor):
        terms = [standard_normal(share) for share in z.split(self.channels, dim=1)]
        return standard_normal(z) + log_det, torch.stack(terms, 1)


def decoder(model: TzK) -> Graph:
    """z → uint8 image."""
    piece = _decode(model)
    return Graph("decoder", "decoder", (piece,), piece.inputs, piece.outputs)


def _decode(model: TzK) -> Piece:
    z = Field(
        "z", ("batch", *model.latent_shape), "float32", "N(0, 1) for a sample", "a latent state"
    )
    return Piece(_Decoder(model), (z,), _image_out(model), "decode")


class _Decoder(nn.Module):
    def __init__(self, model: TzK) -> None:
        super().__init__()
        self.flow = model.flow

    def forward(self, z: Tensor):
        return _pixels(self.flow.decode(z)[0])


# -- p(t | e) of a path ----------------------------------------------------------------------------


def sampler(model: TzK, path: str, *, present: bool = True) -> Graph:
    """Base noise → uint8 image of a kind; every random number is an input."""
    lineage = model.lineage(path, present=present)
    sizes = [kind.config.code_dim for _, kind in lineage.nodes]
    steps = path.split("/")
    inputs = [
        Field(
            "candidate_noise",
            ("batch", CANDIDATES, sizes[-1]),
            "float32",
            "N(0, 1)",
            f"of the candidates for the code of {path}",
        ),
        Field(
            "candidate_uniform",
            ("batch", CANDIDATES),
            "float32",
            "U[0, 1)",
            "a candidate is accepted where log u < log p(e | c)",
        ),
        Field(
            "resample_uniform",
            ("batch",),
            "float32",
            "U[0, 1)",
            "picks a candidate, with probability ∝ p(e | c), where none was accepted",
        ),
    ]
    for depth in range(len(sizes) - 1):
        inputs.append(
            Field(
                f"code_noise_{depth + 1}",
                ("batch", sizes[depth]),
                "float32",
                "N(0, 1)",
                f"of the code of {'/'.join(steps[: depth + 1])}",
            )
        )
    inputs.append(
        Field(
            "latent_noise",
            ("batch", *model.latent_shape),
            "float32",
            "N(0, 1), times the temperature",
            "of z",
        )
    )
    outputs = [
        Field(
            "accepted",
            ("batch",),
            "bool",
            "none",
            "whether a candidate was accepted: an exact draw; else one was resampled",
        ),
        *_codes(lineage, ""),
    ]
    flow = _decode(model)
    return Graph(
        _file("sampler", path, present),
        "sampler",
        (Piece(_Sampler(lineage), tuple(inputs), (*flow.inputs, *outputs)), flow),
        tuple(inputs),
        (*flow.outputs, *outputs),
        {"path": path, "existence": int(present)},
    )


class _OfPath(nn.Module):
    """Has the parameters of a path and no others: torch's export takes time for all there are."""

    def __init__(self, lineage: Lineage) -> None:
        super().__init__()
        self.lineage, self.used = lineage, nn.ModuleList()
        for depth, ((tzk, kind), e) in enumerate(zip(lineage.nodes, lineage.values, strict=True)):
            self.used.extend((kind.encoders[e], kind.decoders[e]))
            self.used.extend((kind.code_prior, kind.c_discriminator))
            if depth:
                self.used.append(tzk.flow)  # of the code above


class _Sampler(_OfPath):
    def forward(self, candidate_noise, candidate_uniform, resample_uniform, *rest):
        *code_noise, latent_noise = rest
        _, count, size = candidate_noise.shape
        kind = self.lineage.last
        candidates = kind.code_prior.transform(candidate_noise.reshape(-1, size))
        log_p = self.lineage.log_exists(candidates).reshape(-1, count)
        accepted = candidate_uniform.log() < log_p
        found = accepted.any(1)
        # The first accepted is the one whose running count of accepted ones is 1; where there is
        # none, the first whose running sum of probabilities reaches the uniform.
        first = accepted & (accepted.to(torch.int64).cumsum(1) == 1)
        below = (log_p.softmax(1).cumsum(1) < resample_uniform.unsqueeze(1)).to(torch.int64).sum(1)
        position = torch.arange(count, device=log_p.device).unsqueeze(0)
        resampled = position == below.clamp(max=count - 1).unsqueeze(1)
        # onnxruntime has no Where of booleans.
        picked = first | (resampled & ~found.unsqueeze(1))
        deepest = torch.where(picked.unsqueeze(2), candidates.reshape(-1, count, size), 0.0).sum(1)
        codes = self.lineage.ascend(deepest, list(code_noise))
        return self.lineage.decoder.transform(latent_noise, codes[0]), found, *codes


def encoder(model: TzK, path: str, *, present: bool = True) -> Graph:
    """uint8 image and noise → codes of a path that the encoders give, and their log density."""
    lineage = model.lineage(path, present=present)
    codes = _codes(lineage, "")
    noise = [
        replace(code, name=f"code_noise_{depth}", unit="N(0, 1)", meaning=f"of {code.name}")
        for depth, code in enumerate(codes, 1)
    ]
    inputs, outputs = (*_image_and_noise(model), *noise), (*codes, _LOG_ENCODER)
    return Graph(
        _file("encoder", path, present),
        "encoder",
        (Piece(_Codes(lineage), inputs, outputs),),
        inputs,
        outputs,
        {"path": path, "existence": int(present)},
    )


_LOG_ENCODER = Field(
    "log_encoder", ("batch",), "float32", "nats", "log density of the codes given t"
)


class _Codes(_OfPath):
    def forward(self, image, noise, *code_noise):
        t = dequantise(image, noise)
        codes = self.lineage.encode(t, list(code_noise))
        return *codes, self.lineage.log_encoder(codes, t)


def conditional(model: TzK, path: str, *, present: bool = True) -> Graph:
    """uint8 image, noise and the codes of a path → log p(t | e, c) and what the codes weigh."""
    lineage = model.lineage(path, present=present)
    outputs = (
        Field(
            "log_prob",
            ("batch",),
            "float32",
            "nats",
            f"log p(t | e, c) of {path.partition('/')[0]} and its code",
        ),
        Field(
            "log_prior",
            ("batch",),
            "float32",
            "nats",
            "log density of the codes under p(c), down the path; log p(e | c) left out",
        ),
        Field("log_exists", ("batch",), "float32", "nats", f"log p(e | c) of {path}"),
        _LOG_ENCODER,
    )
    flow, codes = _encode(model), _codes(lineage, "any number; ")
    return Graph(
        _file("conditional", path, present),
        "conditional",
        (flow, Piece(_Conditional(lineage), (*flow.outputs, *codes), outputs)),
        (*flow.inputs, *codes),
        outputs,
        {
            "path": path,
            "existence": int(present),
            "log_existence": float(lineage.existence.log()),
        },
    )


def _encode(model: TzK) -> Piece:
    outputs = (
        Field("t", ("batch", *model.observation_shape), "float32", "none", "the observation"),
        Field("z", ("batch", *model.latent_shape), "float32", "none", "the latent state"),
        Field("log_det", ("batch",), "float32", "nats", "log |det ∂z/∂t|"),
    )
    return Piece(_Encoder(model), _image_and_noise(model), outputs, "encode")


class _Encoder(nn.Module):
    def __init__(self, model: TzK) -> None:
        super().__init__()
        self.flow = model.flow

    def forward(self, image, noise):
        t = dequantise(image, noise)
        return t, *self.flow.encode(t)


class _Conditional(_OfPath):
    def forward(self, t, z, log_det, *codes):
        codes = list(codes)
        return (
            self.lineage.decoder.log_prob(z, codes[0]) + log_det,
            self.lineage.log_prior(codes),
            self.lineage.log_exists(codes[-1]),
            self.lineage.log_encoder(codes, t),
        )


# -- p_enc(e | t) ----------------------------------------------------------------------------------


def posterior(model: TzK) -> Graph:
    """uint8 image, noise, and noise for the codes of what has kinds below it → p_enc(e = 1 | t)."""
    paths = model.paths()
    inputs = list(_image_and_noise(model))
    for parent in _parents(paths):
        inputs.append(
            Field(
                _code_noise(parent),
                ("batch", "draws", model.find(parent).config.code_dim),
                "float32",
                "N(0, 1)",
                f"of draws of the code of {parent}, over which the kinds below it are averaged",
            )
        )
    columns = ("batch", len(paths))
    outputs = (
        Field("encoder", columns, "float32", "probability", "p(e = 1 | ancestors present, t)"),
        Field("joint", columns, "float32", "probability", "encoder times those of the ancestors"),
        Field("logit", columns, "float32", "nats", "log odds of encoder"),
    )
    return _whole("posterior", _Posterior(model), tuple(inputs), outputs)


class _Posterior(nn.Module):
    def __init__(self, model: TzK) -> None:
        super().__init__()
        self.paths = model.paths()
        self.parents = _parents(self.paths)
        self.discriminators = nn.ModuleList(model.find(path).t_discriminator for path in self.paths)
        self.encoders = nn.ModuleList(model.find(path).encoders[1] for path in self.parents)

    def forward(self, image, noise, *code_noise):
        t = dequantise(image, noise)
        below = dict(zip(self.parents, zip(self.encoders, code_noise, strict=True), strict=True))
        observed = {"": t}  # what the kinds below a path see, (B·draws, …)
        logits, joints = [], {"": t.new_ones(t.shape[0])}
        for path, discriminator in zip(self.paths, self.discriminators, strict=True):
            above = path.rpartition("/")[0]
            logit = _averaged(discriminator(observed[above]), t.shape[0])
            logits.append(logit)
            joints[path] = joints[above] * logit.sigmoid()
            if path in below:
                observed[path] = _observed(*below[path], observed[above], root=not above)
        logit = torch.stack(logits, 1)
        return logit.sigmoid(), torch.stack([joints[path] for path in self.paths], 1), logit


def _averaged(logits: Tensor, batch: int) -> Tensor:
    """The logit of the mean probability over a row's draws, (B·draws,) → (B,)."""
    logits = logits.reshape(batch, -1)
    yes = nn.functional.logsigmoid(logits).logsumexp(1)
    return yes - nn.functional.logsigmoid(-logits).logsumexp(1)


def _observed(encoder: CodeEncoder, noise: Tensor, x: Tensor, *, root: bool) -> Tensor:
    """Codes of a kind for each draw, (B·draws, C); at the root ``x`` has one row an image."""
    base = encoder.base(x)
    if root:
        base = tuple(part.unsqueeze(1).expand_as(noise).flatten(0, 1) for part in base)
    return encoder.sample(base, noise.flatten(0, 1))[0]


# -- what they share -------------------------------------------------------------------------------


def _whole(
    name: str, module: nn.Module, inputs: tuple[Field, ...], outputs: tuple[Field, ...]
) -> Graph:
    """A file of one piece, its own."""
    return Graph(name, name, (Piece(module, inputs, outputs),), inputs, outputs)


def _pixels(t: Tensor) -> tuple[Tensor, Tensor]:
    return to_pixels(t), torch.isfinite(t).flatten(1).all(1)


def _image_and_noise(model: TzK) -> tuple[Field, Field]:
    shape = ("batch", *model.observation_shape)
    return (
        Field("image", shape, "uint8", IMAGE_LEVELS, "prepared as the metadata's preparation says"),
        Field("noise", shape, "float32", "U[0, 1)", "of the dequantisation"),
    )


def _image_out(model: TzK) -> tuple[Field, Field]:
    shape = ("batch", *model.observation_shape)
    return (
        Field("image", shape, "uint8", IMAGE_LEVELS, "the image"),
        Field("finite", ("batch",), "bool", "none", "false where the image is not to be used"),
    )


def _codes(lineage: Lineage, unit: str) -> list[Field]:
    steps = lineage.path.split("/")
    return [
        Field(
            f"code_{depth + 1}",
            ("batch", kind.config.code_dim),
            "float32",
            unit.removesuffix("; ") or "none",
            f"the code of {'/'.join(steps[: depth + 1])}",
        )
        for depth, (_, kind) in enumerate(lineage.nodes)
    ]


def _parents(paths: list[str]) -> list[str]:
    above = {path.rpartition("/")[0] for path in paths}
    return [path for path in paths if path in above]


def _code_noise(path: str) -> str:
    return f"code_noise:{path}"


def _file(kind: str, path: str, present: bool) -> str:
    """A path's file name: no name of a kind holds a dot."""
    return f"{kind if present else f'{kind}-absent'}.{path.replace('/', '.')}"
