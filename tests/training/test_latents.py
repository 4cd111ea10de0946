"""Latent states on a frozen t-flow: what is kept, that it is found again, and what harms it."""

from __future__ import annotations

import dataclasses
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tzk_core.config import FlowConfig, TzKConfig
from tzk_core.errors import WorkFailed
from tzk_core.flows import ActNorm
from tzk_core.model import TzK
from tzk_core.randomness import Rows, derived
from tzk_core.training.dataset import Dataset
from tzk_core.training.group import Group
from tzk_core.training.labels import Known
from tzk_core.training.latents import LOCK, Latents, part_keys

DRAWS, SEED = 2, 5


@pytest.fixture(scope="module")
def model() -> TzK:
    """A t-flow on 8×8 images that is not the identity."""
    source = torch.Generator().manual_seed(0)
    flow = FlowConfig(levels=2, steps=2, width=4)
    model = TzK(TzKConfig(observation=(1, 8, 8), flow=flow), generator=source)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=source))
    for module in model.modules():
        if isinstance(module, ActNorm):
            module.initialized.fill_(True)
    return model.eval()


def dataset(*parts: np.ndarray, flips: bool = False) -> Dataset:
    """A data set of those sources."""
    pixels = torch.from_numpy(np.concatenate(parts))
    origin = torch.cat([torch.full((len(part),), i) for i, part in enumerate(parts)])
    names = [str(i) for i in range(len(parts))]
    native = torch.full((len(pixels),), 64)
    return Dataset(pixels, native, Known({}, {}), names, origin, {}, [], flips=flips)


@pytest.fixture(scope="module")
def digits(mnist) -> np.ndarray:
    return mnist.pixels[:40, :, ::4, ::4].copy()


@pytest.fixture(scope="module")
def garments(fashion) -> np.ndarray:
    return fashion.pixels[:30, :, ::4, ::4].copy()


def parts_in(folder: Path) -> list[str]:
    """All that lies there, but for the lock of who begins or ends a part."""
    return [path.name for path in folder.iterdir() if path.name != LOCK]


def never(*_):
    raise AssertionError("this was to be found, not worked out")


def counting(done: list):
    """A ``run`` that notes how many images are encoded."""

    def run(function, shared, items):
        for item in items:
            done.append(len(item.pixels))
            yield function(shared, item)

    return run


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_what_is_picked_is_what_the_flow_says(model, digits, garments, tmp_path, kept, flips):
    data = dataset(digits, garments, flips=flips)
    folder = tmp_path / "latents" if kept else None
    latents = Latents.encode(model, data, DRAWS, SEED, folder=folder)
    index = torch.tensor([69, 0, 40, 39, 12, 41])
    t, z, log_det = latents.pick(index, derived(1, "x"))
    draw = torch.randint(DRAWS, (6,), generator=derived(1, "x"))
    seeds = [
        latents.parts[int(i >= 40)].seeds[int(d)] + int(i) % 40
        for i, d in zip(index, draw, strict=True)
    ]
    assert torch.equal(t, data.observations(index, Rows(seeds)))
    with torch.no_grad():
        there, there_log_det = model.double().flow.encode(t.double())
    model.float()
    assert torch.allclose(z.double(), there, atol=1e-5)
    assert torch.allclose(log_det.double(), there_log_det, atol=1e-4)
    assert z.dtype == log_det.dtype == torch.float32
    assert len(latents.pixels) == 70
    assert torch.equal(latents.pixels[index], data.pixels[index])


class OneOf(Group):
    """A process of two that keeps to itself what it has worked out."""

    def __init__(self, index: int) -> None:
        super().__init__("cpu", index, 2)

    def sum(self, values):
        return values

    def take_from_main(self, tensors):
        self.taken = sum(tensor.numel() for tensor in tensors)


def test_processes_share_the_images_out(model, digits, garments, monkeypatch):
    monkeypatch.setattr("tzk_core.training.latents.BLOCK", 16)
    data, ticks = dataset(digits, garments), []
    whole = Latents.encode(model, data, DRAWS, SEED)
    both = [OneOf(index) for index in (0, 1)]
    halves = [Latents.encode(model, data, DRAWS, SEED, ticks.append, group=one) for one in both]
    assert sum(ticks) == 2 * DRAWS * 70
    # The shares belong to one t-flow: all of it comes from the main process before.
    elements = sum(value.numel() for value in model.flow.state_dict().values())
    assert [one.taken for one in both] == [elements] * 2
    for part, *of_each in zip(whole.parts, *(half.parts for half in halves), strict=True):
        shares = [(half.z != 0).any(axis=(2, 3, 4)) for half in of_each]
        assert (shares[0] ^ shares[1]).all()
        assert all(share.any() for share in shares)
        assert np.array_equal(sum(half.z for half in of_each), part.z)
        assert np.array_equal(sum(half.log_det for half in of_each), part.log_det)


def test_processes_share_in_memory_only(model, digits, tmp_path):
    with pytest.raises(ValueError, match="in memory, not in a folder"):
        Latents.encode(model, dataset(digits), 1, SEED, folder=tmp_path, group=OneOf(0))
    assert list(tmp_path.iterdir()) == []


def test_draws_differ_and_so_do_sources_of_the_same_images(model, digits):
    latents = Latents.encode(model, dataset(digits), DRAWS, SEED)
    assert not np.array_equal(latents.parts[0].z[0], latents.parts[0].z[1])
    seen = {float(latents.pick(torch.tensor([3]), derived(i, "x"))[2]) for i in range(20)}
    assert len(seen) == DRAWS
    shifted = np.roll(digits, 1, axis=0)
    other = Latents.encode(model, dataset(shifted), DRAWS, SEED)
    assert other.parts[0].seeds != latents.parts[0].seeds


def test_kept_is_bit_for_bit_what_memory_holds_and_is_found_again(model, digits, tmp_path):
    data = dataset(digits)
    kept = Latents.encode(model, data, DRAWS, SEED, folder=tmp_path)
    memory = Latents.encode(model, data, DRAWS, SEED)
    again = Latents.encode(model, data, DRAWS, SEED, folder=tmp_path, run=never)
    for a, b in ((kept, memory), (again, memory)):
        assert a.parts[0].z.tobytes() == b.parts[0].z.tobytes()
        assert a.parts[0].log_det.tobytes() == b.parts[0].log_det.tobytes()
    assert isinstance(again.parts[0].z, np.memmap)
    assert parts_in(tmp_path) == part_keys(model, data, DRAWS, SEED)


def test_a_new_source_does_not_cost_the_others(model, digits, garments, tmp_path):
    done: list[int] = []
    Latents.encode(model, dataset(digits), 2, SEED, folder=tmp_path, run=counting(done))
    assert sum(done) == 2 * 40
    done.clear()
    both = dataset(digits, garments)
    ticks: list[int] = []
    latents = Latents.encode(
        model, both, 2, SEED, ticks.append, folder=tmp_path, run=counting(done)
    )
    assert sum(done) == 2 * 30
    assert sum(ticks) == 2 * 70
    assert len(latents.pixels) == 70


def test_what_they_are_made_from_makes_the_key(model, digits, garments):
    def keys(model=model, data=None, draws=2, seed=SEED):
        return tuple(part_keys(model, data or dataset(digits), draws, seed))

    other = TzK(model.config, generator=torch.Generator().manual_seed(1))
    other.load_state_dict(model.state_dict())
    assert keys() == keys(other)
    found = {keys(), keys(draws=3), keys(seed=6), keys(data=dataset(garments))}
    found.add(keys(data=dataset(digits, flips=True)))
    found.add(keys(data=dataset(digits[::-1].copy())))
    with torch.no_grad():
        next(other.flow.parameters()).view(-1)[0] += 1e-6
    found.add(keys(other))
    assert len(found) == 7


def test_knowledge_does_not_make_the_key(model, digits):
    other = TzK(model.config)
    other.load_state_dict(model.state_dict())
    other.add_knowledge("mnist")
    before = part_keys(model, dataset(digits), 2, SEED)
    assert part_keys(other, dataset(digits), 2, SEED) == before


def test_an_error_on_the_way_leaves_nothing(model, digits, tmp_path):
    def broken(function, shared, items):
        yield function(shared, next(iter(items)))
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        Latents.encode(model, dataset(digits), 2, SEED, folder=tmp_path, run=broken)
    assert parts_in(tmp_path) == []


def test_a_full_disk_is_an_error_and_leaves_nothing(model, digits, tmp_path):
    """A limit on the size of files stands for it: the system refuses the write just so."""
    many = dataset(np.concatenate([digits] * 20))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(WorkFailed, match="latent states cannot be kept in"):
            Latents.encode(model, many, 2, SEED, folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert parts_in(tmp_path) == []
    Latents.encode(model, many, 2, SEED, folder=tmp_path)


HALF_WAY = """
import sys, numpy, time, torch
from pathlib import Path
from tests.training.test_latents import dataset
from tzk_core.model import TzK
from tzk_core.training.latents import Latents

def slowly(function, shared, items):
    yield function(shared, next(items))
    print("half-way", flush=True)
    time.sleep(600)

images = numpy.load(sys.argv[1] + "/images.npy")[int(sys.argv[3]):]
model, data = TzK.from_pretrained(sys.argv[1]), dataset(images)
Latents.encode(model, data, 2, 5, folder=Path(sys.argv[2]), run=slowly)
"""


def test_what_a_killed_process_left_is_swept_and_not_what_a_live_one_writes(
    model, digits, garments, tmp_path
):
    """A real SIGKILL. What is written now has parts of its own that must not be swept either."""
    given, folder = tmp_path / "given", tmp_path / "latents"
    model.save_pretrained(given)
    np.save(given / "images.npy", digits)

    def half_way(first: int) -> subprocess.Popen:
        command = [sys.executable, "-c", HALF_WAY, str(given), str(folder), str(first)]
        root = Path(__file__).parents[2]
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "half-way\n"
        return process

    def being_written() -> set[Path]:
        return {path for path in folder.iterdir() if path.name.startswith(".") and path.is_dir()}

    for first in (0, 1):
        killed = half_way(first)
        killed.kill()
        killed.communicate(timeout=60)
        [left] = being_written()  # and what the one before it left is gone
    alive = half_way(2)
    try:
        [its] = being_written()
        assert its != left
        data = dataset(digits, garments)
        latents = Latents.encode(model, data, 2, SEED, folder=folder)
        whole = Latents.encode(model, data, 2, SEED)
        assert [p.z.tobytes() for p in latents.parts] == [p.z.tobytes() for p in whole.parts]
        assert being_written() == {its}
        assert (its / "z.npy").exists()
    finally:
        alive.kill()
        alive.communicate(timeout=60)
    assert not list(folder.glob(f"[0-9a-f]*/{LOCK}"))


def test_a_file_in_the_way(model, digits, tmp_path):
    (tmp_path / "latents").write_text("")
    with pytest.raises(WorkFailed, match="latent states cannot be kept in"):
        Latents.encode(model, dataset(digits), 2, SEED, folder=tmp_path / "latents")


def test_what_was_cut_off_is_refused_by_name(model, digits, tmp_path):
    latents = Latents.encode(model, dataset(digits), 2, SEED, folder=tmp_path)
    place = latents.parts[0].folder
    del latents
    whole = (place / "z.npy").read_bytes()
    (place / "z.npy").write_bytes(whole[:-100])
    with pytest.raises(WorkFailed, match="remove the folder") as caught:
        Latents.encode(model, dataset(digits), 2, SEED, folder=tmp_path)
    assert str(place) in caught.value.detail


def test_maps_are_sent_by_name_and_memory_whole(model, digits, tmp_path):
    kept = Latents.encode(model, dataset(np.concatenate([digits] * 20)), 2, SEED, folder=tmp_path)
    sent = pickle.dumps(kept)
    assert len(sent) < 2000
    there = pickle.loads(sent)
    whole = pickle.loads(pickle.dumps(kept.in_memory()))
    index = torch.arange(0, 800, 37)
    for other in (there, whole):
        for a, b in zip(kept.pick(index, derived(0)), other.pick(index, derived(0)), strict=True):
            assert torch.equal(a, b)
    assert isinstance(there.parts[0].z, np.memmap)
    assert not isinstance(whole.parts[0].z, np.memmap)


BUILD = """
import sys, numpy, torch
from pathlib import Path
from tests.training.test_latents import dataset
from tzk_core.model import TzK
from tzk_core.training.latents import Latents
torch.set_num_threads(1)
model, data = TzK.from_pretrained(sys.argv[1]), dataset(numpy.load(sys.argv[1] + "/images.npy"))
print("ready", flush=True)
sys.stdin.readline()
latents = Latents.encode(model, data, 2, 5, folder=Path(sys.argv[2]))
print(latents.parts[0].z.tobytes() == Latents.encode(model, data, 2, 5).parts[0].z.tobytes())
"""


def test_two_processes_that_build_the_same_at_once(model, digits, tmp_path):
    images = np.concatenate([digits] * 50)
    data = dataset(images)
    model.save_pretrained(tmp_path / "given")
    np.save(tmp_path / "given" / "images.npy", images)
    folder = tmp_path / "latents"
    command = [sys.executable, "-c", BUILD, str(tmp_path / "given"), str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    root = Path(__file__).parents[2]
    both = [subprocess.Popen(command, cwd=root, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in both] == ["True\n"] * 2
    assert parts_in(folder) == part_keys(model, data, 2, 5)


def test_the_data_set_of_a_job_is_the_data_set(model, digits, garments):
    data = dataset(digits, garments)
    latents = Latents.encode(model, data, 1, SEED)
    there = dataclasses.replace(data, pixels=latents.pixels)
    index = torch.tensor([3, 69, 40])
    assert torch.equal(there.observations(index, derived(4)), data.observations(index, derived(4)))
