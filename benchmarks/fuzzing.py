"""Broken images, multipart bodies and JSON against a server: no 5xx, no hang, no dead worker.

    python benchmarks/fuzzing.py --bodies 20000 --seed 1
    python benchmarks/fuzzing.py --bodies 20000 --url http://127.0.0.1:8080 --management-port 8081
    python benchmarks/fuzzing.py --bodies 20000 --in-process

Without ``--url`` it starts a server of its own of a model of 16×16 pixels; ``--in-process`` calls
``tzk_core.service`` with the same bodies and no server. Body i of a seed is the same in every run.
Exit code 1 when an answer is 5xx, takes more than 30 s or none comes, when a body that is refused
is not told of as a problem, or when a worker's process id changes.
"""

from __future__ import annotations

import base64
import collections
import email
import email.policy
import io
import json
import random
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np
from PIL import Image

__all__ = ["Body", "Report", "body", "fuzz"]

PATIENCE = 30.0
ENDPOINTS = ("tzk_nll", "tzk_posterior", "tzk_interpolate", "tzk_sample")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Body:
    """One request: where it goes, what it says it is, what it is."""

    endpoint: str
    content_type: str | None
    data: bytes
    kind: str


@dataclass
class Report:
    """What came back.

    Args:
        faults: what may not be, in words, with the number of the body.
        statuses: how many of each, by kind of body.
        slowest: seconds, and the number of the body.
    """

    bodies: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    statuses: dict[str, collections.Counter] = field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )
    slowest: tuple[float, int] = (0.0, -1)

    def plain(self) -> dict[str, Any]:
        total = sum(self.statuses.values(), collections.Counter())
        return {
            "bodies": self.bodies,
            "seconds": round(self.seconds, 1),
            "statuses": {str(k): v for k, v in sorted(total.items())},
            "by_kind": {
                k: {str(s): n for s, n in sorted(v.items())}
                for k, v in sorted(self.statuses.items())
            },
            "slowest_seconds": round(self.slowest[0], 3),
            "slowest_body": self.slowest[1],
            "faults": self.faults,
        }


# -- bodies ----------------------------------------------------------------------------------------


def body(seed: int, number: int) -> Body:
    """Body ``number`` of a seed."""
    source = random.Random(f"{seed}/{number}")
    endpoint = source.choice(ENDPOINTS)
    kind = source.choice(("image", "multipart", "json"))
    if kind == "image":
        return Body(endpoint, source.choice((None, "image/png", "")), _picture(source), kind)
    made = _multipart if kind == "multipart" else _json
    content_type, data = made(source, endpoint)
    return Body(endpoint, content_type, data, kind)


def _picture(source: random.Random) -> bytes:
    return source.choice((_mutated_picture, _mutated_picture, _mutated_picture, _lying_png))(source)


def _valid_picture(source: random.Random) -> bytes:
    shape = (source.randint(1, 40), source.randint(1, 40), 3)
    levels = np.random.default_rng(source.getrandbits(32)).integers(0, 256, shape, dtype=np.uint8)
    buffer = io.BytesIO()
    picture = Image.fromarray(levels).convert(source.choice(("RGB", "L", "P", "1")))
    form = source.choice(FORMATS)
    if form in ("JPEG", "WEBP"):
        picture = picture.convert("RGB")
    if form == "PPM" and picture.mode == "P":
        picture = picture.convert("L")
    picture.save(buffer, form)
    return buffer.getvalue()


def _mutated_picture(source: random.Random) -> bytes:
    return _mutated(source, _valid_picture(source))


def _mutated(source: random.Random, data: bytes) -> bytes:
    """Bits flipped, cut off, pieces doubled, dropped or overwritten, lengths that lie."""
    made = bytearray(data)
    for _ in range(source.choice((0, 1, 1, 2, 4, 16))):
        if not made:
            break
        at = source.randrange(len(made))
        way = source.randrange(6)
        if way == 0:
            made[at] ^= 1 << source.randrange(8)
        elif way == 1:
            del made[at:]
        elif way == 2:
            end = min(len(made), at + source.randint(1, 64))
            made[at:at] = made[at:end] * source.randint(1, 8)
        elif way == 3:
            del made[at : at + source.randint(1, 64)]
        elif way == 4:
            size = source.choice((2, 4))
            value = source.choice((0, 1, 0x7F, 0x80, 0xFF))
            made[at : at + size] = bytes([value]) * size
        else:
            extreme = source.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
            order = source.choice(("<I", ">I"))
            made[at : at + 4] = struct.pack(order, extreme)
    return bytes(made)


def _lying_png(source: random.Random) -> bytes:
    """Right checksums over a size that the pixels do not have, bombs among them."""

    def chunk(kind: bytes, data: bytes, length: int | None = None) -> bytes:
        length = len(data) if length is None else length
        return struct.pack(">I", length) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    sides = (0, 1, 16, 7999, 8000, 8001, 20_000, 2**16, 2**31 - 1, 2**32 - 1)
    width, height = source.choice(sides), source.choice(sides)
    depth, colour = source.choice((0, 1, 2, 4, 8, 16, 255)), source.choice((0, 2, 3, 4, 6, 1))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, source.choice((0, 1)))
    extra = b""
    if source.random() < 0.3:
        # Text that unpacks to much more than it is.
        text = zlib.compress(bytes(source.choice((1000, 10_000_000))))
        extra = chunk(source.choice((b"zTXt", b"iCCP")), b"x\0\0" + text)
    lies = source.choice((None, None, None, 0, 2**31 - 1, 2**32 - 1))
    pixels = zlib.compress(bytes(source.choice((0, 10, 300, 1_000_000))))
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", pixels, lies), chunk(b"IEND", b"")]
    if source.random() < 0.2:
        source.shuffle(parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


ODD = (
    *(None, True, False, 0, 1, -1, 2, 16, 256, 257, 2**63 - 1, 2**63, 2**64, 10**400, -(10**30)),
    *(0.0, 0.5, 1e308, 5e-324, 1.5, "", " ", "mnist", "mnist/3", "mnist,fashion", "kanji", "/"),
    *("../..", "mnist//3", "mnist/3/0", "\x00", "\ud800", "é" * 300, "a" * 5000, "NaN", "1_6"),
    *("8x8", "0x0", "256x256", "8x", "٣", "json", "npy", "grid", "linear", "c", [], {}, [[]]),
    *(["mnist"], ["mnist", "mnist"], [None], [8, 8], [1.5, 2], [True, 2], {"a": 1}),
)
FIELDS = {
    "tzk_nll": ("given", "draws", "seed"),
    "tzk_posterior": ("given", "knowledge", "seed", "draws", "decoder_draws"),
    "tzk_interpolate": ("given", "seed", "steps", "method", "space", "format"),
    "tzk_sample": (
        *("given", "path", "absent", "n", "seed", "temperature", "code_temperature", "format"),
        "paper_sampler",
    ),
}


def _some_image(source: random.Random) -> bytes:
    return source.choice((_valid_picture, _valid_picture, _picture))(source)


def _options(source: random.Random, endpoint: str) -> dict[str, Any]:
    names = [*FIELDS[endpoint], source.choice(("", "more", "image", "__class__", "a~/b"))]
    return {
        name: source.choice(ODD) for name in source.sample(names, source.choice((0, 1, 1, 2, 3)))
    }


def _multipart(source: random.Random, endpoint: str) -> tuple[str, bytes]:
    boundary = "fuzz"
    count = {"tzk_interpolate": source.choice((1, 2, 2, 2, 3, 4)), "tzk_sample": 0}
    parts: list[tuple[str, bytes]] = []
    for index in range(count.get(endpoint, 1)):
        name = f"image{index + 1}" if endpoint == "tzk_interpolate" else "image"
        parts.append((name, _some_image(source)))
    for name, value in _options(source, endpoint).items():
        parts.append((name, str(value).encode("utf-8", "surrogatepass")))
    source.shuffle(parts)
    data = b"".join(
        b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        % (
            boundary.encode(),
            name.encode(),
            source.choice((b"", b'; filename="x.png"')),
            value,
        )
        for name, value in parts
    )
    data += b"--fuzz--\r\n"
    if source.random() < 0.4:
        data = _mutated(source, data)
    kinds = ("multipart/form-data; boundary=fuzz",) * 8
    odd = ("multipart/form-data", "multipart/mixed; boundary=fuzz", "multipart/form-data; boundary")
    return source.choice((*kinds, *odd)), data


def _json(source: random.Random, endpoint: str) -> tuple[str, bytes]:
    def one() -> Any:
        asked: dict[str, Any] = {}
        if endpoint == "tzk_interpolate":
            count = source.choice((0, 1, 2, 2, 2, 4, 5))
            asked["images"] = [_base64(_some_image(source)) for _ in range(count)]
        elif endpoint != "tzk_sample":
            asked["image"] = _base64(_some_image(source))
        return asked | _options(source, endpoint)

    way = source.randrange(10)
    value: Any = one()
    if way == 0:
        value = [one() for _ in range(source.choice((0, 1, 2, 5)))]
    elif way == 1:
        value = source.choice(ODD)
    elif way == 2:
        value = [one(), source.choice(ODD), one()]
    data = json.dumps(value, ensure_ascii=source.random() < 0.8).encode("utf-8", "surrogatepass")
    if way in (3, 4):
        data = _mutated(source, data)
    elif way == 5:
        data = source.choice((b"[" * 50_000, b'{"n":' * 20_000, b'{"n": NaN}', b'{"n": 1e999}'))
    kinds = ("application/json",) * 8
    return source.choice((*kinds, "application/json; charset=utf-16", "text/plain")), data


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- sending ---------------------------------------------------------------------------------------


def fuzz(
    client: httpx.Client,
    bodies: int,
    seed: int,
    *,
    pids: Callable[[], Any] | None = None,
    clients: int = 4,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Sends ``bodies`` bodies and says what came back.

    Args:
        client: where they go; its time limit is replaced by ``PATIENCE``.
        pids: asks for the workers' process ids, which may not change.
        clients: how many at a time.
    """
    report = Report(bodies)
    began, before = time.monotonic(), pids() if pids else None

    def send(number: int) -> tuple[int, Body, Any, float]:
        one = body(seed, number)
        headers = {} if one.content_type is None else {"Content-Type": one.content_type}
        sent = time.monotonic()
        try:
            answer: Any = client.post(
                f"/predictions/{one.endpoint}",
                content=one.data,
                headers=headers,
                timeout=PATIENCE,
            )
        except httpx.HTTPError as error:
            answer = error
        return number, one, answer, time.monotonic() - sent

    with ThreadPoolExecutor(clients) as pool:
        for number, one, answer, took in pool.map(send, range(bodies)):
            _judge(report, number, one, answer, took)
            if progress is not None:
                progress(number + 1)
    after = pids() if pids else None
    if before != after:
        report.faults.append(f"the workers were {before} and are {after}")
    report.seconds = time.monotonic() - began
    return report


def _judge(report: Report, number: int, one: Body, answer: Any, took: float) -> None:
    report.slowest = max(report.slowest, (took, number))
    where = f"body {number} ({one.kind} to {one.endpoint})"
    if isinstance(answer, Exception):
        report.statuses[one.kind]["none"] += 1
        report.faults.append(f"{where}: {type(answer).__name__}: {answer}")
        return
    status = answer.status_code
    report.statuses[one.kind][status] += 1
    if status >= 500 or took > PATIENCE:
        report.faults.append(f"{where}: {status} after {took:.1f} s: {answer.text[:200]}")
    elif status >= 400 and answer.headers.get("content-type") != PROBLEM:
        report.faults.append(f"{where}: {status} is no problem details: {answer.text[:200]}")
    elif status == 200 and answer.headers.get("content-type") == "application/json":
        told = json.loads(answer.content, parse_constant=lambda name: name)
        listed = told if isinstance(told, list) else []
        failed = [item for item in listed if item.get("status", 0) in range(500, 600)]
        if failed:
            report.faults.append(f"{where}: an item of the list is {failed[0]}")


class InProcess(httpx.BaseTransport):
    """``tzk_core.service`` in a server's place, fed as TorchServe feeds it."""

    def __init__(self, service: Any) -> None:
        self.service = service

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        from tzk_core.service.wire import RawRequest

        kind = request.headers.get("content-type", "")
        data = request.read()
        fields: dict[str, bytes] = {}
        content: Any = data
        if kind.startswith("multipart/"):
            fields, content = _fields(kind, data), None
        endpoint = request.url.path.split("/")[2]
        raw = RawRequest("", dict(request.headers), fields, content)
        [answer] = self.service.answer(endpoint, [raw])
        headers = {"Content-Type": answer.content_type, **answer.headers}
        return httpx.Response(answer.status, headers=headers, content=answer.body)


def _fields(kind: str, data: bytes) -> dict[str, bytes]:
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + data, policy=email.policy.compat32)
    if not parts.is_multipart():
        return {}
    found = {}
    for part in parts.get_payload():
        name = part.get_param("name", header="content-disposition")
        if isinstance(name, str):
            found[name] = part.get_payload(decode=True) or b""
    return found


# -- the command -----------------------------------------------------------------------------------


@click.command()
@click.option("--bodies", default=20_000, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--url", help="Of a running server.  [default: starts one]")
@click.option("--management-port", type=int, help="Of that server, to watch its workers.")
@click.option("--in-process", is_flag=True, help="tzk_core.service without a server.")
@click.option("--clients", default=4, show_default=True, help="At a time.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(bodies, seed, url, management_port, in_process, clients, as_json) -> None:
    """Send broken bodies and say what came back."""
    with tempfile.TemporaryDirectory(prefix="tzk-fuzz-") as folder:
        report = _run(
            Path(folder), bodies, seed, url, management_port, in_process, clients, as_json
        )
    if as_json:
        click.echo(json.dumps(report.plain()))
    else:
        for name, value in report.plain().items():
            click.echo(f"{name}: {value}")
    sys.exit(1 if report.faults else 0)


def _run(folder, bodies, seed, url, management_port, in_process, clients, quiet) -> Report:
    def progress(done: int) -> None:
        if done % 1000 == 0 and not quiet:
            click.echo(f"{done} bodies", err=True)

    def run(client: httpx.Client, pids=None, at_once=clients) -> Report:
        with client:
            return fuzz(client, bodies, seed, pids=pids, clients=at_once, progress=progress)

    if in_process:
        from tzk_core.service.service import Service

        transport = InProcess(Service(_tiny()))
        return run(httpx.Client(transport=transport, base_url="http://tzk"), at_once=1)
    if url:
        watch = _pids(f"http://127.0.0.1:{management_port}") if management_port else None
        return run(httpx.Client(base_url=url, trust_env=False), watch)
    from tzk_core.launcher import Serving, Settings
    from tzk_export.archive import archive

    _tiny().save_pretrained(folder / "run")
    archive(folder / "run", folder / "store")
    settings = Settings(
        model_store=folder / "store", port=0, device="cpu", threads=1, start_timeout=600
    )
    with Serving(settings) as server:
        watch = _pids(server.management_url)
        return run(httpx.Client(base_url=server.url, trust_env=False), watch)


def _pids(management_url: str) -> Callable[[], dict[str, list[int]]]:
    def ask() -> dict[str, list[int]]:
        with httpx.Client(base_url=management_url, trust_env=False, timeout=PATIENCE) as client:
            names = [one["modelName"] for one in client.get("/models").json()["models"]]
            answers = {name: client.get(f"/models/{name}").json()[0] for name in names}
        return {n: [worker["pid"] for worker in one["workers"]] for n, one in answers.items()}

    return ask


def _tiny():
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from tiny_model import tiny_model

    return tiny_model()


if __name__ == "__main__":
    main()
