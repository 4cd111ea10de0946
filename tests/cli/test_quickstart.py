"""What tzk quickstart says before it serves; the whole of it is in .ci/run."""

from __future__ import annotations

import pytest

from tzk_core.cli import quickstart
from tzk_core.errors import WorkFailed
from tzk_core.training import run
from tzk_core.training.run import RECIPE


def test_an_interrupted_one_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    asked = []

    def train(recipe, *, out, resume, device):
        asked.append(resume)
        (out / RECIPE).write_text("name: quick")
        raise WorkFailed("interrupted")

    monkeypatch.setattr(run, "train", train)
    for _ in range(2):
        with pytest.raises(WorkFailed):
            quickstart._trained(tmp_path, "cpu")
        assert "when it is run again" in capsys.readouterr().err
    assert asked == [False, True]
