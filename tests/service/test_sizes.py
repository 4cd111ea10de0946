"""Batches of fixed sizes, at which the model's bits agree."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_model import png, tiny_model

from tzk_core.pretrained import BUILTIN
from tzk_core.service.backends import use_backend
from tzk_core.service.isolation import in_groups
from tzk_core.service.seeds import filled_seeds, seeds_from
from tzk_core.service.service import ENDPOINTS, Service
from tzk_core.service.sizes import DEFAULT_SIZES, SIZES, at_most, current_sizes, filled, using
from tzk_core.service.warm import REFERENCE, SEED, _images, agreeing_sizes, first_request
from tzk_core.service.wire import RawRequest


@pytest.mark.parametrize("count", [*range(1, 70), 255, 256])
@pytest.mark.parametrize("sizes", [DEFAULT_SIZES, SIZES, (16,)])
def test_every_row_is_in_one_batch_of_a_size(count, sizes):
    with using(sizes):
        parts = list(filled(count))
    assert [row for part, _ in parts for row in range(part.start, part.stop)] == list(range(count))
    for part, size in parts:
        assert size in sizes
        assert 1 <= part.stop - part.start <= size
    if sizes == SIZES:
        assert sum(size for _, size in parts) <= max(1.5 * count, count)


def test_at_most_keeps_the_smallest():
    with using((4, 8, 16)):
        with at_most(8):
            assert current_sizes() == (4, 8)
        with at_most(2):
            assert current_sizes() == (4,)
        assert current_sizes() == (4, 8, 16)
    assert current_sizes() == DEFAULT_SIZES


def test_seeds_fill_up_with_themselves():
    with using((4,)):
        assert list(filled_seeds([5, 6, 7, 8, 9, 3])) == [[5, 6, 7, 8], [9, 3, 9, 3]]
        assert list(filled_seeds([2])) == [[2] * 4]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_sizes_that_agree_are_found(endpoint):
    model = tiny_model()
    plain, kinds = agreeing_sizes(model, endpoint)
    assert REFERENCE in kinds
    assert set(kinds) <= set(plain) <= set(SIZES)


def test_a_size_with_other_bits_is_left_out(monkeypatch):
    """An encoder that adds an epsilon in batches of 3 and 8, as another kernel would."""
    # Without knowledge nothing else is asked, and row by row no other kernel comes in.
    model = tiny_model().remove_knowledge("mnist").remove_knowledge("fashion")
    real = model.flow.encode

    def encode(t, context=None):
        alone = [real(row.unsqueeze(0), context) for row in t]
        z, log_det = (torch.cat(parts) for parts in zip(*alone, strict=True))
        return (z * (1 + 1e-6) if len(t) in (3, 8) else z), log_det

    monkeypatch.setattr(model.flow, "encode", encode)
    sizes = agreeing_sizes(model, "tzk_nll").plain
    assert {3, 8}.isdisjoint(sizes)
    assert {4, 12, 16} <= set(sizes)


def test_sizes_beyond_the_reference_go_when_none_agrees(monkeypatch):
    model = tiny_model()
    real = model.flow.encode

    def encode(t, context=None):
        z, log_det = real(t, context)
        return z + len(t) * 1e-3, log_det

    monkeypatch.setattr(model.flow, "encode", encode)
    assert agreeing_sizes(model, "tzk_nll") == ((REFERENCE,), (REFERENCE,))


def test_what_asks_for_a_kind_has_sizes_of_its_own(monkeypatch):
    """An encoder of codes that adds an epsilon to one row in a batch of 2, and no other network."""
    model = tiny_model()
    encoder = model.find("mnist").encoders[1]
    real = encoder.base

    def base(t):
        mean, log_sigma = real(t)
        if len(t) == 2:
            mean = mean + 1e-6 * torch.tensor([[0.0], [1.0]])
        return mean, log_sigma

    monkeypatch.setattr(encoder, "base", base)
    agreed = agreeing_sizes(model, "tzk_nll")
    assert 2 not in agreed.kinds
    assert agreed.plain == agreeing_sizes(tiny_model(), "tzk_nll").plain


def test_a_difference_that_most_rows_hide_is_found(monkeypatch):
    """In a batch of 1 only the seventh row has other bits, as a rounded sum has."""
    model = tiny_model().remove_knowledge("mnist").remove_knowledge("fashion")
    real = model.flow.encode
    seventh = _images(model, seeds_from(SEED, 7))[6:]

    def encode(t, context=None):
        z, log_det = real(t, context)
        return (z + 1e-3 if len(t) == 1 and t.equal(seventh) else z), log_det

    monkeypatch.setattr(model.flow, "encode", encode)
    assert 1 not in agreeing_sizes(model, "tzk_nll").plain


def test_a_group_is_filled_up_as_what_it_asks_for():
    seen = []

    def call(group):
        seen.append(len(group))
        return group

    asked = [("plain", 1), ("kind", 2)]
    with using((1, 4), kinds=(4,)):
        given = in_groups(asked, lambda item: item[0], call, kinds=lambda item: item[0] == "kind")
    assert given == asked
    assert seen == [1, 4]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_first_request_counts_nowhere(endpoint, monkeypatch):
    service = Service(tiny_model())
    monkeypatch.setattr(service, "answer", None)
    assert first_request(service, endpoint) == 200


def test_one_image_goes_through_in_a_batch_of_a_fixed_size(monkeypatch):
    service = Service(tiny_model())
    squeeze = service.model.flow.squeeze
    seen, real = [], squeeze.encode

    def encode(t, context=None):
        seen.append(len(t))
        return real(t, context)

    monkeypatch.setattr(squeeze, "encode", encode)
    with using((4, 16)):
        service.answer("tzk_nll", [RawRequest(body=png())])
        service.answer("tzk_nll", [RawRequest(body=png())] * 5)
    assert set(seen) == {4, 16}


@pytest.mark.gpu
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_sizes_that_agree_on_a_gpu(endpoint):
    from tzk_core.devices import repeatable

    repeatable()
    model = tiny_model().cuda()
    sizes = agreeing_sizes(model, endpoint)
    assert REFERENCE in sizes.kinds
    with using(*sizes), torch.inference_mode():
        assert first_request(Service(model), endpoint) == 200


@pytest.fixture(scope="module")
def builtin():
    """The model in the box as a worker has it."""
    service = Service.load(BUILTIN, torch.device("cpu"))
    use_backend(service.model, Path(), {})
    return service


@pytest.mark.parametrize("endpoint", ["tzk_nll", "tzk_posterior"])
def test_the_model_in_the_box_says_the_same_of_an_image_alone_and_among_others(builtin, endpoint):
    """Of a kind, where a trained model's networks have other kernels for one to three images."""
    asked = [
        RawRequest(url_path=path, fields={"image": png(seed=i), "seed": str(i).encode()})
        for i in range(5)
        for path in ("", "mnist", "fashion", "mnist/8")
    ]
    with using(*agreeing_sizes(builtin.model, endpoint)):
        together = [answer.body for answer in builtin.answer(endpoint, asked)]
        for size in (1, 2, 3, 7):
            parts = [asked[start : start + size] for start in range(0, len(asked), size)]
            found = [answer for part in parts for answer in builtin.answer(endpoint, part)]
            assert [answer.status for answer in found] == [200] * len(asked)
            assert [answer.body for answer in found] == together
