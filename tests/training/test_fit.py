"""Kinds fitted as independent jobs: the same weights wherever they work, and whatever dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file

from tzk_core.cli.main import cli
from tzk_core.errors import UsageError, WorkFailed
from tzk_core.likelihood import fit_existence
from tzk_core.model import TzK
from tzk_core.randomness import derived
from tzk_core.training import fit as fit_module
from tzk_core.training import fit_ray, fit_workers
from tzk_core.training.extend import add_knowledge, remove_knowledge
from tzk_core.training.fit import FOLDER, fit_knowledge, knowledge_stage, recipe_of
from tzk_core.training.fit_job import Job
from tzk_core.training.fit_workers import Context, InProcess, Never
from tzk_core.training.latents import LATENTS
from tzk_core.training.loop import Stage
from tzk_core.training.progress import Reporter
from tzk_core.training.recipe import Recipe, parse_recipe
from tzk_core.training.run import add_known_kinds, read_data, train

WEIGHTS = "model.safetensors"
PATHS = ["mnist", "mnist/0", "mnist/1", "fashion", "round"]
STEPS = 6


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def recipe(values) -> Recipe:
    """Three root kinds, one with two below it, of which only the t-flow is trained."""
    told = values()
    told["stages"] = told["stages"][:1]
    digits = told["data"]["sources"][0]["source"]
    told["data"]["sources"].append({"source": f"{digits}/0", "knowledge": "round"})
    told["data"]["sources"][-1]["overlaps"] = ["mnist"]
    return parse_recipe(told)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, recipe) -> Path:
    """A run without knowledge."""
    out = tmp_path_factory.mktemp("runs") / "flow"
    train(recipe, out=out, device="cpu", quiet=True)
    return out


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of it that may be changed."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def fit(run: Path, **options) -> TzK:
    return fit_knowledge(run, steps=STEPS, device="cpu", quiet=True, **options)


@pytest.fixture(scope="module")
def fitted(trained, tmp_path_factory) -> Path:
    """All kinds, fitted one after the other by one process."""
    run = Path(shutil.copytree(trained, tmp_path_factory.mktemp("runs") / "fitted"))
    fit(run, processes=1)
    return run


@pytest.fixture
def here(monkeypatch) -> list[str]:
    """Jobs are done in this process, which spares the start of another; their names, in order."""
    given: list[str] = []
    plain = InProcess.run

    def run(self, function, shared, items, tick=None):
        items = list(items)
        given.extend(item.name for item in items if isinstance(item, Job))
        return plain(self, function, shared, items)

    monkeypatch.setattr(InProcess, "run", run)
    context = Context(Reporter(quiet=True), Never)
    monkeypatch.setattr(fit_module, "Processes", lambda *_: InProcess(context))
    return given


def artefacts(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / FOLDER).glob("*.safetensors")}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[key].numpy().tobytes() == b[key].numpy().tobytes() for key in a
    )


# -- what comes of it ------------------------------------------------------------------------------


def test_the_model_has_all_kinds_and_the_flow_is_as_it_was(fitted, trained):
    model = TzK.from_pretrained(fitted)
    assert model.paths() == PATHS
    assert model.find("mnist").config.label == "mnist"
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    now, before = load_file(fitted / WEIGHTS), load_file(trained / WEIGHTS)
    assert same({key: now[key] for key in before}, before)
    assert 0 < float(model.find("mnist/1").existence) < 1
    assert model.given("mnist/1").draw(2, seed=0).images.isfinite().all()


def test_every_kind_is_what_training_it_alone_in_this_process_gives(fitted, trained, tmp_path):
    """Against the loop itself, without jobs, artefacts or memory maps."""
    recipe = recipe_of(trained)
    stage, index = knowledge_stage(recipe, STEPS)
    model, done = TzK.from_pretrained(trained), TzK.from_pretrained(fitted)
    data, _ = read_data(recipe, Reporter(quiet=True))
    add_known_kinds(model, data.known, recipe)
    for name in ("mnist", "fashion", "round"):
        paths = [path for path in PATHS if path.split("/")[0] == name]
        Stage(
            model,
            data,
            stage,
            index,
            seed=recipe.seed,
            folder=tmp_path,
            reporter=Reporter(quiet=True),
            interrupt=Never,
            only=paths,
            resumable=False,
        ).run()
        draws = recipe.evaluation.existence_draws
        generator = derived(recipe.seed, "existence", name)
        fit_existence(model, draws=draws, generator=generator, only=paths)
        assert same(model.find(name).state_dict(), done.find(name).state_dict())


def test_what_a_run_folder_holds_then(fitted, recipe):
    record = json.loads((fitted / FOLDER / "mnist.json").read_text())
    assert record["made_from"]["stage"]["steps"] == STEPS
    assert record["made_from"]["seed"] == recipe.seed
    assert set(record["config"]["child"]["knowledge"]) == {"0", "1"}
    assert record["threads"] == 1
    assert len(list((fitted / LATENTS).glob("[!.]*"))) == len(recipe.data.sources)
    rows = [json.loads(line) for line in (fitted / "metrics.jsonl").read_text().splitlines()]
    assert {row["kind"] for row in rows if "kind" in row} == {"mnist", "fashion", "round"}
    assert "Added: mnist, fashion, round" in (fitted / "README.md").read_text()
    assert (fitted / "samples" / "mnist-classes.png").is_file()
    added = json.loads((fitted / "run.json").read_text())["added"]
    assert [each["title"] for each in added] == ["Added: mnist, fashion, round"]


# -- wherever it works, whatever dies --------------------------------------------------------------


def test_workers_that_are_killed(run, fitted, monkeypatch, here):
    """Two processes: `mnist` is killed once and done again, `fashion` whenever it is tried.

    Neither disturbs the other kinds, nobody can tell from the result, and a rerun does only what is
    missing.
    """
    monkeypatch.setattr(fit_module, "Processes", fit_workers.Processes)
    tried, plain = [], fit_workers._Worker.give

    def give(worker, task, given):
        plain(worker, task, given)
        if isinstance(given[1], Job):
            tried.append(name := given[1].name)
            if name == "fashion" or tried == ["mnist"]:
                os.kill(worker.process.pid, signal.SIGKILL)

    monkeypatch.setattr(fit_workers._Worker, "give", give)
    before = load_file(run / WEIGHTS)
    with pytest.raises(WorkFailed, match=r"fashion: its process died 2 times \(SIGKILL") as bad:
        fit(run, processes=2, retries=1)
    assert "run it again for what is missing" in bad.value.detail
    assert sorted(tried) == ["fashion", "fashion", "mnist", "mnist", "round"]
    assert TzK.from_pretrained(run).paths() == ["mnist", "mnist/0", "mnist/1", "round"]
    now = load_file(run / WEIGHTS)
    assert same({key: now[key] for key in before}, before)

    context = Context(Reporter(quiet=True), Never)
    monkeypatch.setattr(fit_module, "Processes", lambda *_: InProcess(context))
    model = fit(run)
    assert here == ["fashion"]
    assert artefacts(run) == artefacts(fitted)
    assert same(model.state_dict(), TzK.from_pretrained(fitted).state_dict())
    after = load_file(run / WEIGHTS)
    assert same({key: after[key] for key in now}, now)


@pytest.mark.parametrize("machines", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_real_ray_cluster_of_two_workers(run, fitted, machines, tmp_path, monkeypatch):
    """Two workers of one machine; or two nodes of one each, between which everything travels.

    The task of `mnist` is killed once: it is tried again, and nobody can tell from the result.
    """
    pytest.importorskip("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    tried, plain = tmp_path / "tried", fit_ray._work

    def killed_once(function, shared, item, threads):  # in the task's process
        name = getattr(item, "name", "")
        with tried.open("a") as file:
            file.write(f"{name}\n")
        if name == "mnist" and tried.read_text().split().count(name) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(function, shared, item, threads)

    monkeypatch.setattr(fit_ray, "_work", killed_once)
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    cluster = Cluster()
    try:
        for number in range(machines):
            cluster.add_node(
                num_cpus=2 // machines,
                object_store_memory=100_000_000,
                **({} if number else {"include_dashboard": False}),
            )
        ray.init(
            cluster.address,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
        )
        assert ray.cluster_resources()["CPU"] == 2
        fit(run, ray="auto")
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert sorted(tried.read_text().split()) == ["fashion", "mnist", "mnist", "round"]
    assert artefacts(run) == artefacts(fitted)
    assert (run / WEIGHTS).read_bytes() == (fitted / WEIGHTS).read_bytes()


# -- only what is missing --------------------------------------------------------------------------


def test_again_does_nothing(fitted, here):
    before = {path: path.stat().st_mtime_ns for path in fitted.rglob("*") if path.is_file()}
    assert fit(fitted).paths() == PATHS
    assert here == []
    after = {path: path.stat().st_mtime_ns for path in fitted.rglob("*") if path.is_file()}
    assert after == before


def copied(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "run"))


def test_what_was_fitted_but_not_merged_is_merged(fitted, trained, tmp_path, here):
    """As after a kill between the last job and the saving of the model."""
    run = copied(fitted, tmp_path)
    for name in ("config.json", WEIGHTS):
        shutil.copy(trained / name, run / name)
    fit(run)
    assert here == []
    assert (run / WEIGHTS).read_bytes() == (fitted / WEIGHTS).read_bytes()


def test_other_settings_and_spoiled_files_are_fitted_anew(fitted, tmp_path, here):
    run = copied(fitted, tmp_path)
    for name in ("mnist", "fashion", "round"):
        remove_knowledge(run, name)
    weights = run / FOLDER / "fashion.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    record = run / FOLDER / "round.json"
    told = json.loads(record.read_text())
    told["made_from"]["stage"]["steps"] += 1
    record.write_text(json.dumps(told))
    fit(run)
    assert sorted(here) == ["fashion", "round"]
    assert artefacts(run) == artefacts(fitted)


def test_only_and_then_the_rest(run, fitted, here):
    assert fit(run, only=["fashion"]).paths() == ["fashion"]
    assert here == ["fashion"]
    before = load_file(run / WEIGHTS)
    fit(run)
    assert sorted(here) == ["fashion", "mnist", "round"]
    after = load_file(run / WEIGHTS)
    assert same({key: after[key] for key in before}, before)
    assert artefacts(run) == artefacts(fitted)


def test_added_knowledge_is_one_more_job(fitted, tmp_path, values):
    run = copied(fitted, tmp_path)
    before = load_file(run / WEIGHTS)
    ones = values()["data"]["sources"][0]["source"] + "/1"
    model = add_knowledge(
        run, name="slim", source=ones, steps=STEPS, device="cpu", quiet=True, limit=30
    )
    assert model.paths() == [*PATHS, "slim"]
    after = load_file(run / WEIGHTS)
    assert same({key: after[key] for key in before}, before)
    assert (run / FOLDER / "slim.json").is_file()
    # The latent states of the other sources were there.
    assert len(list((run / LATENTS).glob("[!.]*"))) == 4
    assert [s.knowledge for s in recipe_of(run).data.sources][-1] == "slim"
    with pytest.raises(UsageError, match="has a knowledge 'slim' already"):
        add_knowledge(run, name="slim", source=ones, quiet=True)


# -- what is refused, and what fails ---------------------------------------------------------------


def test_an_error_is_not_tried_again_and_told_in_a_sentence(run, here):
    recipe = recipe_of(run)
    stage = {"train": "knowledge", "steps": 30, "batch": 8, "learning_rate": 1e30}
    told = recipe.model_dump(mode="json")
    told["stages"].append(stage)
    (run / "recipe.yaml").write_text(yaml.safe_dump(told))
    before = (run / WEIGHTS).read_bytes()
    with pytest.raises(WorkFailed, match=r"fashion: .*not finite .*smaller learning_rate") as bad:
        fit_knowledge(run, only=["fashion"], device="cpu", quiet=True)
    assert here == ["fashion"]
    assert "\n" not in bad.value.detail
    assert (run / WEIGHTS).read_bytes() == before


def test_names_that_are_not_there(trained):
    with pytest.raises(UsageError, match=r"cifar, mnist/0: .* there is mnist, fashion, round"):
        fit(trained, only=["cifar", "fashion", "mnist/0"])


def test_a_run_without_a_recipe(run):
    (run / "recipe.yaml").unlink()
    with pytest.raises(UsageError, match=r"has no recipe\.yaml"):
        fit(run)


def test_a_recipe_that_tells_of_no_knowledge(run, recipe):
    told = recipe.model_dump(mode="json")
    told["data"]["sources"] = [{"source": "builtin/mnist", "limit": 60}]
    (run / "recipe.yaml").write_text(yaml.safe_dump(told))
    with pytest.raises(UsageError, match="tell of no knowledge"):
        fit(run)


def test_the_stage_of_the_recipe(recipe):
    assert knowledge_stage(recipe) == (knowledge_stage(recipe)[0], 1)
    assert knowledge_stage(recipe)[0].steps == 1000
    own = parse_recipe(
        recipe.model_dump(mode="json")
        | {"stages": [{"train": "knowledge", "steps": 7}, {"train": "flow", "steps": 1}]}
    )
    assert knowledge_stage(own) == (own.stages[0], 0)
    assert knowledge_stage(own, 9)[0] == own.stages[0].model_copy(update={"steps": 9})


# -- on the command line ---------------------------------------------------------------------------


def test_processes_of_this_machine_are_none_of_a_cluster(trained):
    result = CliRunner().invoke(cli, ["fit-knowledge", str(trained), "--ray", "--processes", "2"])
    assert result.exit_code == 2
    assert "--processes is of this machine" in result.output


def test_the_command(run, fitted, here):
    command = ["fit-knowledge", str(run), "--steps", str(STEPS), "--device", "cpu"]
    result = CliRunner().invoke(cli, [*command, "--only", "mnist", "--only", "fashion"])
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == PATHS[:-1]
    assert here == ["mnist", "fashion"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_however_it_ends_its_workers_end_with_it(run, number):
    import psutil

    root = Path(__file__).parents[2]
    where = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "tzk_core.cli.main", "fit-knowledge", str(run)]
    started = subprocess.Popen(
        [*command, "--processes", "2", "--steps", "100000", "--device", "cpu"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": where},
        text=True,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not list((run / LATENTS).glob("[0-9a-f]*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    workers = psutil.Process(started.pid).children(recursive=True)
    assert len(workers) >= 2
    started.send_signal(number)
    _, told = started.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    if number == signal.SIGINT:
        assert started.returncode == 1
        assert "interrupted: finished kinds are kept" in told
        assert "Traceback" not in told
    assert TzK.from_pretrained(run).paths() == []
