"""Another version into a running server, without a request lost.

The new version is loaded beside the old one and warms itself; only when every endpoint's is ready
does it become the current one. The old one goes once its requests in hand are answered. Until then
every failure leaves the server as it was.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from tzk_core import archive_sums
from tzk_core.errors import UsageError, WorkFailed
from tzk_core.front.worker_log import failures
from tzk_core.launcher.running import Running, Started
from tzk_core.launcher.starting import seconds_to_start
from tzk_core.model_store import Versions, archive_name, stored_versions

__all__ = ["deploy", "roll_back"]

LOCK = ".deploying.lock"
LOOK_SECONDS = 0.2
READY_SECONDS = 300.0

Tell = Callable[[str], None]


def deploy(
    run: str | Path,
    server: Running,
    *,
    store: Path | None = None,
    bf16: bool = False,
    backend: str = "torch",
    timeout: float | None = None,
    tell: Tell = lambda _: None,
) -> str:
    """Makes a run what a running server serves.

    Args:
        run: a run folder.
        server: the running server.
        store: the model store that it must have; whichever it has when left out.
        bf16, backend: as of :func:`tzk_export.archive.archive`.
        timeout: seconds in which every new worker must be ready, and then seconds in which the
            old version's requests must be answered; 300 when left out, and more for a backend
            that compiles.
        tell: is told of each step.

    Returns:
        The new version.

    Raises:
        UsageError: the server has another store.
        ModelUnavailable: no such run, or a broken one, or an archive that was changed.
        WorkFailed: another deploy runs, or the new version cannot load; the old one goes on.
    """
    from tzk_export.archive import archive

    started = _started(server, store)
    with _alone(started.store):
        endpoints = server.endpoints()
        version = _next(server, started.store, endpoints)
        tell(f"archiving {run} as version {version} …")
        files = archive(
            run, started.store, bf16=bf16, backend=backend, version=version, names=endpoints
        )
        try:
            _replace(server, started, endpoints, version, timeout, tell)
        except BaseException:
            if Versions.read(started.store).current != version:
                _remove(started.store, files)
            raise
        _forget(started.store, endpoints)
    return version


def roll_back(
    server: Running,
    *,
    store: Path | None = None,
    timeout: float | None = None,
    tell: Tell = lambda _: None,
) -> str:
    """Makes the version before the current one current again; twice is where it began.

    Raises:
        UsageError: there is none, or the server has another store.
        WorkFailed: as of :func:`deploy`.
    """
    started = _started(server, store)
    with _alone(started.store):
        endpoints = server.endpoints()
        version = Versions.read(started.store).previous
        files = [] if version is None else [archive_name(one, version) for one in endpoints]
        if version is None or not all((started.store / file).is_file() for file in files):
            raise UsageError(
                f"{started.store} has no version before the current one: deploy a run instead"
            )
        _replace(server, started, endpoints, version, timeout, tell)
    return version


def _started(server: Running, store: Path | None) -> Started:
    started = server.started()
    if store is not None and store.resolve() != started.store.resolve():
        raise UsageError(f"the server's model store is {started.store}, not {store}")
    return started


@contextlib.contextmanager
def _alone(store: Path) -> Iterator[None]:
    try:
        with FileLock(store / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise WorkFailed(f"another tzk deploy is at work in {store}: wait for its end") from error


def _next(server: Running, store: Path, endpoints: list[str]) -> str:
    """One more than any version there is, served or stored."""
    known = set(stored_versions(store, endpoints))
    for endpoint in endpoints:
        known |= set(server.versions(endpoint))
    return f"{1 + max(int(float(version)) for version in known)}.0"


def _replace(
    server: Running,
    started: Started,
    endpoints: list[str],
    version: str,
    timeout: float | None,
    tell: Tell,
) -> None:
    files = {one: archive_name(one, version) for one in endpoints}
    old = {one: server.current(one) for one in endpoints}
    if timeout is None:  # as long as the workers have, which is no less than the old ones had
        store = started.store
        waits = [seconds_to_start(store / file, READY_SECONDS) for file in files.values()]
        timeout = max(*waits, *(told.get("startupTimeout", 0) for told in old.values()))
    before = {one: str(told["modelVersion"]) for one, told in old.items()}
    if version in before.values():
        raise UsageError(f"version {version} is what the server serves already")
    for file in files.values():
        archive_sums.check(started.store, file)
    log_start = started.model_log.stat().st_size if started.model_log.is_file() else 0
    try:
        tell(f"loading version {version} beside {', '.join(sorted(set(before.values())))} …")
        for one in endpoints:
            if version in server.versions(one):  # of a deploy that was killed
                server.unregister(one, version)
            server.register(one, files[one], like=old[one], seconds=timeout)
        _until_ready(server, started, endpoints, version, log_start, timeout)
        for one in endpoints:
            server.smoke(started.inference_url, one, version)
        for one in endpoints:
            server.make_current(one, version)
        Versions(version, next(iter(before.values()))).write(started.store)
    except BaseException:
        _undo(server, before, version)
        raise
    tell(f"version {version} is current; the old one answers what it has in hand …")
    _until_answered(server, endpoints, version, timeout)
    for one in endpoints:
        for other in server.versions(one).keys() - {version}:
            server.unregister(one, other)


def _undo(server: Running, before: dict[str, str], version: str) -> None:
    """Every endpoint as it was; what cannot be undone hides no error."""
    for endpoint, old in before.items():
        with contextlib.suppress(WorkFailed):
            if str(server.current(endpoint)["modelVersion"]) != old:
                server.make_current(endpoint, old)
            if version in server.versions(endpoint):
                server.unregister(endpoint, version)


def _until_ready(
    server: Running,
    started: Started,
    endpoints: list[str],
    version: str,
    log_start: int,
    timeout: float,
) -> None:
    deadline = time.monotonic() + timeout
    while True:
        waiting = {}
        for one in endpoints:
            told = server.versions(one).get(version, {})
            states = [worker["status"] for worker in told.get("workers", [])]
            if states.count("READY") < max(1, int(told.get("minWorkers", 1))):
                waiting[one] = ", ".join(states) or "none"
        if not waiting:
            return
        failed = failures(started.model_log, since=log_start, version=version)
        if failed:
            name, error = next(iter(failed.items()))
            raise WorkFailed(f"{name} {version} cannot load, the old version goes on: {error}")
        if time.monotonic() > deadline:
            told = "; ".join(f"{name}'s workers are {states}" for name, states in waiting.items())
            raise WorkFailed(
                f"version {version} was not ready within {timeout:g} s (--timeout gives it more), "
                f"the old one goes on: {told}"
            )
        time.sleep(LOOK_SECONDS)


def _until_answered(server: Running, endpoints: list[str], version: str, timeout: float) -> None:
    """Until the front asks the new version alone; a request that hangs is not waited for longer."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        table = server.table()
        if all(
            table[one]["version"] == version and not table[one]["in_hand"].keys() - {version}
            for one in endpoints
        ):
            return
        time.sleep(LOOK_SECONDS)


def _forget(store: Path, endpoints: list[str]) -> None:
    """Removes the archives that neither the server nor a rollback needs."""
    kept = Versions.read(store)
    for version, files in stored_versions(store, endpoints).items():
        if version not in (kept.current, kept.previous):
            _remove(store, files)


def _remove(store: Path, archives: list[Path]) -> None:
    for file in archives:
        file.unlink(missing_ok=True)
    archive_sums.forget(store, archives)
