"""What a part of a batch contributes to an objective, so that parts add up to the whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["Existence", "Part", "Terms"]

# For each path, e ∈ {1, 0, −1 unknown} of every row, (B,).
Existence = dict[str, Tensor]


@dataclass
class Terms:
    """What is maximised, in nats a row of the batch, and what is worth watching.

    Everything here is a sum over rows divided by how many rows there are in the whole batch: parts
    of a batch add up.
    """

    total: Tensor | float = 0.0  # scalar
    logs: dict[str, Tensor] = field(default_factory=dict)
    moments: dict[str, Tensor] = field(default_factory=dict)  # (2, C): E[c], E[c²] of a kind

    def add(self, name: str, values: Tensor, count: int) -> None:
        """Watches the mean of ``values`` over ``count`` rows, of which some may be elsewhere."""
        self.logs[name] = values.detach().sum() / count

    def join(self, other: Terms) -> None:
        """Adds another part of the same batch to what is watched."""
        for mine, theirs in ((self.logs, other.logs), (self.moments, other.moments)):
            for name, value in theirs.items():
                mine[name] = mine[name] + value if name in mine else value

    def figures(self) -> dict[str, Tensor]:
        """What is watched, of the whole batch once its parts are joined: scalars."""
        variances = {
            f"{path}/code_variance": (square - mean.square()).mean()
            for path, (mean, square) in self.moments.items()
        }
        return self.logs | variances


@dataclass(frozen=True)
class Part:
    """Rows ``start`` to ``stop`` of the ``count`` rows of a batch: those that are here."""

    count: int
    start: int
    stop: int

    @property
    def here(self) -> slice:
        return slice(self.start, self.stop)

    def among(self, chosen: Tensor) -> tuple[Tensor, Part]:
        """What is here of the rows ``chosen`` of the batch (ascending).

        Returns:
            Their places among the rows that are here, and which part of the chosen they are.
        """
        if (self.start, self.stop) == (0, self.count):  # a GPU need not be asked
            return chosen, Part(len(chosen), 0, len(chosen))
        before = int((chosen < self.start).sum())
        until = int((chosen < self.stop).sum())
        return chosen[before:until] - self.start, Part(len(chosen), before, until)
