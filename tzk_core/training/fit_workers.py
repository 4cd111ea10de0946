"""Independent pieces of work, here or in processes of their own; one that dies is tried again.

``run(function, shared, items)`` yields (number of the item, ``function(shared, item, context)``)
as results come, in any order, or a :class:`Failure` in a result's place. What a function returns
depends on its arguments only, so neither the number of processes nor their deaths change a result.
"""

from __future__ import annotations

import collections
import multiprocessing
import multiprocessing.connection
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..errors import TzkError, WorkFailed
from .progress import Reporter, Task

__all__ = ["RETRIES", "Context", "Failure", "InProcess", "Processes", "Workers", "call"]

RETRIES = 2  # of an item whose process died
TICK_EVERY = 0.5  # seconds between two reports of a worker
INTERRUPTED = "interrupted: finished kinds are kept, run it again for the rest"
LOOK_EVERY = 0.5  # seconds until Ctrl-C is seen while all workers are busy


@dataclass(frozen=True)
class Failure:
    """Why there is no result of an item."""

    reason: str
    died: bool = False  # its process did, and not by an error of its own
    trace: str = ""  # of an error that tzk does not know


class Never:
    """An interrupt that nobody asks for: who started this process ends it."""

    asked = False


@dataclass
class Context:
    """What a function may use of the place where it works."""

    reporter: Reporter
    interrupt: Any = Never


class Workers(Protocol):
    """Where work is done; entered once, used for any number of ``run``."""

    def run(
        self,
        function: Callable,
        shared: Any,
        items: Iterable,
        tick: Callable[[float], object] = ...,
    ) -> Iterator[tuple[int, Any]]:
        """``tick(units)`` is called with what the items' tasks advance; what an item that died
        had done is taken back."""


class InProcess:
    """One item after the other in this process, with its threads."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_) -> None:
        pass

    def run(self, function, shared, items, tick=lambda units: None) -> Iterator[tuple[int, Any]]:
        for number, item in enumerate(items):
            if self.context.interrupt.asked:
                raise WorkFailed(INTERRUPTED)
            try:
                result = function(shared, item, self.context)
            except WorkFailed as error:
                if self.context.interrupt.asked:
                    raise WorkFailed(INTERRUPTED) from error
                result = Failure(error.detail)
            yield number, result


class Processes:
    """Processes of this machine, each with so many threads.

    They come from a server that has imported what they need and no more (forkserver): no thread
    or lock of this process is inherited, and another costs no seconds of importing torch. They end
    with this process, however it ends.

    Args:
        count: of processes.
        threads: of each.
        interrupt: its ``asked`` is looked at while waiting.
        retries: of an item whose process died.
    """

    def __init__(self, count: int, threads: int, interrupt: Any = Never, retries: int = RETRIES):
        self.count, self.threads = count, threads
        self.interrupt, self.retries = interrupt, retries
        self._workers: list[_Worker] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def run(self, function, shared, items, tick=lambda units: None) -> Iterator[tuple[int, Any]]:
        # For a pipe to a process of our own, once for all items; no pickle is read from a file.
        task = pickle.dumps((function, shared), protocol=pickle.HIGHEST_PROTOCOL)
        again: collections.deque = collections.deque()
        fresh = iter(enumerate(items))
        deaths: collections.Counter[int] = collections.Counter()
        busy: dict[_Worker, tuple[int, Any]] = {}
        done: collections.Counter[_Worker] = collections.Counter()
        idle = list(self._workers)
        try:
            while True:
                while len(busy) < self.count:
                    given = again.popleft() if again else next(fresh, None)
                    if given is None:
                        break
                    worker = idle.pop() if idle else self._start()
                    busy[worker] = given
                    done[worker] = 0
                    worker.give(task, given)
                if not busy:
                    return
                pipes = {worker.pipe: worker for worker in busy}
                ready = multiprocessing.connection.wait(list(pipes), timeout=LOOK_EVERY)
                if self.interrupt.asked:
                    raise WorkFailed(INTERRUPTED)
                for pipe in ready:
                    worker = pipes[pipe]
                    number, item = busy[worker]
                    what, value = worker.take()
                    if what == "tick":
                        done[worker] += value
                        tick(value)
                        continue
                    del busy[worker]
                    if what != "died":
                        idle.append(worker)
                        yield number, value
                        continue
                    self._workers.remove(worker)
                    tick(-done[worker])
                    deaths[number] += 1
                    if deaths[number] <= self.retries:
                        again.append((number, item))
                        continue
                    yield (
                        number,
                        Failure(f"its process died {deaths[number]} times ({value})", True),
                    )
        finally:
            # The caller stopped half-way: what a worker still does is of no use.
            for worker in busy:
                self._workers.remove(worker)
                worker.end()

    def _start(self) -> _Worker:
        worker = _Worker(self.threads)
        self._workers.append(worker)
        return worker


class _Worker:
    """A process that works through items; its pipe ends when it does."""

    def __init__(self, threads: int) -> None:
        system = _system()
        self.pipe, theirs = system.Pipe()
        self.process = system.Process(target=_serve, args=(theirs, threads), daemon=True)
        self.process.start()
        theirs.close()  # so that its death is the pipe's end
        self._task = b""

    def give(self, task: bytes, given: tuple[int, Any]) -> None:
        try:
            if task != self._task:
                self.pipe.send(("task", task))
                self._task = task
            self.pipe.send(("item", given))
        except OSError:
            pass  # it is dead: the next `take` says so

    def take(self) -> tuple[str, Any]:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            self.pipe.close()
            return "died", _told(self.process.exitcode)

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def _system() -> multiprocessing.context.BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    system = multiprocessing.get_context("forkserver")
    system.set_forkserver_preload(["tzk_core.training.fit_job"])
    return system


def _told(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"{name}; the machine may be out of memory" if name == "SIGKILL" else name


def _serve(pipe: multiprocessing.connection.Connection, threads: int) -> None:
    """What a worker does until its pipe ends."""
    # Ctrl-C on a terminal reaches all processes: the one that started this one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    function = shared = None
    reporter = _Ticks(lambda units: pipe.send(("tick", units)))
    try:
        while True:
            what, value = pipe.recv()
            if what == "task":
                function, shared = pickle.loads(value)
                continue
            _, item = value
            pipe.send(("done", call(function, shared, item, Context(reporter))))
    except (EOFError, OSError):
        return  # whoever started this is gone


def call(function: Callable, shared: Any, item: Any, context: Context) -> Any:
    """The result, or the Failure that an error is."""
    try:
        return function(shared, item, context)
    except TzkError as error:
        return Failure(error.detail)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise  # whoever started this is gone
        return Failure(f"{type(error).__name__}: {error}")
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Failure(reason, trace=traceback.format_exc())


class _Ticks(Reporter):
    """Tells how far the tasks are, and nothing else."""

    def __init__(self, tell: Callable[[float], object]) -> None:
        super().__init__(quiet=True)
        self._tell = tell

    def task(self, name: str, total: int, done: int = 0) -> Task:
        return _TickingTask(self, name, total, done, self._tell)


class _TickingTask(Task):
    def __init__(self, reporter, name, total, done, tell) -> None:
        super().__init__(reporter, name, total, done)
        self._tell, self._untold, self._told_at = tell, 0, time.monotonic()

    def advance(self, units: int = 1, note: str = "") -> None:
        super().advance(units, note)
        self._untold += units
        now = time.monotonic()
        if now - self._told_at >= TICK_EVERY or self.done >= self.total:
            self._tell(self._untold)
            self._untold, self._told_at = 0, now
