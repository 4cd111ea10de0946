"""An evaluation from a run to its report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ..._version import __version__
from ...data.names import slug
from ...devices import conditions_on, device_named
from ...errors import UsageError
from ...files import must_be_writable
from ...likelihood import fit_existence
from ...model import TzK
from ...pretrained import run_folder
from ...randomness import derived
from ...training.checkpoint import is_state
from ..settings import Settings
from .asked import not_its_own, read_against, read_asked, weights_of
from .bar import OneBar
from .parts import PARTS
from .store import JSON, Store
from .work import ALL, Part, Work

__all__ = ["evaluate", "results_folder"]

STATE_DRAWS = 10_000  # codes to fit p(e = 1) of a checkpoint that training goes on from
STATE_NOTE = (
    "This is a checkpoint that training goes on from: its weights are not averaged. The model as "
    "it would be served is best-STAGE beside it, or the finished run."
)
KINDS_NOTE = (
    "Its discriminators are not corrected for balanced batches, and p(e = 1) was fitted anew with "
    "{draws:,} codes a kind."
)


def evaluate(
    run: str | Path,
    *,
    data: Sequence[str] = (),
    against: Sequence[str] = (),
    parts: Sequence[str] = (),
    settings: Settings | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    out: Path | None = None,
    again: bool = False,
    quiet: bool = False,
) -> Store:
    """Measures a model part by part; each part that is done is written at once.

    Where ``out`` holds an earlier evaluation of the same weights, parts that were measured with
    the same settings, seed and images are taken from it.

    Args:
        run: a run folder, a checkpoint or a hub name.
        data: KIND=SOURCE; the sources of the run's recipe where there are none.
        against: sources that are none of the model's.
        parts: names of :data:`~tzk_core.evaluation.report.PARTS`; all by default.
        out: the folder of the results, RUN/evaluation by default.
        again: measure everything anew.
        quiet: show no progress.

    Raises:
        UsageError: no such part, source or kind.
        ModelUnavailable: the model cannot be loaded.
        WorkFailed: images cannot be read, or results not written.
    """
    # Known before hours of work, not after.
    import matplotlib  # noqa: F401

    chosen = _parts(parts)
    settings = settings or Settings()
    out = Path(out) if out is not None else results_folder(run)
    where = device_named(device)
    model = TzK.from_pretrained(run).to(where)
    must_be_writable(out / JSON)
    reporter = OneBar(quiet)
    with reporter.live():
        sources = read_asked(run, model, data, settings, reporter)
        others = read_against(against, model, settings, reporter)
        notes = not_its_own(run, sources) if data else []
        if is_state(run_folder(run)):
            # Its p(e = 1) is of another model: the averaged one of when it was last measured.
            notes.append(STATE_NOTE)
            if model.paths():
                draws = settings.existence_draws or STATE_DRAWS
                settings = replace(settings, existence_draws=draws)
                notes.append(KINDS_NOTE.format(draws=draws))
        for note in notes:
            reporter.say(note)
        work = Work(model, sources, others, settings, seed, out, reporter)
        facts = _facts(run, model, work) | {"notes": notes}
        store = Store(out, facts, PARTS)
        if settings.existence_draws:
            reporter.say("fitting p(e = 1)")
            source = derived(seed, "existence")
            fit_existence(model, draws=settings.existence_draws, generator=source)
        jobs = [job for part in chosen for job in _jobs(store, part, work)]
        for number, (part, scope, why_not) in enumerate(jobs, start=1):
            key = _key(part, work, facts)
            if not again and store.entry(part, scope, key) is not None:
                continue
            reporter.part = f"{number}/{len(jobs)} "
            began = time.monotonic()
            found = why_not or part.measure(work, scope)
            store.add(part, scope, key, found, time.monotonic() - began)
        store.write()
    return store


def _parts(names: Sequence[str]) -> list[Part]:
    known = [part.name for part in PARTS]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no part {name!r}; there are {', '.join(known)}")
    return [part for part in PARTS if not names or part.name in names]


def results_folder(run: str | Path, name: str = "evaluation") -> Path:
    """Where results go by default."""
    if Path(run).is_dir():
        return Path(run) / name
    return Path(name) / slug(run)  # of a model on the hub


def _jobs(store: Store, part: Part, work: Work) -> list[tuple[Part, str, str | None]]:
    """What there is to do of a part: each scope, or the reason why it does not apply."""
    scopes = part.scopes(work)
    jobs = [(part, ALL, scopes)] if isinstance(scopes, str) else [(part, s, None) for s in scopes]
    store.only(part, [scope for _, scope, _ in jobs])
    return jobs


def _facts(run: str | Path, model: TzK, work: Work) -> dict[str, Any]:
    """What a report says of the model, the machine and the data."""
    weights, config = weights_of(run, model)
    device = model.device
    return {
        "run": str(run),
        "weights": weights,
        "config": config,
        "observation": "×".join(map(str, model.observation_shape)),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "knowledge": model.paths(),
        **conditions_on(device),
        "data": [source.facts for source in work.sources],
        "against": [
            {"name": each.name, "images": len(each), "fingerprint": each.fingerprint}
            for each in work.against
        ],
    }


def _key(part: Part, work: Work, facts: dict[str, Any]) -> dict[str, Any]:
    """All that a part's figures depend on, but for the rounding of devices."""
    settings = asdict(work.settings)
    # Results of before there were versions have none.
    version = {"version": part.version} if part.version > 1 else {}
    return version | {
        "weights": facts["weights"],
        "config": facts["config"],
        "tzk": __version__,
        "seed": work.seed,
        "settings": {name: settings[name] for name in part.settings},
        "data": [[s.name, *s.facts["fingerprints"].values()] for s in work.sources],
        "against": [each["fingerprint"] for each in facts["against"]] if part.against else [],
    }
