"""How far a model is to be trusted, in sentences made of its evaluation."""

from __future__ import annotations

from typing import Any

from ..evaluation.held_out import Figure
from ..evaluation.report.result import share

__all__ = ["limits"]

SURE = 0.5  # the share of foreign images of a kind from which on it is told


def limits(report: dict[str, Any]) -> str:
    """A section of a model card.

    Args:
        report: the JSON of ``tzk evaluate``.
    """
    told = [
        f"- It takes images of {report['observation']} alone, and makes no others: what is larger, "
        "or in other colours, is made so first.",
        *_misread(report["parts"].get("samples", {})),
        *_foreign(report["parts"].get("discriminators", {})),
        *_usual(report["parts"].get("typicality", {})),
    ]
    return "\n".join(["\n## How far it is to be trusted\n", *told]) + "\n"


def _misread(samples: dict[str, Any]) -> list[str]:
    """Of each group of classes the one whose samples are read worst."""
    told = []
    for scope, entry in samples.items():
        for found in entry["figures"].get("samples", ()):
            worst = min((Figure(**each) for each in found["each"]), key=lambda each: each.mean)
            every = Figure(**found["read_as_asked"])
            told.append(
                f"- Samples of {scope} at temperature {found['temperature']:g} are read as asked "
                f"for by an independent classifier in {share(every)} of the cases, those of "
                f"{worst.name} in {share(worst)}."
            )
    return told


def _foreign(discriminators: dict[str, Any]) -> list[str]:
    """Kinds that say yes to images that are none of the model's."""
    against = discriminators.get("first level", {"figures": {}})["figures"].get("against", {})
    return [
        f"- `{kind.name}` says yes to {share(kind)} of the images of {source}: p_enc(e = 1∣t) "
        "tells only such images apart as it was trained on. Ask for typicality too."
        for source, kinds in against.items()
        for kind in (Figure(**each) for each in kinds)
        if kind.mean >= SURE
    ]


def _usual(typicality: dict[str, Any]) -> list[str]:
    """How well what it was not trained on is told by typicality."""
    auroc = typicality.get("all", {"figures": {}})["figures"].get("auroc", {})
    return [
        f"- Typicality tells images of {source} from its own with an AUROC of {share(found)}."
        for source, each in auroc.items()
        for found in (Figure(**each["typicality"]),)
    ]
