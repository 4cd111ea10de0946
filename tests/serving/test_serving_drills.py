"""Real processes that die under load, with the figures that docs/serving.md names.

    pytest tests/serving/test_serving_drills.py -m 'slow or not slow' -s

shows them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import psutil
import pytest
from click.testing import CliRunner
from rewriting import rewritten
from serving.load import CLIENTS, IMAGE, load
from serving.stub_torchserve import until

from tzk_core import archive_sums
from tzk_core.cli.main import cli
from tzk_core.hub import WEIGHTS
from tzk_core.launcher import Serving, Settings
from tzk_core.launcher.settings import CONFIG_FILE

ERROR_SECONDS = 2.0
"""In which whoever waits for a dead worker is told."""
BACK_SECONDS = 5.0
"""In which the service is back, beside the time from the new worker's start until it is ready:
Python, its imports, the model and the warm-up."""
BUSY = 5
"""Times as long where others have the processors: what the quick tests allow."""


@dataclass(frozen=True)
class Death:
    """What a kill cost, in seconds.

    Args:
        first: from it to the first error.
        longest: that anybody waited for an error.
        back: from it until every model was ready.
        load: of that, from the start of the new worker's process on.
    """

    first: float
    longest: float
    back: float
    load: float

    def __str__(self) -> str:
        return (
            f"first error after {self.first:.2f} s, longest wait for one {self.longest:.2f} s, "
            f"back after {self.back:.2f} s, of which the new worker's start {self.load:.2f} s"
        )


def workers(serving, name="tzk_nll"):
    table = httpx.get(f"{serving.admin_url}/front", trust_env=False).json()
    return table["models"][name]["workers"]


def ready(serving):
    return httpx.get(f"{serving.url}/ready", trust_env=False)


def status(serving):
    """The command in a process of its own."""
    asked = [sys.executable, "-m", "tzk_core.cli.main", "status"]
    asked += ["--port", str(serving.ports["--port"])]
    return subprocess.run(asked, capture_output=True, text=True, timeout=120, check=False)


@contextlib.contextmanager
def killed_under_load(serving) -> Iterator[tuple[list, float]]:
    """(outcomes, when) of a SIGKILL to the only worker, from when the front says so."""
    [worker] = workers(serving)
    with load(serving.url) as outcomes:
        until(lambda: len(outcomes) > 20)
        began = time.monotonic()
        os.kill(worker, signal.SIGKILL)
        until(lambda: ready(serving).status_code == 503)
        yield outcomes, began


def killed(serving) -> Death:
    """A worker's death by SIGKILL while eight clients ask it."""
    with killed_under_load(serving) as (outcomes, began):
        # In this process: another takes longer to start than a worker to come back.
        told = CliRunner().invoke(cli, ["status", "--port", str(serving.ports["--port"])])
        assert told.exit_code == 1, told.output
        assert "tzk_nll: its worker" in told.stdout
        until(lambda: ready(serving).status_code == 200, 180)
        back = time.monotonic()
        count = len(outcomes)
        until(lambda: len(outcomes) > count + 2 * CLIENTS)
    assert {one.code for one in outcomes} == {200, 503}
    assert outcomes[-1].code == 200
    assert status(serving).returncode == 0
    [new] = workers(serving)
    # Both clocks count seconds, from different moments.
    started = psutil.Process(new).create_time() - time.time() + time.monotonic()
    errors = outcomes.errors()
    return Death(
        first=min(one.at for one in errors) - began,
        longest=max(one.seconds for one in errors),
        back=back - began,
        load=back - started,
    )


def judged(death: Death, times: float = 1) -> None:
    print(f"\nSIGKILL with {CLIENTS} clients: {death}")
    assert death.first <= times * ERROR_SECONDS
    assert death.longest <= times * ERROR_SECONDS
    assert death.back <= death.load + times * BACK_SECONDS


def test_a_worker_killed_under_load(serving):
    """No call hangs, the loss is told, and the service is back by itself."""
    judged(killed(serving), BUSY)


@pytest.mark.slow
def test_a_worker_killed_again_and_again(serving):
    """The figures, where nobody else has the processors; TorchServe waits longer each time."""
    for _ in range(2):
        judged(killed(serving))
        time.sleep(20)


@pytest.fixture
def alone(store, tmp_path):
    """``start(**options)``: two endpoints behind the front, in a store of their own."""
    for name in ("tzk_nll", "tzk_sample"):
        shutil.copy(store / f"{name}.mar", tmp_path)

    def start(**options):
        return Serving(
            Settings(
                model_store=tmp_path,
                port=0,
                device="cpu",
                threads=1,
                start_timeout=300,
                **options,
            )
        )

    return start


def test_weights_that_are_spoiled_behind_a_running_server(alone):
    """The worker's successors cannot load: that is told at once, for as long as it is so."""
    with alone() as serving:
        unpacked = [
            file
            for file in (serving.server.figures.parent / "tmp").glob(f"models/*/{WEIGHTS}")
            if (file.parent / "tzk_nll.py").is_file()
        ]
        [weights] = unpacked
        with weights.open("ab") as file:
            file.write(b"x")
        with killed_under_load(serving) as (outcomes, began):
            until(lambda: "SHA-256" in ready(serving).json()["models"]["tzk_nll"])
            told = status(serving)
            count = len(outcomes)
            until(lambda: len(outcomes) > count + 10 * CLIENTS)
        errors = outcomes.errors()
        after = [one for one in outcomes if one.at - one.seconds > began + ERROR_SECONDS]
        longest = max(one.seconds for one in errors)
        print(f"\nweights spoiled: {len(errors)} errors, longest wait for one {longest:.2f} s")
        assert {one.code for one in after} == {503}
        assert longest <= BUSY * ERROR_SECONDS
        assert told.returncode == 1
        assert "tzk_nll: its worker is not ready" in told.stdout
        assert "tzk_sample: ready" in told.stdout
        other = httpx.get(f"{serving.url}/predictions/tzk_sample", trust_env=False, timeout=60)
        assert other.status_code == 200


SLOW = '''
import time

from tzk_handlers.base import BaseHandler


class SlowHandler(BaseHandler):
    """Takes its time, but for the first request from bytes to bytes, which is not one of ours."""

    endpoint = "tzk_nll"

    def handle(self, rows, context):
        time.sleep(60)
        return super().handle(rows, context)
'''


def test_a_batch_that_passes_its_time_limit(alone, store, tmp_path):
    """TorchServe kills the worker and says that it died; to ask again would cost another."""
    made = rewritten(store / "tzk_nll.mar", tmp_path / "tzk_nll.mar", {"tzk_nll.py": SLOW})
    archive_sums.note(tmp_path, [made])
    text = Settings(model_store=tmp_path).config_file().read_text()
    config = tmp_path / CONFIG_FILE
    config.write_text(re.sub(r'"responseTimeout": \d+', '"responseTimeout": 2', text))
    with alone(config=config) as serving:
        url = f"{serving.url}/predictions/tzk_nll"
        answer = httpx.put(url, content=IMAGE, trust_env=False, timeout=90)
        assert answer.status_code == 504, answer.text
        assert "ask for less" in answer.json()["detail"]
        assert "retry-after" not in answer.headers
