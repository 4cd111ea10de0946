"""What a step of a stage sees and what it makes of it, part by part."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..devices import moved
from ..model import TzK
from ..objective import Existence, Part, Terms, objective
from ..randomness import derived
from .dataset import Dataset
from .graphed import GraphedObjective
from .group import Group
from .latents import Latents
from .settings import StageConfig

__all__ = ["Outcome", "Steps"]


@dataclass
class Outcome:
    """A batch, worked on by this process: sums over its parts."""

    loss: Tensor  # minus what is maximised, bits/dim, a scalar
    terms: Terms = field(default_factory=Terms)
    known: bool = False  # whether anything of the batch enters the objective


@dataclass
class _Batch:
    t: Tensor  # (B, …) on the CPU
    latent: tuple[Tensor, Tensor] | None
    existence: Existence
    balance: dict[str, Tensor]
    noise: Tensor  # the state of the generator of what follows


class Steps:
    """The steps of a stage.

    Step i draws from a generator seeded by (seed, stage, i), and which images it sees follows from
    (seed, stage, i) too: nothing of it depends on what went before, nor on the number of parts.

    Args:
        existence: of the training images, of the paths that are needed.
        trained: the paths of ``existence`` that the stage trains.
        latents: of the images on a frozen t-flow, if they are known.
        group: the processes among which a batch is divided.
        parameters: that train.
    """

    def __init__(
        self,
        model: TzK,
        data: Dataset,
        config: StageConfig,
        index: int,
        *,
        seed: int,
        existence: Existence,
        trained: list[str],
        latents: Latents | None,
        group: Group,
        parameters: list[Tensor],
    ) -> None:
        self.model, self.data, self.config, self.index = model, data, config, index
        self.seed, self.existence, self.latents, self.group = seed, existence, latents, group
        knowledge = {path: existence[path] for path in trained}
        # Where the t-flow trains, balanced draws would change what p(t) is of.
        knows = config.train in ("knowledge", "children")
        asked = None if config.train == "flow" else knowledge
        self._order, self.balance = data.order(asked, rows=knows)
        self.parameters = parameters
        self._graph: GraphedObjective | None = None
        self._ahead: tuple[int, _Batch] | None = None

    @property
    def size(self) -> int:
        """Images a step, over all processes."""
        return min(self.config.batch, len(self.data))

    @property
    def bits(self) -> float:
        """How many nats of an observation one bit/dim is."""
        return math.prod(self.model.observation_shape) * math.log(2)

    def gradients(self, step: int) -> Outcome:
        """Adds the gradient of this process's parts of a step to the parameters'."""
        outcome = Outcome(torch.zeros((), device=self.model.device))
        at, batch = self._ahead or (None, None)
        if batch is None or at != step:
            batch = self._batch(step)
        for part in self._parts():
            terms = self._terms(batch, part, step)
            outcome.terms.join(terms)
            if isinstance(terms.total, Tensor):
                outcome.known = True
                loss = -terms.total / self.bits
                loss.backward()
                outcome.loss += loss.detach()
        if self.model.device.type == "cuda":  # it is at work still: the next batch costs no time
            self._ahead = step + 1, self._batch(step + 1)
        return outcome

    @torch.no_grad()
    def loss(self, step: int) -> float:
        """The loss of a step with the weights as they are, over all processes."""
        batch, total = self._batch(step), torch.zeros((), device=self.model.device)
        for part in self._parts():
            total -= torch.as_tensor(self._terms(batch, part, step).total) / self.bits
        return float(self.group.sum(total))

    def _batch(self, step: int) -> _Batch:
        generator = derived(self.seed, "step", self.index, step)
        index = self._order.batch(self.config.batch, step, self.seed, self.index)
        if self.latents is not None:
            t, *latent = self.latents.pick(index, generator)
        else:
            t, latent = self.data.observations(index, generator), None
        device = self.model.device
        balance = {} if self.balance is None else self.balance.weights(index)
        return _Batch(
            t,
            latent,
            self._known(index),
            {path: weights.to(device) for path, weights in balance.items()},
            generator.get_state(),
        )

    def _known(self, index: Tensor) -> Existence:
        """e of some images, moved as one tensor: two dozen small ones take longer."""
        if not self.existence:
            return {}
        whole = torch.stack([e[index] for e in self.existence.values()])
        return dict(zip(self.existence, moved(whole, self.model.device).unbind(), strict=True))

    def _graphed(
        self, batch: _Batch, part: Part, t: Tensor, latent: tuple[Tensor, Tensor] | None, step: int
    ) -> Terms | None:
        """The terms by a CUDA graph, where the stage can have one."""
        config = self.config
        if (
            not t.is_cuda
            or not config.cuda_graph
            or config.recompute
            or config.objective.name != "elbo"
            or part != Part(part.count, 0, part.count)
        ):
            return None
        if self._graph is None:
            self._graph = GraphedObjective(
                self.model, self.parameters, config.objective, config.terms, list(batch.existence)
            )
        noise = torch.Generator().set_state(batch.noise)
        return self._graph(t, latent, batch.existence, batch.balance, noise, step)

    def _parts(self) -> Iterator[Part]:
        """Of a batch, those of this process: they differ by one row at most."""
        size, each = self.size, self.config.accumulate
        count = each * self.group.count
        for number in range(self.group.index * each, (self.group.index + 1) * each):
            yield Part(size, number * size // count, (number + 1) * size // count)

    def _terms(self, batch: _Batch, part: Part, step: int) -> Terms:
        model = self.model
        t = moved(batch.t[part.here], model.device)
        latent = None
        if batch.latent is not None:
            latent = tuple(moved(each[part.here], model.device) for each in batch.latent)
        elif self.config.train == "knowledge":
            with torch.no_grad():
                latent = model.flow.encode(t)
        graphed = self._graphed(batch, part, t, latent, step)
        if graphed is not None:
            return graphed
        return objective(
            model,
            t,
            batch.existence,
            self.config.objective,
            torch.Generator().set_state(batch.noise),
            step=step,
            latent=latent,
            part=part,
            balance=batch.balance,
            **self.config.terms,
        )
