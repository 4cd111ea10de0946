"""What the four handlers share: TorchServe's rows to raw requests, raw answers to its context.

An archive holds a thin handler file and the model; this module is installed with the package.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from tzk_core.errors import ModelUnavailable
from tzk_core.hub import WEIGHTS, sha256
from tzk_core.service.faults import device_lost
from tzk_core.service.loading import load_as_served
from tzk_core.service.service import Service
from tzk_core.service.sizes import Agreed, using
from tzk_core.service.warm import agreeing_sizes, first_request
from tzk_core.service.wire import RawAnswer, RawRequest, normalised

__all__ = ["BaseHandler"]

PATIENCE = 5.0
"""Seconds in which a worker without its GPU ends in order, before it is ended."""

log = logging.getLogger(__name__)


class BaseHandler:
    """A TorchServe handler of one endpoint; TorchServe makes one a worker."""

    endpoint: ClassVar[str]

    service: Service
    sizes: Agreed

    def initialize(self, context: Any) -> None:
        """Loads the archive's model and runs every size of batch once.

        Raises:
            ModelUnavailable: the weights are not those that were archived, or cannot be loaded.
        """
        folder = Path(context.system_properties["model_dir"])
        manifest = context.manifest or {}
        _check_weights(folder, manifest)
        device = _device(context.system_properties.get("gpu_id"))
        self.service, backend = load_as_served(folder, device, manifest.get("tzk"))
        self.sizes = agreeing_sizes(self.service.model, self.endpoint)
        with using(*self.sizes):
            first_request(self.service, self.endpoint)
        log.info(
            "%s serves by %s from %s with %d threads, in batches of %s; of kinds %s",
            self.endpoint,
            backend,
            self.service.model.device,
            threads(),
            *(", ".join(map(str, sizes)) for sizes in self.sizes),
        )

    def handle(self, rows: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """One body for each row; statuses, content types and headers go into the context."""
        raws = [
            _raw_request(row, context.get_all_request_header(index))
            for index, row in enumerate(rows)
        ]
        with using(*self.sizes):
            answers = self.service.answer(self.endpoint, raws)
        for index, answer in enumerate(answers):
            _tell(answer, context, index)
        if device_lost():
            _end_after_answering(context)
        return [answer.body for answer in answers]


def threads() -> int:
    return torch.get_num_threads()


def _raw_request(row: Mapping[str, Any], headers: Mapping[str, Any]) -> RawRequest:
    plain = normalised(headers)
    # A raw body or JSON is a row of one entry; none at all means that the body was not read.
    one = row.keys() in ({"body"}, {"data"})
    return RawRequest(
        url_path=plain.get("url_path", ""),
        headers=plain,
        fields={} if one else row,
        body=next(iter(row.values())) if one else None,
    )


def _tell(answer: RawAnswer, context: Any, index: int) -> None:
    context.set_response_status(answer.status, answer.phrase, index)
    context.set_response_content_type(index, answer.content_type)
    for name, value in answer.headers.items():
        context.set_response_header(index, name, value)


def _end_after_answering(context: Any) -> None:
    """Ends this process once TorchServe has the answers; it then starts another in its place.

    With the socket closed for reading, TorchServe's worker sends what ``handle`` returns, finds no
    further request and ends by itself. A process whose GPU is lost may not get to its end, so it
    is ended after a while.
    """
    log.critical("This worker ends, as its GPU is lost")
    timer = threading.Timer(PATIENCE, os._exit, [1])
    timer.daemon = True
    timer.start()
    context.cl_socket.shutdown(socket.SHUT_RD)


def _device(gpu: int | None) -> torch.device:
    if gpu is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        log.warning("GPU %s is there, but this torch cannot use it: serving from the CPU", gpu)
        return torch.device("cpu")
    return torch.device("cuda", int(gpu))


def _check_weights(folder: Path, manifest: Mapping[str, Any]) -> None:
    wanted = manifest.get("tzk", {}).get("weights_sha256")
    if wanted is None:
        raise ModelUnavailable(
            "the archive's manifest has no SHA-256 of the weights: archive again"
        )
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ModelUnavailable(f"the archive has no {WEIGHTS}: archive again")
    if sha256(weights) != wanted:
        raise ModelUnavailable(
            f"{WEIGHTS} is not what was archived (its SHA-256 differs): archive again"
        )
