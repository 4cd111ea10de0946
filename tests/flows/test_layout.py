"""Where things go: z's layout against index arithmetic, halves, permutations, initialisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flows.registry import CASES, perturb

from tzk_core.flows import ActNorm, Coupling, ImageFlow, Shuffle, Squeeze, VectorFlow


def space_to_depth(x: np.ndarray, factor: int) -> np.ndarray:
    """(C, H, W) → (C·f², H/f, W/f), element by element."""
    channels, height, width = x.shape
    out = np.empty((channels * factor**2, height // factor, width // factor), x.dtype)
    for c in range(channels):
        for i in range(factor):
            for j in range(factor):
                out[c * factor**2 + i * factor + j] = x[c, i::factor, j::factor]
    return out


def do_nothing(flow: ImageFlow) -> ImageFlow:
    """Steps become the identity: ActNorm is it already, so are these couplings and shuffles."""
    for module in flow.modules():
        if isinstance(module, Shuffle):
            module.permutation.copy_(torch.arange(module.channels))
        if isinstance(module, Coupling):
            with torch.no_grad():
                # Half of the output is s, and σ(60) is 1 to the last bit.
                module.network.last.bias.chunk(2)[1].fill_(60.0)
    return flow


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_z_is_finest_first_on_the_last_map(channels, levels):
    shape = (channels, 8, 16)
    generator = torch.Generator().manual_seed(0)
    flow = do_nothing(ImageFlow(shape, levels=levels, steps=2, width=4, generator=generator))
    pixels = np.arange(channels * 8 * 16, dtype=np.float32).reshape(shape)

    rest, parts = pixels, []
    for level in range(1, levels + 1):
        rest = space_to_depth(rest, 2)
        if level < levels:
            half = len(rest) // 2
            out, rest = rest[:half], rest[half:]
            parts.append(space_to_depth(out, 2 ** (levels - level)))
    parts.append(rest)
    expected = np.concatenate(parts)

    z, log_det = flow.encode(torch.from_numpy(pixels)[None])
    assert torch.equal(z[0], torch.from_numpy(expected))
    assert log_det.item() == pytest.approx(0.0, abs=1e-20)
    assert flow.latent_shape == (channels * 4**levels, 8 // 2**levels, 16 // 2**levels)
    assert flow.level_channels == tuple(len(part) for part in parts)


def test_the_paper_s_latent_map():
    flow = ImageFlow((3, 32, 32), levels=3, steps=1, width=1, generator=torch.Generator())
    assert flow.latent_shape == (192, 4, 4)
    assert flow.level_channels == (96, 48, 48)


def test_squeeze_takes_neighbours_together():
    image = np.random.default_rng(0).normal(size=(3, 6, 12))
    for factor in (2, 3):
        z, _ = Squeeze(factor).encode(torch.from_numpy(image)[None])
        assert np.array_equal(z[0].numpy(), space_to_depth(image, factor))


def test_coupling_leaves_the_right_half():
    generator = torch.Generator().manual_seed(0)
    t = torch.randn(2, 5, generator=generator)
    for flip, still, moved in ((False, slice(0, 3), slice(3, 5)), (True, slice(2, 5), slice(0, 2))):
        layer = perturb(Coupling(5, 4, generator, spatial=False, flip=flip), generator)
        z, _ = layer.encode(t)
        assert torch.equal(z[:, still], t[:, still])
        assert (z[:, moved] != t[:, moved]).all()


def test_coupling_s_formula():
    """z_b = (t_b + m)·e^l, l = −6 tanh(−log σ(s + 2) / 6), worked out from its network's m, s."""
    generator = torch.Generator().manual_seed(0)
    layer = perturb(Coupling(4, 4, generator, spatial=False), generator).double()
    t = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    m, s = layer.network(t[:, :2])[:, :2], layer.network(t[:, :2])[:, 2:]
    scale = torch.exp(-6 * torch.tanh(torch.log(1 + torch.exp(-(s + 2))) / 6))
    z, log_det = layer.encode(t)
    assert torch.allclose(z[:, 2:], (t[:, 2:] + m) * scale, rtol=1e-12)
    assert torch.allclose(log_det, scale.log().sum(1), rtol=1e-12)


def test_a_new_coupling_scales_by_sigmoid_of_two():
    """The floor is far enough away to leave σ(2) ≈ 0.8808 as it is, to 1e-4."""
    t = torch.ones(1, 2)
    z, _ = Coupling(2, 4, torch.Generator(), spatial=False).encode(t)
    assert z[0].tolist() == pytest.approx([1.0, 0.8807970779778823], abs=1e-4)


def test_a_couplings_scale_has_a_floor():
    """However small σ(s + 2) becomes, the scale stays above e^−6 and the inverse finite."""
    generator = torch.Generator().manual_seed(0)
    layer = Coupling(4, 4, generator, spatial=False)
    with torch.no_grad():
        layer.network.last.bias[2:] = -1000.0
    t = torch.randn(3, 4, generator=generator)
    z, log_det = layer.encode(t)
    assert (log_det >= -12.0).all()
    torch.testing.assert_close(layer.decode(z)[0], t, rtol=1e-5, atol=1e-5)


def test_two_channels_both_move_and_see_each_other():
    """A random shuffle of two channels may do nothing, so halves alternate (design, section 3)."""
    generator = torch.Generator().manual_seed(0)
    flow = perturb(VectorFlow(2, steps=2, width=8, generator=generator), generator, 0.3).double()
    t = torch.randn(1, 2, generator=generator, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.encode(x)[0][0], t)[:, 0]
    assert (jacobian.abs() > 1e-4).all()
    assert not any(isinstance(module, Shuffle) for module in flow.modules())


def test_shuffles_are_drawn_from_the_generator():
    def draw(seed):
        return Shuffle(20, torch.Generator().manual_seed(seed)).permutation

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert sorted(draw(1).tolist()) == list(range(20))


@pytest.mark.parametrize("shape", [(3,), (3, 4, 6)], ids=["vector", "map"])
@pytest.mark.parametrize("volume_preserving", [False, True])
def test_actnorm_starts_at_mean_0_and_variance_1(shape, volume_preserving):
    generator = torch.Generator().manual_seed(0)
    t = 3 + 5 * torch.randn(600, *shape, generator=generator, dtype=torch.float64)
    layer = ActNorm(3, volume_preserving=volume_preserving).double()
    assert not layer.initialized
    z = layer.initialize(t)
    assert layer.initialized
    assert torch.equal(z, layer.encode(t)[0])
    over = [0, *range(2, t.ndim)]
    assert torch.allclose(z.mean(over), torch.zeros(3).double(), atol=1e-9)
    if not volume_preserving:
        assert torch.allclose(z.var(over, correction=0), torch.ones(3).double(), atol=1e-5)


def test_actnorm_s_start_is_stored():
    layer, other = ActNorm(2), ActNorm(2)
    layer.initialize(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))
    other.load_state_dict(layer.state_dict())
    assert other.initialized


def test_actnorm_needs_two_observations_and_survives_a_constant():
    with pytest.raises(ValueError, match="at least 2 observations"):
        ActNorm(2).initialize(torch.zeros(1, 2))
    layer = ActNorm(2)
    assert layer.initialize(torch.full((8, 2), 7.0)).isfinite().all()
    assert all(parameter.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name in ("image-3x8x16-levels-3", "vector-10")], ids=str
)
def test_a_flow_s_start_sets_every_actnorm(case):
    """As each ActNorm sees its data after the layers before it, so the last ones are set too."""
    flow = case.build()
    t, context = case.inputs(64, scale=4.0)
    seen = {}
    for name, module in flow.named_modules():
        if isinstance(module, ActNorm):
            assert not module.initialized
            module.encode = _recorder(module, module.encode, seen, name)
    z = flow.initialize(t + 2, context)
    seen.clear()
    assert torch.allclose(flow.encode(t + 2, context)[0], z, atol=1e-9)
    assert seen
    for out in seen.values():
        over = [0, *range(2, out.ndim)]
        assert torch.allclose(out.mean(over), torch.zeros(out.shape[1]).double(), atol=1e-6)
        assert torch.allclose(
            out.var(over, correction=0), torch.ones(out.shape[1]).double(), atol=1e-4
        )


def _recorder(module, encode, seen, name):
    def record(t, context=None):
        z, log_det = encode(t, context)
        seen[name] = z
        return z, log_det

    return record
