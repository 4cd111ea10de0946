"""Deaths are seen while TorchServe's management takes its time."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import aiohttp
import pytest
from serving.stub_torchserve import Stub

from tzk_core.front import watcher as watching
from tzk_core.front.table import Table
from tzk_core.front.watcher import Watcher

SLOW = 3.0
SOON = 1.5
"""A look every 0.1 s, and what a busy machine adds."""


@pytest.fixture
def stub():
    with Stub() as stub:
        yield stub


@asynccontextmanager
async def watched(stub):
    """A watcher that runs, and its one model."""
    table = Table(("tzk_nll",), 4)
    seen = []
    async with aiohttp.ClientSession(trust_env=False) as session:
        watcher = Watcher(table, session, stub.url, None, seen.append)
        await watcher.refresh()
        running = asyncio.ensure_future(watcher.run())
        try:
            yield watcher, table["tzk_nll"], seen
        finally:
            running.cancel()
            await asyncio.wait((running,))


async def until(true, seconds=30.0):
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it did not become true"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


def test_a_death_does_not_wait_for_an_answer(stub, monkeypatch):
    monkeypatch.setattr(watching, "ASK_SECONDS", 0.0)  # always due

    async def scenario():
        async with watched(stub) as (_, model, seen):
            assert model.live
            stub.management_seconds = SLOW
            count = len(stub.questions)
            await until(lambda: len(stub.questions) > count + 1)  # one that is slow has begun
            await until(lambda: stub.under_way)
            stub.kill()
            assert await until(lambda: not model.live) < SOON
            assert model.reason == "its worker died and is being replaced"
            assert stub.under_way == 1
            await until(lambda: not seen[-1], SOON)
            # What was asked before the death and says READY changes nothing.
            ended = len(stub.questions)
            await until(lambda: len(stub.questions) > ended)
            assert not model.live
            stub.management_seconds = 0.0
            stub.replace_worker()
            await until(lambda: model.live and seen[-1])
            assert max(stub.questions) == 1

    asyncio.run(scenario())


def test_who_asks_gets_what_is_true_from_now_on(stub, monkeypatch):
    """Not the answer to a question that was under way; many who ask at a time share one."""
    monkeypatch.setattr(watching, "ASK_SECONDS", 60.0)

    async def scenario():
        async with watched(stub) as (watcher, model, _):
            stub.management_seconds = 0.5
            count = len(stub.questions)
            early = asyncio.ensure_future(watcher.ask(model))
            await until(lambda: len(stub.questions) == count + 1)
            stub.version = "2.0"
            stub.management_seconds = 0.0
            await asyncio.gather(*(watcher.ask(model) for _ in range(20)))
            assert model.version == "2.0"
            await early
            assert len(stub.questions) == count + 2

    asyncio.run(scenario())
