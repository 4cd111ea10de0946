"""The processes that train one model together (design, section 10: data parallel by Accelerate).

Every process works out which images a step sees and draws the noise of all of them, takes its part,
and the gradients are added up: what a step does depends on how it is cut into parts by no more than
the rounding of sums (:func:`tzk_core.objective.objective`). Only the main process writes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed as distributed
from torch import Tensor

from ..errors import WorkFailed
from .interrupt import LAUNCHER

__all__ = ["PEER_LOST", "Group", "PeerLost", "is_main", "launched"]

PEER_LOST = 3  # exit code for our own launcher, which then shows what the other process said

# The others wait while the main process prepares images, measures, and writes.
PATIENCE = timedelta(days=7)
BUCKET = 1 << 23  # elements of gradients that are added up at once


def launched() -> bool:
    """Whether this process is one of several, by `accelerate launch` or `tzk train --processes`."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main() -> bool:
    """Whether this process is the one that writes and tells."""
    return not launched() or os.environ.get("RANK", "0") == "0"


class PeerLost(WorkFailed):
    """Another process of the group has ended."""

    @property
    def exit_code(self) -> int:
        return PEER_LOST if LAUNCHER in os.environ else 1


class Group:
    """The processes of a run, seen from one of them; it alone if nothing else is said.

    Attributes:
        index, count: which process of how many.
        device: where this one works.
    """

    def __init__(self, device: torch.device | str = "cpu", index: int = 0, count: int = 1) -> None:
        self.device, self.index, self.count = torch.device(device), index, count

    @classmethod
    @contextlib.contextmanager
    def joined(cls, device: torch.device) -> Iterator[Group]:
        """The group that a launcher's environment tells of, within the block.

        Args:
            device: a GPU stands for the one of this process's number.

        Raises:
            WorkFailed: the processes do not find each other.
        """
        if not launched():
            yield cls(device)
            return
        from accelerate import PartialState

        with _peers():
            state = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
        try:
            yield cls(state.device, state.process_index, state.num_processes)
        finally:
            with contextlib.suppress(RuntimeError):
                distributed.destroy_process_group()
            PartialState._reset_state()

    @property
    def main(self) -> bool:
        return self.index == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, in place."""
        if self.count > 1:
            with _peers():
                distributed.all_reduce(values)
        return values

    def any(self, here: bool) -> bool:
        """Whether it is so in some process."""
        if self.count == 1:
            return here
        return bool(self.sum(torch.tensor(float(here), device=self.device)))

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Adds up the gradients of all processes.

        Which parameters have one follows from the whole batch's labels, so it is the same in all.
        """
        if self.count == 1:
            return
        waiting: list[Tensor] = []
        for parameter in parameters:
            if parameter.grad is None:
                continue
            waiting.append(parameter.grad)
            if sum(g.numel() for g in waiting) >= BUCKET:
                self._sum_together(waiting)
                waiting = []
        if waiting:
            self._sum_together(waiting)

    def take_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Makes tensors what they are in the main process."""
        if self.count == 1:
            return
        with _peers(), torch.no_grad():
            for tensor in tensors:
                distributed.broadcast(tensor.data, src=0)

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through the block before the others do (they find its caches)."""
        if self.count > 1 and not self.main:
            self.wait()
        yield
        if self.count > 1 and self.main:
            self.wait()

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            self.sum(torch.zeros(1, device=self.device))

    def _sum_together(self, gradients: list[Tensor]) -> None:
        flat = self.sum(torch.cat([g.flatten() for g in gradients]))
        for gradient, part in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(
            "another process of the run has ended or cannot be reached: its own message says why"
        ) from error
