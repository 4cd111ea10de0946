"""What one worker for all four endpoints saves and costs, against a worker for each.

    python benchmarks/workers.py [--device cpu|cuda] [--threads N] [--seconds S] [--out FILE.json]

Both are started with the same model (a flow of about 0.3 M parameters, two kinds, one child),
TorchServe behind no front. The one worker is an archive with a handler of its own, which takes the
endpoint from the path. Memory is of the Python workers alone: RSS, PSS (shared pages divided
among those that share them) and USS, in MiB. On a GPU that of the device comes with it: how much
less of it is free than before the server started, contexts, weights and CUDA graphs together, so
that nobody else may use the device meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import torch

from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
from tzk_core.data.decoding import encode_png
from tzk_core.data.preparation import Preparation
from tzk_core.data.sources import load
from tzk_core.launcher import Server, Settings
from tzk_core.model import TzK
from tzk_core.randomness import generator
from tzk_export.archive import archive

ONE = "tzk_nll"
ROUTER = '''"""All four endpoints, by the first step of the path."""

from tzk_core.service.service import ENDPOINTS
from tzk_core.service.sizes import Agreed, using
from tzk_core.service.warm import agreeing_sizes, first_request
from tzk_handlers import base


class RouterHandler(base.BaseHandler):
    endpoint = "tzk_nll"

    def initialize(self, context):
        super().initialize(context)
        found = [agreeing_sizes(self.service.model, name) for name in ENDPOINTS]
        self.sizes = Agreed(*(tuple(set.intersection(*map(set, each))) for each in zip(*found)))
        with using(*self.sizes):
            for name in ENDPOINTS:
                first_request(self.service, name)

    def handle(self, rows, context):
        groups = {}
        for index in range(len(rows)):
            headers = dict(context.get_all_request_header(index))
            name, _, path = headers.get("url_path", "").partition("/")
            headers["url_path"] = path
            groups.setdefault(name, []).append((index, base._raw_request(rows[index], headers)))
        bodies = [b""] * len(rows)
        for name, members in groups.items():
            with using(*self.sizes):
                answers = self.service.answer(name, [raw for _, raw in members])
            for (index, _), answer in zip(members, answers):
                base._tell(answer, context, index)
                bodies[index] = answer.body
        return bodies
'''


def model() -> TzK:
    """1×32×32, the flow of 0.3 M parameters."""
    source = generator(0)
    config = TzKConfig(
        observation=(1, 32, 32),
        flow=FlowConfig(levels=3, steps=8, width=64),
        preparation=Preparation(size=32, channels=1),
    )
    made = TzK(config, generator=source)
    for path in ("mnist", "mnist/3", "fashion"):
        made.add_knowledge(path, KnowledgeConfig(code_dim=2 if "/" in path else 10))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=source)
    return made.eval()


def one_archive(store: Path, folder: Path) -> Path:
    """A store with one archive, whose handler answers all four endpoints."""
    folder.mkdir()
    with (
        zipfile.ZipFile(store / f"{ONE}.mar") as old,
        zipfile.ZipFile(folder / f"{ONE}.mar", "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, ROUTER if name == f"{ONE}.py" else old.read(name))
    return folder


class Load:
    """Clients in threads, each sending as soon as it has its answer."""

    def __init__(self, url: str, path: Callable[[str], str], image: bytes) -> None:
        self.url, self.path, self.image = url, path, image

    def nll(self, client: httpx.Client) -> None:
        answer = client.put(self.path("tzk_nll"), content=self.image)
        answer.raise_for_status()

    def sample(self, client: httpx.Client) -> None:
        asked = {"n": 64, "given": "mnist", "format": "npy"}
        client.post(self.path("tzk_sample"), json=asked).raise_for_status()

    def run(self, seconds: float, nll: int, sample: int = 0) -> dict[str, list[float]]:
        """Seconds of each answer, by kind of request."""
        taken: dict[str, list[float]] = {"nll": [], "sample": []}
        end = time.monotonic() + seconds

        def work(name: str) -> None:
            with httpx.Client(base_url=self.url, trust_env=False, timeout=300) as client:
                while time.monotonic() < end:
                    began = time.perf_counter()
                    getattr(self, name)(client)
                    taken[name].append(time.perf_counter() - began)

        names = ["nll"] * nll + ["sample"] * sample
        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return taken


def measured(
    store: Path,
    path: Callable[[str], str],
    image: bytes,
    threads: int,
    seconds: float,
    device: str,
) -> dict[str, float]:
    free = free_mib(device)
    began = time.monotonic()
    settings = Settings(
        model_store=store, port=0, device=device, threads=threads, start_timeout=300
    )
    with Server(settings) as server:
        figures: dict[str, float] = {"load_s": time.monotonic() - began}
        workers = list(python_workers(server))
        load = Load(server.url, path, image)
        load.run(2, nll=4, sample=1)
        before = cpu(workers)
        alone = load.run(seconds, nll=1)["nll"]
        figures["lone_nll_p50_ms"] = 1e3 * statistics.median(alone)
        figures["lone_nll_worker_cpu_ms"] = 1e3 * (cpu(workers) - before) / len(alone)
        before = cpu(workers)
        many = load.run(seconds, nll=16)["nll"]
        figures["nll_16_clients_per_s"] = len(many) / seconds
        figures["nll_16_clients_p50_ms"] = 1e3 * statistics.median(many)
        figures["nll_16_clients_worker_cpu_ms"] = 1e3 * (cpu(workers) - before) / len(many)
        mix = load.run(seconds, nll=4, sample=2)
        figures["mix_nll_per_s"] = len(mix["nll"]) / seconds
        figures["mix_nll_p50_ms"] = 1e3 * statistics.median(mix["nll"])
        figures["mix_nll_p95_ms"] = 1e3 * sorted(mix["nll"])[int(0.95 * len(mix["nll"]))]
        figures["mix_images_per_s"] = 64 * len(mix["sample"]) / seconds
        memory = [worker.memory_full_info() for worker in workers]
        figures["workers"] = len(workers)
        for kind in ("rss", "pss", "uss"):
            figures[f"{kind}_mib"] = sum(getattr(one, kind) for one in memory) / 2**20
        if free is not None:
            figures["gpu_mib"] = free - free_mib(device)
    return figures


def free_mib(device: str) -> float | None:
    """MiB that are free on a GPU; None on a CPU. The first call makes a context of our own."""
    if not device.startswith("cuda"):
        return None
    torch.zeros(1, device=device)
    return torch.cuda.mem_get_info(torch.device(device))[0] / 2**20


def python_workers(server: Server) -> Iterator[psutil.Process]:
    for process in psutil.Process(server.pid).children(recursive=True):
        if any("model_service_worker" in part for part in process.cmdline()):
            yield process


def cpu(processes: list[psutil.Process]) -> float:
    """Seconds of processor time so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N [default: cpu]")
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--one-threads", type=int, help="of the one worker [default: --threads]")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    options = parser.parse_args()
    made = model()
    image = encode_png(load("builtin/mnist", split="test").pixels[0])
    with tempfile.TemporaryDirectory() as folder:
        run, store = Path(folder) / "run", Path(folder) / "store"
        made.save_pretrained(run)
        archive(run, store)
        one = one_archive(store, Path(folder) / "one")
        threads = options.one_threads or options.threads
        table = {
            "four": measured(
                store,
                lambda name: f"/predictions/{name}/1.0",
                image,
                options.threads,
                options.seconds,
                options.device,
            ),
            "one": measured(
                one,
                lambda name: f"/predictions/{ONE}/1.0/{name}",
                image,
                threads,
                options.seconds,
                options.device,
            ),
        }
    parameters = sum(parameter.numel() for parameter in made.flow.parameters())
    print(f"flow of {parameters} parameters, {options.threads} and {threads} threads a worker")
    print(f"{'':32}{'four':>10}{'one':>10}")
    for name, value in table["four"].items():
        print(f"{name:32}{value:10.1f}{table['one'][name]:10.1f}")
    if options.out:
        options.out.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
