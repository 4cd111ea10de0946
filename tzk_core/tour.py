"""One call of every endpoint with real images, as a client would make it, and what came back.

``tzk quickstart`` prints it; it checks each answer, so that it can say whether all is well.
"""

from __future__ import annotations

import io
import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from PIL import Image

from tzk_core.client import checked
from tzk_core.data.decoding import encode_png
from tzk_core.data.preparation import Preparation
from tzk_core.data.sources import load
from tzk_core.errors import TzkError

__all__ = ["Answered", "tour", "write_images"]

MARGIN = 2
IMAGES = {"digit.png": "builtin/mnist", "garment.png": "builtin/fashion_mnist"}


@dataclass(frozen=True)
class Answered:
    """One call: its curl line, what came back in words, and what was wrong with it."""

    endpoint: str
    curl: str
    told: str = ""
    wrong: list[str] = field(default_factory=list)


def write_images(folder: Path) -> list[Path]:
    """Writes a real digit and a real garment, 28×28 PNGs of the built-in test images."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, source in IMAGES.items():
        images = load(source, split="test", preparation=Preparation(size=28), limit=1)
        (folder / name).write_bytes(encode_png(images.pixels[0]))
        written.append(folder / name)
    return written


def tour(url: str, paths: Sequence[str], size: tuple[int, int], folder: Path) -> Iterator[Answered]:
    """Calls each endpoint; pictures go to ``folder``.

    Args:
        url: of the server.
        paths: the knowledge that the model has, which the answers must name.
        size: height and width of the model's images.
    """
    digit, garment = write_images(folder)
    base = f"{url}/predictions"
    root = paths[0] if paths else None
    with httpx.Client(timeout=120.0, trust_env=False) as client:
        yield _nll(client, f"{base}/tzk_nll", digit)
        single = f"{base}/tzk_sample" + (f"/1.0/{root}" if root else "")
        yield _sample(client, single, root, size, folder / "sample.png")
        for path in [path for path in paths if "/" not in path] or [None]:
            many = f"{base}/tzk_sample" + (f"/1.0/{path}" if path else "")
            yield _samples(client, many, path, size, folder / f"samples-{path or 'all'}.png")
        yield _posterior(client, f"{base}/tzk_posterior", garment, paths)
        target = folder / "interpolation.png"
        yield _interpolate(client, f"{base}/tzk_interpolate", digit, garment, size, target)


def _nll(client: httpx.Client, url: str, image: Path) -> Answered:
    def ask() -> tuple[str, list[str]]:
        answer = checked(client.put(url, content=image.read_bytes()))
        body = answer.json()
        wrong = _unless(_is_json(answer), "the answer is not JSON")
        for name in ("nll_nats", "bits_per_dim", "bits_per_dim_native"):
            wrong += _unless(_finite(body.get(name)), f"{name} is {body.get(name)}")
        wrong += _unless(body.get("estimator") == "prior", "the estimator is not prior")
        wrong += _unless(_seed(answer) == body.get("seed"), "the seed is not echoed")
        return answer.text, wrong

    return _answered("tzk_nll", f"curl -T {_quoted(image)} {url}", ask)


def _sample(
    client: httpx.Client, url: str, path: str | None, size: tuple[int, int], target: Path
) -> Answered:
    def ask() -> tuple[str, list[str]]:
        answer = checked(client.get(url))
        return _picture(answer, size, target, path)

    return _answered("tzk_sample", f"curl {url} -o {_quoted(target)}", ask)


def _samples(
    client: httpx.Client, url: str, path: str | None, size: tuple[int, int], target: Path
) -> Answered:
    options = {"n": "16", "temperature": "0.7", "seed": "1"}

    def ask() -> tuple[str, list[str]]:
        answer = checked(client.post(url, files={k: (None, v) for k, v in options.items()}))
        return _picture(answer, _grid(size, 4, 4), target, path)

    fields = " ".join(f"-F {name}={value}" for name, value in options.items())
    return _answered("tzk_sample", f"curl {fields} {url} -o {_quoted(target)}", ask)


def _posterior(client: httpx.Client, url: str, image: Path, paths: Sequence[str]) -> Answered:
    def ask() -> tuple[str, list[str]]:
        answer = checked(client.post(url, files={"image": (image.name, image.read_bytes())}))
        body = answer.json()
        missing = [path for path in paths if path not in body]
        wrong = _unless(not missing, f"{', '.join(missing)} is not in it")
        for path, one in body.items():
            probability = one.get("encoder")
            sound = _finite(probability) and 0 <= probability <= 1
            wrong += _unless(sound, f"{path} has the probability {probability}")
        wrong += _unless(_seed(answer) is not None, "the seed is not echoed")
        return answer.text, wrong

    return _answered("tzk_posterior", f"curl -F image=@{_quoted(image)} {url}", ask)


def _interpolate(
    client: httpx.Client, url: str, first: Path, second: Path, size: tuple[int, int], target: Path
) -> Answered:
    def ask() -> tuple[str, list[str]]:
        files = {
            "image1": (first.name, first.read_bytes()),
            "image2": (second.name, second.read_bytes()),
            "steps": (None, "8"),
        }
        answer = checked(client.post(url, files=files))
        return _picture(answer, _grid(size, 1, 8), target, None)

    images = f"-F image1=@{_quoted(first)} -F image2=@{_quoted(second)}"
    return _answered("tzk_interpolate", f"curl {images} -F steps=8 {url} -o {_quoted(target)}", ask)


def _answered(endpoint: str, curl: str, ask: Callable[[], tuple[str, list[str]]]) -> Answered:
    """The call; an answer that is an error, or none, or malformed, is what was wrong with it."""
    try:
        told, wrong = ask()
    except TzkError as error:
        return Answered(endpoint, curl, wrong=[error.detail])
    except (httpx.HTTPError, ValueError, AttributeError, OSError) as error:
        return Answered(endpoint, curl, wrong=[f"{type(error).__name__}: {error}"])
    return Answered(endpoint, curl, told, wrong)


def _picture(
    answer: httpx.Response, size: tuple[int, int], target: Path, path: str | None
) -> tuple[str, list[str]]:
    """Saves the answer's PNG and checks it against (height, width) and the path asked for."""
    target.write_bytes(answer.content)
    with Image.open(io.BytesIO(answer.content), formats=["PNG"]) as picture:
        picture.load()
        width, height = picture.size
    wanted = f"{size[1]}×{size[0]}"
    wrong = _unless((height, width) == size, f"the picture is {width}×{height}, not {wanted}")
    kind = answer.headers.get("content-type")
    wrong += _unless(kind == "image/png", f"the content type is {kind}")
    seed, told = _seed(answer), answer.headers.get("x-tzk-path")
    wrong += _unless(seed is not None, "the seed is not echoed")
    wrong += _unless(told == path, f"the path echoed is {told}, not {path}")
    return f"{target} ({width}×{height}), seed {seed}", wrong


def _grid(size: tuple[int, int], rows: int, columns: int) -> tuple[int, int]:
    height, width = size
    return rows * (height + MARGIN) + MARGIN, columns * (width + MARGIN) + MARGIN


def _is_json(answer: httpx.Response) -> bool:
    return answer.headers.get("content-type", "").startswith("application/json")


def _seed(answer: httpx.Response) -> int | None:
    text = answer.headers.get("x-tzk-seed", "")
    return int(text) if text.isdecimal() else None


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _unless(sound: bool, wrong: str) -> list[str]:
    return [] if sound else [wrong]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
