"""Experiments that train on real images in seconds: 8×8, built in, a few steps."""

from __future__ import annotations

from tzk_core.reproduction import EXPERIMENTS, PaperData, Settings
from tzk_core.reproduction.experiment import recipes_of
from tzk_core.reproduction.recipes import packaged

__all__ = ["DATA", "GIVEN", "STAND_INS", "TINY", "changes"]

GIVEN = ["mnist=builtin/mnist"]
STAND_INS = [
    "cifar10=builtin/fashion_mnist",
    "svhn=builtin/fashion_mnist",
    "omniglot=none",
    "imagenet32=none",
    "celeba=none",
]
DATA = PaperData.parsed(GIVEN, STAND_INS)
TINY = Settings(
    prior_images=12,
    images=6,
    draws=(2, 16),
    accuracy_images=20,
    samples=2,
    shown=128,
    pairs=4,
    points=3,
    side=3,
    grid=4,
    timed_steps=1,
    rounds=2,
)
_COMMON = [
    "data.preparation.size=8",
    "data.preparation.padding=false",
    "data.holdout=0.1",
    "model.flow.levels=2",
    "model.flow.steps=1",
    "model.flow.width=4",
    "evaluation.existence_draws=1000",
    "evaluation.held_out=10",
    "evaluation.draws=2",
    "watch.measure_images=8",
]
_NARROW = ("code_steps=1", "code_width=4", "encoder_width=4", "decoder_stem=4", "decoder_width=4")
_NARROW += ("decoder_layers=1", "z_width=4", "discriminator_width=4")


def changes(name: str, steps: int = 3) -> list[str]:
    """What makes the small recipes of an experiment tiny."""
    found = [*_COMMON]
    found += [f"model.{kind}.{key}" for kind in ("knowledge", "child_knowledge") for key in _NARROW]
    for recipe in recipes_of(EXPERIMENTS[name]):
        small = packaged(recipe, "small")
        if recipe == "hierarchy":  # whose small images are grey: in RGB both D differ
            found.append(f"{recipe}:data.preparation.channels=3")
        for number, _ in enumerate(small.stages):
            stage = f"{recipe}:stages.{number}"
            found += [f"{stage}.steps={steps}", f"{stage}.batch=8", f"{stage}.learning_rate=1e-3"]
            found += [f"{stage}.checkpoint_every=1"]
        kept = [s for s in small.data.sources if DATA.source(s.source) is not None]
        found += [f"{recipe}:data.sources.{number}.limit=200" for number, _ in enumerate(kept)]
    return found
