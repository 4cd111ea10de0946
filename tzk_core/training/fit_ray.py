"""The same pieces of work as Ray tasks, on this machine or on a cluster (extra ``cluster``).

Nothing but Ray itself is shared between machines: the t-flow, the images and their latent states
travel through its object store, one copy a machine, and results come back the same way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from ..errors import WorkFailed
from .fit_workers import INTERRUPTED, LOOK_EVERY, RETRIES, Context, Failure, Never, call
from .progress import Reporter

__all__ = ["RayWorkers"]


class RayWorkers:
    """Ray tasks.

    Args:
        address: of a cluster, ``auto`` for the one that this machine belongs to; for an empty one
            the cluster of ``RAY_ADDRESS``, else one of this machine's cores that ends with the
            work.
        threads: cores of each task.
        gpus: of each task.
        interrupt: its ``asked`` is looked at while waiting.
        retries: of an item whose process or machine died.

    Raises:
        WorkFailed: no such cluster.
    """

    def __init__(
        self,
        address: str,
        threads: int,
        *,
        gpus: float = 0,
        interrupt: Any = Never,
        retries: int = RETRIES,
    ) -> None:
        self.address, self.threads, self.gpus = address, threads, gpus
        self.interrupt, self.retries = interrupt, retries

    def __enter__(self) -> RayWorkers:
        # Before Ray is imported: nothing is told to anybody.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self._ray = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                ray.init(
                    address=self.address or None,
                    log_to_driver=False,
                    configure_logging=False,
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                reason = " ".join(str(error).split())
                where = self.address or os.environ.get("RAY_ADDRESS", "this machine")
                raise WorkFailed(f"no Ray cluster at {where}: {reason[:300]}") from error
        return self

    def __exit__(self, *_) -> None:
        if self._ours:
            self._ray.shutdown()

    def run(
        self, function, shared, items: Iterable, tick=lambda units: None
    ) -> Iterator[tuple[int, Any]]:
        ray = self._ray
        errors = ray.exceptions
        task = ray.remote(num_cpus=self.threads, num_gpus=self.gpus, max_retries=self.retries)(
            _work
        )
        # Memory maps of this machine mean nothing on another.
        there = ray.put(shared.in_memory() if hasattr(shared, "in_memory") else shared)
        at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)) // self.threads)
        fresh, busy = iter(enumerate(items)), {}
        try:
            while True:
                while len(busy) < at_once:
                    given = next(fresh, None)
                    if given is None:
                        break
                    number, item = given
                    busy[task.remote(function, there, item, self.threads)] = number
                if not busy:
                    return
                ready, _ = ray.wait(list(busy), num_returns=1, timeout=LOOK_EVERY)
                if self.interrupt.asked:
                    raise WorkFailed(INTERRUPTED)
                for reference in ready:
                    number = busy.pop(reference)
                    try:
                        result = ray.get(reference)
                    except (errors.WorkerCrashedError, errors.NodeDiedError) as error:
                        told = " ".join(str(error).split())[:200]
                        result = Failure(f"its process died {self.retries + 1} times: {told}", True)
                    except errors.RayError as error:
                        result = Failure(" ".join(str(error).split())[:300])
                    yield number, result
        finally:
            # Closed late, after an error, there is no cluster any more; asking would start one.
            for reference in busy if ray.is_initialized() else ():
                ray.cancel(reference, force=True)


def _work(function, shared, item, threads: int) -> Any:
    torch.set_num_threads(threads)
    return call(function, shared, item, Context(Reporter(quiet=True)))
