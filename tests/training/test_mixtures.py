"""Several sources: how often each is drawn, what is held out, copies, flips, and balance."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from training.tiny_recipe import tiny_values

from tzk_core.data.decoding import encode_png
from tzk_core.data.quantisation import to_pixels
from tzk_core.data.sources import load
from tzk_core.errors import UsageError
from tzk_core.randomness import derived
from tzk_core.training.dataset import Dataset, Pixels, load_data
from tzk_core.training.mixing import Balance, Order, correct_logits
from tzk_core.training.recipe import DataConfig, SourceConfig, parse_recipe


def _folder(path: Path, images: np.ndarray) -> str:
    path.mkdir(parents=True)
    for number, pixels in enumerate(images):
        (path / f"{number:04}.png").write_bytes(encode_png(pixels))
    return str(path)


@pytest.fixture
def two(tmp_path, mnist, fashion) -> list[dict]:
    """Two folders as sources: 60 digits and 20 garments."""
    return [
        {"source": _folder(tmp_path / "digits", mnist.pixels[:60]), "knowledge": "digits"},
        {"source": _folder(tmp_path / "garments", fashion.pixels[:20]), "knowledge": "garments"},
    ]


def _config(sources: list[dict], **options) -> DataConfig:
    return DataConfig.model_validate({"sources": sources, "holdout": 0.2} | options)


def _bytes(data: Dataset) -> list[bytes]:
    return [image.tobytes() for image in np.asarray(data.pixels)]


# --- what is where --------------------------------------------------------------------------------


def test_images_labels_and_sources_stay_together(two, mnist, fashion):
    train, held = load_data(_config(two), seed=0)
    assert len(train) + len(held) == 80
    real = {image.tobytes(): 0 for image in mnist.pixels}
    real |= {image.tobytes(): 1 for image in fashion.pixels}
    for data in (train, held):
        assert data.names == ["digits", "garments"]
        for number, content in enumerate(_bytes(data)):
            assert real[content] == data.origin[number]
            assert data.known.existence["digits"][number] == 1 - real[content]
            assert data.known.existence["garments"][number] == real[content]
    assert any("decoded in" in note or "found in the cache" in note for note in train.notes)
    again, _ = load_data(_config(two), seed=0)
    assert _bytes(again) == _bytes(train)
    assert again.fingerprints == train.fingerprints
    without, _ = load_data(_config(two, cache=False), seed=0)
    assert _bytes(without) == _bytes(train)


def test_rows_of_several_sources(mnist, fashion):
    parts = [mnist.pixels[:5], fashion.pixels[:3], mnist.pixels[10:12]]
    whole = np.concatenate(parts)
    pixels = Pixels(parts)
    assert (len(pixels), tuple(pixels.shape)) == (10, whole.shape)
    for index in ([9, 0, 5, 5, 4], [], [2], range(10)):
        rows = pixels[torch.tensor(list(index), dtype=torch.int64)]
        np.testing.assert_array_equal(rows.numpy(), whole[list(index)])
    np.testing.assert_array_equal(np.asarray(pixels), whole)
    chosen = Pixels(parts, np.array([8, 1, 6]))
    np.testing.assert_array_equal(chosen[torch.tensor([2, 0])].numpy(), whole[[6, 8]])
    np.testing.assert_array_equal(np.asarray(chosen[1:]), whole[[1, 6]])
    mask = torch.tensor([True, False, True])
    np.testing.assert_array_equal(chosen[mask].numpy(), whole[[8, 6]])
    # A row that is taken is a copy: the sources may be maps that cannot be written.
    parts[0].flags.writeable = False
    try:
        pixels[torch.tensor([0])][0] = 1
    finally:
        parts[0].flags.writeable = True
    np.testing.assert_array_equal(np.asarray(pixels), whole)


# --- training and held-out images -----------------------------------------------------------------


def test_no_image_is_on_both_sides_however_often_it_is_there(tmp_path, mnist):
    """Copies within a source, across sources, and under other names."""
    first = np.concatenate([mnist.pixels[:80], mnist.pixels[:40], mnist.pixels[:5]])
    second = np.concatenate([mnist.pixels[60:100], mnist.pixels[90:100]])
    sources = [
        {"source": _folder(tmp_path / "a", first), "knowledge": "a"},
        {"source": _folder(tmp_path / "b", second), "knowledge": "b"},
    ]
    for seed in range(10):
        train, held = load_data(_config(sources, holdout=0.3), seed=seed)
        assert len(train) + len(held) == 175
        assert set(_bytes(train)) | set(_bytes(held)) == {i.tobytes() for i in mnist.pixels[:100]}
        assert not set(_bytes(train)) & set(_bytes(held))
        seen: dict[bytes, int] = {}
        expected = {"within": 0, "across": 0, "held_out": 0}
        for content, source in zip(_bytes(train), train.origin.tolist(), strict=True):
            if content in seen:
                expected["within" if seen[content] == source else "across"] += 1
            seen.setdefault(content, source)
        assert train.duplicates == expected
        told = [note for note in train.notes if "copies of another" in note]
        assert told[0].startswith(f"{expected['within'] + expected['across']} training images")


def test_the_test_split(tmp_path, mnist):
    """Its images that are trained on too are left out, and counted; labels keep their meaning."""
    root = tmp_path / "divided"
    for split, digits, numbers in (
        ("train", (1, 2, 3), range(6)),
        ("test", (2, 3, 7), range(4, 9)),  # 2 and 3 share images 4 and 5 with training
    ):
        for digit in digits:
            images = mnist.pixels[mnist.labels == digit][list(numbers)]
            _folder(root / split / str(digit), images)
    config = _config(
        [{"source": str(root), "knowledge": "digits", "classes": True}], test=True, flips=True
    )
    train, held = load_data(config, seed=0)
    assert (len(train), len(held)) == (18, 11)
    assert not set(_bytes(train)) & set(_bytes(held))
    assert train.duplicates["held_out"] == 4
    assert "4 images of the test splits are training images too: left out" in train.notes
    assert (train.flips, held.flips) == (True, False)
    real = {image.tobytes(): int(label) for image, label in zip(mnist.pixels, mnist.labels)}
    for number, content in enumerate(_bytes(held)):
        for digit in (1, 2, 3):
            e = held.known.existence[f"digits/{digit}"][number]
            assert e == (-1 if real[content] == 7 else int(real[content] == digit))


def test_fingerprints_of_every_source_and_split(tmp_path, mnist):
    """The same source twice, once for each of its splits, and what is measured on."""
    root = tmp_path / "divided"
    for split, span in (("train", slice(20)), ("test", slice(20, 30))):
        _folder(root / split / "x", mnist.pixels[span])
    source = {"source": str(root), "knowledge": "a"}
    other = source | {"split": "test", "knowledge": "b"}
    prints = {split: load(root, split=split).fingerprint for split in ("train", "test")}
    train, held = load_data(_config([source, other]), seed=0)
    assert train.fingerprints == held.fingerprints
    assert train.fingerprints == {
        f"sources.0 train {root}": prints["train"],
        f"sources.1 test {root}": prints["test"],
    }
    train, _ = load_data(_config([source], test=True), seed=0)
    assert train.fingerprints == {f"sources.0 {k} {root}": v for k, v in prints.items()}


def test_a_test_split_that_is_not_there(two):
    with pytest.raises(UsageError, match="none of the sources has a test split"):
        load_data(_config(two, test=True), seed=0)


def test_a_source_that_has_only_a_test_split(tmp_path, mnist):
    import datasets

    columns = {"image": [{"bytes": encode_png(i), "path": None} for i in mnist.pixels[:30]]}
    (tmp_path / "only").mkdir()
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "only" / "test.parquet")
    source = {"source": str(tmp_path / "only")}
    with pytest.raises(UsageError, match=r"no train split \(it has a test split\)"):
        load_data(_config([source]), seed=0)
    train, held = load_data(_config([source | {"split": "test"}]), seed=0)
    assert len(train) + len(held) == 30


def test_inversion_of_one_source(two, mnist):
    two[0]["invert"] = True
    train, _ = load_data(_config(two), seed=0)
    inverted = {(255 - image).tobytes() for image in mnist.pixels[:60]}
    contents = _bytes(train)
    assert all((contents[i] in inverted) == (train.origin[i] == 0) for i in range(len(train)))


# --- how often each is drawn ----------------------------------------------------------------------


def _drawn(order: Order, size: int, steps: int, seed: int = 5, stage: int = 1) -> torch.Tensor:
    return torch.cat([order.batch(size, step, seed, stage) for step in range(steps)])


def test_without_weights_it_is_a_shuffle_an_epoch():
    for step in (0, 1, 12, 13, 25):
        epoch, place = divmod(step, 13)
        shuffled = torch.randperm(107, generator=derived(5, "order", 1, epoch))
        expected = shuffled[8 * place : 8 * place + 8]
        assert torch.equal(Order(107).batch(8, step, seed=5, stage=1), expected)


def test_weights_say_how_often_a_source_is_drawn(two):
    two[0]["weight"], two[1]["weight"] = 1, 3
    train, held = load_data(_config(two), seed=0)
    assert held.shares is None
    order, balance = train.order({})
    assert balance is None
    count = len(train)
    for epoch in range(4):
        steps = range(epoch * count, (epoch + 1) * count)
        index = torch.cat([order.batch(1, step, 5, 1) for step in steps])
        garments = int((train.origin[index] == 1).sum())
        assert abs(garments - 0.75 * count) <= 1
    # Every image of a source is drawn equally often, to one draw an epoch.
    index = _drawn(order, 1, 40 * count)
    for source in (0, 1):
        own = index[train.origin[index] == source]
        counts = Counter(own.tolist())
        assert set(counts) == set((train.origin == source).nonzero().squeeze(1).tolist())
        expected = len(own) / len(counts)
        assert max(abs(n - expected) for n in counts.values()) < 5 * math.sqrt(expected)


def test_weights_in_the_ratio_of_the_sizes_draw_each_image_once():
    origin = torch.tensor([0] * 30 + [1] * 10)
    shares = torch.where(origin == 0, 3 / 30, 1 / 10).double()
    index = _drawn(Order(40, shares), 8, 5)
    assert sorted(index.tolist()) == list(range(40))


def test_a_batch_depends_on_seed_stage_and_step_alone():
    shares = torch.rand(50, generator=torch.Generator().manual_seed(0)).double()
    long = Order(50, shares)
    before = [long.batch(8, step, 5, 1) for step in range(30)]
    for step in (29, 3, 17):
        assert torch.equal(Order(50, shares).batch(8, step, 5, 1), before[step])
        assert not torch.equal(Order(50, shares).batch(8, step, 6, 1), before[step])
        assert not torch.equal(Order(50, shares).batch(8, step, 5, 2), before[step])
    assert len({len(batch) for batch in before}) == 1
    assert len(Order(5).batch(64, 3, 5, 1)) == 5


def test_a_source_that_comes_later_has_the_mean_weight(two):
    two[0]["weight"], two[1]["weight"] = 1, 3
    config = _config(two)
    more = config.with_source(SourceConfig(source="builtin/mnist", knowledge="new"))
    assert [s.weight for s in more.sources] == [1, 3, 2]
    assert DataConfig.model_validate(more.model_dump()) == more
    again = more.with_source(SourceConfig(source="elsewhere", knowledge="digits", weight=5))
    assert [(s.knowledge, s.weight) for s in again.sources] == [
        ("garments", 3), ("new", 2), ("digits", 5),
    ]  # fmt: skip
    for source in two:
        del source["weight"]
    assert _config(two).with_source(SourceConfig(source="x")).sources[-1].weight is None


def test_the_example_of_the_readme():
    text = (Path(__file__).parents[2] / "README.md").read_text()
    [example] = [part for part in text.split("```yaml\n")[1:] if "sources:" in part]
    data = yaml.safe_load(example.split("```")[0])["data"]
    assert len(DataConfig.model_validate(data).sources) == 3


# --- balance --------------------------------------------------------------------------------------


@pytest.fixture
def existence() -> dict[str, torch.Tensor]:
    """1,000 images: a rare kind, one that overlaps it and is partly unknown, and a class below."""
    generator = torch.Generator().manual_seed(1)
    rare = (torch.arange(1000) < 30).to(torch.int8)
    other = (torch.rand(1000, generator=generator) < 0.3 + 0.4 * rare).to(torch.int8)
    other[900:] = -1
    below = (torch.rand(1000, generator=generator) < 0.2).to(torch.int8)
    below[rare == 0] = -1
    return {"rare": rare, "other": other, "rare/x": below}


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_each_discriminator_sees_both_sides_equally(existence, weighted, rows):
    """Under the draws q and the weights w: half and half, each side distributed as under p.

    By enumeration of all images, and of any function of them.
    """
    count = 1000
    p = torch.full((count,), 1 / count, dtype=torch.float64)
    if weighted:
        p = torch.where(torch.arange(count) < 500, 3.0, 1.0).double()
        p /= p.sum()
    balance = Balance(existence, p if weighted else None, rows)
    q = p
    if rows:
        q = balance.draws / balance.draws.sum()
        assert float(balance.draws.sum()) == pytest.approx(1.0 if weighted else count)
        # The rare kind is not rare any more.
        assert float(q[existence["rare"] == 1].sum()) > 0.2
    else:
        assert balance.draws is (p if weighted else None)
    anything = torch.rand(count, generator=torch.Generator().manual_seed(2)).double()
    w = balance.weights(torch.arange(count))
    for path, e in existence.items():
        known = float(p[e >= 0].sum())
        assert bool((w[path][e < 0] == 0).all())
        for value in (0, 1):
            side = e == value
            seen = float((q * w[path])[side].sum())
            assert seen == pytest.approx(known / 2, rel=1e-6)
            mean = float((q * w[path] * anything)[side].sum()) / seen
            assert mean == pytest.approx(float((p * anything)[side].sum() / p[side].sum()))
    rates = {path: float((p * (e == 1)).sum() / p[e >= 0].sum()) for path, e in existence.items()}
    assert balance.rates == pytest.approx(rates)


def test_two_data_sets_are_drawn_equally_often_with_weights_of_one():
    a = (torch.arange(100) < 90).to(torch.int8)
    balance = Balance({"a": a, "b": 1 - a})
    index = _drawn(Order(100, balance.draws), 10, 10)
    assert int((a[index] == 1).sum()) == 50
    for weights in balance.weights(index).values():
        torch.testing.assert_close(weights, torch.ones(100))


def test_corrected_logits_are_the_true_posterior(existence):
    """The optimum of the balanced loss at each x, corrected, is the share of positives at x."""
    x = torch.randint(3, (1000,), generator=torch.Generator().manual_seed(3))
    balance = Balance(existence)
    q, w = balance.draws / balance.draws.sum(), balance.weights(torch.arange(1000))
    for path, e in existence.items():
        for value in range(3):
            mass = [float((q * w[path])[(x == value) & (e == side)].sum()) for side in (0, 1)]
            if not all(mass):
                continue
            logit = math.log(mass[1] / mass[0]) + balance.corrections[path]
            here = (x == value) & (e >= 0)
            share = float((e[here] == 1).double().mean())
            assert 1 / (1 + math.exp(-logit)) == pytest.approx(share, rel=1e-5)


def test_a_kind_that_all_have_is_not_balanced():
    e = torch.ones(10, dtype=torch.int8)
    balance = Balance({"all": e, "nobody": 0 * e, "unknown": -e})
    assert (balance.rates, balance.draws) == ({}, None)


def test_balance_of_many_kinds_needs_no_array_of_images_and_kinds():
    """1.6 GB for 200 kinds on a million images; a few columns are enough."""
    import weakref

    from torch.utils._python_dispatch import TorchDispatchMode

    class Live(TorchDispatchMode):
        now = most = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out is not args[0]:  # not in place
                size = out.numel() * out.element_size()
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(out, self._gone, size)
            return out

        def _gone(self, size):
            self.now -= size

    count, kinds = 1000, 50
    generator = torch.Generator().manual_seed(4)
    e = (torch.rand(kinds, count, generator=generator) < 0.3).to(torch.int8)
    e[:, ::7] = -1
    existence = {str(k): row for k, row in enumerate(e)}
    with Live() as live:
        balance = Balance(existence)
    assert live.most < 10 * 8 * count
    rates = [float((row == 1).sum() / (row >= 0).sum()) for row in e]
    factors = [
        np.select([row == 1, row == 0], [0.5 / rate, 0.5 / (1 - rate)], 1.0)
        for row, rate in zip(e.numpy(), rates)
    ]
    np.testing.assert_allclose(balance.draws.numpy(), np.mean(factors, axis=0), rtol=1e-6)


def test_a_recipe_that_asks_for_balance(two):
    train, _ = load_data(_config(two, balance=True), seed=0)
    order, balance = train.order(train.known.existence)
    index = _drawn(order, 8, len(train) // 8)
    digits = int((train.origin[index] == 0).sum())
    assert abs(digits - len(index) / 2) <= 4
    assert balance.corrections["digits"] == -balance.corrections["garments"] > 0.5
    natural, none = train.order(None)
    assert (natural.shares, none) == (None, None)


def test_a_run_with_weights_balance_flips_and_binary_digits(values, tmp_path):
    from tzk_core.training.run import train

    recipe = values()
    first, second = recipe["data"]["sources"]
    first |= {"weight": 1}
    second |= {"weight": 3, "binary_digits": True, "at_root": True}
    recipe["data"] |= {"balance": True, "flips": True}
    recipe["watch"] = {"tensorboard": False}
    for stage in recipe["stages"]:
        stage["steps"] = 2
    model = train(parse_recipe(recipe), out=tmp_path / "run", quiet=True, device="cpu")
    digits = [f"bit{n}" for n in range(4)]
    assert sorted(model.paths()) == sorted(["mnist", "mnist/0", "mnist/1", "fashion", *digits])
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["duplicates"].keys() == {"within", "across", "held_out"}
    assert facts["skipped"] == 0


def test_logits_are_corrected_in_place():
    from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
    from tzk_core.model import TzK

    generator = torch.Generator().manual_seed(0)
    sizes = KnowledgeConfig(code_dim=3, z_steps=1, decoder_width=8, encoder_width=8)
    model = TzK(
        TzKConfig(observation=(1, 8, 8), flow=FlowConfig(levels=1, steps=1, width=4)),
        generator=generator,
    )
    model.add_knowledge("a", sizes, generator=generator)
    kind = model.find("a")
    t, c = torch.randn(4, 1, 8, 8, generator=generator), torch.randn(4, 3, generator=generator)
    for discriminator, x in ((kind.t_discriminator, t), (kind.c_discriminator, c)):
        discriminator.norm.initialize(x)
    before = kind.t_discriminator(t), kind.c_discriminator(c)
    correct_logits(model, {"a": -1.25})
    torch.testing.assert_close(kind.t_discriminator(t), before[0] - 1.25)
    torch.testing.assert_close(kind.c_discriminator(c), before[1] - 1.25)


# --- flips ----------------------------------------------------------------------------------------


def test_flips(two):
    train, held = load_data(_config(two, flips=True), seed=0)
    index = torch.arange(len(train))
    plain = train.pixels[index]
    seen = [to_pixels(train.observations(index, derived(1, n))) for n in range(20)]
    mirrored = []
    for images in seen:
        straight = (images == plain).flatten(1).all(1)
        flipped = (images == plain.flip(3)).flatten(1).all(1)
        assert bool((straight | flipped).all())
        mirrored.append(float((~straight).float().mean()))
    assert np.mean(mirrored) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(20 * len(train)))
    again = to_pixels(train.observations(index, derived(1, 3)))
    assert torch.equal(again, seen[3])
    rest = torch.arange(len(held))
    assert torch.equal(to_pixels(held.observations(rest, derived(1, 0))), held.pixels[rest])


# --- several noise draws at evaluation ------------------------------------------------------------


def test_likelihoods_of_noise_draws_are_averaged(tiny_recipe, tmp_path):
    from tzk_core.data.quantisation import average_draws
    from tzk_core.evaluation.held_out import measure
    from tzk_core.training.run import train

    recipe = tiny_recipe("stages.0.steps=2", "stages.1.steps=1")
    model = train(recipe, out=tmp_path / "run", quiet=True, device="cpu")
    _, held = load_data(recipe.data, recipe.seed)
    settings = {"count": 12, "draws": 2, "seed": 3}
    figures = {}
    for draws in (1, 4):
        figures[draws], log_p = measure(model, held, noise_draws=draws, **settings)
        index = torch.randperm(len(held), generator=derived(3, "held out"))[:12]
        with torch.no_grad():
            every = torch.stack(
                [
                    model.prior.log_prob(
                        held.observations(index, derived(3, "held out", 0, *([d] if d else [])))
                    )
                    for d in range(draws)
                ]
            ).double()
        # Percentiles rank one draw, as a request has it; the figure is of the mean likelihood.
        torch.testing.assert_close(log_p, every[0].sort().values.float(), rtol=1e-5, atol=1e-4)
        expected = every.exp().mean(0).log() if draws > 1 else every[0]
        bits = 8 - expected.mean() / (math.prod(model.observation_shape) * math.log(2))
        assert figures[draws][0].mean == pytest.approx(float(bits), rel=1e-5)
        torch.testing.assert_close(average_draws(every), every.exp().mean(0).log())
    assert [f.name for f in figures[1]] == [f.name for f in figures[4]]


def test_what_is_said_is_shown_as_it_is(capsys):
    from tzk_core.training.progress import PLAIN_EVERY, Reporter

    text = "photos/[red]a[/red] :smile: [/b].png"
    reporter = Reporter()
    reporter.say(text)
    task = reporter.task(text, 2)
    task._spoke -= PLAIN_EVERY
    task.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == text
    assert lines[1].startswith(f"{text} 1/2")


def test_bars_show_names_as_they_are(monkeypatch):
    import io

    from rich.console import Console

    from tzk_core.training.progress import Reporter

    reporter = Reporter()
    terminal = io.StringIO()
    reporter.console = Console(file=terminal, force_terminal=True, width=120, no_color=True)
    with reporter.live():
        reporter.task("[red]a :smile:", 2).advance(note="[/b]")
    assert "[red]a :smile:" in terminal.getvalue()
    assert "[/b]" in terminal.getvalue()


# --- a folder of one's own ------------------------------------------------------------------------


@pytest.fixture
def odd_folder(tmp_path, mnist, fashion) -> Path:
    """Class folders of JPEG and PNG files of many sizes and modes; 3 of 83 cannot be read."""
    root = tmp_path / "My Photos"
    rng = np.random.default_rng(0)
    for number in range(80):
        digit = number % 2 == 0
        pixels = (mnist if digit else fashion).pixels[number, 0]
        image = Image.fromarray(pixels).resize(tuple(rng.integers(20, 90, 2).tolist()))
        mode = ("L", "RGB", "RGBA", "P", "CMYK")[number % 5]
        suffix = ".jpg" if mode in ("L", "RGB", "CMYK") and number % 3 else ".png"
        image = image.convert("RGB").convert("L" if mode == "CMYK" and suffix == ".png" else mode)
        folder = root / ("Digits!" if digit else "Things to wear")
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}{suffix}")
    whole = (root / "Digits!" / "0.png").read_bytes()
    (root / "Digits!" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "Digits!" / "empty.jpg").write_bytes(b"")
    (root / "Things to wear" / "page.jpg").write_text("<html>not found</html>")
    return root


def _tzk(*arguments: str) -> tuple[int, str]:
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "tzk_core.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=600,  # for machines that are busy with something else
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return done.returncode, done.stderr


def test_training_on_a_folder_with_corrupt_files(odd_folder, tmp_path):
    """By the command line, in a process of its own: refused at 1 %, told and skipped at 5 %."""
    tiny = tiny_values("")
    settings = [
        "data.preparation.size=8",
        "data.preparation.padding=false",
        "evaluation={existence_draws: 1000, held_out: 10, draws: 2}",
        "watch.tensorboard=false",
        "stages.0.steps=2",
        "stages.0.batch=8",
        "stages.1.steps=2",
        "stages.1.batch=8",
        f"model={tiny['model']}",
    ]
    options = [option for setting in settings for option in ("--set", setting)]
    out = tmp_path / "run"
    call = ["train", str(odd_folder), "--out", str(out), "--device", "cpu", *options]
    code, told = _tzk(*call)
    assert code == 1
    assert "3 of 83 images cannot be read, more than the 1.00% that may be skipped" in told
    assert "cut.png" in told
    assert "data" in told
    assert "max_bad_share" in told
    assert not list(out.glob("*"))
    code, told = _tzk(*call, "--set", "data.max_bad_share=0.05")
    assert code == 0, told
    for name in ("cut.png", "empty.jpg", "page.jpg"):
        assert any(line.startswith("skipped") and name in line for line in told.splitlines())
    assert "3 images could not be read and were skipped" in told
    assert "images/s" in told
    from tzk_core.model import TzK

    model = TzK.from_pretrained(out)
    assert model.paths() == ["my-photos", "my-photos/digits", "my-photos/things-to-wear"]
    assert model.label("my-photos/things-to-wear") == "Things to wear"


def test_built_in_data_are_the_same_through_the_cache():
    for name in ("builtin/mnist", "builtin/fashion_mnist"):
        cached, plain = (load(name, split="test", cache=c) for c in (True, False))
        assert cached.fingerprint == plain.fingerprint
