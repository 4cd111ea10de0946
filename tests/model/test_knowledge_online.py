"""Knowledge comes, goes and changes its name; what was there before stays, bit for bit."""

from __future__ import annotations

import pytest
import torch
from tiny_model import PATHS, SIDE, tiny_model

from tzk_core.config import FlowConfig, KnowledgeConfig, TzKConfig
from tzk_core.errors import InvalidRequest, UnknownKnowledge
from tzk_core.model import TzK
from tzk_core.randomness import Rows

SEEDS = list(range(100, 120))
SMALL = KnowledgeConfig(code_dim=3, code_width=4, encoder_width=4, decoder_width=4, z_width=4)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def answers(model: TzK, paths=PATHS) -> dict[str, torch.Tensor]:
    """20 of everything that a model says: log p's, samples and posteriors."""
    t = 0.3 * torch.randn(20, 1, SIDE, SIDE, generator=generator(1))
    everything = model.posterior(t, decoder_draws=16, generator=Rows(SEEDS))
    said = {"log_prob": model.prior.log_prob(t), "samples": model.prior.draw(20, seed=5).images}
    for path in paths:
        given = model.given(path)
        said[f"log_prob {path}"] = given.log_prob(t, draws=16, generator=Rows(SEEDS))
        drawn = given.draw(20, seed=9)
        said[f"samples {path}"] = drawn.images
        said[f"codes {path}"] = torch.cat(drawn.codes, dim=1)
        about = everything[path]
        said[f"encoder {path}"], said[f"decoder {path}"] = about.encoder, about.decoder
    return said


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(identical(a[key], b[key]) for key in a)


def identical(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit for bit, as bytes: figures that were never fitted are NaN, which equals nothing."""
    return a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.fixture
def model():
    return tiny_model().requires_grad_(False)


def test_adding_changes_nothing_that_was_there(model):
    before = answers(model)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model.add_knowledge("new", SMALL, generator=generator(3))
    model.add_knowledge("mnist/4", SMALL, generator=generator(4))
    model.add_knowledge("new/below", SMALL, generator=generator(5))
    assert same(answers(model), before)
    assert model.paths() == ["mnist", "mnist/3", "mnist/4", "fashion", "new", "new/below"]
    now = model.state_dict()
    assert all(identical(now[key], value) for key, value in state.items())
    # And the new ones answer.
    answers(model, ["new", "mnist/4", "new/below"])


def test_removing_changes_nothing_that_stays(model):
    before = answers(model, ["mnist", "mnist/3"])
    model.remove_knowledge("fashion")
    assert model.paths() == ["mnist", "mnist/3"]
    assert same(answers(model, ["mnist", "mnist/3"]), before)
    alone = answers(model, ["mnist"])
    model.remove_knowledge("mnist/3")
    assert model.paths() == ["mnist"]
    assert model.find("mnist").child is None
    assert same(answers(model, ["mnist"]), alone)


def test_added_and_removed_is_as_before(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    config = model.config
    model.add_knowledge("new", SMALL).remove_knowledge("new")
    model.add_knowledge("fashion/x", SMALL).remove_knowledge("fashion/x")
    now = model.state_dict()
    assert now.keys() == before.keys()
    assert all(identical(now[key], value) for key, value in before.items())
    assert model.config == config


def test_renaming_keeps_the_place_and_every_answer(model):
    before = answers(model)
    model.rename_knowledge("mnist", "digits").rename_knowledge("digits/3", "three")
    assert model.paths() == ["digits", "digits/three", "fashion"]
    now = answers(model, ["digits", "digits/three", "fashion"])
    names = {"mnist/3": "digits/three", "mnist": "digits"}
    for key, value in before.items():
        what, _, path = key.partition(" ")
        assert torch.equal(now[f"{what} {names.get(path, path)}".strip()], value)
    model.rename_knowledge("digits", "digits")


def test_names_that_are_taken_or_wrong(model):
    with pytest.raises(InvalidRequest, match="there is a knowledge 'mnist' already"):
        model.add_knowledge("mnist")
    with pytest.raises(InvalidRequest, match="there is a knowledge 'mnist/3' already"):
        model.add_knowledge("mnist/3")
    with pytest.raises(InvalidRequest, match="there is a knowledge 'fashion' already"):
        model.rename_knowledge("mnist", "fashion")
    with pytest.raises(InvalidRequest, match="did you mean 't-shirt-top'"):
        model.add_knowledge("T-shirt top")
    with pytest.raises(UnknownKnowledge):
        model.add_knowledge("nothing/3")
    assert model.paths() == PATHS


@pytest.mark.parametrize("name", ["train", "type", "keys", "items", "forward", "0", "a-b_c"])
def test_names_that_modules_use_themselves(name):
    config = TzKConfig(observation=(2,), flow=FlowConfig(steps=1, width=4))
    model = TzK(config, generator=generator(0)).add_knowledge(name, SMALL)
    assert model.paths() == [name]
    assert model.given(name).sample((2,)).shape == (2, 2)


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.find("mnist/4"),
        lambda m: m.given("mnist/4"),
        lambda m: m.given(absent=["nothing"]),
        lambda m: m.given("mnist/3/deeper"),
        lambda m: m.label("nothing"),
        lambda m: m.posterior(torch.zeros(1, 1, SIDE, SIDE), knowledge=["nothing"]),
        lambda m: m.interpolate(torch.zeros(2, 1, SIDE, SIDE), given="nothing"),
        lambda m: m.freeze("nothing"),
        lambda m: m.remove_knowledge("nothing"),
        lambda m: m.remove_knowledge("mnist/4"),
        lambda m: m.rename_knowledge("nothing", "something"),
    ],
)
def test_unknown_knowledge_is_404_with_what_there_is(model, ask):
    with pytest.raises(UnknownKnowledge) as caught:
        ask(model)
    problem = caught.value.problem()
    assert problem["status"] == 404
    assert problem["known"] == PATHS
    assert "mnist, mnist/3, fashion" in problem["detail"]


def test_a_model_without_knowledge_says_so():
    model = TzK(TzKConfig(observation=(2,), flow=FlowConfig(steps=1, width=4)))
    with pytest.raises(UnknownKnowledge, match="there is none yet"):
        model.given("mnist")
    assert model.paths() == []
    assert model.posterior(torch.zeros(3, 2)) == {}


def test_knowledge_that_cannot_be_given(model):
    for ask in (
        lambda: model.given(),
        lambda: model.given("mnist", "mnist"),
        lambda: model.given("mnist", absent=["mnist"]),
        lambda: model.given("mnist", "mnist/3"),
        lambda: model.given("mnist", absent=["fashion"]).log_prob(torch.zeros(1, 1, SIDE, SIDE)),
    ):
        with pytest.raises(InvalidRequest) as caught:
            ask()
        assert caught.value.pointer == "/given"


def trainable(model: TzK) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_freeze_and_unfreeze(model):
    model.unfreeze()
    every = trainable(model)
    assert every == {name for name, _ in model.named_parameters()}
    model.freeze("flow")
    assert trainable(model) == {name for name in every if not name.startswith("flow.")}
    model.freeze("mnist/3").unfreeze("flow")
    frozen = every - trainable(model)
    assert frozen
    assert all(name.startswith("knowledge.k_mnist.child.knowledge.k_3.") for name in frozen)
    model.freeze()
    assert trainable(model) == set()
    model.unfreeze("fashion")
    assert all(name.startswith("knowledge.k_fashion.") for name in trainable(model))


def test_what_is_frozen_does_not_move(model):
    model.freeze().unfreeze("fashion")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    t = torch.zeros(2, 1, SIDE, SIDE)
    model.find("fashion").t_discriminator(t).sum().backward()
    optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not identical(value, before[key])}
    assert moved
    assert all(key.startswith("knowledge.k_fashion.t_discriminator.") for key in moved)


def test_new_knowledge_takes_the_dtype_and_mode_of_the_model(model):
    model.double().train()
    model.add_knowledge("new", SMALL).add_knowledge("new/x", SMALL)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model.find("new").training
    model.eval().add_knowledge("other", SMALL).add_knowledge("other/x", SMALL)
    assert not any(module.training for module in model.modules())


def test_a_seed_gives_the_same_knowledge():
    def state(seed):
        model = TzK(TzKConfig(observation=(3,), flow=FlowConfig(steps=1, width=4)))
        model.add_knowledge("a", SMALL, generator=generator(seed))
        return model.find("a").state_dict()

    a, b, c = state(1), state(1), state(2)
    assert same(a, b)
    assert not same(a, c)


def test_labels(model):
    assert model.label("mnist/3") == "3"
    model.add_knowledge("top", SMALL.model_copy(update={"label": "T-shirt/top"}))
    assert model.label("top") == "T-shirt/top"


def test_defaults_of_the_design():
    model = TzK(TzKConfig(observation=(1, 8, 8), flow=FlowConfig(levels=1, steps=1, width=4)))
    model.add_knowledge("a").add_knowledge("a/b")
    assert model.find("a").config.code_dim == 10
    assert model.find("a/b").config.code_dim == 2
    assert model.find("a").child.observation_shape == (10,)
