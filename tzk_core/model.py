"""TzK: one t-flow and the knowledge about it (Livne & Fleet 2019, Section 2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from .composition import Composition
from .conditional import Conditional, Prior
from .config import FlowConfig, KnowledgeConfig, TzKConfig
from .data.names import check_name, split_path, with_ancestors
from .data.preparation import Preparation
from .errors import InvalidRequest, UnknownKnowledge
from .flows import ImageFlow, VectorFlow
from .hub import PretrainedMixin
from .interpolation import Interpolation, interpolate
from .knowledge import Knowledge
from .likelihood import log_joint_by_importance
from .lineage import Lineage
from .randomness import Rows, generator, rows

__all__ = ["Posterior", "TzK"]

# Bare names such as `train` or `keys` are attributes of nn.ModuleDict already.
PREFIX = "k_"


class Posterior(NamedTuple):
    """What a model says of one knowledge given t; every tensor (B,)."""

    encoder: Tensor  # p_enc(e = 1 ∣ ancestors present, t)
    decoder: Tensor | None  # p_dec(e = 1 ∣ ancestors present, t), where it was asked for
    logit: Tensor  # of `encoder`
    joint: Tensor  # `encoder` times those of the ancestors
    normalised: Tensor | None = None  # among the siblings, where these are declared exclusive


class TzK(nn.Module, PretrainedMixin, library_name="tzk", license="mit"):
    """One invertible flow over observations t, and any number of knowledge types.

    The same class models images and, as a child, the codes of another TzK's knowledge
    (paper, Section 4.4).

    Args:
        config: what the model is made of; K = 0 unless it names knowledge.
        generator: draws first weights and shuffles; fresh entropy if there is none.

    >>> from tzk_core.config import FlowConfig
    >>> model = TzK(TzKConfig(observation=(1, 8, 8), flow=FlowConfig(levels=2, steps=1, width=8)))
    >>> model.add_knowledge("mnist").paths()
    ['mnist']
    >>> model.given("mnist").sample((2,)).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self, config: TzKConfig | dict, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        given = TzKConfig.model_validate(config)
        # The live modules are the truth about knowledge; `config` puts the two together again.
        self._base_config = given.model_copy(update={"knowledge": {}})
        source = _source(generator)
        shape, flow = given.observation, given.flow
        self.flow = (
            ImageFlow(
                shape, levels=flow.levels, steps=flow.steps, width=flow.width, generator=source
            )
            if len(shape) == 3
            else VectorFlow(shape[0], steps=flow.steps, width=flow.width, generator=source)
        )
        self.knowledge = nn.ModuleDict()
        for name, kind in given.knowledge.items():
            self._attach(name, kind, source)

    # -- what it is ------------------------------------------------------------------------------

    @property
    def config(self) -> TzKConfig:
        """The configuration of the model as it is now."""
        kinds = {}
        for name, kind in self.kinds().items():
            child = None if kind.child is None else kind.child.config
            kinds[name] = kind.config.model_copy(update={"child": child})
        return self._base_config.model_copy(update={"knowledge": kinds})

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.flow.shape

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.flow.latent_shape

    @property
    def preparation(self) -> Preparation | None:
        """How images become observations; stored with the model."""
        return self._base_config.preparation

    @preparation.setter
    def preparation(self, preparation: Preparation | None) -> None:
        self._base_config.preparation = preparation

    @property
    def statistics(self) -> dict:
        """Figures taken on held-out images; stored with the model."""
        return self._base_config.statistics

    @property
    def reference(self) -> Tensor:
        """A parameter, for its dtype and device."""
        return next(self.flow.parameters())

    @property
    def device(self) -> torch.device:
        return self.reference.device

    # -- knowledge, online -----------------------------------------------------------------------

    def kinds(self) -> dict[str, Knowledge]:
        """The knowledge of this level by name."""
        return {key.removeprefix(PREFIX): kind for key, kind in self.knowledge.items()}

    def every_knowledge(self) -> Iterator[Knowledge]:
        """All knowledge, down the hierarchy."""
        for kind in self.kinds().values():
            yield kind
            if kind.child is not None:
                yield from kind.child.every_knowledge()

    def paths(self) -> list[str]:
        """Every path, parents before their children: ``["mnist", "mnist/0", …]``."""
        found = []
        for name, kind in self.kinds().items():
            found.append(name)
            if kind.child is not None:
                found.extend(f"{name}/{path}" for path in kind.child.paths())
        return found

    def find(self, path: str) -> Knowledge:
        """The knowledge at a path.

        Raises:
            UnknownKnowledge: there is none; the error lists those there are.
        """
        return self._nodes(path)[-1][1]

    def label(self, path: str) -> str:
        """The name of a knowledge as the data had it, for display."""
        return self.find(path).config.label or path.rpartition("/")[2]

    def add_knowledge(
        self,
        path: str,
        config: KnowledgeConfig | None = None,
        *,
        child_flow: FlowConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> TzK:
        """Adds one knowledge type; nothing that was there changes, bit for bit.

        A path ``mnist/3`` adds to the child of ``mnist``, which is made if there is none.

        Args:
            path: its name, its ancestors before it.
            config: sizes; by default 10-D codes on images, 2-D codes on codes.
            child_flow: the t-flow of a child that has to be made (4 steps of width 64).
            generator: draws first weights and shuffles.

        Raises:
            InvalidRequest: a name that is taken or no name.
            UnknownKnowledge: an ancestor that is not there.
        """
        *ancestors, name = split_path(path)
        check_name(name)
        tzk, source = self, _source(generator)
        if ancestors:
            parent = self.find("/".join(ancestors))
            if parent.child is None:
                flow = child_flow or FlowConfig(steps=4, width=64)
                shape = (parent.config.code_dim,)
                parent.child = TzK(TzKConfig(observation=shape, flow=flow), generator=source)
                parent.child.to(self.reference).train(self.training)
            tzk = parent.child
        if name in tzk.kinds():
            raise InvalidRequest(f"there is a knowledge {path!r} already", pointer="/name")
        if config is None:
            config = KnowledgeConfig(code_dim=2 if ancestors else 10)
        tzk._attach(name, config, source)
        return self

    def remove_knowledge(self, path: str) -> TzK:
        """Removes a knowledge and all below it; the rest stays as it was, bit for bit."""
        *ancestors, name = split_path(path)
        self.find(path)
        if not ancestors:
            del self.knowledge[PREFIX + name]
            return self
        parent = self.find("/".join(ancestors))
        del parent.child.knowledge[PREFIX + name]
        if not parent.child.knowledge:
            parent.child = None
        return self

    def rename_knowledge(self, path: str, name: str) -> TzK:
        """Gives the knowledge at ``path`` another name, in its place."""
        check_name(name)
        *ancestors, old = split_path(path)
        self.find(path)
        tzk = self.find("/".join(ancestors)).child if ancestors else self
        if name != old and name in tzk.kinds():
            raise InvalidRequest(f"there is a knowledge {name!r} already", pointer="/name")
        kinds = {name if key == old else key: kind for key, kind in tzk.kinds().items()}
        tzk.knowledge = nn.ModuleDict({PREFIX + key: kind for key, kind in kinds.items()})
        return self

    def freeze(self, *parts: str) -> TzK:
        """Stops the gradient of ``"flow"`` or of knowledge by path; without parts, of all."""
        return self._set_trainable(parts, False)

    def unfreeze(self, *parts: str) -> TzK:
        """The opposite of :meth:`freeze`."""
        return self._set_trainable(parts, True)

    def declare_exclusive(self, parent: str | None = None, exclusive: bool = True) -> TzK:
        """Says that exactly one of the kinds below ``parent`` (of the first level) applies.

        It changes no probability; :meth:`posterior` then also gives the normalised ones.
        """
        tzk = self if parent is None else self.find(parent).child
        if tzk is None:
            raise InvalidRequest(f"{parent!r} has no kinds below it", pointer="/parent")
        tzk._base_config.exclusive = exclusive
        return self

    # -- what it says ----------------------------------------------------------------------------

    @property
    def prior(self) -> Prior:
        """p(t)."""
        return Prior(self)

    def given(
        self,
        *paths: str,
        absent: tuple[str, ...] | list[str] = (),
        temperature: float = 1.0,
        code_temperature: float = 1.0,
        paper_sampler: bool = False,
    ) -> Conditional | Composition:
        """p(t | e = 1 of ``paths``, e = 0 of ``absent``) as a distribution over t.

        One kind gives a :class:`~tzk_core.conditional.Conditional`; several give a
        :class:`~tzk_core.composition.Composition`, which has samples but no density.

        Raises:
            UnknownKnowledge: a path that is not there.
            InvalidRequest: no path, one named twice, or several that do not compose.
        """
        named = [*paths, *absent]
        if not named:
            raise InvalidRequest("at least one knowledge is needed", pointer="/given")
        if len(set(named)) < len(named):
            raise InvalidRequest(
                f"a knowledge is named twice among {', '.join(named)}", pointer="/given"
            )
        lineages = [self.lineage(path) for path in paths]
        lineages += [self.lineage(path, present=False) for path in absent]
        if len(lineages) > 1 and (paper_sampler or code_temperature != 1.0):
            raise InvalidRequest(
                "several kinds at once have neither the paper's sampler nor a code_temperature",
                pointer="/code_temperature" if code_temperature != 1.0 else "/paper_sampler",
            )
        if len(lineages) > 1:
            return Composition(self, lineages, temperature=temperature)
        return Conditional(
            self,
            lineages[0],
            temperature=temperature,
            code_temperature=code_temperature,
            paper_sampler=paper_sampler,
        )

    def lineage(self, path: str, *, present: bool = True) -> Lineage:
        """The path as one latent-variable model."""
        return Lineage(self._nodes(path), present, path)

    @torch.no_grad()
    def posterior(
        self,
        t: Tensor,
        *,
        knowledge: list[str] | None = None,
        draws: int = 16,
        decoder_draws: int = 0,
        generator: torch.Generator | Rows | None = None,
    ) -> dict[str, Posterior]:
        """Which knowledge applies to t; not a distribution over names, and need not sum to one.

        Args:
            t: observations (B, …).
            knowledge: paths; all by default. The ancestors of a path are worked out with it.
            draws: codes an ancestor's encoder is averaged over.
            decoder_draws: codes for p_dec(e∣t) = Z₁/(Z₀+Z₁), at least 256 to be worth reading;
                0 leaves it out.
            generator: one generator, or one a row.
        """
        wanted = self.paths() if knowledge is None else list(knowledge)
        # A stream a level, anew for each path: new knowledge, and new names, do not change what is
        # said of the old, and estimates that are multiplied down a path are independent.
        stream, known = rows(generator, len(t)).streams(), {}
        needed = [step for path in wanted for step in with_ancestors(path)]
        needed += [sibling for path in wanted for sibling in self._exclusive_siblings(path)]
        for path in dict.fromkeys(needed):
            lineage, source = self.lineage(path), stream(str(path.count("/")))
            logits = lineage.presence_logits(t, source, draws)
            # log p and log(1 − p) are averaged each: 1 − p would be 0 in float32 where p is near 1.
            logit = logsigmoid(logits).logsumexp(1) - logsigmoid(-logits).logsumexp(1)
            encoder = logit.sigmoid()
            above = path.rpartition("/")[0]
            joint = encoder * known[above].joint if above else encoder
            decoder = (
                self._decoder_posterior(path, t, decoder_draws, source) if path in wanted else None
            )
            known[path] = Posterior(encoder, decoder, logit, joint, None)
        answer = {}
        for path in wanted:
            group = self._exclusive_siblings(path)
            share = None
            if group:
                # Of independent answers, given that exactly one is yes: odds, normalised.
                # Row by row: along the first dimension a row's bits would depend on the batch.
                logits = torch.stack([known[sibling].logit for sibling in group], -1)
                share = logits.softmax(-1)[:, group.index(path)]
            answer[path] = known[path]._replace(normalised=share)
        return answer

    def interpolate(
        self,
        corners: Tensor,
        *,
        steps: int | tuple[int, int] = (8, 8),
        method: str = "linear",
        space: str = "z",
        given: str | None = None,
        generator: torch.Generator | Rows | None = None,
    ) -> Interpolation:
        """Between two or four observations; see :func:`tzk_core.interpolation.interpolate`."""
        lineage = None if given is None else self.lineage(given)
        return interpolate(
            self,
            corners,
            steps=steps,
            method=method,
            space=space,
            lineage=lineage,
            generator=generator,
        )

    # -- within ----------------------------------------------------------------------------------

    def _attach(self, name: str, config: KnowledgeConfig, source: torch.Generator) -> None:
        own = config.model_copy(update={"child": None})
        kind = Knowledge(own, self.observation_shape, self.latent_shape, source)
        if config.child is not None:
            kind.child = TzK(config.child, generator=source)
        self.knowledge[PREFIX + name] = kind.to(self.reference).train(self.training)

    def _nodes(self, path: str) -> list[tuple[TzK, Knowledge]]:
        tzk, nodes = self, []
        for name in split_path(path):
            kind = None if tzk is None else tzk.kinds().get(name)
            if kind is None:
                known = self.paths()
                raise UnknownKnowledge(
                    f"no knowledge {path!r}; there is {', '.join(known) or 'none yet'}",
                    known=known,
                )
            nodes.append((tzk, kind))
            tzk = kind.child
        return nodes

    def _exclusive_siblings(self, path: str) -> list[str]:
        """The kinds that exclude each other with ``path``, itself among them; none if not so."""
        tzk, _ = self._nodes(path)[-1]
        if not tzk._base_config.exclusive:
            return []
        above = path.rpartition("/")[0]
        return [f"{above}/{name}" if above else name for name in tzk.kinds()]

    def _set_trainable(self, parts: tuple[str, ...], trainable: bool) -> TzK:
        modules = [self.flow if part == "flow" else self.find(part) for part in parts] or [self]
        for module in modules:
            module.requires_grad_(trainable)
        return self

    def _decoder_posterior(self, path: str, t: Tensor, draws: int, source: Rows) -> Tensor | None:
        if not draws:
            return None
        z, log_det = self.flow.encode(t)
        log_z = [
            log_joint_by_importance(
                self.lineage(path, present=present), t, z, log_det, draws, source
            ).log_prob
            for present in (True, False)
        ]
        return (log_z[0] - log_z[1]).sigmoid()


def _source(given: torch.Generator | None) -> torch.Generator:
    return generator() if given is None else given
