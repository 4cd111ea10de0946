"""Between observations: corners come back, and lines and arcs are where geometry says."""

from __future__ import annotations

import math

import pytest
import torch
from model.linear_gaussian import generator, world
from tiny_model import SIDE, tiny_model

from tzk_core.errors import InvalidRequest, UnknownKnowledge
from tzk_core.interpolation import spherical
from tzk_core.randomness import Rows


@pytest.fixture(scope="module")
def model():
    return tiny_model().double().requires_grad_(False)


def corners(count: int) -> torch.Tensor:
    return 0.3 * torch.randn(count, 1, SIDE, SIDE, generator=generator(0), dtype=torch.float64)


@pytest.mark.parametrize("method", ["linear", "spherical"])
@pytest.mark.parametrize("space", ["z", "c"])
@pytest.mark.parametrize("given", ["mnist", "fashion"])
def test_corners_come_back(model, method, space, given):
    for count, steps, places in (
        (2, 5, [0, 4]),
        (2, 2, [0, 1]),
        (4, (3, 4), [0, 3, 8, 11]),
        (4, 2, [0, 1, 2, 3]),
    ):
        t = corners(count)
        sheet = model.interpolate(
            t, steps=steps, method=method, space=space, given=given, generator=generator(1)
        )
        assert sheet.images.shape[0] == math.prod(sheet.shape) == len(sheet.log_prob)
        assert torch.allclose(sheet.images[places], t, atol=1e-9)
        assert sheet.images.isfinite().all()


def test_log_prob_in_z_is_that_of_the_prior(model):
    sheet = model.interpolate(corners(4), steps=3)
    assert sheet.shape == (3, 3)
    assert torch.allclose(sheet.log_prob, model.prior.log_prob(sheet.images), rtol=1e-9)


def test_log_prob_in_c_is_that_of_its_code(model):
    """Worked out again from the corner and the code that its encoder drew."""
    t = corners(2)
    sheet = model.interpolate(t, steps=3, space="c", given="mnist", generator=Rows([1, 2]))
    encoder = model.find("mnist").encoders[1]
    noise = Rows([1, 2]).normal(4, dtype=torch.float64)
    c, _ = encoder.sample(encoder.base(t), noise)
    again = model.given("mnist").log_prob_given_code(t, c)
    assert torch.allclose(sheet.log_prob[[0, 2]], again, rtol=1e-9)
    middle = model.given("mnist").log_prob_given_code(sheet.images[1:2], c.mean(0, keepdim=True))
    assert torch.allclose(sheet.log_prob[1:2], middle, rtol=1e-9)


def test_a_linear_flow_makes_straight_lines():
    """With z = A·t + a the mixture of z is the mixture of t, and in c too."""
    exact = world()
    t = torch.tensor([[0.0, 0.0], [3.0, 1.0], [-1.0, 4.0], [2.0, -2.0]], dtype=torch.float64)
    line = exact.model.interpolate(t[:2], steps=4)
    share = torch.tensor([0, 1 / 3, 2 / 3, 1], dtype=torch.float64).unsqueeze(1)
    assert torch.allclose(line.images, t[0] + share * (t[1] - t[0]))
    assert line.shape == (1, 4)
    # Four corners: top left, top right, bottom left, bottom right, row by row.
    sheet = exact.model.interpolate(t, steps=(3, 2))
    assert sheet.shape == (3, 2)
    expected = torch.stack([t[0], t[1], (t[0] + t[2]) / 2, (t[1] + t[3]) / 2, t[2], t[3]])
    assert torch.allclose(sheet.images, expected)
    in_c = exact.model.interpolate(t, steps=(3, 2), space="c", given="a", generator=generator(0))
    assert torch.allclose(in_c.images, expected)


def test_the_great_circle():
    a = torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64)
    b = torch.tensor([0.0, 5.0, 0.0], dtype=torch.float64)
    for weight in (0.0, 0.25, 0.5, 1.0):
        angle, length = weight * math.pi / 2, 3 + 2 * weight
        expected = length * torch.tensor(
            [math.cos(angle), math.sin(angle), 0.0], dtype=torch.float64
        )
        assert torch.allclose(spherical(a, b, torch.tensor(weight)), expected)


def test_arcs_that_are_no_arcs():
    """The same direction, opposite ones, and the origin: finite, and the ends are right."""
    a = torch.tensor([1.0, 2.0], dtype=torch.float64)
    for b in (a, 3 * a, -a, torch.zeros(2, dtype=torch.float64)):
        for weight, end in ((0.0, a), (1.0, b)):
            assert torch.allclose(spherical(a, b, torch.tensor(weight).double()), end)
        assert spherical(a, b, torch.tensor(0.5).double()).isfinite().all()


def test_the_two_methods_differ_and_a_seed_repeats(model):
    t = corners(2)
    straight = model.interpolate(t, steps=3).images
    assert not torch.allclose(straight, model.interpolate(t, steps=3, method="spherical").images)

    def in_c(seed):
        return model.interpolate(t, steps=3, space="c", given="mnist", generator=generator(seed))

    assert torch.equal(in_c(1).images, in_c(1).images)
    assert not torch.equal(in_c(1).images[1], in_c(2).images[1])


@pytest.mark.parametrize("steps", [(1, 6), (6, 1), 6])
def test_steps_of_a_line(model, steps):
    assert model.interpolate(corners(2), steps=steps).shape == (1, 6)


@pytest.mark.parametrize(
    ("count", "options", "pointer"),
    [
        (1, {}, "/images"),
        (3, {}, "/images"),
        (5, {}, "/images"),
        (2, {"method": "cubic"}, "/method"),
        (2, {"space": "t"}, "/space"),
        (2, {"space": "c"}, "/given"),
        (2, {"steps": 1}, "/steps"),
        (2, {"steps": 0}, "/steps"),
        (4, {"steps": (1, 4)}, "/steps"),
        (4, {"steps": (4, 1)}, "/steps"),
        (4, {"steps": -3}, "/steps"),
    ],
)
def test_what_cannot_be_asked(model, count, options, pointer):
    with pytest.raises(InvalidRequest) as caught:
        model.interpolate(corners(count), **options)
    assert caught.value.pointer == pointer


def test_unknown_knowledge(model):
    with pytest.raises(UnknownKnowledge):
        model.interpolate(corners(2), space="c", given="nothing")
