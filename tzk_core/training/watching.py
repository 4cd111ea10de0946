"""What a run leaves to be looked at: rows of ``metrics.jsonl``, and TensorBoard."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from ..data.decoding import grid
from ..data.quantisation import to_pixels
from ..errors import WorkFailed
from ..files import write_aside

__all__ = ["Board", "Metrics"]


class Metrics:
    """``metrics.jsonl``: one JSON object a line, in the order of (stage, step)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, row: dict) -> None:
        """Adds a row; a number that is not finite becomes null.

        Raises:
            WorkFailed: it cannot be written.
        """
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        with _writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(plain) + "\n")

    def rewind(self, stage: int, step: int) -> None:
        """Drops what a killed run wrote of steps that are done again, and a line cut short."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if (row.get("stage", -1), row.get("step", -1)) < (stage, step):
                    kept.append(line)
        write_aside(self.path, "".join(line + "\n" for line in kept))


class Board:
    """TensorBoard's files of a run, where TensorBoard is installed.

    Args:
        folder: ``RUN/tensorboard``.
        first: of a run that goes on, the step, counted over all stages, that comes next: what it
            wrote of it and later ones before is left out by TensorBoard. None for a new run.
    """

    def __init__(self, folder: Path, first: int | None = None) -> None:
        # Not at the top: it is an extra, and takes a second.
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        with _writing(folder):
            self._writer = SummaryWriter(str(folder), purge_step=first)

    @staticmethod
    def there() -> bool:
        """Whether TensorBoard is installed."""
        try:
            import tensorboard  # noqa: F401
        except ModuleNotFoundError:
            return False
        return True

    def scalars(self, values: dict[str, float], step: int) -> None:
        with _writing(self.folder):
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def images(self, name: str, t: Tensor, step: int) -> None:
        """A grid of observations, (B, C, H, W)."""
        columns = max(1, math.isqrt(len(t)))
        pixels = grid(to_pixels(t.nan_to_num()).cpu().numpy(), columns=columns)
        with _writing(self.folder):
            self._writer.add_image(name, pixels, step)
            self._writer.flush()

    def histogram(self, name: str, values: Tensor, step: int) -> None:
        """How values are distributed; nothing where some are not finite."""
        if bool(values.isfinite().all()):
            with _writing(self.folder):
                self._writer.add_histogram(name, values.cpu(), step)

    def close(self) -> None:
        with _writing(self.folder):
            self._writer.close()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkFailed(f"{path} cannot be written: {error.strerror or error}") from error
