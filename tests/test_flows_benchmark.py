"""benchmarks/flows.py: which variants there are, and that each is run as it is called."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
import torch._dynamo
from click.testing import CliRunner
from scripts import script_module
from torch import Tensor, nn

from tzk_core.randomness import generator

TINY = ["--size", "1,1,4", "--batch", "2", "--rounds", "2"]
OURS = "tzk"


class Stub(nn.Module):
    """A peer of one parameter."""

    def __init__(self, shape, levels, steps, width) -> None:
        super().__init__()
        self.shape, self.calls = shape, 0
        self.scale = nn.Parameter(torch.ones(()))

    def log_prob(self, t: Tensor) -> Tensor:
        return (self.scale * t).square().flatten(1).sum(1)

    def sample(self, count: int) -> Tensor:
        return self.scale * torch.randn(count, *self.shape)


class Breaking(Stub):
    """One that a compiler has to break off in, as normflows' ActNorm was."""

    def log_prob(self, t: Tensor) -> Tensor:
        t = 2 * t
        if self.scale > 0:
            t = t + 1
        return super().log_prob(t)


class Changing(Stub):
    """One that is compiled anew for every call."""

    def log_prob(self, t: Tensor) -> Tensor:
        self.calls += 1
        return super().log_prob(t) * self.calls


@pytest.fixture
def script(monkeypatch):
    """The script with our flow alone, quick timings, and a compiler that leaves graphs as is."""
    script = script_module("flows")
    for peer in ("normflows", "FrEIA"):
        monkeypatch.delitem(script.PEERS, peer)
    monkeypatch.setattr(script, "SIDE", {"cpu": 32})
    monkeypatch.setattr(script, "ENOUGH", 0.0)
    monkeypatch.setattr(script, "COMPILER", "eager")
    return script


@pytest.fixture
def asked(script, tmp_path):
    """A run of the script: its result, with the rows of each job's table where it made them."""

    def ask(*arguments: str):
        result = CliRunner().invoke(script.flows, ["--out", str(tmp_path), *arguments])
        written = tmp_path / "flows-cpu.json"
        report = json.loads(written.read_text()) if written.exists() else {"tables": []}
        rows = {table["job"]: table["rows"] for table in report["tables"]}
        return SimpleNamespace(result=result, report=report, rows=rows, folder=tmp_path)

    return ask


def names(rows) -> list[str]:
    return [row["variant"] for row in rows]


def test_ours_in_every_mode_that_needs_nothing_more(asked):
    modes = ("eager", "prepared", "compiled")
    found = asked(*TINY, *(part for mode in modes for part in ("--mode", mode)))
    assert found.result.exit_code == 0, found.result.output
    both = [f"tzk {mode} {one}" for mode in modes for one in ("float32", "bfloat16")]
    assert names(found.rows["nll"]) == names(found.rows["sample"]) == both
    assert names(found.rows["train"]) == [one for one in both if "prepared" not in one]
    for table in found.report["tables"]:
        assert set(table["peak_tflops"]) == {"float32", "bfloat16"}
        for row in table["rows"]:
            assert row["variant"] == f"{row['library']} {row['mode']} {row['precision']}"
            assert len(row["seconds"]) == 2
            assert row["share_of_peak"] > 0
            assert row["graphs"] == (1 if row["mode"] == "compiled" else None)
    page = (found.folder / "flows-cpu.md").read_text()
    assert page.count("| tzk compiled float32 | 1 |") == 3
    assert "| tzk eager bfloat16 |  |" in page


def table(job: str, ours: float, theirs: float, width: int = 64) -> dict:
    """One table of two variants, as the JSON has it."""
    rows = [
        {"variant": f"{library} eager float32", "library": library, "mode": "eager"}
        | {"precision": "float32", "graphs": None, "ms_an_image": ms, "share_of_peak": 0.5}
        | {"profile": None}
        for library, ms in ((OURS, ours), ("normflows", theirs))
    ]
    ratios = {"normflows eager": {"precision": "float32", "tzk eager float32": theirs / ours}}
    return {"levels": 3, "steps": 8, "width": width, "batch": 32, "job": job} | {
        "peak_tflops": {"float32": 0.1, "bfloat16": 0.2},
        "rows": rows,
        "times_as_fast": ratios,
    }


def test_the_page_of_several_runs_has_jobs_side_by_side(tmp_path):
    """Of two tables of one job the later run's counts."""
    script = script_module("flows_page")
    about = {"device": "CPU", "threads": 1, "torch": "2"}
    for name, tables in (
        ("first", [table("nll", 4.0, 4.0), table("nll", 9.0, 9.0, 512), table("train", 2.0, 3.0)]),
        ("later", [table("nll", 1.0, 2.0)]),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(about | {"tables": tables}))
    files = [str(tmp_path / f"{name}.json") for name in ("first", "later")]
    result = CliRunner().invoke(script.flows_page, files)
    assert result.exit_code == 0, result.output
    assert "| 3 × 8, 64, 32 | NLL | training step |" in result.output
    assert "| tzk, eager | 1 (2.00) | 2 (1.50) |" in result.output
    assert "| normflows, eager | 2 | 3 |" in result.output
    best = (
        "| the best of ours against normflows eager | 2.00, eager float32 | 1.50, eager float32 |"
    )
    assert best in result.output
    (tmp_path / "other.json").write_text(json.dumps(about | {"torch": "3", "tables": []}))
    refused = CliRunner().invoke(script.flows_page, [*files, str(tmp_path / "other.json")])
    assert refused.exit_code == 2
    assert "the files differ in torch" in refused.output


def test_onnxruntime(asked):
    for module in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(module)
    found = asked(*TINY, "--mode", "onnxruntime", "--job", "nll")
    assert found.result.exit_code == 0, found.result.output
    assert names(found.rows["nll"]) == ["tzk onnxruntime float32"]


def test_operators_are_told(asked):
    found = asked(*TINY, "--job", "nll", "--mode", "eager", "--profile")
    assert found.result.exit_code == 0, found.result.output
    assert found.rows["nll"][0]["profile"]["operators"] > 10
    assert "| multiplying alone |" in (found.folder / "flows-cpu.md").read_text()


def test_ratios_are_to_the_better_precision_of_each_mode_of_a_peer(script):
    def variant(library, mode, precision, *seconds):
        return script.Variant(library, precision, mode, run=None, seconds=list(seconds))

    script.PEERS["peer"] = Stub
    try:
        ratios = script._ratios(
            [
                variant(OURS, "eager", "float32", 1.0, 2.0, 4.0),
                variant("peer", "eager", "float32", 9.0, 9.0, 9.0),
                variant("peer", "eager", "bfloat16", 3.0, 4.0, 4.0),
                variant("peer", "graph", "float32", 0.5, 1.0, 2.0),
            ]
        )
    finally:
        del script.PEERS["peer"]
    assert ratios == {
        "peer eager": {"precision": "bfloat16", "tzk eager float32": 2.0},
        "peer graph": {"precision": "float32", "tzk eager float32": 0.5},
    }


def test_the_share_is_of_the_best_product_of_the_tables_rounds(script, monkeypatch):
    rounds = iter(range(100))

    def seconds(run, repeats, device):
        return 1.0 + next(rounds) % 3

    monkeypatch.setattr(script, "_seconds", seconds)
    table = script._table((1, 1, 4), 2, "nll", "cpu", ("eager",), 9, False)
    assert table["peak_tflops"]["float32"] == pytest.approx(2 * 32**3 / 1e12)
    row = table["rows"][0]
    assert sorted(row["seconds"]) != row["seconds"][:1] * 9
    flops = row["share_of_peak"] * 2.0 * 2 * 32**3
    assert flops == pytest.approx(round(flops))


# -- compiled --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("peer", "graphs"), [(Stub, 1), (Breaking, 2)])
def test_a_reader_sees_how_many_graphs_there_are(script, asked, monkeypatch, peer, graphs):
    monkeypatch.setitem(script.PEERS, "peer", peer)
    found = asked(*TINY, "--mode", "compiled", "--job", "nll", "--job", "train")
    assert found.result.exit_code == 0, found.result.output
    for rows in found.rows.values():
        assert {row["graphs"] for row in rows if row["library"] == "peer"} == {graphs}
    assert list(found.report["tables"][0]["times_as_fast"]) == ["peer compiled"]


@torch._dynamo.config.patch(recompile_limit=2)
def test_what_the_compiler_gives_up_on_is_not_timed(script, asked, monkeypatch):
    monkeypatch.setitem(script.PEERS, "peer", Changing)
    found = asked(*TINY, "--mode", "compiled", "--job", "nll")
    assert type(found.result.exception).__name__ == "FailOnRecompileLimitHit"


@torch._dynamo.config.patch(recompile_limit=2)  # a table has two precisions
def test_a_later_table_is_compiled_as_the_first(asked):
    found = asked(*TINY, "--batch", "3", "--batch", "4", "--mode", "compiled", "--job", "nll")
    assert found.result.exit_code == 0, found.result.output
    graphs = [row["graphs"] for table in found.report["tables"] for row in table["rows"]]
    assert graphs == [1] * 6


# -- CUDA graphs, as far as a CPU goes -------------------------------------------------------------


def recording(refused: str | None = None):
    """In place of ``Graphed``: records nothing, and refuses as a GPU would."""

    def graphed(function):
        def run(*inputs: Tensor):
            if refused:
                raise RuntimeError(f"{refused}\nand a trace")
            return function(*inputs)

        return run

    return graphed


@pytest.mark.parametrize("job", ["nll", "sample", "train"])
def test_peers_are_recorded_too(script, monkeypatch, job):
    monkeypatch.setitem(script.PEERS, "peer", Stub)
    monkeypatch.setattr(script, "Graphed", recording())
    monkeypatch.setattr(script, "GraphedStep", lambda objective, trained, like: objective)
    found = list(script._variants((3, 8, 8), (1, 1, 4), 2, job, "cpu", ("graph",)))
    both = ("float32", "bfloat16")
    assert [one.name for one in found] == [f"{of} graph {p}" for of in (OURS, "peer") for p in both]
    for one in found:
        one.run()


def test_a_peer_that_cannot_be_recorded_is_left_out_and_told(script, monkeypatch, capsys):
    monkeypatch.setitem(script.PEERS, "peer", Stub)
    monkeypatch.setattr(script, "Graphed", recording(refused="not while capturing"))
    found = list(script._variants((3, 8, 8), (1, 1, 4), 2, "nll", "cpu", ("graph",)))
    assert [one.library for one in found] == [OURS, OURS]
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "peer graph float32, nll: left out, not while capturing"


# -- the peers themselves --------------------------------------------------------------------------


@pytest.mark.parametrize("peer", ["normflows", "FrEIA"])
def test_a_peer_is_one_graph_and_started_from_data(peer, monkeypatch):
    pytest.importorskip(peer)
    script = script_module("flows")
    monkeypatch.setattr(script, "COMPILER", "eager")
    torch._dynamo.reset()
    t = 0.1 * torch.randn(4, 3, 8, 8) + 0.5
    for job in ("nll", "sample", "train"):
        one = script._variant(peer, "compiled", "bfloat16", (2, 2, 4), job, t)
        for _ in range(3):
            one.run()
        assert one.compiler.graphs == 1

    model = script.made(peer, (3, 8, 8), 1, 1, 4, seed=0)
    script.start(model, t)
    [actnorm] = [one for one in model.modules() if type(one).__name__ == "ActNorm"]
    scale = actnorm.s if peer == "normflows" else actnorm.scale
    kept = scale.detach().clone()
    assert (kept.abs() > 1).all()  # of values that vary by 0.1
    model.log_prob(3 * t)  # other data start nothing again
    assert torch.equal(scale, kept)


def test_normflows_computes_what_it_did(monkeypatch):
    pytest.importorskip("normflows")
    script = script_module("flows")
    t = torch.randn(4, 3, 8, 8, generator=generator(0))
    plain = script.made("normflows", (3, 8, 8), 2, 2, 4, seed=0)
    started = script.made("normflows", (3, 8, 8), 2, 2, 4, seed=0)
    script.start(started, t)
    with torch.no_grad():
        plain.log_prob(t)
        assert torch.equal(plain.log_prob(2 * t), started.log_prob(2 * t))
        drawn = []
        for model in (plain, started):
            # normflows draws from the global generator, and takes no other.
            with torch.random.fork_rng():
                torch.manual_seed(1)
                drawn.append(model.sample(3))
    assert torch.equal(*drawn)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--mode", "eagr"], "'eagr' is not one of"),
        (["--mode", "graph"], "--mode graph is not for --device cpu, which has eager, prepared"),
        (["--device", "cuda", "--mode", "prepared"], "--mode prepared is not for --device cuda"),
        (["--size", "foo"], "LEVELS,STEPS,WIDTH is wanted, as in 3,8,64"),
        (["--size", "3,8"], "LEVELS,STEPS,WIDTH is wanted"),
        (["--size", "6,1,4"], "1 to 5 levels"),
        (["--size", "1,0,4"], "steps and width from 1 on"),
        (["--batch", "0"], "0 is not in the range"),
        (["--rounds", "0"], "0 is not in the range"),
    ],
)
def test_what_cannot_be_asked(asked, arguments, told):
    found = asked(*arguments)
    assert found.result.exit_code == 2
    assert told in " ".join(found.result.output.split())


def test_a_gpu_where_there_is_none(asked, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = asked("--device", "cuda")
    assert found.result.exit_code == 2
    assert "there is no GPU here" in found.result.output
