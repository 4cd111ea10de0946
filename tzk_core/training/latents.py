"""t, z and log|det| of all training images for a few noise draws, on a frozen t-flow.

Design, section 10: fitting knowledge needs the t-flow's z only, so it is worked out once and kept:
in memory, or as memory maps in a folder, where any number of processes read it and a rerun finds it
again. Each source of the data is a part of its own, so that a source that comes later does not cost
the others anything::

    FOLDER/KEY/pixels.npy    uint8   (N, C, H, W)
               z.npy         float32 (draws, N, C·4^L, H/2^L, W/2^L)
               log_det.npy   float32 (draws, N)
               latents.json  what KEY is the SHA-256 of
    FOLDER/.lock             held while a part is begun or ended

t is not kept: image i of draw d is dequantised with a generator of its own, so the pixels and a
seed give it back bit for bit (docs/decisions.md).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import load, save
from torch import Tensor

from ..config import TzKConfig
from ..data.npy import NpyWriter
from ..data.quantisation import dequantise
from ..errors import WorkFailed
from ..flows.prepared import Prepared
from ..model import TzK
from ..randomness import SEEDS, Rows, generator
from .dataset import Dataset, Pixels
from .group import Group

__all__ = ["LATENTS", "FlowWeights", "Latents", "Part", "encode_block", "part_keys"]

LATENTS = "latents"  # the folder of a run that they are kept in
FORMAT = 3  # goes up when what is kept, or how its noise is drawn, changes
BLOCK = 2048  # images of one piece of work
# Images of one pass through the t-flow; fixed, as sums depend on it. More do not fit a CPU's cache.
AT_ONCE, AT_ONCE_CPU = 256, 64
RECORD, LOCK = "latents.json", ".lock"


class FlowWeights:
    """A frozen t-flow, to be sent to where work is done: its shape, and safetensors as bytes."""

    def __init__(self, model: TzK) -> None:
        config = model.config.model_copy(update={"knowledge": {}, "statistics": {}})
        self.config: dict = config.model_dump(mode="json")
        state = model.flow.state_dict()
        self.weights = save(
            {key: value.detach().cpu().contiguous() for key, value in state.items()}
        )

    def model(self) -> TzK:
        """A TzK without knowledge on that t-flow, on the CPU."""
        # Every weight and shuffle is overwritten, so this generator leaves no trace.
        model = TzK(TzKConfig.model_validate(self.config), generator=generator(0)).eval()
        model.flow.load_state_dict(load(self.weights))
        return model

    def sha256(self) -> str:
        """Of the t-flow's shape and every weight and buffer."""
        shape = {key: self.config[key] for key in ("observation", "flow")}
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode() + self.weights).hexdigest()


class Block(NamedTuple):
    """Up to ``BLOCK`` images of one part for one draw."""

    part: int
    draw: int
    start: int
    pixels: np.ndarray
    first_seed: int  # of the first image; the next has the next
    flips: bool
    device: str = "cpu"


@torch.no_grad()
def encode_block(flow: FlowWeights, block: Block, *_) -> tuple[Block, np.ndarray, np.ndarray]:
    """(the block without its pixels, z, log_det): one piece of work, wherever it is done."""
    model = flow.model().to(block.device)
    on_cpu = model.device.type == "cpu"
    encode = Prepared(model.flow).encode if on_cpu else model.flow.encode
    size = AT_ONCE_CPU if on_cpu else AT_ONCE
    z, log_det = [], []
    for start in range(0, len(block.pixels), size):
        pixels = block.pixels[start : start + size]
        noise = Rows.from_seed(block.first_seed + start, len(pixels))
        t = _observed(torch.tensor(pixels), noise, block.flips)
        there = encode(t.to(block.device))
        z.append(there[0].cpu().numpy())
        log_det.append(there[1].cpu().numpy())
    return block._replace(pixels=np.empty(0)), np.concatenate(z), np.concatenate(log_det)


def _observed(x: Tensor, noise: Rows, flips: bool) -> Tensor:
    """t as :meth:`Dataset.observations` makes it."""
    if flips:
        mirrored = noise.uniform() < 0.5
        x = torch.where(mirrored.reshape(-1, 1, 1, 1), x.flip(3), x)
    return dequantise(x, noise.uniform(*x.shape[1:]))


@dataclass
class Part:
    """The images of one source."""

    made_from: dict
    pixels: np.ndarray | Tensor | Pixels  # uint8 (N, C, H, W)
    z: np.ndarray  # (draws, N, *latent shape)
    log_det: np.ndarray  # (draws, N)
    folder: Path | None = None

    def __reduce__(self):
        # What lies on disk is opened again where it arrives, not sent.
        if self.folder is not None:
            return Part.open, (self.folder,)
        return Part, (self.made_from, self.pixels, self.z, self.log_det)

    @classmethod
    def open(cls, folder: Path) -> Part:
        """The memory maps of a folder that was written whole.

        Raises:
            WorkFailed: a file is missing or is not of the size that was written.
        """
        try:
            made_from = json.loads((folder / RECORD).read_text())
            maps = [
                np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in ("pixels", "z", "log_det")
            ]
        except (OSError, ValueError) as error:
            raise WorkFailed(
                f"the kept latent states in {folder} cannot be read ({error}); remove the folder, "
                "and they are worked out again"
            ) from error
        return cls(made_from, *maps, folder=folder)

    def in_memory(self) -> Part:
        """The same with plain arrays, which can be sent to another machine."""
        plain = (np.asarray(a) for a in (self.pixels, self.z, self.log_det))
        return Part(self.made_from, *plain)

    @property
    def seeds(self) -> list[int]:
        return _seeds(self.made_from)


class Latents:
    """What is known of every image of a data set on a frozen t-flow."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self.draws = len(parts[0].z)
        self._ends = np.cumsum([len(part.pixels) for part in parts])

    @classmethod
    def encode(
        cls,
        model: TzK,
        data: Dataset,
        draws: int,
        seed: int,
        tick: Callable[[int], object] = lambda images: None,
        *,
        folder: Path | None = None,
        run: Callable[..., Iterator] | None = None,
        device: str | None = None,
        group: Group | None = None,
    ) -> Latents:
        """Encodes every image ``draws`` times, or opens what was kept.

        Args:
            tick: called with the number of images as they are done.
            folder: where parts are kept as memory maps; in memory for None.
            run: ``run(function, shared, items)`` yields the results of ``function(shared, item)``
                in any order; here, one after the other, for None.
            device: where the t-flow works; the model's by default.
            group: of processes that all call this, each of which works out its share of the
                images by the main one's t-flow; what is made is the same in all, and in memory.

        Raises:
            ValueError: ``folder`` is given and a group of several processes.
            WorkFailed: ``folder`` cannot be written.
        """
        if group is not None and group.count > 1:
            if folder is not None:
                raise ValueError("several processes share latent states in memory, not in a folder")
            # Weights that differ in their last bit would make shares that do not belong together.
            group.take_from_main([*model.flow.parameters(), *model.flow.buffers()])
        spans = list(_spans(data))
        records = _records(FlowWeights(model), data, spans, draws, seed)
        where = str(model.device if device is None else device)
        parts: list[Part | None] = [None] * len(spans)
        writers: dict[int, _InMemory] = {}
        with contextlib.ExitStack() as open_folders:
            for number, (record, span) in enumerate(zip(records, spans, strict=True)):
                place = None if folder is None else folder / _key(record)
                if place is not None and (place / RECORD).is_file():
                    parts[number] = Part.open(place)
                    tick(draws * (span.stop - span.start))
                    continue
                pixels = data.pixels[span]
                shape = (draws, len(pixels), *model.latent_shape)
                make = _InMemory if place is None else _OnDisk
                writer = make(record, pixels, shape, place)
                writers[number] = open_folders.enter_context(writer)
            if writers:
                blocks = (
                    block
                    for number, writer in writers.items()
                    for block in _blocks(number, writer, where)
                )
                if group is not None:
                    blocks = _share(blocks, group, tick)
                run = _here if run is None else run
                alone = group is None or group.count == 1
                left = {number: _block_count(writer) for number, writer in writers.items()}
                for block, z, log_det in run(encode_block, FlowWeights(model), blocks):
                    writers[block.part].put(block.draw, block.start, z, log_det)
                    left[block.part] -= 1
                    if alone and not left[block.part]:
                        # At once: what stops a later part does not cost this one.
                        parts[block.part] = writers[block.part].finish()
                    tick(len(z))
            for number, writer in writers.items():
                if parts[number] is None:
                    if group is not None:
                        writer.gather(group)
                    parts[number] = writer.finish()
        return cls(parts)

    def pick(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(t, z, log_det) of some images, each from one of its draws.

        Shapes (B, C, H, W), (B, *latent shape), (B,); float32, on the CPU.
        """
        draw = torch.randint(self.draws, (len(index),), generator=generator).numpy()
        first = self.parts[0]
        t = torch.empty(len(index), *first.pixels.shape[1:])
        z = torch.empty(len(index), *first.z.shape[2:])
        log_det = torch.empty(len(index))
        for part, rows, own in self._by_part(index):
            drawn = draw[rows]
            seeds = part.seeds
            noise = Rows(seeds[d] + int(i) for d, i in zip(drawn, own, strict=True))
            pixels = torch.as_tensor(part.pixels[own])
            t[rows] = _observed(pixels, noise, part.made_from["flips"])
            z[rows] = torch.from_numpy(part.z[drawn, own])
            log_det[rows] = torch.from_numpy(part.log_det[drawn, own])
        return t, z, log_det

    @property
    def pixels(self) -> Pixels:
        """The images of all parts."""
        return Pixels([part.pixels for part in self.parts])

    def in_memory(self) -> Latents:
        """The same with plain arrays, which can be sent to another machine."""
        return Latents([part.in_memory() for part in self.parts])

    def _by_part(self, index: Tensor) -> Iterator[tuple[Part, np.ndarray, np.ndarray]]:
        """(part, which of ``index`` are its, their numbers within it)."""
        numbers = np.asarray(index)
        which = np.searchsorted(self._ends, numbers, side="right")
        for number in np.unique(which):
            rows = np.flatnonzero(which == number)
            start = self._ends[number] - len(self.parts[number].pixels)
            yield self.parts[number], rows, numbers[rows] - start


def part_keys(model: TzK, data: Dataset, draws: int, seed: int) -> list[str]:
    """Under which names the parts of a data set are kept, without working them out."""
    records = _records(FlowWeights(model), data, list(_spans(data)), draws, seed)
    return [_key(record) for record in records]


# -- what a part is made from ----------------------------------------------------------------------


def _spans(data: Dataset) -> Iterator[slice]:
    """The sources of a data set, where each stands in one piece; else the whole."""
    origin = np.asarray(data.origin)
    edges = [0, *(np.flatnonzero(np.diff(origin)) + 1).tolist(), len(origin)]
    if len(edges) - 1 > len(np.unique(origin)):
        edges = [0, len(origin)]
    for start, stop in itertools.pairwise(edges):
        yield slice(start, stop)


def _records(flow: FlowWeights, data: Dataset, spans, draws, seed) -> list[dict]:
    weights, records = flow.sha256(), []
    for span in spans:
        pixels = data.pixels[span]
        digest = hashlib.sha256(str(tuple(pixels.shape)).encode())
        for start in range(0, len(pixels), BLOCK):
            digest.update(np.asarray(pixels[start : start + BLOCK]).tobytes())
        records.append(
            {
                "format": FORMAT,
                "flow_sha256": weights,
                "pixels_sha256": digest.hexdigest(),
                "seed": seed,
                "draws": draws,
                "flips": data.flips,
            }
        )
    return records


def _key(record: dict) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:32]


def _seeds(record: dict) -> list[int]:
    """Of the first image's noise for each draw; image i has so many more."""
    head = f"{record['seed']}/latents/{record['pixels_sha256']}"
    digests = (
        hashlib.sha256(f"{head}/{draw}".encode()).digest() for draw in range(record["draws"])
    )
    return [int.from_bytes(digest[:8], "big") % SEEDS for digest in digests]


def _blocks(number: int, writer: _InMemory, device: str) -> Iterator[Block]:
    for draw, seed in enumerate(_seeds(writer.record)):
        for start in range(0, len(writer.pixels), BLOCK):
            pixels = np.asarray(writer.pixels[start : start + BLOCK])
            flips, first_seed = writer.record["flips"], (seed + start) % SEEDS
            yield Block(number, draw, start, pixels, first_seed, flips, device)


def _block_count(writer: _InMemory) -> int:
    return writer.shape[0] * math.ceil(len(writer.pixels) / BLOCK)


def _share(blocks: Iterable[Block], group: Group, tick: Callable[[int], object]) -> Iterator[Block]:
    """What this process works out; the others are taken to be as fast."""
    for number, block in enumerate(blocks):
        if number % group.count == group.index:
            yield block
        else:
            tick(len(block.pixels))


def _here(function: Callable, shared: FlowWeights, items: Iterable[Block]) -> Iterator:
    return (function(shared, item) for item in items)


# -- where a part is written -----------------------------------------------------------------------


class _InMemory:
    def __init__(self, record: dict, pixels, shape: tuple, place) -> None:
        self.record, self.pixels, self.shape, self.place = record, pixels, shape, place

    def __enter__(self) -> _InMemory:
        self._z = np.zeros(self.shape, np.float32)
        self._log_det = np.zeros(self.shape[:2], np.float32)
        return self

    def __exit__(self, *_) -> None:
        pass

    def put(self, draw: int, start: int, z: np.ndarray, log_det: np.ndarray) -> None:
        self._z[draw, start : start + len(z)] = z
        self._log_det[draw, start : start + len(z)] = log_det

    def gather(self, group: Group) -> None:
        """Every process has put what no other has, and zeros are in the places of the others."""
        if group.count == 1:
            return
        for array in (self._z, self._log_det):
            for start in range(0, array.shape[1], BLOCK):
                rows = array[:, start : start + BLOCK]
                rows[...] = group.sum(torch.tensor(rows, device=group.device)).cpu().numpy()

    def finish(self) -> Part:
        return Part(self.record, self.pixels, self._z, self._log_det)


class _OnDisk(_InMemory):
    """Files in a folder aside, which is renamed when all are whole.

    Who writes holds a lock in the folder, which dies with its process; a folder whose lock is free
    is what a killed process left. The lock of all folders is held while one comes or goes: none is
    ever seen without its own.
    """

    def __enter__(self) -> _OnDisk:
        with _writing(self.place):
            self.place.parent.mkdir(parents=True, exist_ok=True)
            with _all(self.place.parent):
                _sweep(self.place.parent)
                self._aside = Path(
                    tempfile.mkdtemp(dir=self.place.parent, prefix=f".{self.place.name[:8]}-")
                )
                self._lock = FileLock(self._aside / LOCK)
                self._lock.acquire()
        self._files: dict[str, NpyWriter] = {}
        try:
            with _writing(self.place):
                self._start("pixels", self.pixels.shape, np.uint8, 1)
                self._start("z", self.shape, np.float32, 2)
                self._start("log_det", self.shape[:2], np.float32, 2)
                for start in range(0, len(self.pixels), BLOCK):
                    block = np.asarray(self.pixels[start : start + BLOCK])
                    self._files["pixels"].write(start, block)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for file in self._files.values():
            file.close()
        self._lock.release()
        shutil.rmtree(self._aside, ignore_errors=True)

    def put(self, draw: int, start: int, z: np.ndarray, log_det: np.ndarray) -> None:
        first = draw * self.shape[1] + start
        with _writing(self.place):
            self._files["z"].write(first, z)
            self._files["log_det"].write(first, log_det)

    def finish(self) -> Part:
        with _writing(self.place):
            for file in self._files.values():
                file.finish()
            (self._aside / RECORD).write_text(json.dumps(self.record, indent=2) + "\n")
            self._aside.chmod(0o755)
            with _all(self.place.parent):
                self._lock.release()
                (self._aside / LOCK).unlink(missing_ok=True)
                try:
                    os.rename(self._aside, self.place)
                except OSError as error:
                    # Another process was here first, with the same.
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
        return Part.open(self.place)

    def _start(self, name: str, shape: tuple, dtype: type, row: int) -> None:
        self._files[name] = NpyWriter(self._aside / f"{name}.npy", tuple(shape), dtype, row)


def _all(folder: Path) -> FileLock:
    """Held, for a moment, by who begins or ends a part in a folder."""
    return FileLock(folder / LOCK)


def _sweep(folder: Path) -> None:
    """Removes what killed processes left; the lock of the folder is held."""
    for aside in folder.iterdir():
        if not re.fullmatch(r"\.[0-9a-f]{8}-\w+", aside.name):
            continue
        with contextlib.suppress(OSError), FileLock(aside / LOCK).acquire(timeout=0):
            shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _writing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkFailed(
            f"latent states cannot be kept in {place}: {error.strerror or error}"
        ) from error
