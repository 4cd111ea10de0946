"""What a job leaves: one root kind with all below it, and what it was made from.

``RUN/knowledge/NAME.safetensors`` holds the weights, ``NAME.json`` the kind's configuration, what
it was made from, and the SHA-256 of the weights. The JSON is written last, and a pair that does not
belong together counts as none.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..config import KnowledgeConfig
from ..errors import ModelUnavailable
from ..files import write_aside
from ..model import TzK

__all__ = ["FOLDER", "Artefact", "key_of", "merge", "read_artefact", "write_artefact"]

FOLDER = "knowledge"
FORMAT = 1


@dataclass
class Artefact:
    """One fitted root kind."""

    name: str
    config: dict  # of the kind, its child in it
    weights: bytes  # safetensors
    made_from: dict[str, Any]  # what decides the result
    facts: dict[str, Any]  # what does not: times, versions
    metrics: str = ""  # JSON lines of the training; not kept in the artefact's files

    @property
    def key(self) -> str:
        return key_of(self.made_from)

    @classmethod
    def of(cls, model: TzK, name: str, made_from: dict, facts: dict, metrics: str) -> Artefact:
        """The kind ``name`` of a model, as it is now."""
        config = model.config.knowledge[name].model_dump(mode="json")
        state = {k: v.detach().cpu().contiguous() for k, v in model.find(name).state_dict().items()}
        return cls(name, config, save(state, {"format": "pt"}), made_from, facts, metrics)


def key_of(made_from: dict) -> str:
    """The SHA-256 of what decides a result."""
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def write_artefact(folder: Path, artefact: Artefact) -> None:
    """Writes the two files, each whole or not at all.

    Raises:
        WorkFailed: the folder cannot be written.
    """
    record = {
        "format": FORMAT,
        "name": artefact.name,
        "key": artefact.key,
        "made_from": artefact.made_from,
        **artefact.facts,
        "config": artefact.config,
        "weights_sha256": hashlib.sha256(artefact.weights).hexdigest(),
    }
    write_aside(folder / f"{artefact.name}.safetensors", artefact.weights)
    write_aside(folder / f"{artefact.name}.json", json.dumps(record, indent=2) + "\n")


def read_artefact(folder: Path, name: str) -> Artefact | None:
    """The artefact of that name, or None where there is none that is whole."""
    try:
        record = json.loads((folder / f"{name}.json").read_text())
        weights = (folder / f"{name}.safetensors").read_bytes()
        if record["format"] != FORMAT:
            return None
        if hashlib.sha256(weights).hexdigest() != record["weights_sha256"]:
            return None
        known = ("format", "name", "key", "made_from", "config", "weights_sha256")
        facts = {key: value for key, value in record.items() if key not in known}
        return Artefact(name, record["config"], weights, record["made_from"], facts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def merge(model: TzK, artefact: Artefact) -> None:
    """Adds the kind to a model that has none of its name; the rest stays, bit for bit.

    Raises:
        ModelUnavailable: the weights do not fit the configuration.
    """
    try:
        config = KnowledgeConfig.model_validate(artefact.config)
        model.add_knowledge(artefact.name, config)
        state: dict[str, Tensor] = load(artefact.weights)
        model.find(artefact.name).load_state_dict(state, strict=True)
    except (ValidationError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelUnavailable(
            f"the fitted knowledge {artefact.name!r} cannot be loaded: {reason[:300]}"
        ) from error
