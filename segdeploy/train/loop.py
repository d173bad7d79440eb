"""Trains: draws crops, takes steps, watches the accuracy, and keeps what is best and where it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segdeploy.errors import TrainingError
from segdeploy.networks.family import Family
from segdeploy.train.crops import Crops
from segdeploy.train.loss import balanced, log_probabilities, pixel_loss
from segdeploy.train.network import Learning, add_up_gradients, parameter_groups, share_statistics
from segdeploy.train.processes import Processes
from segdeploy.train.recipe import TrainingRecipe
from segdeploy.train.schedule import rate_at
from segdeploy.train.state import TrainingState

TrainingEvent = dict[str, Any]
TORCH_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MOST_GRADIENT = (
    10.0  # norm; beyond it gradients are scaled down: a step of a bad batch must not undo the others
)


@dataclass(frozen=True)
class Watch:
    """Says how often the network is scored and its state is kept, and by what."""

    every: int
    score: Callable[[nn.Module], float]  # the mIoU of a plain network
    keep: Callable[[TrainingState], None]
    tell: Callable[[TrainingEvent], None]


class NotFinite(TrainingError):
    """Says in which step a loss or a gradient was no number."""


class Trainer:
    def __init__(
        self,
        learning: Learning,
        crops: Crops,
        processes: Processes,
        *,
        align_corners: bool,
        family: Family,
        pixels: tuple[tuple[float, ...], tuple[float, ...]],
    ) -> None:
        self.learning, self.crops, self.processes = learning.to(processes.device), crops, processes
        self.recipe: TrainingRecipe = crops.recipe
        self.align_corners, self.family = align_corners, family
        self.mean, self.std = (
            torch.tensor(one, device=processes.device).reshape(1, 3, 1, 1) for one in pixels
        )
        self.weights = balanced(crops.shares.tolist()).to(processes.device) if self.recipe.balance else None
        if processes.count > 1:
            share_statistics(learning)
        self.optimiser = torch.optim.AdamW(parameter_groups(learning, family, self.recipe))
        kind = processes.device.partition(":")[0]
        self.scaler = torch.amp.GradScaler(kind, enabled=self.recipe.precision == "fp16")

    def train(self, state: TrainingState, watch: Watch, threads: int) -> TrainingState:
        """Take the steps that are left of `state`; a stop leaves the last one that was kept."""
        self.load(state)
        begin, before = time.monotonic(), state.seconds
        losses: list[float] = []
        batches = self.crops.batches(self.slots(state.step), threads)
        for step in range(state.step, self.recipe.steps):
            losses.append(self.step(step, batches))
            done = step + 1
            if done % watch.every and done < self.recipe.steps:
                continue
            state.step, state.seconds = done, before + time.monotonic() - begin
            event = {
                "step": done,
                "loss": sum(losses) / len(losses),
                "rate": self.rate(step),
                "seconds": round(state.seconds, 1),
            }
            losses.clear()
            event["miou"] = self.watched(state, watch)  # by every process: each has to know the best
            state.history.append(event)
            self.store(state)
            if self.processes.is_first:
                watch.keep(state)
                watch.tell(event)
            self.processes.wait()
        return state

    def slots(self, step: int) -> Iterator[list[int]]:
        """List the slots of each batch of this process: neighbours of a step are dealt out to the processes."""
        recipe, processes = self.recipe, self.processes
        for turn in range(step * recipe.accumulate, recipe.steps * recipe.accumulate):
            first = turn * recipe.batch * processes.count + processes.rank
            yield list(range(first, first + recipe.batch * processes.count, processes.count))

    def step(self, step: int, batches: Iterator[tuple[Any, Any]]) -> float:
        recipe = self.recipe
        self.learning.train()
        torch.manual_seed(hash((recipe.seed, step, self.processes.rank)) & 0xFFFFFFFF)
        for group in self.optimiser.param_groups:
            group["lr"] = group["full"] * rate_at(step, recipe)
        total = 0.0
        for _ in range(recipe.accumulate):
            loss = self.loss(*next(batches)) / recipe.accumulate
            seen = float(loss.detach())
            self.demand_finite("loss", seen, step)
            self.scaler.scale(loss).backward()
            total += seen
        parameters = list(self.learning.parameters())
        if self.processes.count > 1:
            add_up_gradients(iter(parameters))
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(parameters, MOST_GRADIENT)
        if not self.scaler.is_enabled():  # it leaves such a step out
            self.demand_finite("gradient", float(norm), step)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.follow()
        return float(self.processes.summed(torch.tensor(total)))

    def demand_finite(self, what: str, seen: float, step: int) -> None:
        if not math.isfinite(seen):
            wider = "" if self.recipe.precision == "fp32" else ", or --precision fp32"
            raise NotFinite(
                f"the {what} is {seen} in step {step + 1}. A lower rate helps (--rate {self.recipe.rate / 3:.1g})"
                f"{wider}"
            )

    def loss(self, frames: Any, truths: Any) -> Tensor:
        """Give this process's share of the mean over all pixels of all processes."""
        device = self.processes.device
        pixels = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float()
        truth = torch.from_numpy(truths.astype("int32")).to(device)
        pixels = (pixels - self.mean) / self.std
        with self.computing():
            answer, auxiliary, maps = self.learning(pixels)
        loss = self.mean_loss(answer, truth, self.family.scores)
        if auxiliary is not None:
            loss = loss + self.recipe.auxiliary * self.mean_loss(auxiliary, truth, are_scores=False)
        if self.learning.teaching is not None:
            loss = loss + self.learning.teaching(pixels, answer, maps) / self.processes.count
        return loss

    def mean_loss(self, answer: Tensor, truth: Tensor, are_scores: bool) -> Tensor:
        logs = log_probabilities(answer, truth.shape[1:], self.align_corners, are_scores)
        ignore = self.crops.dataset.labels.ignore
        loss, weight = pixel_loss(logs, truth, ignore, self.weights, self.recipe)
        return loss / self.processes.summed(weight.detach().clone()).clamp_min(1e-12)

    def computing(self) -> Any:
        kind = TORCH_TYPES[self.recipe.precision]
        if kind is torch.float32:
            return nullcontext()
        return torch.autocast(self.processes.device.partition(":")[0], kind)

    def rate(self, step: int) -> float:
        return self.recipe.rate * rate_at(step, self.recipe)

    # ---- what is kept ------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Move the average of the weights a little towards them."""
        if not self.recipe.average:
            return
        for name, value in self.learning.plain.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - self.recipe.average)
            else:
                self.average[name] = value.clone()

    def watched(self, state: TrainingState, watch: Watch) -> float:
        """Score the network, or the average of its weights, and keep the weights if they are the best so far."""
        plain = self.learning.plain
        own = {name: value.clone() for name, value in plain.state_dict().items()}
        if self.recipe.average:
            plain.load_state_dict(self.average)
        plain.eval()
        miou = watch.score(plain)
        if miou > state.best_miou:
            state.best = {name: value.cpu().clone() for name, value in plain.state_dict().items()}
            state.best_miou, state.best_step = miou, state.step
        plain.load_state_dict(own)
        return miou

    def store(self, state: TrainingState) -> None:
        state.learning, state.optimiser = self.learning.state_dict(), self.optimiser.state_dict()
        state.scaler, state.average = self.scaler.state_dict(), self.average

    def load(self, state: TrainingState) -> None:
        self.average = {name: value.clone() for name, value in self.learning.plain.state_dict().items()}
        if state.learning:
            self.learning.load_state_dict(state.learning)
            self.optimiser.load_state_dict(state.optimiser)
            self.scaler.load_state_dict(state.scaler)
            self.average = state.average
