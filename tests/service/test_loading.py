"""A model loaded as it serves."""

from __future__ import annotations

import pytest
import torch
from tiny_model import tiny_model

from tzk_core.errors import ModelUnavailable
from tzk_core.networks import Network
from tzk_core.randomness import generator
from tzk_core.service.loading import NETWORKS, load_as_served, networks_on
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


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("asked", "networks"),
    [
        ("bf16", "bfloat16"),
        ("BF16", "bfloat16"),
        ("bfloat16", "bfloat16"),
        ("fp32", "float32"),
        ("Float32", "float32"),
    ],
)
def test_each_name_of_a_precision_overrules_the_archive(monkeypatch, device, asked, networks):
    monkeypatch.setenv(NETWORKS, asked)
    for archived in ({}, {"networks": "float32"}, {"networks": "bfloat16"}):
        assert networks_on(torch.device(device), archived) == networks


def test_none_is_what_the_archive_says_on_a_gpu(monkeypatch):
    monkeypatch.setenv(NETWORKS, "")
    archived = {"networks": "bfloat16"}
    assert networks_on(torch.device("cuda"), archived) == "bfloat16"
    assert networks_on(torch.device("cpu"), archived) == "float32"


@pytest.mark.parametrize("asked", ["fp16", "bf-16", "true"])
def test_no_model_is_served_in_a_precision_that_is_none(tmp_path, monkeypatch, asked):
    monkeypatch.setenv(NETWORKS, asked)
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(
        ModelUnavailable, match=f"{NETWORKS}={asked} is .*: there are bfloat16, bf16"
    ):
        load_as_served(tmp_path, "cpu")


def test_onnx_files_are_float32_whatever_is_asked(monkeypatch, caplog):
    monkeypatch.setenv(NETWORKS, "bf16")
    assert networks_on(torch.device("cpu"), {"backend": "onnx"}) == "float32"
    assert f"{NETWORKS}=bf16 changes nothing" in caplog.text
