"""Keeps the table true, by watching the workers' processes and asking TorchServe.

To ask costs TorchServe a run of nvidia-smi for each worker on a GPU. So a worker's life is seen in
its process id, many times a second, and TorchServe is asked when one has died, when a model has no
worker, when somebody says that something changed, and now and then. A question may take seconds, so
nobody looks away for its answer; of each model one is under way at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from tzk_core.front.table import Model, Table
from tzk_core.front.worker_log import failures

__all__ = ["Watcher"]

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
ASK_SECONDS = 10.0
ASK_SOON = 0.25
ASK_LATER = 2.0
SOON = 30.0
"""Seconds for which a model without workers is asked after often, then seldom."""
PATIENCE = 30.0
"""Seconds of silence after which TorchServe's management counts as dead. A busy machine is slow."""


class Watcher:
    """Looks and asks until it is cancelled.

    Args:
        table: what it keeps true.
        session: to ask with.
        management_url: of TorchServe.
        worker_log: where workers tell why they could not load.
        changed: called after every look with whether all models are ready.
    """

    def __init__(
        self,
        table: Table,
        session: aiohttp.ClientSession,
        management_url: str,
        worker_log: Path | None,
        changed: Callable[[bool], None],
    ) -> None:
        self.table = table
        self.worker_log = worker_log
        self.changed = changed
        self._session = session
        self._url = management_url
        self._asked = dict.fromkeys(table.models, 0.0)
        self._heard = dict.fromkeys(table.models, time.monotonic())
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Never returns."""
        try:
            while True:
                self.look()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in self._asking.values():
                task.cancel()

    def look(self) -> None:
        """One look at every process; begins the questions that are due."""
        for model in self.table.models.values():
            # Looked at in any case: a death is not to wait for an answer.
            if self._is_due(model) and model.name not in self._asking:
                self._begin(model)
        self.changed(not self.table.not_ready())

    async def refresh(self) -> None:
        """Asks after every model now."""
        await asyncio.gather(*map(self.ask, self.table.models.values()))
        self.changed(not self.table.not_ready())

    async def ask(self, model: Model) -> None:
        """One model's current version and live workers, as TorchServe has them from now on."""
        under_way = self._asking.get(model.name)
        if under_way is not None:
            await asyncio.wait((under_way,))  # it may have been answered before what we ask after
        # Several who waited share the next.
        await asyncio.shield(self._asking.get(model.name) or self._begin(model))

    def _begin(self, model: Model) -> asyncio.Task[None]:
        task = asyncio.ensure_future(self._ask(model))
        self._asking[model.name] = task
        task.add_done_callback(lambda _: self._asking.pop(model.name))
        return task

    async def _ask(self, model: Model) -> None:
        self._asked[model.name] = time.monotonic()
        try:
            async with self._session.get(
                f"{self._url}/models/{model.name}", timeout=aiohttp.ClientTimeout(total=5.0)
            ) as answer:
                status, text = answer.status, await answer.text()
            if status != 200:
                self._heard[model.name] = time.monotonic()
                model.fail(f"TorchServe says {status} of it")
                return
            described = json.loads(text)[0]
            version = str(described["modelVersion"])
            states = {int(w["pid"]): str(w["status"]) for w in described["workers"]}
            seconds = float(described["responseTimeout"])
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError, LookupError, TypeError) as e:
            silent = time.monotonic() - self._heard[model.name]
            if silent > PATIENCE:
                model.fail(f"TorchServe has not answered for {silent:.0f} s ({type(e).__name__})")
            return
        self._heard[model.name] = time.monotonic()
        # TorchServe calls a worker ready for a moment after it has died.
        ready = [pid for pid, state in states.items() if state == "READY" and _lives(pid)]
        if ready:
            model.describe(version, ready, seconds)
        else:
            model.fail(self._reason(model, states))

    def _is_due(self, model: Model) -> bool:
        since = time.monotonic() - self._asked[model.name]
        if model.live:
            dead = [pid for pid in model.pids if not _lives(pid)]
            if len(dead) == len(model.pids):
                log.warning("%s: its worker %s died", model.name, dead)
                model.fail("its worker died and is being replaced")
            return bool(dead) or since > ASK_SECONDS
        return since > (ASK_SOON if time.monotonic() - model.since < SOON else ASK_LATER)

    def _reason(self, model: Model, states: dict[int, str]) -> str:
        told = "its worker is not ready" if states else "it has no worker"
        if self.worker_log is not None:
            with contextlib.suppress(OSError):
                said = failures(self.worker_log).get(model.name)
                if said:
                    return f"{told}; the last one said: {said}"
        return told


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return pid > 0
