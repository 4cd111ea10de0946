"""A request that would take longer than it may: told by the worker, which lives on."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from tzk_core.launcher import Serving, Settings
from tzk_export.archive import archive

LIMIT = 12
SLOW = {"given": ["mnist", "fashion"], "seed": 1}
"""An image of these two kinds of the model in the box takes minutes."""


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limited")
    archive("builtin", folder / "store", names=["tzk_sample"])
    text = Settings().config_file().read_text()
    assert '"responseTimeout": 120' in text
    limited = text.replace('"responseTimeout": 120', f'"responseTimeout": {LIMIT}')
    config = folder / "config.properties"
    config.write_text(limited)
    settings = Settings(
        model_store=folder / "store",
        config=config,
        port=0,
        device="cpu",
        threads=1,
        start_timeout=300,
    )
    with Serving(settings) as serving:
        yield serving


def test_kinds_that_take_too_long_are_refused_in_time_and_harm_nobody(serving, pids_of):
    url = serving.url + "/predictions/tzk_sample"
    before = pids_of(serving.server)()
    answers = {}

    def ask(name, body):
        with httpx.Client(trust_env=False, timeout=100) as client:
            began = time.monotonic()
            answers[name] = client.post(url, json=body), time.monotonic() - began

    ask("alone", {"seed": 7})
    asked = {"slow": SLOW, "another": SLOW | {"seed": 2}, "quick": {"seed": 7}}
    threads = [threading.Thread(target=ask, args=one) for one in asked.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ask("lonely", SLOW)
    assert answers["lonely"][0].status_code == 504, answers["lonely"][0].text
    assert "ask for less" in answers["lonely"][0].json()["detail"]
    for name in ("lonely", "slow", "another"):
        answer, seconds = answers[name]
        # 503 if another of several kinds was in its batch, and took a part of the time.
        assert answer.status_code in (503, 504), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert ("retry-after" in answer.headers) is (answer.status_code == 503)
        assert seconds < 2 * LIMIT  # it may have waited for another batch
    assert answers["quick"][0].status_code == 200
    assert answers["quick"][0].content == answers["alone"][0].content
    assert pids_of(serving.server)() == before
