"""FastAPI by hand: each request is one call of the service, without batching.

    serving_peer_fastapi.py RUN DEVICE PORT

The model runs as the handlers run it. Calls run in as many threads as there are processors, so that
one process can use them all; FastAPI's own pool of 40 threads would only have them wait for each
other. On a GPU there is one thread: CUDA graphs have one set of inputs each. Batches are not filled
up (``SIZES`` has 1), as nobody would do so by hand.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import uvicorn
from fastapi import FastAPI, Request, Response

from tzk_core.devices import processors
from tzk_core.service.loading import load_as_served
from tzk_core.service.service import Service
from tzk_core.service.sizes import SIZES, using
from tzk_core.service.wire import RawAnswer, RawRequest, normalised

KEEP_ALIVE_SECONDS = 75


def app_of(service: Service) -> FastAPI:
    """An application that answers ``/predictions/<endpoint>/1.0``."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # A limiter belongs to the event loop that it is made in.
        on_cpu = service.model.device.type == "cpu"
        app.state.threads = anyio.CapacityLimiter(processors() if on_cpu else 1)
        yield

    def answered(endpoint: str, raw: RawRequest) -> RawAnswer:
        with using(SIZES):
            return service.answer(endpoint, [raw])[0]

    app = FastAPI(lifespan=lifespan)

    @app.post("/predictions/{endpoint}/1.0")
    async def predict(endpoint: str, request: Request) -> Response:
        raw = RawRequest(headers=normalised(request.headers), body=await request.body())
        answer = await anyio.to_thread.run_sync(answered, endpoint, raw, limiter=app.state.threads)
        return Response(answer.body, answer.status, dict(answer.headers), answer.content_type)

    return app


if __name__ == "__main__":
    run, device, port = sys.argv[1:]
    uvicorn.run(
        app_of(load_as_served(run, device)[0]),
        port=int(port),
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
