"""The model that comes with tzk, and how it is stored in half the size."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["BUILTIN", "compact", "run_folder"]

BUILTIN = "builtin"
_FOLDER = Path(__file__).parent


def run_folder(run: str | Path) -> Path:
    """The folder of a run: ``builtin`` is the model that comes with tzk, unless there is one here.

    >>> run_folder("runs/quick").as_posix(), run_folder("builtin").name
    ('runs/quick', 'pretrained')
    """
    given = Path(run)
    return _FOLDER if str(run) == BUILTIN and not given.exists() else given


def compact(model: nn.Module) -> dict[str, Tensor]:
    """The model's state with matrices and kernels in float16, everything else as it is.

    What has one dimension is a fiftieth of the bytes, and ActNorm's log scales count once for
    every position of a map: half precision there moves log p a hundred times as much as in the
    networks.
    """
    return {
        name: (value.half() if value.ndim > 1 and value.dtype == torch.float32 else value)
        .detach()
        .contiguous()
        for name, value in model.state_dict().items()
    }
