"""LitServe with batching: up to 16 requests are one call of the service.

    serving_peer_litserve.py RUN DEVICE PORT

Bodies come raw, through a dependency of FastAPI: LitServe's own way would be JSON or multipart, and
would cost it more. Each endpoint has a worker process of its own, as in TorchServe, with the same
batch size and the same wait for company, in which the model runs as the handlers run it. Batches
are not filled up, as nobody promises equal bytes here.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import litserve
from fastapi import Depends, Request, Response

from tzk_core.service.loading import load_as_served
from tzk_core.service.service import ENDPOINTS
from tzk_core.service.sizes import using
from tzk_core.service.wire import RawAnswer, RawRequest, normalised

BATCH, WAIT_SECONDS = 16, 0.001  # as in config.properties
KEEP_ALIVE_SECONDS = 75


async def _raw(request: Request) -> RawRequest:
    return RawRequest(headers=normalised(request.headers), body=await request.body())


# No `from __future__ import annotations` in this file: LitServe reads this annotation as an object.
Raw = Annotated[RawRequest, Depends(_raw)]


class EndpointAPI(litserve.LitAPI):
    """One endpoint of the service."""

    def __init__(self, run: str, endpoint: str) -> None:
        super().__init__(
            max_batch_size=BATCH,
            batch_timeout=WAIT_SECONDS,
            api_path=f"/predictions/{endpoint}/1.0",
        )
        self.run, self.endpoint = run, endpoint

    def setup(self, device: str) -> None:
        self.service, _ = load_as_served(self.run, device)
        # Who is the worker, for who measures.
        Path(os.environ["TZK_BENCH_WORKERS"], str(os.getpid())).touch()

    def decode_request(self, request: Raw) -> RawRequest:
        return request

    def batch(self, inputs: list) -> list:
        return list(inputs)

    def predict(self, raws: list[RawRequest]) -> list[RawAnswer]:
        with using(range(1, BATCH + 1)):
            return self.service.answer(self.endpoint, raws)

    def unbatch(self, output: list) -> list:
        return output

    def encode_response(self, output: RawAnswer) -> Response:
        return Response(output.body, output.status, dict(output.headers), output.content_type)


if __name__ == "__main__":
    run, device, port = sys.argv[1:]
    server = litserve.LitServer(
        [EndpointAPI(run, endpoint) for endpoint in ENDPOINTS],
        accelerator="cpu" if device == "cpu" else "cuda",
        workers_per_device=1,
        timeout=60,
    )
    server.run(
        host="127.0.0.1",
        port=int(port),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
