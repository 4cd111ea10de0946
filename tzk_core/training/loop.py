"""One stage of training: a loop, not a framework."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..data.names import below, with_ancestors
from ..errors import UsageError, WorkFailed
from ..flows import recompute_networks
from ..likelihood import fit_existence
from ..model import TzK
from ..networks import run_networks_in
from ..objective import check_objective
from ..randomness import derived
from ..siblings import Stack, together
from .checkpoint import Checkpoint, clear_leftovers, save_best, save_checkpoint
from .dataset import Dataset
from .group import Group
from .initialise import initialise_flow, initialise_knowledge
from .interrupt import Interrupt
from .latents import LATENTS, Latents
from .measuring import Codes, HeldOut, sample_images
from .mixing import correct_logits, corrected_logits
from .optimisers import Average, go_on, optimiser, rate
from .progress import Reporter
from .settings import StageConfig, WatchConfig
from .steps import Outcome, Steps
from .watching import Board, Metrics

__all__ = ["LATENT_BYTES", "Stage", "select_parameters"]

EXISTENCE_DRAWS = 100_000  # of codes, for a model that may not be the last
LATENT_BYTES = 4 << 30  # of z that are kept; beyond it z is worked out each time

_TITLES = {
    "flow": "t-flow",
    "knowledge": "knowledge",
    "children": "knowledge below knowledge",
    "all": "t-flow and knowledge",
}


def select_parameters(
    model: TzK, config: StageConfig, only: list[str] | None = None
) -> list[Tensor]:
    """Freezes what a stage leaves as it is; returns what it trains.

    Args:
        only: see :class:`Stage`.

    Raises:
        UsageError: nothing is left to train.
        UnknownKnowledge: it freezes knowledge that the model does not have.
    """
    train = config.train
    model.requires_grad_(train == "all")
    if train == "flow":
        model.flow.requires_grad_(True)
    elif train == "knowledge" and only is None:
        model.knowledge.requires_grad_(True)
    elif train == "children" and only is None:
        for kind in model.kinds().values():
            if kind.child is not None:
                kind.child.requires_grad_(True)
    elif train in ("knowledge", "children"):
        model.unfreeze(*only)
    if config.freeze:
        model.freeze(*config.freeze)
    parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise UsageError(f"{_TITLES[train]}: the stage freezes all that it would train")
    return parameters


class Stage:
    """Trains part of a model on data by one stage of a recipe.

    Args:
        model: trained in place.
        data: the training images.
        config, index: the stage, and which it is.
        seed: of the run.
        folder: the run folder, for checkpoints and ``metrics.jsonl``.
        only: paths of the knowledge that trains, where the rest stays bit for bit; all for None.
        resumable: whether to write checkpoints.
        latents: of these images on the frozen t-flow, where they are known already.
        watch: what is logged and kept.
        held_out: images to measure on as it goes; nothing is measured without.
        board: of TensorBoard, if there is one.
        offset: steps of the stages before this one, for ``board``.
        group: the processes that train together.
    """

    def __init__(
        self,
        model: TzK,
        data: Dataset,
        config: StageConfig,
        index: int,
        *,
        seed: int,
        folder: Path,
        reporter: Reporter,
        interrupt: Interrupt,
        only: list[str] | None = None,
        resumable: bool = True,
        latents: Latents | None = None,
        watch: WatchConfig | None = None,
        held_out: Dataset | None = None,
        board: Board | None = None,
        offset: int = 0,
        group: Group | None = None,
    ) -> None:
        self.model, self.data, self.config, self.index = model, data, config, index
        self.seed, self.folder = seed, folder
        self.reporter, self.interrupt = reporter, interrupt
        self.only, self.resumable = only, resumable
        self.latents, self._kept = latents, None
        self.watch = watch or WatchConfig()
        self.board, self.offset = board, offset
        self.group = group or Group(model.device)
        self.metrics = Metrics(folder / "metrics.jsonl")
        self.existence = data.known.existence
        if only is not None:
            # A kind below others is reached through them, though they do not train.
            needed = {step for path in only for step in with_ancestors(path)}
            self.existence = {p: e for p, e in self.existence.items() if p in needed}
        self.held_out = None
        if held_out is not None and len(held_out) and config.measure_every:
            count = self.watch.measure_images
            needed = self.existence
            self.held_out = HeldOut(held_out, config, count=count, seed=seed, needed=needed)

    def run(self, start: Checkpoint | None = None) -> None:
        """From the beginning, or from a checkpoint within this stage.

        Raises:
            WorkFailed: interrupted, the loss was not finite several times in a row, or something
                cannot be written.
        """
        check_objective(self.model, self.config.objective, self.config.train == "all")
        with self._networks(), self._side_by_side():
            self._prepare(start)
            self._loop()
            if self.average is not None:
                self.average.put_in_place()
        if self.steps.balance is not None:
            correct_logits(self.model, self.steps.balance.corrections)
        self.latents = None
        if self._kept is not None:
            shutil.rmtree(self._kept, ignore_errors=True)
        self.model.requires_grad_(True).eval()

    # -- before the first step -------------------------------------------------------------------

    @contextlib.contextmanager
    def _networks(self) -> Iterator[None]:
        """Within the block networks run as the stage says, afterwards plainly."""
        run_networks_in(self.model, torch.bfloat16 if self.config.precision == "bf16" else None)
        recompute_networks(self.model, self.config.recompute)
        try:
            yield
        finally:
            run_networks_in(self.model, None)
            recompute_networks(self.model, False)

    @contextlib.contextmanager
    def _side_by_side(self) -> Iterator[None]:
        """Within the block alike kinds on one code, if all of them train, are stacks."""
        self.stacks: list[Stack] = []
        try:
            yield
        finally:
            for stack in self.stacks:
                stack.undo()

    def _stack(self) -> None:
        if self.config.train == "flow" or self.config.objective.name != "elbo":
            return
        for path in ["", *self.model.paths()]:
            parent = self.model.find(path).child if path else self.model
            known = below(self.existence, path) if path else self.existence
            for names in together(parent, known) if parent is not None else []:
                kinds = [parent.kinds()[name] for name in names]
                if all(p.requires_grad for kind in kinds for p in kind.parameters()):
                    self.stacks.append(Stack(kinds))
        pairs = [pair for stack in self.stacks for pair in stack.parameters]
        stacked = {id(one) for _, each in pairs for one in each}
        self.parameters = [p for p in self.parameters if id(p) not in stacked]
        self.parameters += [whole for whole, _ in pairs]

    def _prepare(self, start: Checkpoint | None) -> None:
        config = self.config
        self.parameters = select_parameters(self.model, config, self.only)
        done = start is not None and start.step >= config.steps
        if config.train == "knowledge" and not done:
            self._keep_latents()
        if start is None:
            self._initialise()
        self._stack()
        self.group.take_from_main(self.parameters)
        self.steps = Steps(
            self.model,
            self.data,
            config,
            self.index,
            seed=self.seed,
            existence=self.existence,
            trained=self._trained_paths(),
            latents=self.latents,
            group=self.group,
            parameters=self.parameters,
        )
        self.optimiser = optimiser(self.model, self.parameters, config, self.stacks)
        averaged, self.first, self.bad_in_a_row, self.bad_steps, self.best = None, 0, 0, 0, None
        if start is not None:
            go_on(self.optimiser, start.optimizer)
            averaged, self.first = start.averaged, start.step
            self.bad_in_a_row, self.bad_steps = start.bad_in_a_row, start.bad_steps
            self.best = start.best
        self.average = Average(self.parameters, config.ema, averaged) if config.ema else None
        self.last_good: int | None = None  # of the steps since this process began
        if self.resumable and self.group.main:
            clear_leftovers(self.folder)
            self.metrics.rewind(self.index, self.first)

    def _trained_paths(self) -> list[str]:
        """Knowledge whose discriminators train: no other is balanced and corrected."""
        if self.config.train == "flow":
            return []
        paths = self.existence if self.only is None else self.only
        return [
            path
            for path in paths
            if any(p.requires_grad for p in self.model.find(path).t_discriminator.parameters())
        ]

    def _initialise(self) -> None:
        generator = derived(self.seed, "initialise", self.index)
        if self.config.terms["flow"]:
            initialise_flow(self.model, self.data, generator)
        if self.config.train != "flow":
            initialise_knowledge(self.model, self.data, self.existence, generator, self.latents)

    def _keep_latents(self) -> None:
        if self.latents is not None:
            return
        asked = self.config.latent_draws
        of_a_draw = len(self.data) * math.prod(self.model.observation_shape) * 4
        draws = min(asked, LATENT_BYTES // of_a_draw)
        if draws < asked:
            self._tell_kept(asked, draws, of_a_draw)
        if draws < 1:
            return
        task = self.reporter.task("latent states", draws * len(self.data))

        def tick(images: int) -> None:
            task.advance(images)
            if self.interrupt.asked:
                raise WorkFailed(f"interrupted before step 1 ({self._title}){self._how_to_go_on}")

        if self.resumable and self.group.count == 1:
            # Until the stage is done: a run that goes on finds them again.
            self._kept = self.folder / LATENTS
        everything = self.model, self.data, draws, self.seed, tick
        try:
            self.latents = Latents.encode(*everything, folder=self._kept, group=self.group)
        except WorkFailed as error:
            if self._kept is None or self.interrupt.asked:
                raise
            self.reporter.say(f"latent states are kept in memory: {error.detail}")
            self._kept = None
            self.latents = Latents.encode(*everything, group=self.group)

    def _tell_kept(self, asked: int, draws: int, of_a_draw: int) -> None:
        """Why fewer latent states are kept than the recipe asks for, and what comes of it."""
        kept, cost = (
            (f"{draws} kept", "each image is seen with no more draws of noise than that")
            if draws
            else ("none kept", "every step works z out anew, by a pass through the t-flow")
        )
        self.reporter.say(
            f"{asked} noise draws of {len(self.data):,} images (latent_draws) would take "
            f"{asked * of_a_draw / 1e9:,.1f} GB, and latent states may take "
            f"{LATENT_BYTES / 1e9:,.1f} GB: {kept}, so that {cost}; fewer images "
            "(`limit`) change that, or leaving knowledge to `tzk fit-knowledge`, which keeps all "
            "on disk"
        )

    # -- the steps -------------------------------------------------------------------------------

    def _loop(self) -> None:
        config = self.config
        task = self.reporter.task(self._title, config.steps, self.first)
        self._clock, self._clock_at, note = time.monotonic(), self.first, ""
        self.model.train()
        for step in range(self.first, config.steps):
            for group in self.optimiser.param_groups:
                group["lr"] = rate(config, step) * group["rate"]
            outcome, good = self._step(step)
            self._count(step, good)
            if self.average is not None and good:
                self.average.update(step + 1)
            if step % self.watch.log_every == 0 or step == config.steps - 1:
                note = self._log(step, outcome)
            task.advance(1, note)
            self._measure(step + 1)
            self._keep(step + 1)
        self.reporter.say(f"{self._title}: {config.steps} steps in {task.seconds:.0f} s, {note}")

    def _step(self, step: int) -> tuple[Outcome, bool]:
        """One step, or none where the loss or the gradient is not finite."""
        self.optimiser.zero_grad(set_to_none=True)
        outcome = self.steps.gradients(step)
        outcome.loss = self.group.sum(outcome.loss)
        if not outcome.known:
            return outcome, True  # of nobody in this batch is anything known
        self.group.sum_gradients(self.parameters)
        self._norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        good = bool(outcome.loss.isfinite() & self._norm.isfinite())
        if good:
            self.optimiser.step()
            self.last_good = step
        return outcome, good

    def _count(self, step: int, good: bool) -> None:
        """Counts steps that were left out, and ends the run after too many in a row."""
        self.bad_in_a_row = 0 if good else self.bad_in_a_row + 1
        if good:
            return
        self.bad_steps += 1
        if self.group.main:
            row = {"stage": self.index, "step": step, "left_out": True}
            self.metrics.write(row | {"bad_steps": self.bad_steps})
        if self.bad_in_a_row >= self.config.bad_steps:
            raise WorkFailed(
                f"{self._title}: the loss was not finite in {self.bad_in_a_row} steps in a row, "
                f"the last being step {step}; try a smaller learning_rate in a run of its own (the "
                "last good checkpoint of this one is kept)"
            )

    def _log(self, step: int, outcome: Outcome) -> str:
        """A row of metrics; returns what the bar says."""
        terms = outcome.terms
        for values in (terms.logs, terms.moments):
            for name in values:
                values[name] = self.group.sum(values[name].clone())
        now, done = time.monotonic(), step + 1
        speed = self.steps.size * (done - self._clock_at) / max(now - self._clock, 1e-9)
        self._clock, self._clock_at = now, done
        if not self.group.main:
            return ""
        figures = {name: float(value) for name, value in terms.figures().items()}
        self._conditional_bits(figures)
        if outcome.known:
            figures |= {"loss": float(outcome.loss), "gradient_norm": float(self._norm)}
        figures["learning_rate"] = rate(self.config, step)
        rounded = {name: _rounded(value) for name, value in figures.items()}
        head = {"stage": self.index, "step": step, "images_per_s": round(speed)}
        self.metrics.write(head | {"bad_steps": self.bad_steps} | rounded)
        if self.board is not None:
            shown = {f"{self._title}/{name}": value for name, value in figures.items()}
            self.board.scalars(shown | {"images_per_s": speed}, self.offset + step)
        return f"{_headline(figures)} {speed:.0f} images/s"

    def _conditional_bits(self, figures: dict[str, float]) -> None:
        """Shows the `reconstruction` of the first kinds as bits/dim where the t-flow is frozen."""
        if "bits_per_dim" in figures:
            return
        parts = [
            value
            for name, value in figures.items()
            if name.endswith("/reconstruction") and name.count("/") == 1
        ]
        if parts:
            figures["bits_per_dim"] = 8 - sum(parts) / len(parts) / self.steps.bits

    # -- between steps ---------------------------------------------------------------------------

    def _measure(self, done: int) -> None:
        """Every so often the held-out figure, whose best model is kept, and samples."""
        last = done == self.config.steps
        if not self.group.main:
            return
        if self.held_out is not None and (done % self.config.measure_every == 0 or last):
            with self._averaged():
                figure = self.held_out.figure(self.model)
                better = math.isfinite(figure) and (self.best is None or figure < self.best)
                if better:
                    self.best = figure
                if better and self.resumable:
                    self._fit_existence(done)
                    save_best(
                        self._checkpoints, self.model, stage=self.index, step=done, figure=figure
                    )
                codes = self.held_out.codes(self.model) if self.config.train != "flow" else {}
            self._tell_measured(done - 1, figure, codes)
        every = self.watch.samples_every
        if self.board is not None and every and (done % every == 0 or last):
            with self._averaged():
                images = sample_images(
                    self.model, self.config.train, count=self.watch.samples, seed=self.seed
                )
            for name, t in images.items():
                self.board.images(f"samples/{name}", t, self.offset + done - 1)

    def _fit_existence(self, done: int) -> None:
        """p(e = 1) of the kinds as they are now, so that what is saved as best can be served."""
        if self.config.train != "flow" and self.model.kinds():
            source = derived(self.seed, "existence", self.index, done)
            fit_existence(self.model, draws=EXISTENCE_DRAWS, generator=source)

    def _tell_measured(self, step: int, figure: float, codes: dict[str, Codes]) -> None:
        figures = {self.held_out.name: figure}
        figures |= {f"{name}/information": code.information for name, code in codes.items()}
        rounded = {name: _rounded(value) for name, value in figures.items()}
        self.metrics.write({"stage": self.index, "step": step} | rounded)
        if self.board is None:
            return
        at = self.offset + step
        self.board.scalars({f"{self._title}/{k}": value for k, value in figures.items()}, at)
        for name, code in codes.items():
            self.board.histogram(f"{name}/encoder log σ", code.encoder_log_sigma, at)
            self.board.histogram(f"{name}/decoder log σ", code.decoder_log_sigma, at)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model within the block as it would be if the stage ended here."""
        self.model.eval()
        average = contextlib.nullcontext() if self.average is None else self.average.in_place()
        balance = self.steps.balance
        corrections = {} if balance is None else balance.corrections
        with average, corrected_logits(self.model, corrections):
            yield
        self.model.train()

    def _keep(self, done: int) -> None:
        """A checkpoint where one is due, and the end where it was asked for."""
        config, last = self.config, done == self.config.steps
        # All processes stop after the same step, whichever was asked.
        stop = self.group.any(self.interrupt.asked)
        if stop or done % config.checkpoint_every == 0 or last:
            sound = self._sound()
            if sound and self.resumable and self.group.main:
                save_checkpoint(
                    self._checkpoints,
                    self.model,
                    stage=self.index,
                    step=done,
                    optimizer=self.optimiser,
                    averaged=None if self.average is None else self.average.values,
                    keep=self.watch.keep_last,
                    bad_in_a_row=self.bad_in_a_row,
                    bad_steps=self.bad_steps,
                    best=self.best,
                )
            if last and not sound:
                raise WorkFailed(
                    f"{self._title}: the last steps left weights whose loss is not finite; try a "
                    "smaller learning_rate (the last good checkpoint is kept)"
                )
            self.group.wait()
        if stop:
            raise WorkFailed(
                f"interrupted after step {done} of {config.steps} ({self._title})"
                f"{self._how_to_go_on}"
            )

    def _sound(self) -> bool:
        """Whether the weights as they are give a finite loss.

        A step may be good, by its loss before it, and leave weights that are not: a checkpoint of
        them would be one that no run can go on from.
        """
        finite = all(bool(p.isfinite().all()) for p in self.parameters)
        # Asked of the images of the last good step: another's may be what is not finite.
        return finite and (self.last_good is None or math.isfinite(self.steps.loss(self.last_good)))

    @property
    def _title(self) -> str:
        return _TITLES[self.config.train]

    @property
    def _how_to_go_on(self) -> str:
        return ": go on with --resume" if self.resumable else f": {self.folder} is as it was"

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"


def _headline(figures: dict[str, float]) -> str:
    """The figure of a step that the bar shows."""
    if "bits_per_dim" in figures:
        return f"{figures['bits_per_dim']:.3f} bits/dim"
    return f"loss {figures.get('loss', math.nan):.3f}"


def _rounded(value: float) -> float:
    """Six digits after the point, or six that tell something of a smaller number."""
    return round(value, 6) if abs(value) >= 1e-3 else float(f"{value:.6g}")
