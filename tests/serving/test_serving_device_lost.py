"""A worker whose GPU is lost answers its batch, ends, and is replaced."""

from __future__ import annotations

import io
import os
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
from PIL import Image
from rewriting import rewritten
from tiny_model import png

from tzk_core import archive_sums
from tzk_core.launcher import Server, Settings

FAULTY = '''
from tzk_core.service import faults
from tzk_handlers.base import BaseHandler

faults.works = lambda device: False


class FaultyHandler(BaseHandler):
    """Loses its GPU at the first image that is white at its top left."""

    endpoint = "tzk_nll"

    def initialize(self, context):
        super().initialize(context)
        model = self.service.model
        real = model.flow.encode_levels

        def encode_levels(t, context=None):
            if (t[:, 0, 0, 0] > 254 / 256 - 0.5).any():
                raise RuntimeError("CUDA error: device-side assert triggered")
            return real(t, context)

        model.flow.encode_levels = encode_levels
'''


def faulty(store, folder):
    """tzk_nll's archive with that handler, and noted as what it should be."""
    made = rewritten(store / "tzk_nll.mar", folder / "tzk_nll.mar", {"tzk_nll.py": FAULTY})
    archive_sums.note(folder, [made])
    return folder


def fatal():
    """An image that is white at its top left."""
    picture = Image.open(io.BytesIO(png()))
    picture.putpixel((0, 0), 255)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_the_worker_is_replaced(store, tmp_path):
    settings = Settings(
        model_store=faulty(store, tmp_path), port=0, device="cpu", threads=1, start_timeout=300
    )
    with (
        Server(settings) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http,
    ):

        def pids():
            url = f"{server.management_url}/models/tzk_nll"
            workers = httpx.get(url, trust_env=False).json()[0]["workers"]
            return [worker["pid"] for worker in workers]

        [before] = pids()
        usual = http.post("/predictions/tzk_nll", files=fields(png()))
        assert usual.status_code == 200
        lost = http.post("/predictions/tzk_nll", files=fields(fatal()))
        assert lost.status_code == 503
        assert lost.headers["content-type"] == "application/problem+json"
        assert "another takes its place" in lost.json()["detail"]
        deadline = time.monotonic() + 120
        while http.post("/predictions/tzk_nll", files=fields(png())).content != usual.content:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        [after] = pids()
        assert after != before
        assert not os.path.exists(f"/proc/{before}")
        # Under load nobody waits for ever, whatever is in the batch that fails.
        images = [fatal() if number == 10 else png() for number in range(40)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(lambda one: http.post("/predictions/tzk_nll", files=fields(one)), images)
            )
        assert {answer.status_code for answer in answers} <= {200, 500, 503}
        assert {a.content for a in answers if a.status_code == 200} <= {usual.content}


def fields(image):
    return {"image": ("x.png", image), "seed": (None, "7")}
