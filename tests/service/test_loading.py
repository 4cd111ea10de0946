"""A model loaded as it serves."""

from __future__ import annotations

import torch
from tiny_model import tiny_model

from tzk_core.networks import Network
from tzk_core.randomness import generator
from tzk_core.service.loading import NETWORKS, load_as_served
from tzk_core.service.service import Service


def test_the_flow_is_prepared_and_gives_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.delenv(NETWORKS, raising=False)
    tiny_model().save_pretrained(tmp_path)
    service, backend = load_as_served(tmp_path, "cpu")
    assert backend == "torch"
    assert "encode_levels" in vars(service.model.flow)  # replaced in this object, by the backend
    plain = Service.load(tmp_path, "cpu").model
    t = torch.rand(3, *plain.observation_shape, generator=generator(0)) - 0.5
    with torch.inference_mode():
        torch.testing.assert_close(service.model.flow.encode(t), plain.flow.encode(t))


def test_the_precision_is_settled_before_the_backend_takes_it_over(tmp_path, monkeypatch):
    monkeypatch.setenv(NETWORKS, "bfloat16")
    tiny_model().save_pretrained(tmp_path)
    flow = load_as_served(tmp_path, "cpu")[0].model.flow
    assert {one.dtype for one in flow.modules() if isinstance(one, Network)} == {torch.bfloat16}
    monkeypatch.setenv(NETWORKS, "float32")
    exact = load_as_served(tmp_path, "cpu")[0].model.flow
    t = torch.full((1, *exact.shape), 0.1)
    with torch.inference_mode():
        assert not torch.equal(flow.encode(t)[0], exact.encode(t)[0])
