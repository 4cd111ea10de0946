"""One tree's side of benchmarks/regression.py: runs a hot path as often as it is told.

    PYTHONPATH=TREE regression_worker.py TREE INPUTS.npz SETTINGS

It reads one JSON a line from standard input (path, repeats) and answers each with one line. All it
takes from the tree has been there since the first training: TzK, its configuration, the objective.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tzk_core
from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
from tzk_core.model import TzK

SEED = 1
NOISE = 0.02  # added to every weight, since last layers start at zero

Run = Callable[[], Any]


def made(shape: tuple[int, ...], settings: dict[str, int]) -> TzK:
    """A model of digits with ten classes, and of garments."""
    source = torch.Generator().manual_seed(SEED)
    flow = {name: settings[name] for name in ("levels", "steps", "width")}
    model = TzK(TzKConfig(observation=shape, flow=FlowConfig(**flow)), generator=source)
    for path in ("mnist", "fashion", *(f"mnist/{digit}" for digit in range(10))):
        small = KnowledgeConfig(code_dim=2 if "/" in path else 8, code_steps=2, z_steps=2)
        model.add_knowledge(path, small, generator=source)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += NOISE * torch.randn(parameter.shape, generator=source)
    return model


def as_served(model: TzK) -> TzK:
    """The model as a worker of this tree runs it, where the tree prepares it at all."""
    try:
        from tzk_core.service.backends import prepare
    except ImportError:
        return model
    prepare(model.eval())
    return model


def existence(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of every path, from labels of digits and −1 for garments."""
    digits = (labels >= 0).to(torch.int8)
    found = {"mnist": digits, "fashion": 1 - digits}
    for digit in range(10):
        is_one = (labels == digit).to(torch.int8)
        found[f"mnist/{digit}"] = torch.where(digits == 1, is_one, torch.full_like(is_one, -1))
    return found


def nll(model: TzK, t: torch.Tensor) -> Run:
    @torch.inference_mode()
    def run() -> torch.Tensor:
        return model.prior.log_prob(t)

    return run


def sample(model: TzK, t: torch.Tensor) -> Run:
    @torch.inference_mode()
    def run() -> Any:
        return model.prior.draw(len(t), seed=SEED)

    return run


def train(model: TzK, t: torch.Tensor, known: dict[str, torch.Tensor]) -> Run:
    """A step of a stage ``all``: every term, its gradients, and fused Adam."""
    # Here and not above, so that a tree without it still has the other paths.
    from tzk_core.objective import ObjectiveConfig, objective

    config = ObjectiveConfig()
    trained = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=1e-6, fused=True)

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        noise = torch.Generator().manual_seed(SEED)
        (-objective(model, t, known, config, noise).total).backward()
        optimiser.step()

    return run


def paths(
    inputs: Path, settings: dict[str, int]
) -> tuple[dict[str, Run], dict[str, str], list[float] | None]:
    """What runs, why the rest does not, and log p of the images, for a comparison."""
    with np.load(inputs, allow_pickle=False) as arrays:
        t, labels = (torch.from_numpy(arrays[name]) for name in ("t", "labels"))
    model = as_served(made(tuple(t.shape[1:]), settings))
    makers = {
        "nll": lambda: nll(model, t),
        "sample": lambda: sample(model, t),
        # Of its own, as training changes it.
        "train": lambda: train(made(tuple(t.shape[1:]), settings), t, existence(labels)),
    }
    runs, missing, log_p = {}, {}, None
    for name, make in makers.items():
        try:
            run = make()
            found = run()
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            missing[name] = f"{type(error).__name__}: {error}"
        else:
            runs[name] = run
            log_p = found.tolist() if name == "nll" else log_p
    return runs, missing, log_p


def serve(tree: str, inputs: str, settings: str) -> None:
    # What anything prints does not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    found = Path(tzk_core.__file__).resolve().parents[1]
    if found != Path(tree).resolve():
        raise SystemExit(f"tzk_core is that of {found}, not of {tree}")
    runs, missing, log_p = paths(Path(inputs), json.loads(settings))
    told = {"paths": list(runs), "missing": missing, "log_p": log_p}
    print(json.dumps(told | {"threads": torch.get_num_threads()}), file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        run = runs[asked["path"]]
        began = time.perf_counter()
        for _ in range(asked["repeats"]):
            run()
        print(json.dumps((time.perf_counter() - began) / asked["repeats"]), file=answers)


if __name__ == "__main__":
    serve(*sys.argv[1:])
