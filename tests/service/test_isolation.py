"""Memory that runs out, a GPU that is lost, and neighbours whose bytes stay the same."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_model import png, tiny_model

from tzk_core.devices import moved, out_of_memory
from tzk_core.service import faults
from tzk_core.service.service import ENDPOINTS, Service
from tzk_core.service.sizes import using
from tzk_core.service.warm import agreeing_sizes
from tzk_core.service.wire import RawRequest

ILLEGAL = "CUDA error: an illegal memory access was encountered"
ASKED = [
    RawRequest(url_path=path, fields={"image": png(seed=i), "seed": str(i).encode()})
    for i, path in enumerate(["", "", "mnist", "mnist/3", "", "mnist", "", "", ""])
]


@pytest.fixture
def service():
    """With the sizes of batch that a worker would find."""
    model = tiny_model()
    found = [set(agreeing_sizes(model, name).kinds) for name in ENDPOINTS]
    with using(set.intersection(*found)):
        yield Service(model)


@pytest.fixture
def lost(monkeypatch):
    """A GPU that is lost from the first error that names CUDA on."""
    monkeypatch.setattr(faults, "_lost", [])
    monkeypatch.setattr(faults, "works", lambda device: False)
    return faults._lost


def plant(monkeypatch, service, error, *, times=10**6, of=None):
    """``error`` from the t-flow the first ``times``, or whenever the first pixel is ``of``."""
    squeeze, shape = service.model.flow.squeeze, service.model.observation_shape
    real, sizes = squeeze.encode, []

    def encode(t, context=None):
        if t.shape[1:] != shape:  # a later level
            return real(t, context)
        sizes.append(len(t))
        found = of is not None and any(abs(float(row[0, 0, 0]) - of) < 1 / 512 for row in t)
        if found or (of is None and len(sizes) <= times):
            raise error
        return real(t, context)

    monkeypatch.setattr(squeeze, "encode", encode)
    return sizes


def bodies(service, requests):
    return [(one.status, one.body) for one in service.answer("tzk_nll", requests)]


def first_level(request):
    """t of the first pixel of a request's image, without noise."""
    pixels = np.asarray(Image.open(io.BytesIO(request.fields["image"])))
    return (float(pixels[0, 0]) + 0.5) / 256 - 0.5


@pytest.mark.parametrize("endpoint", ["tzk_nll", "tzk_posterior"])
def test_bad_items_of_every_kind_leave_the_neighbours_bytes(service, endpoint):
    image = png()
    bad = [
        RawRequest(body=b"no image"),
        RawRequest("kanji", body=image),
        RawRequest(fields={"image": image, "seed": b"-1"}),
        RawRequest(fields={"image": image, "n": b"3"}),
        RawRequest(body=image[:100]),
        RawRequest(body=None),
    ]
    alone = [service.answer(endpoint, [one])[0] for one in ASKED]
    assert {one.status for one in alone} == {200}
    mixed = [one for pair in zip(bad, ASKED) for one in pair] + ASKED[len(bad) :]
    together = service.answer(endpoint, mixed)
    good = [one for one in together if one.status == 200]
    assert [one.body for one in good] == [one.body for one in alone]
    assert (
        sorted(one.status for one in together if one.status != 200)
        == [400, 400, 404, 415] + [422] * 2
    )


def test_the_same_seed_gives_the_same_image_among_strangers(service):
    asked = [
        RawRequest(path, body={"seed": seed, "n": n, "format": "npy"})
        for path, seed, n in [
            ("", 7, 1),
            ("mnist", 7, 1),
            ("mnist/3", 7, 3),
            ("mnist", 2**63 - 1, 2),
            ("", 3, 5),
        ]
    ]
    strangers = [RawRequest("mnist", body={"seed": 100 + i}) for i in range(11)]
    alone = [service.answer("tzk_sample", [one])[0].body for one in asked]
    together = service.answer("tzk_sample", [*strangers, *asked])[len(strangers) :]
    assert [one.body for one in together] == alone


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["torch", "driver", "cpu", "python"],
)
def test_a_batch_that_does_not_fit_is_tried_in_halves(service, monkeypatch, error):
    requests = [RawRequest(fields=one.fields) for one in ASKED]
    usual = bodies(service, requests)
    sizes = plant(monkeypatch, service, error, times=2)
    assert bodies(service, requests) == usual
    # Nine do not fit, nor do five; then three, two and four do.
    assert len(sizes) == 5


def test_one_request_that_does_not_fit_is_told_so_and_its_neighbours_are_not(service, monkeypatch):
    requests = [RawRequest(fields=one.fields) for one in ASKED]
    usual = bodies(service, requests)
    freed = []
    monkeypatch.setattr(faults, "free_memory", lambda: freed.append(1))
    error = torch.OutOfMemoryError("CUDA out of memory")
    plant(monkeypatch, service, error, of=first_level(requests[3]))
    answers = bodies(service, requests)
    assert answers[3][0] == 507
    problem = json.loads(answers[3][1])
    assert (problem["title"], problem["status"]) == ("Out of device memory", 507)
    assert "ask for less" in problem["detail"]
    assert answers[:3] + answers[4:] == usual[:3] + usual[4:]
    assert freed


def test_a_request_of_many_images_is_drawn_in_smaller_batches(service, monkeypatch):
    asked = [RawRequest("mnist", body={"n": 40, "seed": 3, "format": "npy"})]
    real, sizes = service.model.flow.decode, []

    def decode(z, context=None):
        sizes.append(len(z))
        if len(z) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(z, context)

    with using((4, 8, 48)):
        [usual] = service.answer("tzk_sample", asked)
        monkeypatch.setattr(service.model.flow, "decode", decode)
        [answer] = service.answer("tzk_sample", asked)
    assert sizes == [48] + [8] * 5
    # Sizes that were not measured to agree do so to one grey level.
    wanted, got = (np.load(io.BytesIO(one.body)).astype(int) for one in (usual, answer))
    assert np.abs(wanted - got).max() <= 1


def test_a_lost_gpu_is_not_asked_again(service, monkeypatch, lost):
    sizes = plant(monkeypatch, service, RuntimeError(ILLEGAL))
    answers = service.answer("tzk_nll", [*ASKED, RawRequest(body=b"no image")])
    assert [one.status for one in answers] == [503] * len(ASKED) + [400]
    assert "send the request again" in json.loads(answers[0].body)["detail"]
    assert len(sizes) == 1
    assert lost
    assert service.answer("tzk_interpolate", [RawRequest(body={})])[0].status == 422
    assert service.answer("tzk_sample", [RawRequest()])[0].status == 503


def test_an_error_that_leaves_the_gpu_usable_is_one_requests_own(service, monkeypatch, lost):
    monkeypatch.setattr(faults, "works", lambda device: True)
    requests = [RawRequest(fields=one.fields) for one in ASKED]
    usual = bodies(service, requests)
    error = RuntimeError("CUDA error: invalid configuration argument")
    plant(monkeypatch, service, error, of=first_level(requests[2]))
    answers = bodies(service, requests)
    assert answers[2][0] == 500
    assert answers[:2] + answers[3:] == usual[:2] + usual[3:]
    assert not lost


def test_weights_that_are_not_numbers_are_told_of(service):
    with torch.no_grad():
        for name, parameter in service.model.named_parameters():
            if name.startswith("knowledge.k_mnist.decoders"):
                parameter.fill_(float("nan"))
    strangers = [RawRequest("fashion", body={"seed": 5}), RawRequest(body={"seed": 6})]
    alone = [service.answer("tzk_sample", [one])[0].body for one in strangers]
    asked = RawRequest("mnist", body={"seed": 1})
    first, bad, last = service.answer("tzk_sample", [strangers[0], asked, strangers[1]])
    assert [first.body, last.body] == alone
    assert bad.status == 422
    assert "not finite" in json.loads(bad.body)["detail"]


def test_what_is_out_of_memory():
    assert out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert not out_of_memory(RuntimeError(ILLEGAL))
    assert not out_of_memory(ValueError("CUDA error: out of memory"))


def test_a_copy_to_a_gpu_goes_by_pinned_memory():
    said = []

    class Tensor:
        device = torch.device("cpu")

        def pin_memory(self):
            said.append("pinned")
            return self

        def to(self, device, non_blocking=False):
            said.append((device.type, non_blocking))
            return self

    moved(Tensor(), torch.device("cuda", 0))
    moved(Tensor(), torch.device("cpu"))
    assert said == ["pinned", ("cuda", True), ("cpu", False)]


@pytest.mark.gpu
def test_memory_that_runs_out_on_a_gpu(service):
    service.model.cuda()
    usual = bodies(service, ASKED)
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        full = bodies(service, ASKED)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert {status for status, _ in full} <= {200, 507}
    assert bodies(service, ASKED) == usual
