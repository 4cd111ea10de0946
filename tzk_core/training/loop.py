"""One stage of training: a loop, not a framework."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..data.names import with_ancestors
from ..errors import WorkFailed
from ..flows import ActNorm
from ..model import TzK
from ..objective import check_objective, objective
from ..randomness import derived
from .checkpoint import Checkpoint, save_checkpoint
from .dataset import Dataset, Latents, batch_index
from .initialise import initialise_flow, initialise_knowledge
from .interrupt import Interrupt
from .progress import Reporter
from .recipe import StageConfig

__all__ = ["LATENT_BYTES", "Stage"]

LATENT_BYTES = 4 << 30  # of t and z that are kept in memory; beyond it z is worked out each time
LOG_EVERY = 20  # steps
BAD_STEPS = 10  # in a row, until the run stops


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
    ) -> None:
        self.model, self.data, self.config, self.index = model, data, config, index
        self.seed, self.folder = seed, folder
        self.reporter, self.interrupt = reporter, interrupt
        self.only, self.resumable = only, resumable
        self.latents: Latents | None = None
        self.existence = data.known.existence
        if only is not None:
            # A kind below others is reached through them, though they do not train.
            needed = {step for path in only for step in with_ancestors(path)}
            self.existence = {p: e for p, e in self.existence.items() if p in needed}

    def run(self, start: Checkpoint | None = None) -> None:
        """From the beginning, or from a checkpoint within this stage.

        Raises:
            WorkFailed: interrupted, or the loss was not finite several times in a row.
        """
        config, model = self.config, self.model
        check_objective(model, config.objective, config.train == "all")
        self._select_parameters()
        if start is None:
            self._initialise()
        if config.train == "knowledge":
            self._keep_latents()
        optimizer = self._optimizer()
        averaged = None
        if config.ema:
            averaged = [p.detach().clone() for p in self.parameters]
        first = 0
        if start is not None:
            optimizer.load_state_dict(start.optimizer)
            averaged, first = start.averaged, start.step
        update = get_ema_multi_avg_fn(config.ema) if config.ema else None
        size = min(config.batch, len(self.data))
        task = self.reporter.task(self._title, config.steps, first)
        bad, last_time, last_step, note = 0, time.monotonic(), first, ""
        model.train()
        for step in range(first, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = self._rate(step) * group["rate"]
            logs, good = self._step(step, optimizer)
            bad = 0 if good else bad + 1
            if bad >= BAD_STEPS:
                raise WorkFailed(
                    f"{self._title}: the loss was not finite in {bad} steps in a row, the last "
                    f"being step {step}; try a smaller learning_rate"
                )
            if update is not None and good:
                update(averaged, self.parameters, torch.tensor(step + 1))
            if step % LOG_EVERY == 0 or step == config.steps - 1:
                now = time.monotonic()
                rate = size * (step + 1 - last_step) / max(now - last_time, 1e-9)
                last_time, last_step = now, step + 1
                values = {key: round(float(value), 6) for key, value in logs.items()}
                head = {"stage": self.index, "step": step, "images_per_s": round(rate)}
                self._log(head | values)
                note = f"{values.get('bits_per_dim', math.nan):.3f} bits/dim {rate:.0f} images/s"
            task.advance(1, note)
            done = step + 1
            stop = self.interrupt.asked
            due = stop or done % config.checkpoint_every == 0 or done == config.steps
            if due and self.resumable:
                save_checkpoint(
                    self.folder / "checkpoints",
                    model,
                    stage=self.index,
                    step=done,
                    optimizer=optimizer,
                    averaged=averaged,
                )
            if stop:
                told = "go on with --resume" if self.resumable else f"{self.folder} is as it was"
                raise WorkFailed(
                    f"interrupted after step {done} of {config.steps} ({self._title}): {told}"
                )
        if averaged is not None:
            with torch.no_grad():
                for parameter, average in zip(self.parameters, averaged, strict=True):
                    parameter.copy_(average)
        self.reporter.say(f"{self._title}: {config.steps} steps in {task.seconds:.0f} s, {note}")
        self.latents = None
        model.requires_grad_(True).eval()

    @property
    def _title(self) -> str:
        what = {"flow": "t-flow", "knowledge": "knowledge", "all": "t-flow and knowledge"}
        return what[self.config.train]

    def _select_parameters(self) -> None:
        train = self.config.train
        self.model.requires_grad_(train == "all")
        if train == "flow":
            self.model.flow.requires_grad_(True)
        elif train == "knowledge" and self.only is None:
            self.model.knowledge.requires_grad_(True)
        elif train == "knowledge":
            self.model.unfreeze(*self.only)
        self.parameters: list[Tensor] = [p for p in self.model.parameters() if p.requires_grad]

    def _optimizer(self) -> torch.optim.Adam:
        # A coupling's scale is at most 1, so only ActNorm can stretch the constant background of
        # an image to unit variance, which takes log 256 nats in all: see docs/decisions.md.
        scales = {
            id(m.log_scale)
            for m in self.model.modules()
            if isinstance(m, ActNorm) and m.log_scale is not None
        }
        groups = [
            {"params": [p for p in self.parameters if id(p) not in scales], "rate": 1.0},
            {
                "params": [p for p in self.parameters if id(p) in scales],
                "rate": self.config.scale_rate,
            },
        ]
        return torch.optim.Adam(groups, lr=self.config.learning_rate)

    def _initialise(self) -> None:
        generator = derived(self.seed, "initialise", self.index)
        if self.config.train != "knowledge":
            initialise_flow(self.model, self.data, generator)
        if self.config.train != "flow":
            initialise_knowledge(self.model, self.data, self.existence, generator)

    def _keep_latents(self) -> None:
        elements = math.prod(self.model.observation_shape)
        room = LATENT_BYTES // (len(self.data) * elements * 8)
        draws = min(self.config.latent_draws, room)
        if draws < 1:
            return
        task = self.reporter.task("latent states", draws * len(self.data))
        self.latents = Latents.encode(self.model, self.data, draws, self.seed, task.advance)

    def _step(self, step: int, optimizer: torch.optim.Optimizer) -> tuple[dict, bool]:
        config, model, device = self.config, self.model, self.model.device
        generator = derived(self.seed, "step", self.index, step)
        index = batch_index(len(self.data), config.batch, step, self.seed, self.index)
        latent = None
        if self.latents is not None:
            t, z, log_det = self.latents.pick(index, generator)
            t, latent = t.to(device), (z.to(device), log_det.to(device))
        else:
            t = self.data.observations(index, generator).to(device)
            if config.train == "knowledge":
                with torch.no_grad():
                    latent = model.flow.encode(t)
        terms = objective(
            model,
            t,
            {path: e[index].to(device) for path, e in self.existence.items()},
            config.objective,
            generator,
            step=step,
            latent=latent,
            flow=config.train != "knowledge",
            knowledge=config.train != "flow",
        )
        logs = terms.logs
        if not isinstance(terms.total, Tensor):
            return logs, True  # of nobody in this batch is anything known
        self._conditional_bits(logs)
        dims = math.prod(model.observation_shape)
        loss = -terms.total / (dims * math.log(2))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, config.clip)
        good = bool(loss.isfinite() & norm.isfinite())
        if good:
            optimizer.step()
        logs["loss"], logs["gradient_norm"] = loss.detach(), norm
        return logs, good

    def _conditional_bits(self, logs: dict[str, Tensor]) -> None:
        """Shows the `reconstruction` of the first kinds as bits/dim where the t-flow is frozen."""
        if "bits_per_dim" in logs:
            return
        dims = math.prod(self.model.observation_shape)
        parts = [v for k, v in logs.items() if k.endswith("/reconstruction") and k.count("/") == 1]
        if parts:
            mean = torch.stack(parts).mean()
            logs["bits_per_dim"] = 8 - mean / (dims * math.log(2))

    def _rate(self, step: int) -> float:
        config = self.config
        rise = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
        if config.decay == "none":
            return config.learning_rate * rise
        left = 1 - max(0, step - config.warmup) / max(1, config.steps - config.warmup)
        # Ends at 1 % of the highest rate, so that the last steps still move.
        fall = 0.01 + 0.99 * 0.5 * (1 - math.cos(math.pi * left))
        return config.learning_rate * rise * fall

    def _log(self, row: dict) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
