"""docs/onnx.md: ``python -m tzk_export.onnx_page > docs/onnx.md``.

Made of the fields that an export writes, for a model of one shape, and of what is said around them.
"""

from __future__ import annotations

from collections.abc import Iterable

from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
from tzk_core.model import TzK
from tzk_core.randomness import generator

from .onnx_check import (
    MOST_LEVELS,
    MOST_NATS,
    MOST_OF_LARGEST,
    MOST_PIXELS,
    MOST_PROBABILITY,
    TIMES_ITS_OWN,
)
from .onnx_graphs import CANDIDATES, Field, Graph, graphs
from .onnx_trace import OPSET

__all__ = ["document"]

HEAD = f"""# ONNX files

`tzk export RUN --to DIR` writes a model for whatever runs ONNX (opset {OPSET}); neither tzk nor
torch is needed to run them. This page is made of what it writes: `python -m
tzk_export.onnx_page > docs/onnx.md`.

- Every file takes batches of any size. Every random number is an input, so that the same inputs
  give the same outputs; a sampler has {CANDIDATES} candidate codes, and says in `accepted`
  whether one of them was.
- All files share `weights.data`, which stays beside them. `export.json` has the SHA-256 of
  each, the fields below, and the figures of the check.
- A file's `metadata_props` say what it is: `kind`, `path`, `existence`, `knowledge` (the order
  of the posterior's columns), `preparation` (how an image becomes the input), `inputs`,
  `outputs`, `weights_sha256` (of the run's `model.safetensors`), `tzk_version`,
  `torch_version`, `onnx_version`, `onnxruntime_version`, `opset`; all but plain text is JSON.
- Each is checked when it is written, by onnx.checker and by onnxruntime against the library on
  real images, the decoder on their z, and every output is: probabilities to
  {MOST_PROBABILITY:g}, images to {MOST_LEVELS} grey level in {MOST_PIXELS:.1%} of the pixels,
  `accepted` and `finite` exactly, latent states, codes and logits to {MOST_OF_LARGEST:.0%} of the
  largest element, log densities to {MOST_NATS:g} nats for each 1,000 dimensions of
  the library's in float64 (or {TIMES_ITS_OWN:g} × the library's own error in float32, where that is
  more: see below). What it found is printed and stored. `--no-check` leaves it out.
- A path `mnist/3` is `mnist.3` in the name of a file. `--absent` adds `sampler-absent.…`,
  `encoder-absent.…` and `conditional-absent.…`, of e = 0; `--knowledge mnist,mnist/3` leaves out
  the files of other paths.

log p is the density of t = (image + noise)/256 − ½. Nats of the 256-level image are −log p +
D·ln 256, bits/dim these divided by D·ln 2. The importance bound on log p(t | e) is the log-mean
over codes of exp(`log_prob` + `log_prior` + `log_exists` − `log_encoder`), less `log_existence` in
the metadata: `encoder.…` draws the codes, `conditional.…` says the rest of them. A posterior's
draws of a code serve all kinds below it, however deep.

## Fields

Of a model of 3×32×32 images with the kinds `mnist` (a code of 10) and `mnist/3` (a code of 2).
"""

TAIL = """
## How close they come

In nats for each 1,000 dimensions, the largest of 200 images (99 % of them), on a flow of 8 steps a
level and width 64 that was trained on MNIST for 5,000 steps; onnxruntime on one CPU thread:

| | MNIST | Fashion-MNIST, which it never saw |
|---|---|---|
| file and library, both float32 | 0.95e-3 (0.95e-3) | 4.8e-3 (3.1e-3) |
| file, from the library in float64 | 0.76e-3 (0.71e-3) | 4.5e-3 (1.9e-3) |
| library in float32, from itself in float64 | 0.97e-3 (0.74e-3) | 5.7e-3 (2.2e-3) |
| library in float32, an image alone and among 400 | 0.95e-3 (0.95e-3) | 4.3e-3 (3.3e-3) |

One step of float32 at such a log p is 0.48e-3 of this unit. What is more is the rounding of the
networks, which the flow makes large where an image is far from all that it was trained on, in a
file and in the library alike. Sums of log-determinants are float64 in both.

Of the model in the box, 69 files that share 14.6 MB of weights (`tzk export builtin --to DIR`,
16 digits and garments): log densities of file and library, both float32, differ by at most 1.2e-3
(density) and 0.95e-3 (conditional), and those of the file from the library in float64 by 0.65e-3;
codes by 1e-6 of the largest element, probabilities of the posterior by 2.9e-6 with 16 draws,
images by one grey level in 0.02 % of the pixels. The export takes 12 minutes of one processor.

## Running them

```python
import numpy as np
import onnxruntime

draw = np.random.default_rng(0)
session = onnxruntime.InferenceSession("DIR/density.onnx")
image = np.zeros((1, 3, 32, 32), np.uint8)
noise = draw.random(image.shape, np.float32)
log_prob, level_terms, log_det, z = session.run(None, {"image": image, "noise": noise})
```

## Serving them

`tzk archive RUN --backend onnx` writes archives whose workers run the t-flow and the networks
on images by onnxruntime; `--backend compile` lets torch.compile do it (the workers need a C++
compiler, and minutes until they are ready: `tzk serve` and `tzk deploy` give them 900 s instead of
120 and 300, or what `--start-timeout` and `--timeout` say). The answers are those of `--backend
torch` to this tolerance: (log p to 1e-5 of itself, pixels to a grey level in 0.1 % of them), which
`pytest -m slow tests/export/test_backends_served.py` compares through the real server, for
onnxruntime with the model in the box too.

An ONNX worker serves from the CPU, beside a GPU too, and its log says so. The files are float32, so
that `tzk archive` takes no `--bf16` with `--backend onnx`.

An ONNX worker needs onnxruntime beside `.[serve]`, nothing of what trains or exports, and still
torch: requests' random numbers are torch's, and codes' own flows and several kinds at once run by
it. Environments on Linux with Python 3.11 and the CPU build of torch 2.13.0, as `du -sm` has them:

| what for | packages | MB |
|---|---|---|
| to serve an ONNX archive | `.[serve,onnx]` | 1,326, of which torch is 754 |
| to train, serve and export | `.[train,serve,export]` | 1,770 |
| to run the files above, without torch | numpy, onnxruntime, pillow | 201 |
"""


def document() -> str:
    """The page."""
    parts = [HEAD]
    for graph in graphs(_example()):
        parts.append(f"### `{graph.name}.onnx`\n\n{_table(graph)}")
    return "\n".join(parts) + TAIL


def _example() -> TzK:
    config = TzKConfig(observation=(3, 32, 32), flow=FlowConfig(levels=3, steps=1, width=8))
    model = TzK(config, generator=generator(0))
    for path, size in (("mnist", 10), ("mnist/3", 2)):
        model.add_knowledge(path, KnowledgeConfig(code_dim=size), generator=generator(0))
    return model


def _table(graph: Graph) -> str:
    rows = ["| | name | shape | type | unit | |", "|---|---|---|---|---|---|"]
    rows += _rows("in", graph.inputs)
    rows += _rows("out", graph.outputs)
    return "\n".join(rows) + "\n"


def _rows(way: str, fields: Iterable[Field]) -> Iterable[str]:
    for one in fields:
        shape = "×".join(map(str, one.shape))
        meaning = one.meaning.replace("|", "\\|")
        yield f"| {way} | `{one.name}` | {shape} | {one.dtype} | {one.unit} | {meaning} |"


if __name__ == "__main__":
    print(document(), end="")
