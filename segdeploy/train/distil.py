"""Distils a teacher into a smaller network, channel by channel (CWD, arXiv:2011.13256).

A channel of a map, divided by a temperature and normalised over the image's places, is a distribution: where its class
is. The student's are drawn to the teacher's, of the answer and of the trunk's last map. That comes on top of what
`finetune` learns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from segdeploy.errors import MissingExtra, RequestError, TrainingError

try:
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn
except ImportError as error:
    raise MissingExtra("torch", "export", "training") from error

from segdeploy import networks
from segdeploy.files import digest_of
from segdeploy.model.card import UNKNOWN_LICENCE, ModelCard
from segdeploy.model.record import matching_record
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.interface import card_of
from segdeploy.run.io import from_output, to_input
from segdeploy.run.session import open_session
from segdeploy.train.finetune import Finetuned, Taught, TrainingRequest, finetune
from segdeploy.train.loop import TrainingEvent
from segdeploy.train.loss import LEAST_SCORE
from segdeploy.train.network import Learning
from segdeploy.train.processes import chosen_device
from segdeploy.train.recipe import TrainingRecipe

GRAPHS = (".onnx", ".engine")


class Teacher(Protocol):
    """Answers pixels of 0 to 255, N×3×H×W, with logits of the wanted classes and its last map, if it shows one."""

    digest: str
    licence: str

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]: ...


class NetworkTeacher:
    """Computes a checkpoint in PyTorch, in FP16 on a GPU."""

    def __init__(self, source: str, names: Sequence[str], device: str) -> None:
        checkpoint = read_checkpoint(source)
        self.digest = checkpoint.digest
        card = card_of(checkpoint, None)
        self.licence = card.licence
        self._places = places_of(names, card.labels.names, source)
        self._mean, self._std = (
            torch.tensor(one, device=device).reshape(1, 3, 1, 1) for one in (card.mean, card.std)
        )
        self._scores = checkpoint.family.scores
        self._plain = networks.build(checkpoint).plain.eval().requires_grad_(False).to(device)
        self._half = device != "cpu"
        self._maps: list[Tensor] = []
        trunk = self._plain.get_submodule(checkpoint.family.trunk)
        trunk.register_forward_hook(lambda module, given, maps: self._maps.extend(maps))

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(pixels.device.type, torch.float16, enabled=self._half):
            answer = self._plain((pixels - self._mean) / self._std)[:, self._places]
        maps, self._maps = self._maps, []
        return (answer.clamp_min(LEAST_SCORE).log() if self._scores else answer).float(), maps[-1].float()


class SessionTeacher:
    """Runs a graph or an engine that gives logits, of the crops' size; it shows no inner map."""

    def __init__(self, path: Path, names: Sequence[str], recipe: TrainingRecipe) -> None:
        self.digest = digest_of(path)
        record = matching_record(path, self.digest)
        self.licence = record.source.licence if record else UNKNOWN_LICENCE
        self._session = open_session(path)
        signature = self._session.signature
        if signature.interface != "logits":
            raise RequestError(
                f"{path.name} has the interface {signature.interface} and gives labels only; a teacher gives logits:"
                " export it with --interface logits"
            )
        if signature.size != recipe.crop_size or signature.batch not in (None, recipe.batch):
            batch = signature.batch or "any number"
            raise RequestError(
                f"{path.name} takes {batch} of {signature.size}, and crops are {recipe.batch} of {recipe.crop_size};"
                f" export it with --size {recipe.crop_size} --batch {recipe.batch}"
            )
        self._places = places_of(names, signature.labels.names, path.name)

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        frames = pixels.round().clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
        signature = self._session.signature
        logits = from_output(signature, self._session.run(to_input(signature, np.ascontiguousarray(frames))))
        return torch.from_numpy(logits[:, self._places]).to(pixels.device), None


def places_of(names: Sequence[str], known: Sequence[str], source: str) -> list[int]:
    missing = [name for name in names if name not in known]
    if missing:
        raise TrainingError(
            f"the teacher {source} knows no {', '.join(missing[:6])}; a teacher has every class that is learnt:"
            " fine-tune it on the same data first"
        )
    return [list(known).index(name) for name in names]


class Teaching(nn.Module):
    """Computes what the student's answer and last map lack of the teacher's; its own weights fit the maps' channels."""

    def __init__(
        self, teacher: Teacher, learning: Learning, card: ModelCard, recipe: TrainingRecipe, device: str
    ) -> None:
        super().__init__()
        self._teacher = teacher
        self._recipe = recipe
        self._mean, self._std = (
            torch.tensor(one, device=device).reshape(1, 3, 1, 1) for one in (card.mean, card.std)
        )
        size = recipe.crop_size
        _, shown = teacher(torch.zeros(recipe.batch, 3, size.height, size.width, device=device))
        self.fit: nn.Module | None = None
        if shown is not None and recipe.map_weight:
            self.fit = nn.Conv2d(learning.channels[-1], shown.shape[1], 1)

    def forward(self, pixels: Tensor, answer: Tensor, maps: Sequence[Tensor]) -> Tensor:
        told, shown = self._teacher(pixels * self._std + self._mean)
        loss = self._recipe.answer_weight * by_channel_loss(answer, told, self._recipe.temperature)
        if self.fit is not None and shown is not None:
            loss = loss + self._recipe.map_weight * by_channel_loss(
                self.fit(maps[-1].float()), shown, self._recipe.temperature
            )
        return loss


def by_channel_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Give the mean over channels of the Kullback-Leibler divergence over places, times the temperature's square."""
    if teacher.shape[2:] != student.shape[2:]:
        teacher = F.interpolate(teacher, student.shape[2:], mode="bilinear", align_corners=False)
    own = (student.float() / temperature).flatten(2).log_softmax(2)
    wanted = (teacher / temperature).flatten(2).log_softmax(2)
    divergence = (wanted.exp() * (wanted - own)).sum(2).mean()
    return divergence * temperature**2


def distil(
    teacher: str,
    student: str | Path,
    request: TrainingRequest,
    *,
    output: Path,
    progress: Callable[[str], None] = lambda step: None,
    tell: Callable[[TrainingEvent], None] = lambda event: None,
) -> Finetuned:
    """Fine-tune `student` with `teacher` beside the labels: a checkpoint, or a graph or an engine that gives logits."""
    progress("reading the teacher")
    names, recipe = request.dataset.labels.names, request.recipe
    if teacher.endswith(GRAPHS):
        if not Path(teacher).is_file():
            raise RequestError(
                f"there is no file {teacher}; a teacher is a checkpoint, or an .onnx or .engine that gives logits"
            )
        knowing: Teacher = SessionTeacher(Path(teacher), names, recipe)
    else:
        knowing = NetworkTeacher(teacher, names, chosen_device(request.device))

    def make(learning: Learning, card: ModelCard, recipe: TrainingRecipe, device: str) -> nn.Module:
        return Teaching(knowing, learning, card, recipe, device).to(device)

    taught = Taught(teacher, knowing.digest, knowing.licence, make)
    return finetune(student, request, output=output, progress=progress, tell=tell, taught=taught)
