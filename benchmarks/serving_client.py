"""The load generator on aiohttp, for machines without wrk: `serving_client.py LOAD RESULT`.

LOAD is JSON: url, requests (path, headers, body in base64), timeout, and either clients and seconds
(a closed loop) or arrivals and grace (an open one). serving_load.py writes it and reads RESULT.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

LATE_SECONDS = 0.005


class Client:
    """One load.

    Args:
        told: what LOAD holds.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.requests = [
            (one["path"], one["headers"], base64.b64decode(one["body"])) for one in told["requests"]
        ]
        self.sent, self.behind = 0, []
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.lost: Counter[str] = Counter()

    async def run(self) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=self.told["timeout"])
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            self.told["url"], connector=connector, timeout=timeout
        ) as session:
            began = time.monotonic()
            await (self._open(session) if "arrivals" in self.told else self._closed(session))
            seconds = time.monotonic() - began
        return {
            "seconds": seconds,
            "sent": self.sent,
            "late": sum(behind > LATE_SECONDS for behind in self.behind),
            "latest_ms": 1e3 * max(self.behind, default=0.0),
            "statuses": self.statuses,
            "lost": self.lost,
            "latencies": self.latencies,
        }

    async def _closed(self, session: aiohttp.ClientSession) -> None:
        end = time.monotonic() + self.told["seconds"]

        async def client() -> None:
            while (now := time.monotonic()) < end:
                await self._ask(session, now)

        await asyncio.gather(*(client() for _ in range(self.told["clients"])))

    async def _open(self, session: aiohttp.ClientSession) -> None:
        began, asked = time.monotonic(), set()
        for arrival in self.told["arrivals"]:
            await asyncio.sleep(max(0.0, began + arrival - time.monotonic()))
            self.behind.append(time.monotonic() - began - arrival)
            # From when it was due, so that a late generator flatters nobody.
            asked.add(asyncio.ensure_future(self._ask(session, began + arrival)))
        _, left = await asyncio.wait(asked, timeout=self.told["grace"])
        for one in left:
            one.cancel()

    async def _ask(self, session: aiohttp.ClientSession, since: float) -> None:
        path, headers, body = self.requests[self.sent % len(self.requests)]
        self.sent += 1
        try:
            async with session.post(path, data=body, headers=headers) as answer:
                await answer.read()
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            self.lost[type(error).__name__] += 1
            return
        self.latencies.append(time.monotonic() - since)
        self.statuses[answer.status] += 1


if __name__ == "__main__":
    load, result = map(Path, sys.argv[1:])
    result.write_text(json.dumps(asyncio.run(Client(json.loads(load.read_text())).run())))
