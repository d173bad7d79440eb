"""Fine-tunes a checkpoint on a labelled data set: the verb, from what was asked for to a folder that `export` takes.

Three sets of images share none: those learnt from, a few of the same split that are watched, by which the best weights
are chosen, and those that are reported on, which nothing was chosen by.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from segdeploy.errors import MissingExtra, TrainingError

try:
    import torch
    from torch import nn
except ImportError as error:
    raise MissingExtra("torch", "export", "training") from error

from segdeploy import files, networks
from segdeploy.assess.evaluate.evaluate import Evaluation
from segdeploy.datasets.dataset import Dataset
from segdeploy.datasets.reading import read_pair
from segdeploy.model.card import ModelCard, is_shipped
from segdeploy.model.licence import licences_together
from segdeploy.model.record import LedgerStep
from segdeploy.model.training import RECORD_OF_TRAINING, TRAINING_SCHEMA, training_steps
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.family import Checkpoint, Output
from segdeploy.networks.interface import card_of
from segdeploy.picture.image import read_frame
from segdeploy.size import Size
from segdeploy.train.board import board_in
from segdeploy.train.crops import Crops
from segdeploy.train.hub_folder import write_hub_folder
from segdeploy.train.loop import NotFinite, Trainer, TrainingEvent, Watch
from segdeploy.train.network import Learning
from segdeploy.train.processes import Processes, joined_processes
from segdeploy.train.recipe import TrainingRecipe
from segdeploy.train.report import Training
from segdeploy.train.scoring import reported_of, score
from segdeploy.train.state import STATE, TrainingState, read_state, write_state
from segdeploy.train.transfer import Transferred, transferred
from segdeploy.version import __version__

READERS = 2  # threads
WATCHED = 10  # one of so many training images is watched, not learnt from
LOG = "segdeploy.training.jsonl"
LAST_GOOD = "last-good"  # the folder of the best weights, where a training did not end


@dataclass(frozen=True)
class TrainingRequest:
    dataset: Dataset  # to learn from
    reported: Dataset
    recipe: TrainingRecipe
    size: Size | None = None  # of the images that the network will see; None: as the checkpoint's card says
    card: str | None = None
    watch_every: int | None = None  # steps; None: ten times in all
    device: str | None = None
    threads: int = 2
    command: str = ""
    unlabelled: tuple[Path, ...] = ()  # images that only a teacher answers for


@dataclass(frozen=True)
class Finetuned:
    folder: Path
    training: Training

    def __str__(self) -> str:
        return f"{self.folder}: {self.training.reported} on {self.training.reported.split}"


@dataclass(frozen=True)
class Taught:
    """Names a teacher, and makes what a network learns from it beside the labels."""

    name: str
    digest: str
    licence: str
    make: Callable[[Learning, ModelCard, TrainingRecipe, str], nn.Module]


@dataclass(frozen=True)
class TrainingStart:
    """Holds what a training begins with."""

    transferred: Transferred
    card: ModelCard  # of the new classes
    learnt: Dataset
    watched: Dataset
    licence: str
    name: str
    digest: str
    steps: tuple[LedgerStep, ...]  # by which its weights came about

    @property
    def checkpoint(self) -> Checkpoint:
        return self.transferred.checkpoint

    def under(self, licence: str) -> TrainingStart:
        return replace(self, licence=licence, card=replace(self.card, licence=licence))


def finetune(
    source: str | Path,
    request: TrainingRequest,
    *,
    output: Path,
    progress: Callable[[str], None] = lambda step: None,
    tell: Callable[[TrainingEvent], None] = lambda event: None,
    taught: Taught | None = None,
) -> Finetuned:
    if (output / RECORD_OF_TRAINING).exists():
        raise TrainingError(f"{output} holds a training that is finished; name another folder with -o")
    progress("reading the checkpoint")
    start = training_start(source, request)
    request = replace(request, unlabelled=unwatched(request.unlabelled, start.watched))
    if taught:
        start = start.under(licences_together(start.licence, taught.licence))
    with files.folders_made(output), joined_processes(request.device) as processes:
        return trained(start, request, processes, output, progress, tell, taught)


def training_start(source: str | Path, request: TrainingRequest) -> TrainingStart:
    demand_apart(request)
    checkpoint = read_checkpoint(source)
    card = card_of(checkpoint, request.card)
    labels = request.dataset.labels
    if len(labels.names) < 2:
        raise TrainingError(
            f"{request.dataset} has one class, {labels.names[0]}: a network that always answers it is never wrong;"
            " name another class in the mapping, for the rest"
        )
    made = transferred(checkpoint, labels.names, request.recipe.seed)
    learnt, watched = split_off(request.dataset)
    size = request.size or card.size
    name = card.checkpoint if is_shipped(card) else str(source)
    return TrainingStart(
        made, replace(card, name=labels.name, labels=labels, size=size, keep_fp32=()), learnt, watched, card.licence,
        name, checkpoint.digest, training_steps(Path(checkpoint.source)),
    )  # fmt: skip


def demand_apart(request: TrainingRequest) -> None:
    """Refuse to report on images that were learnt from, with labels or without."""
    learnt = [*(pair.image for pair in request.dataset.pairs), *request.unlabelled]
    reported = {pair.image.resolve() for pair in request.reported.pairs}
    same = reported.intersection(path.resolve() for path in learnt)
    if same:
        raise TrainingError(
            f"{len(same)} images are both learnt from and reported on ({min(same).name} is one), so the report would"
            " not say how good the network is on others; name another split: --report-split NAME, or --folds K for a"
            " small set"
        )


def unwatched(images: Sequence[Path], watched: Dataset) -> tuple[Path, ...]:
    """Leave out the images that the best step is chosen by: nothing is learnt from them, not even without labels."""
    aside = {pair.image.resolve() for pair in watched.pairs}
    return tuple(path for path in images if path.resolve() not in aside)


def split_off(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Keep every tenth image to watch, at least one; evenly spread, because neighbours are of one drive."""
    if len(dataset) < 2:
        raise TrainingError(
            f"{dataset} has {len(dataset)} image with labels; at least 2 are needed: one to learn from, one to watch"
        )
    step = min(WATCHED, len(dataset))
    aside = dataset.pairs[step // 2 :: step]
    kept = tuple(pair for pair in dataset.pairs if pair not in set(aside))
    return replace(dataset, pairs=kept), replace(dataset, pairs=aside)


def trained(
    start: TrainingStart,
    request: TrainingRequest,
    processes: Processes,
    output: Path,
    progress: Callable[[str], None],
    tell: Callable[[TrainingEvent], None],
    taught: Taught | None = None,
) -> Finetuned:
    recipe = request.recipe
    torch.manual_seed(recipe.seed)
    pair = networks.build(start.checkpoint)
    plain, lies = pair.plain, pair.deployed.output
    lies.demand(start.card.size)
    lies.demand(recipe.crop_size)
    progress("counting the pixels of each class")
    crops = Crops(start.learnt, recipe, start.card.mean, request.unlabelled)
    demand_learnable(crops)

    def scored(network: nn.Module, dataset: Dataset) -> Evaluation:
        return score(network, start.card, dataset, lies, processes.device)

    key = digest_of_request(start, request, processes, taught)
    kept = read_state(output, key)
    state = kept or TrainingState(key)
    if kept is None:
        progress("reading every image once")
        demand_readable(start.learnt, start.watched, request.reported, unlabelled=request.unlabelled)
        progress("scoring what it begins with")
        state.history.append({"step": 0, "miou": scored(plain.eval(), start.watched).scores.miou})
    else:
        progress(f"going on after step {state.step}")
    trainer = trainer_of(start, crops, processes, plain, lies, taught)

    def finished(folder: Path) -> Finetuned:
        plain.load_state_dict(state.best)
        progress(f"scoring on {request.reported}")
        evaluation = scored(plain.eval(), request.reported)
        training = training_of(start, request, state, evaluation, taught.name if taught else None)
        if processes.is_first:
            write_hub_folder(folder, start.checkpoint, state.best, start.card, training)
            (output / STATE).unlink(missing_ok=True)
        return Finetuned(folder, training)

    with board_in(output) as show:
        watch = Watch(
            request.watch_every or max(recipe.steps // 10, 1),
            lambda network: scored(network, start.watched).scores.miou,
            partial(write_state, output),
            partial(logged_and_shown, output / LOG, show, tell),
        )
        progress("training")
        try:
            trainer.train(state, watch, request.threads)
        except NotFinite as error:
            if not state.best:
                raise
            good = finished(output / LAST_GOOD)
            raise TrainingError(
                f"{error}. The best weights until then, of step {state.best_step}, are in {good.folder}"
            ) from error
        return finished(output)


def trainer_of(
    start: TrainingStart,
    crops: Crops,
    processes: Processes,
    plain: nn.Module,
    lies: Output,
    taught: Taught | None,
) -> Trainer:
    """Make the network learn, from a teacher too where there is one."""
    recipe, family = crops.recipe, start.checkpoint.family
    plain.requires_grad_(True)
    learning = Learning(
        plain, family, len(start.card.labels.names), start.transferred.of_classes, recipe,
        shows_maps=taught is not None,
    )  # fmt: skip
    if taught:
        learning.teaching = taught.make(learning, start.card, recipe, processes.device)
    return Trainer(
        learning, crops, processes, align_corners=lies.align_corners, family=family,
        pixels=(start.card.mean, start.card.std),
    )  # fmt: skip


def logged_and_shown(
    log: Path,
    show: Callable[[TrainingEvent], None],
    tell: Callable[[TrainingEvent], None],
    event: TrainingEvent,
) -> None:
    with log.open("a") as lines:
        lines.write(json.dumps(event) + "\n")
    show(event)
    tell(event)


def demand_readable(*datasets: Dataset, unlabelled: Sequence[Path]) -> None:
    """Read every image with its labels: cut or blank ones are to be named now, not after hours of training."""

    def shows_a_class(dataset: Dataset, index: int) -> bool:
        _, truth = read_pair(dataset, index)
        return bool((truth != dataset.labels.ignore).any())

    with ThreadPoolExecutor(READERS) as pool:
        for dataset in datasets:
            if not sum(pool.map(partial(shows_a_class, dataset), range(len(dataset)))):
                raise TrainingError(
                    f"no pixel of the {len(dataset)} label files of {dataset} is of a class, so nothing can be scored"
                    " on them; label files of a test split are often blank"
                )
        for _ in pool.map(read_frame, unlabelled):
            pass  # none is kept: there may be many


def demand_learnable(crops: Crops) -> None:
    missing = crops.without_pixels
    if missing:
        raise TrainingError(
            f"no image of {crops.dataset} shows {', '.join(missing)}, so that cannot be learnt; take these classes out"
            " of the mapping, or add images"
        )


def digest_of_request(
    start: TrainingStart, request: TrainingRequest, processes: Processes, taught: Taught | None
) -> str:
    """Digest all that decides the result."""
    facts = [
        start.digest, start.learnt.digest, start.watched.digest, str(start.card.size), asdict(request.recipe),
        taught.digest if taught else None, processes.count, processes.device.partition(":")[0],
        [(path.name, path.stat().st_size) for path in request.unlabelled],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def training_of(
    start: TrainingStart,
    request: TrainingRequest,
    state: TrainingState,
    evaluation: Evaluation,
    teacher: str | None,
) -> Training:
    return Training(
        TRAINING_SCHEMA, start.name, start.digest, start.licence, teacher, str(request.dataset), request.dataset.digest,
        len(start.learnt), len(start.watched), len(request.unlabelled), start.transferred.kept,
        start.transferred.drawn, request.recipe, state.history[0]["miou"], state.best_step, state.best_miou,
        reported_of(evaluation), state.seconds, request.command, tuple(state.history),
        {"segdeploy": __version__, "torch": torch.__version__, "python": platform.python_version()},
        (*start.steps, training_step(evaluation, "distilled" if teacher else "fine-tuned")),
    )  # fmt: skip


def training_step(evaluation: Evaluation, name: str) -> LedgerStep:
    scores, interval = evaluation.scores, evaluation.interval
    return LedgerStep(
        name,
        compared_with=f"the truth of {evaluation.dataset}",
        miou=scores.miou,
        pixel_accuracy=scores.pixel_accuracy,
        miou_interval=(100 * interval.low, 100 * interval.high),
    )
