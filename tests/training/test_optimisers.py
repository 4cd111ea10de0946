"""Rates, presets, optimisers and averages, against what they are said to be."""

from __future__ import annotations

import pytest
import torch

from tzk_core.errors import UsageError
from tzk_core.flows import VectorFlow
from tzk_core.training.optimisers import Average, optimiser, rate
from tzk_core.training.recipe import load_recipe, parse_recipe
from tzk_core.training.settings import StageConfig


def stage(**values) -> StageConfig:
    return StageConfig.model_validate({"train": "flow", "steps": 1000} | values)


def test_the_paper_s_preset():
    """Section 4: Adam, 1e-5, 4,000 steps of warm-up, batches of 10."""
    paper = stage(preset="paper")
    assert (paper.optimiser, paper.batch, paper.betas) == ("adam", 10, (0.9, 0.999))
    assert rate(paper, 0) == pytest.approx(1e-5 / 4000)
    assert rate(paper, 1999) == pytest.approx(0.5e-5)
    assert rate(paper, 3999) == pytest.approx(1e-5)
    # Vaswani et al. 2017, Eq. 3: step^-1/2 beyond the warm-up.
    assert rate(paper, 15_999) == pytest.approx(1e-5 / 2)
    assert load_recipe("paper-training").stages[0] == stage(
        steps=500_000, preset="paper", checkpoint_every=5000, measure_every=5000
    )


def test_keys_that_are_given_count_more_than_the_preset():
    paper = stage(preset="paper", batch=32, decay="none")
    assert (paper.batch, paper.decay, paper.learning_rate) == (32, "none", 1e-5)
    # What is stored in the run folder is the same stage again.
    assert StageConfig.model_validate(paper.model_dump(mode="json")) == paper
    values = {"name": "x", "data": {"sources": [{"source": "builtin/mnist"}]}}
    values["stages"] = [{"train": "flow", "steps": 1}]
    recipe = parse_recipe(values, ["stages.0.preset=paper", "stages.0.warmup=7"])
    assert (recipe.stages[0].warmup, recipe.stages[0].batch) == (7, 10)
    with pytest.raises(UsageError, match=r"stages\.0\.preset"):
        parse_recipe(values, ["stages.0.preset=fast"])


def test_other_schedules():
    cosine = stage(learning_rate=1.0, warmup=100)
    assert rate(cosine, 49) == pytest.approx(0.5, rel=1e-6)
    assert rate(cosine, 100) == pytest.approx(1.0)
    assert rate(cosine, 550) == pytest.approx(0.01 + 0.99 / 2)
    assert rate(cosine, 999) == pytest.approx(0.01, rel=1e-2)
    assert rate(stage(learning_rate=1.0, warmup=0, decay="none"), 0) == 1.0
    assert rate(stage(learning_rate=1.0, warmup=0, decay="inverse_sqrt"), 3) == 0.5


@pytest.mark.parametrize(
    ("name", "made"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("adamax", torch.optim.Adamax)],
)
def test_optimisers(name, made):
    flow = VectorFlow(4, steps=1, width=4, generator=torch.Generator())
    parameters = list(flow.parameters())
    config = stage(optimiser=name, betas=[0.8, 0.9], weight_decay=0.1, scale_rate=7)
    built = optimiser(flow, parameters, config)
    assert type(built) is made
    plain, scales = built.param_groups
    assert (plain["betas"], plain["weight_decay"]) == ((0.8, 0.9), 0.1)
    assert (plain["rate"], scales["rate"]) == (1.0, 7.0)
    assert [p is flow.layers[0].layers[0].log_scale for p in scales["params"]] == [True]
    assert len(plain["params"]) + 1 == len(parameters)


def test_an_average():
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    average = Average([parameter], 0.9)
    with torch.no_grad():
        parameter.fill_(0.0)
    average.update(100)
    average.update(101)
    assert average.values[0].tolist() == pytest.approx([0.81, 1.62])
    with average.in_place():
        assert parameter.tolist() == pytest.approx([0.81, 1.62])
    assert parameter.tolist() == [0.0, 0.0]
    average.update(1)  # of the first weights little is kept: 2/11
    assert average.values[0].tolist() == pytest.approx([0.81 * 2 / 11, 1.62 * 2 / 11])
    average.values[0].copy_(torch.tensor([0.81, 1.62]))
    again = Average([parameter], 0.9, average.values)
    again.put_in_place()
    assert parameter.tolist() == pytest.approx([0.81, 1.62])
