"""A model without kinds, served by the ONNX files of its parts, beside the same by torch."""

from __future__ import annotations

import logging

import pytest
import torch
from tiny_model import SIDE

from tzk_core.config import FlowConfig, TzKConfig
from tzk_core.data.preparation import Preparation
from tzk_core.model import TzK
from tzk_core.randomness import generator
from tzk_core.service.loading import NETWORKS, load_as_served
from tzk_core.service.service import Service
from tzk_export.onnx_parts import write_parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What an unpacked archive holds: a run, and the files of its parts."""
    folder = tmp_path_factory.mktemp("parts")
    config = TzKConfig(
        observation=(1, SIDE, SIDE),
        flow=FlowConfig(levels=2, steps=1, width=8),
        preparation=Preparation(size=SIDE, channels=1),
    )
    model = TzK(config, generator=generator(0))
    with torch.no_grad():  # its last layers are not zero, so that every number matters
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator(1))
    model.eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def archived(folder):
    """The ``tzk`` entry of its manifest."""
    return {"backend": "onnx", "networks": "float32", "onnx": write_parts(folder, folder)}


@pytest.mark.parametrize("size", [1, 3])
def test_onnxruntime_encodes_and_decodes_as_torch_does(folder, archived, size, monkeypatch):
    monkeypatch.delenv(NETWORKS, raising=False)
    assert set(archived["onnx"]) == {"flow-encode.onnx", "flow-decode.onnx", "parts.data"}
    service, backend = load_as_served(folder, "cpu", archived)
    assert backend == "onnx"
    flow, plain = service.model.flow, Service.load(folder, "cpu").model.flow
    assert {"encode_levels", "decode"} <= vars(flow).keys()  # replaced in this object
    t = torch.rand(size, *plain.shape, generator=generator(2)) - 0.5
    with torch.inference_mode():
        z, _ = plain.encode(t)
        torch.testing.assert_close(flow.encode(t), plain.encode(t), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(flow.decode(z), plain.decode(z), rtol=1e-5, atol=1e-5)


def test_a_gpu_is_not_used_and_the_log_says_why(folder, archived, monkeypatch, caplog):
    """No GPU is needed to tell: a model on one would not load here."""
    monkeypatch.delenv(NETWORKS, raising=False)
    with caplog.at_level(logging.WARNING):
        service, _ = load_as_served(folder, "cuda:0", archived)
    assert service.model.device == torch.device("cpu")
    [told] = caplog.messages
    assert "from the CPU and not from cuda:0, as onnxruntime" in told
    caplog.clear()
    load_as_served(folder, "cpu", archived)
    assert not caplog.messages
