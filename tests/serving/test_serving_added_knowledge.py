"""From a finished run to a kind that was added to it, archived and asked for over HTTP."""

from __future__ import annotations

import io

import httpx
import numpy as np
import yaml
from click.testing import CliRunner
from PIL import Image
from training.tiny_recipe import tiny_values

from tzk_core.cli.main import cli
from tzk_core.launcher import Server, Settings


def tzk(*arguments: object) -> None:
    result = CliRunner().invoke(cli, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output


def test_a_kind_that_was_added_answers(tmp_path):
    """`tzk train`, `tzk add-knowledge`, `tzk archive`, `tzk serve`, and requests with its name."""
    source = np.random.default_rng(0)
    for folder in ("digits/0", "digits/1", "stripes"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(40):
            levels = source.integers(0, 256, (8, 8), dtype=np.uint8)
            if folder == "stripes":
                levels[::2] = 0
            Image.fromarray(levels).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_values(str(tmp_path / "digits"))))
    run, store = tmp_path / "run", tmp_path / "store"
    tzk("train", tmp_path / "tiny.yaml", "--out", run, "--device", "cpu")
    added = ("--name", "stripes", "--data", tmp_path / "stripes", "--steps", 5)
    tzk("add-knowledge", run, *added, "--device", "cpu")
    tzk("archive", run, "--model-store", store)
    settings = Settings(model_store=store, port=0, device="cpu", threads=1, start_timeout=300)
    with (
        Server(settings) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=30) as http,
    ):
        drawn = http.get("/predictions/tzk_sample/1.0/stripes")
        assert drawn.headers["x-tzk-path"] == "stripes"
        with Image.open(io.BytesIO(drawn.content)) as picture:
            assert picture.size == (8, 8)
        image = (tmp_path / "stripes" / "0.png").read_bytes()
        told = http.put("/predictions/tzk_posterior", content=image).json()
        assert set(told) == {"mnist", "mnist/0", "mnist/1", "fashion", "stripes"}
        scored = http.put("/predictions/tzk_nll/1.0/stripes", content=image).json()
        assert (scored["given"], scored["estimator"]) == ("stripes", "importance")
        both = http.post("/predictions/tzk_sample", json={"given": "stripes", "absent": "mnist"})
        assert both.headers["x-tzk-path"] == "stripes,-mnist"
