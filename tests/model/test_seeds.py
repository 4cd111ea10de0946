"""Every random number comes from the generator that belongs to its row."""

from __future__ import annotations

import pytest
import torch
from tiny_model import PATHS, SIDE, tiny_model

from tzk_core.randomness import SEEDS, Rows, derived, fresh_seed, rows

close = {"rtol": 1e-5, "atol": 1e-5}  # another batch size may take another kernel


@pytest.fixture(scope="module")
def model():
    return tiny_model().requires_grad_(False)


@pytest.fixture(params=["prior", *PATHS])
def distribution(request, model):
    return model.prior if request.param == "prior" else model.given(request.param)


def test_row_i_is_the_draw_of_seed_plus_i(distribution):
    drawn = distribution.draw(6, seed=40)
    assert drawn.seeds == [40, 41, 42, 43, 44, 45]
    for i in (0, 3, 5):
        alone = distribution.draw(1, seed=40 + i)
        assert torch.allclose(alone.images[0], drawn.images[i], **close)
        for mine, all_of_them in zip(alone.codes, drawn.codes, strict=True):
            assert torch.allclose(mine[0], all_of_them[i], **close)


def test_a_batch_of_strangers(distribution):
    drawn = distribution.draw(3, rows=Rows([7, 2**63 - 1, 7]))
    assert torch.allclose(drawn.images[0], drawn.images[2], **close)
    assert torch.allclose(drawn.images[1], distribution.draw(1, seed=2**63 - 1).images[0], **close)
    assert not torch.allclose(drawn.images[0], drawn.images[1], **close)


def test_seeds_wrap(distribution):
    drawn = distribution.draw(2, seed=2**63 - 1)
    assert drawn.seeds == [2**63 - 1, 0]
    assert torch.allclose(drawn.images[1], distribution.draw(1, seed=0).images[0], **close)


def test_the_same_call_gives_the_same_bits(distribution):
    a, b = distribution.draw(3, seed=1), distribution.draw(3, seed=1)
    assert torch.equal(a.images, b.images)
    generator = torch.Generator()
    c = distribution.sample((2, 2), generator=generator.manual_seed(3))
    assert c.shape == (2, 2, 1, SIDE, SIDE)
    assert torch.equal(c, distribution.sample((2, 2), generator=generator.manual_seed(3)))
    assert not torch.equal(c, distribution.sample((2, 2), generator=generator))


def test_without_a_seed_every_call_is_another(distribution):
    a, b = distribution.draw(1), distribution.draw(1)
    assert a.seeds != b.seeds
    assert torch.allclose(distribution.draw(1, seed=a.seeds[0]).images, a.images, **close)
    assert not torch.equal(distribution.sample((1,)), distribution.sample((1,)))


def test_the_global_generator_is_neither_read_nor_moved(model):
    t = torch.zeros(2, 1, SIDE, SIDE)

    def everything():
        given = model.given("mnist/3")
        return (
            given.draw(2, seed=1).images,
            given.log_prob(t, generator=Rows([1, 2])),
            model.posterior(t, generator=Rows([1, 2]))["mnist/3"].encoder,
            model.interpolate(
                t + torch.tensor([0.0, 0.1]).reshape(2, 1, 1, 1),
                steps=3,
                space="c",
                given="mnist",
                generator=Rows([1, 2]),
            ).images,
        )

    before = torch.random.get_rng_state()
    a = everything()
    model.given("mnist").sample((2,))
    model.prior.sample((2,))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert all(torch.equal(x, y) for x, y in zip(a, everything(), strict=True))
    torch.random.set_rng_state(before)


def test_posteriors_of_rows_do_not_depend_on_strangers(model):
    t = 0.2 * torch.randn(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    together = model.posterior(t, decoder_draws=16, generator=Rows([1, 2, 3]))
    alone = model.posterior(t[1:2], decoder_draws=16, generator=Rows([2]))
    for path in PATHS:
        for what in ("encoder", "decoder", "logit", "joint"):
            mine, all_of_them = getattr(alone[path], what), getattr(together[path], what)
            assert torch.allclose(mine[0], all_of_them[1], rtol=1e-4, atol=1e-5)


def test_rows():
    assert rows(None, 3).normal(2).shape == (3, 2)
    with pytest.raises(ValueError, match="2 generators were passed for 3 rows"):
        rows(Rows([1, 2]), 3)
    five = Rows.from_seed(5, 4)
    assert five[1:3].seeds == [6, 7]
    assert five[[3, 0]].seeds == [8, 5]
    assert Rows([]).uniform(2, 3).shape == (0, 2, 3)
    u = Rows([1]).uniform(10_000, dtype=torch.float64)
    assert 0 <= float(u.min()) < 0.01
    assert 0.99 < float(u.max()) < 1
    # A view goes on with the same generators.
    first, whole = Rows([1, 2]), Rows([1, 2])
    a = first[[1]].normal(3)
    assert torch.equal(torch.cat((a, first[[1]].normal(3)), dim=1)[0, :3], whole.normal(3)[1])
    assert not torch.equal(a, first[[1]].normal(3))


def test_shared_rows_draw_as_one():
    generator = torch.Generator().manual_seed(0)
    shared = rows(generator, 4)
    assert len(shared) == 4
    assert shared.seeds == []
    assert shared[[1, 2]].normal(3).shape == (2, 3)
    assert len(shared[1:]) == 3
    assert shared.uniform(2).shape == (4, 2)


def test_derived_generators():
    assert torch.equal(
        torch.rand(3, generator=derived(1, "a", 2)), torch.rand(3, generator=derived(1, "a", 2))
    )
    others = [derived(1, "a", 3), derived(2, "a", 2), derived(1, "b", 2), derived(1, "a2")]
    first = torch.rand(3, generator=derived(1, "a", 2))
    assert not any(torch.equal(first, torch.rand(3, generator=other)) for other in others)
    assert 0 <= fresh_seed() < SEEDS
    assert fresh_seed() != fresh_seed()
