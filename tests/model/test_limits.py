"""What the card of a model says of its limits, from a report made by hand."""

from __future__ import annotations

from dataclasses import asdict

from tzk_core.evaluation.held_out import Figure
from tzk_core.pretrained.limits import limits


def figure(name: str, mean: float) -> dict:
    return asdict(Figure(name, mean, 0.01, 100, "share"))


def read(temperature: float) -> dict:
    return {
        "temperature": temperature,
        "read_as_asked": figure("read as asked for", 0.8),
        "each": [figure("mnist/0", 0.9), figure("mnist/1", 0.7)],
    }


def test_the_worst_class_foreign_images_and_typicality_are_told():
    report = {
        "observation": "1×32×32",
        "parts": {
            "samples": {
                "p(t)": {"figures": {"not_finite": {}, "of": 64}},
                "mnist": {"figures": {"samples": [read(0.7), read(1.0)]}},
            },
            "discriminators": {
                "first level": {
                    "figures": {
                        "against": {"cifar10": [figure("mnist", 0.01), figure("fashion", 0.97)]}
                    }
                }
            },
            "typicality": {
                "all": {"figures": {"auroc": {"cifar10": {"typicality": figure("t", 0.6)}}}}
            },
        },
    }
    told = limits(report)
    assert "takes images of 1×32×32 alone" in told
    assert "at temperature 0.7 are read as asked for by an independent classifier in 0.8" in told
    assert told.count("those of mnist/1 in 0.7000 ± 0.0100") == 2
    assert "`fashion` says yes to 0.9700 ± 0.0100 of the images of cifar10" in told
    assert "`mnist` says yes" not in told
    assert "Typicality tells images of cifar10 from its own with an AUROC of 0.6000" in told


def test_what_was_not_measured_is_not_told():
    skipped = {"typicality": {"all": {"figures": {}}}}
    told = limits({"observation": "3×32×32", "parts": skipped})
    assert told.count("\n- ") == 1
