r"""A path of knowledge such as ``mnist/3``, as one latent-variable model (design, 5 and 6).

The path a/b has codes c¹ (of a) and c² (of b, whose TzK observes c¹). With F the t-flow and F¹ the
flow of a's child, everything on the path but the last kind exists, and the last has e:

.. math::
    p(c^m)\, p(e \mid c^m)\, \prod_{j<m} p(c^j \mid e^{j+1}, c^{j+1})\; p(t \mid e^1, c^1)

read from the deepest code upwards, against the encoders read downwards,
:math:`\prod_j p_{enc}(c^j \mid e^j, c^{j-1})` with :math:`c^0 = t`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .densities import standard_normal
from .randomness import Rows

if TYPE_CHECKING:
    from .knowledge import Knowledge
    from .model import TzK

__all__ = ["AcceptedCodes", "Lineage"]

TRIES_A_ROUND = 16
ROUNDS = 32


class AcceptedCodes(NamedTuple):
    """Codes drawn from p(c ∣ e) by acceptance."""

    codes: Tensor  # (B, C)
    tries: list[int]  # of each row
    sample_sizes: list[float | None]  # effective, of each row that ran out of tries and resampled


class Lineage:
    """One knowledge with its ancestors, root first.

    Args:
        nodes: (TzK, the knowledge in it) for every step of the path.
        present: e of the last knowledge; its ancestors are present.
        path: the name, for messages.
    """

    def __init__(self, nodes: list[tuple[TzK, Knowledge]], present: bool, path: str) -> None:
        self.nodes = nodes
        self.path = path
        self.values = [1] * (len(nodes) - 1) + [int(present)]

    @property
    def last(self) -> Knowledge:
        return self.nodes[-1][1]

    @property
    def existence(self) -> Tensor:
        """p(e) of the last knowledge, a scalar."""
        present = self.last.existence
        return present if self.values[-1] else 1 - present

    def log_exists(self, c: Tensor) -> Tensor:
        """log p_dec(e ∣ c^m) of the deepest code, (B,)."""
        return self.last.c_discriminator.log_prob(c, self.values[-1])

    # -- downwards: from t to codes ------------------------------------------------------------

    def encode(self, t: Tensor, noise: list[Tensor]) -> list[Tensor]:
        """(c¹, …, c^m) from the encoders; ``noise[j]`` is (B, C_j)."""
        codes, x = [], t
        for (_, kind), e, epsilon in zip(self.nodes, self.values, noise, strict=True):
            encoder = kind.encoders[e]
            x, _ = encoder.sample(encoder.base(x), epsilon)
            codes.append(x)
        return codes

    def log_encoder(self, codes: list[Tensor], t: Tensor, repeats: int = 1) -> Tensor:
        """log ∏ p_enc(c^j ∣ e^j, c^{j−1}); codes (B·repeats, C), t (B, …), row-major."""
        total, x = 0.0, t
        for depth, ((_, kind), e) in enumerate(zip(self.nodes, self.values, strict=True)):
            encoder = kind.encoders[e]
            base = encoder.base(x)
            if depth == 0 and repeats > 1:
                base = tuple(part.repeat_interleave(repeats, dim=0) for part in base)
            total = total + encoder.log_prob(base, codes[depth])
            x = codes[depth]
        return total

    # -- upwards: from the deepest code to t ---------------------------------------------------

    def accepted_deepest(self, rows: Rows, *, temperature: float, shortcut: bool) -> AcceptedCodes:
        """The deepest code c^m ~ p(c^m ∣ e) ∝ p_dec(c^m)·p_dec(e∣c^m).

        Each row tries candidates from its own generator until one is accepted. A row that runs
        out of tries takes one of its candidates with probability ∝ p_dec(e∣c) (importance
        resampling), and is no longer exact.

        Args:
            rows: one generator a row.
            temperature: scales the noise of the code; other than 1 it voids exactness.
            shortcut: take the first candidate without asking (the paper's sampler, Appendix C).
        """
        kind, where = self.last, self.last.existence
        size = kind.config.code_dim

        def candidates(active: Rows, count: int) -> Tensor:
            noise = active.normal(count, size, dtype=where.dtype, device=where.device)
            flat = (temperature * noise).reshape(-1, size)
            return kind.code_prior.transform(flat).reshape(noise.shape)

        none: list[float | None] = [None] * len(rows)
        if shortcut:
            return AcceptedCodes(candidates(rows, 1)[:, 0], [1] * len(rows), none)
        chosen = torch.empty(len(rows), size, dtype=where.dtype, device=where.device)
        tries, sample_sizes, history = [0] * len(rows), none, {}
        waiting = list(range(len(rows)))
        for _ in range(ROUNDS):
            active = rows[waiting]
            c = candidates(active, TRIES_A_ROUND)
            log_p = self.log_exists(c.reshape(-1, size)).reshape(c.shape[:2])
            u = active.uniform(TRIES_A_ROUND, dtype=where.dtype, device=where.device)
            accepted = u.log() < log_p
            found = accepted.any(1)
            first = accepted.to(torch.int8).argmax(1)
            picked = c[torch.arange(len(waiting), device=c.device), first]
            tried = torch.where(found, first + 1, TRIES_A_ROUND).tolist()
            still = []
            for i, (row, there) in enumerate(zip(waiting, found.tolist(), strict=True)):
                tries[row] += tried[i]
                if there:
                    chosen[row] = picked[i]
                else:
                    history.setdefault(row, []).append((c[i], log_p[i]))
                    still.append(row)
            waiting = still
            if not waiting:
                break
        for row in waiting:
            c = torch.cat([part for part, _ in history[row]])
            weights = torch.cat([part for _, part in history[row]]).softmax(0)
            u = rows[[row]].uniform(dtype=where.dtype, device=where.device)
            index = torch.searchsorted(weights.cumsum(0), u).clamp(max=len(weights) - 1)
            chosen[row] = c[index[0]]
            sample_sizes[row] = float(1 / weights.square().sum())
        return AcceptedCodes(chosen, tries, sample_sizes)

    def ascend(self, deepest: Tensor, noise: list[Tensor]) -> list[Tensor]:
        """(c¹, …, c^m) from c^m by the decoders; ``noise[j]`` (B, C_j) makes c^{j+1} into c^j."""
        codes = [deepest]
        for depth in range(len(self.nodes) - 1, 0, -1):
            tzk, kind = self.nodes[depth]
            latent = kind.decoders[self.values[depth]].transform(noise[depth - 1], codes[0])
            codes.insert(0, tzk.flow.decode(latent)[0])
        return codes

    def log_prior(self, codes: list[Tensor]) -> Tensor:
        """log p(c^m) ∏ p(c^j ∣ e^{j+1}, c^{j+1}), p(e∣c^m) left out, (B,)."""
        total = self.last.code_prior.log_prob(codes[-1])
        for depth in range(1, len(self.nodes)):
            tzk, kind = self.nodes[depth]
            latent, log_det = tzk.flow.encode(codes[depth - 1])
            decoder = kind.decoders[self.values[depth]]
            total = total + decoder.log_prob(latent, codes[depth]) + log_det
        return total

    @property
    def decoder(self):
        """p_dec(z ∣ e¹, c¹) of the first knowledge on the path."""
        return self.nodes[0][1].decoders[self.values[0]]

    # -- existence -------------------------------------------------------------------------------

    def presence_logits(self, t: Tensor, rows: Rows, draws: int) -> Tensor:
        """Logits of p_enc(e = 1 ∣ c) of the last knowledge, (B, draws).

        Its observation is the parent's code, so p_enc(e = 1 ∣ ancestors, t) is the average of their
        sigmoids over ``draws`` codes of the ancestors' encoders (design, section 11); at the root
        there is one logit, of t itself.
        """
        return self.last.t_discriminator(self.observed(t, rows, draws)).reshape(len(t), -1)

    def observed(self, t: Tensor, rows: Rows, draws: int = 1) -> Tensor:
        """``draws`` observations of the last knowledge for each row of t.

        At the root that is t itself, whatever ``draws``; below it, codes of the parent, drawn from
        the encoders of its ancestors, e = 1.

        Returns:
            t, or (B·draws, C) with the draws of a row together.
        """
        x = t
        for depth, (_, kind) in enumerate(self.nodes[:-1]):
            encoder = kind.encoders[1]
            base = encoder.base(x)
            if depth == 0:
                # The network on images is the costly part, and the same for every draw.
                base = tuple(part.repeat_interleave(draws, dim=0) for part in base)
            size = kind.config.code_dim
            noise = rows.normal(draws, size, dtype=t.dtype, device=t.device)
            x, _ = encoder.sample(base, noise.reshape(-1, size))
        return x

    def draw_noise(self, rows: Rows, *leading: int, like: Tensor) -> list[Tensor]:
        """N(0, I) noise of every code's shape, each (B, *leading, C_j)."""
        return [
            rows.normal(*leading, kind.config.code_dim, dtype=like.dtype, device=like.device)
            for _, kind in self.nodes
        ]

    @staticmethod
    def log_base(noise: list[Tensor]) -> Tensor:
        """Σ_j log N(noise_j; 0, I), (B,)."""
        return sum(standard_normal(part) for part in noise)
