"""What the commands without a server share: the run, the files, what is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from pydantic import BaseModel, ValidationError

from tzk_core.data.folders import SUFFIXES
from tzk_core.errors import UsageError, WorkFailed
from tzk_core.files import write_aside

if TYPE_CHECKING:
    from tzk_core.service.service import Service

__all__ = [
    "asked",
    "device_option",
    "first_seed_option",
    "image_files",
    "read",
    "result",
    "service_of",
    "write",
]

Model = TypeVar("Model", bound=BaseModel)
Answer = TypeVar("Answer")


def device_option(command: Callable) -> Callable:
    """Adds ``--device``."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        help="auto (a GPU if there is one), cpu, cuda or cuda:N.",
    )(command)


def first_seed_option(command: Callable) -> Callable:
    """Adds ``--seed``, of the first of several images."""
    return click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 1),
        default=0,
        show_default=True,
        help="Image i has seed + i.",
    )(command)


def service_of(run: Path, device: str) -> Service:
    """The service of a run's model on the device that was asked for."""
    from tzk_core.devices import device_named
    from tzk_core.service.backends import prepare
    from tzk_core.service.service import Service

    service = Service.load(run, device_named(device))
    if service.model.device.type == "cpu":  # recording graphs takes longer than a command asks
        prepare(service.model)
    return service


def asked(model: type[Model], **values: Any) -> Model:
    """A request; values that are ``None`` are left out.

    Raises:
        InvalidRequest: a value that it cannot have.
    """
    from tzk_core.service.problems import from_validation

    try:
        return model.model_validate({k: v for k, v in values.items() if v is not None})
    except ValidationError as error:
        raise from_validation(error, model) from error


def result(answers: list[Answer | Exception]) -> Answer:
    """The one answer to one request, raised if it is an error."""
    [answer] = answers
    if isinstance(answer, Exception):
        raise answer
    return answer


def image_files(sources: Iterable[Path]) -> list[Path]:
    """Files as they are named; of folders all that have an image's suffix, in order of name."""
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            files += sorted(
                path
                for path in source.rglob("*")
                if path.suffix.lower() in SUFFIXES and path.is_file()
            )
        elif source.exists():
            files.append(source)
        else:
            raise UsageError(f"there is no {source}")
    if not files:
        raise UsageError(f"there are no images in {', '.join(map(str, sources))}")
    return files


def read(path: Path) -> bytes:
    """A file's bytes."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise WorkFailed(f"{path} cannot be read: {error.strerror or error}") from error


def write(path: Path, data: bytes) -> None:
    """Writes a result, whole or not at all, and says where."""
    write_aside(path, data)
    click.echo(f"wrote {path}", err=True)
