"""What the front is started with; the launcher writes it to the front's standard input."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["FrontSettings"]


@dataclass(frozen=True)
class FrontSettings:
    """Everything that the front process is told.

    Args:
        public, admin: file descriptors of the listening sockets, inherited.
        inference_url, management_url, metrics_url: TorchServe's addresses.
        models: the endpoints that are served.
        keys_file: whose keys may call; read again when it changes.
        digests: SHA-256 (hex) of keys that came from the environment.
        body_limit: bytes that a request's body may have.
        in_hand: requests of one model that may be with TorchServe at a time.
        answer_seconds: after which a request is given up.
        drain: seconds that requests in flight have when the front is asked to end.
        access_log: the file, or ``-`` for standard output.
        model_log: TorchServe's log of what workers say, for the reason of a failure.
    """

    public: int
    admin: int
    inference_url: str
    management_url: str
    metrics_url: str
    models: tuple[str, ...]
    keys_file: str | None = None
    digests: tuple[str, ...] = ()
    body_limit: int = 16 * 2**20
    in_hand: int = 100
    answer_seconds: float = 130.0
    drain: float = 30.0
    access_log: str = "-"
    model_log: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FrontSettings:
        values = json.loads(text)
        values["models"] = tuple(values["models"])
        values["digests"] = tuple(values["digests"])
        return cls(**values)

    @property
    def worker_log(self) -> Path | None:
        return None if self.model_log is None else Path(self.model_log)
