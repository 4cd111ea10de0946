"""Multi-scale flows of one shape: ours, normflows 1.7.3's Glow, and FrEIA 0.2's coupling blocks.

Each has levels of (squeeze, steps, half factored out), N(0, I) at every end, and couplings whose
network is 3×3, 1×1, 3×3. What else they are made of is what each library offers for it: normflows
has invertible 1×1 convolutions (in LU form) and leaky ReLU where we have fixed shuffles and SiLU;
FrEIA has fixed permutations and an arctangent for the clamp, and gets SiLU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tzk_core.flows import ImageFlow
from tzk_core.randomness import generator

__all__ = ["PEERS", "Freia", "Normflows", "Ours", "made", "start"]

Shape = tuple[int, int, int]


class Ours(nn.Module):
    """Our t-flow."""

    def __init__(self, shape: Shape, levels: int, steps: int, width: int) -> None:
        super().__init__()
        self.flow = ImageFlow(
            shape, levels=levels, steps=steps, width=width, generator=generator(0)
        )
        self.encode, self.decode = self.flow.encode, self.flow.decode

    def log_prob(self, t: Tensor) -> Tensor:
        """log p(t) but for its constant, nats, (B,)."""
        z, log_det = self.encode(t)
        return log_det - 0.5 * z.square().flatten(1).sum(1)

    def sample(self, count: int) -> Tensor:
        """(count, C, H, W)."""
        like = next(self.parameters())
        return self.decode(torch.randn(count, *self.flow.latent_shape, device=like.device))[0]


class Normflows(nn.Module):
    """normflows' ``MultiscaleFlow`` of ``GlowBlock``."""

    def __init__(self, shape: Shape, levels: int, steps: int, width: int) -> None:
        super().__init__()
        import normflows

        channels, side, _ = shape
        bases, merges, flows = [], [], []
        for level in range(levels):  # 0 is the deepest, as normflows counts
            deep = 2 ** (levels - 1 - level)
            blocks = [
                normflows.flows.GlowBlock(channels * 4 * deep, width, scale_map="sigmoid")
                for _ in range(steps)
            ]
            flows.append([*blocks, normflows.flows.Squeeze()])
            half = side // 2 ** (levels - level)
            factor = 4 * deep if level == 0 else 2 * deep
            bases.append(normflows.distributions.DiagGaussian((channels * factor, half, half)))
            if level:
                merges.append(normflows.flows.Merge())
        for base in bases:
            base.requires_grad_(False)  # N(0, I), as ours
        self.model = normflows.MultiscaleFlow(bases, flows, merges, class_cond=False)

    def log_prob(self, t: Tensor) -> Tensor:
        """log p(t), nats, (B,)."""
        return self.model.log_prob(t, None)

    def sample(self, count: int) -> Tensor:
        """(count, C, H, W)."""
        return self.model.sample(count)[0]


class Freia(nn.Module):
    """FrEIA's ``SequenceINN`` a level, of ActNorm, a permutation and a one-sided coupling."""

    def __init__(self, shape: Shape, levels: int, steps: int, width: int) -> None:
        super().__init__()
        from FrEIA.framework import SequenceINN
        from FrEIA.modules import (
            ActNorm,
            AffineCouplingOneSided,
            IRevNetDownsampling,
            PermuteRandom,
        )

        def network(inputs: int, outputs: int) -> nn.Module:
            last = nn.Conv2d(width, outputs, 3, padding=1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            first, middle = nn.Conv2d(inputs, width, 3, padding=1), nn.Conv2d(width, width, 1)
            return nn.Sequential(first, nn.SiLU(), middle, nn.SiLU(), last)

        channels, side, _ = shape
        self.levels, self.ends = nn.ModuleList(), []
        for level in range(levels):
            one = SequenceINN(channels, side, side)
            one.append(IRevNetDownsampling)
            for step in range(steps):
                one.append(ActNorm)
                one.append(PermuteRandom, seed=step)
                one.append(AffineCouplingOneSided, subnet_constructor=network)
            self.levels.append(one)
            channels, side = channels * (4 if level == levels - 1 else 2), side // 2
            self.ends.append((channels, side, side))

    def log_prob(self, t: Tensor) -> Tensor:
        """log p(t) but for its constant, nats, (B,)."""
        total = t.new_zeros(len(t))
        for number, level in enumerate(self.levels):
            t, log_det = level(t)
            total = total + log_det
            if number < len(self.levels) - 1:
                out, t = t.chunk(2, dim=1)
                total = total - 0.5 * out.square().flatten(1).sum(1)
        return total - 0.5 * t.square().flatten(1).sum(1)

    def sample(self, count: int) -> Tensor:
        """(count, C, H, W)."""
        device = next(self.parameters()).device
        drawn = [torch.randn(count, *end, device=device) for end in self.ends]
        t = drawn.pop()
        for number in reversed(range(len(self.levels))):
            t, _ = self.levels[number](t, rev=True)
            if number:
                t = torch.cat((drawn.pop(), t), dim=1)
        return t


PEERS = {"tzk": Ours, "normflows": Normflows, "FrEIA": Freia}


def made(name: str, shape: Shape, levels: int, steps: int, width: int, *, seed: int) -> nn.Module:
    """One of the ``PEERS``, the same each time."""
    # Both peers draw their first weights from the global generator, and take no other.
    torch.manual_seed(seed)
    return PEERS[name](shape, levels, steps, width)


@torch.no_grad()
def start(model: nn.Module, t: Tensor) -> None:
    """The peers' ActNorm starts from observations (B, C, H, W), as it does in their training.

    normflows asks a tensor at every call whether that has happened, where a compiler has to break
    off in every block and a GPU has to be waited for. Once it has, the answer is Python's True
    instead, and what is computed the same.
    """
    model.log_prob(t)
    for module in model.modules():
        if "data_dep_init_done" in dict(module.named_buffers(recurse=False)):
            del module.data_dep_init_done  # a tensor's name takes nothing else
            module.data_dep_init_done = True
