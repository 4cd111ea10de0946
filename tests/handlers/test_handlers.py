"""The handlers, with a context that does what TorchServe 0.12's does."""

from __future__ import annotations

import importlib
import inspect
import json
import socket

import pytest
import torch
from tiny_model import PATHS, png, tiny_model

from tzk_core.errors import ModelUnavailable
from tzk_core.hub import WEIGHTS, sha256
from tzk_core.networks import Network
from tzk_core.service import faults
from tzk_core.service.loading import NETWORKS, networks_on
from tzk_core.service.service import ENDPOINTS
from tzk_handlers import base


class Context:
    """Headers by row, and what was told of each answer."""

    def __init__(self, folder, headers=(), *, digest=None):
        self.system_properties = {"model_dir": str(folder), "gpu_id": None}
        self.manifest = {"tzk": {"weights_sha256": digest or sha256(folder / WEIGHTS)}}
        self.headers = headers
        self.told = [{} for _ in headers]

    def get_all_request_header(self, index):
        return self.headers[index]

    def set_response_status(self, code=200, phrase="", idx=0):
        self.told[idx] |= {"status": code, "phrase": phrase}

    def set_response_content_type(self, idx, value):
        self.told[idx]["type"] = value

    def set_response_header(self, idx, key, value):
        self.told[idx][key] = value


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    tiny_model().save_pretrained(folder)
    return folder


def handler_of(name):
    """The one class that the handler's file defines, as TorchServe finds it."""
    module = importlib.import_module(f"tzk_handlers.{name}")
    [found] = [
        one
        for _, one in inspect.getmembers(module, inspect.isclass)
        if one.__module__ == module.__name__
    ]
    return found()


@pytest.mark.parametrize("name", ENDPOINTS)
def test_handlers_are_found(name):
    assert handler_of(name).endpoint == name


def test_rows_of_every_kind(folder):
    handler = handler_of("tzk_posterior")
    handler.initialize(Context(folder))
    image = bytearray(png())
    multipart = {"image": {"content-type": "image/png"}, "Content-Type": "multipart/form-data"}
    form = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": "7"}
    headers = [
        {"url_path": "", "Accept": "*/*", "body": {"content-type": ""}},
        {"url_path": "mnist/3"} | multipart,
        {"url_path": "", "CONTENT-TYPE": "application/json"},
        {"url_path": ""} | form,
        {"url_path": "", "content-length": "0"},
    ]
    rows = [
        {"body": image},
        {"image": image, "seed": bytearray(b"3")},
        {"body": {"image": "§"}},
        {},
        {"body": bytearray()},
    ]
    context = Context(folder, headers)
    bodies = handler.handle(rows, context)
    assert [told["status"] for told in context.told] == [200, 200, 422, 415, 400]
    assert list(json.loads(bodies[0])) == PATHS
    assert list(json.loads(bodies[1])) == ["mnist/3"]
    assert context.told[1]["X-Tzk-Seed"] == "3"
    assert all(isinstance(body, bytes) for body in bodies)
    assert all(told["phrase"].isascii() for told in context.told)
    assert context.told[2]["type"] == "application/problem+json"


def test_weights_that_were_changed_are_refused(folder):
    with pytest.raises(ModelUnavailable, match="SHA-256 differs"):
        handler_of("tzk_nll").initialize(Context(folder, digest="0" * 64))


def test_a_manifest_without_the_sum_is_refused(folder):
    context = Context(folder)
    context.manifest = None
    with pytest.raises(ModelUnavailable, match="no SHA-256"):
        handler_of("tzk_nll").initialize(context)


# -- devices -------------------------------------------------------------------------------------


def loaded(folder, networks=None):
    handler, context = handler_of("tzk_nll"), Context(folder)
    context.manifest["tzk"]["networks"] = networks or "float32"
    handler.initialize(context)
    return handler


def dtypes(handler):
    flow = handler.service.model.flow
    return {one.dtype for one in flow.modules() if isinstance(one, Network)}


def test_bfloat16_is_for_a_gpu_unless_it_is_asked_for(folder, monkeypatch):
    assert dtypes(loaded(folder, "bfloat16")) == {None}
    monkeypatch.setenv(NETWORKS, "bfloat16")
    assert dtypes(loaded(folder)) == {torch.bfloat16}
    monkeypatch.delenv(NETWORKS)
    gpu = torch.device("cuda")
    assert networks_on(gpu, {"networks": "bfloat16"}) == "bfloat16"
    assert networks_on(gpu, {}) == "float32"
    monkeypatch.setenv(NETWORKS, "float32")
    assert networks_on(gpu, {"networks": "bfloat16"}) == "float32"


def test_a_lost_gpu_ends_the_worker_once_its_answers_are_sent(folder, monkeypatch):
    handler = loaded(folder)
    timers = []

    class Timer:
        def __init__(self, seconds, function, arguments):
            timers.append((seconds, function, arguments))

        def start(self):
            timers.append("started")

    monkeypatch.setattr(base.threading, "Timer", Timer)
    monkeypatch.setattr(faults, "_lost", ["CUDA error"])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        context = Context(folder, [{}])
        context.cl_socket = ours
        [body] = handler.handle([{"body": bytearray(png())}], context)
        assert context.told[0]["status"] == 503
        ours.sendall(body)
        assert theirs.recv(len(body)) == body
        assert ours.recv(1) == b""  # no further request: TorchServe's worker ends
    assert timers == [(base.PATIENCE, base.os._exit, [1]), "started"]
