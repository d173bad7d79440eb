"""Trains on a small set several times, each time without another part, and scores each network on what it has not seen.

So every image is reported on once, by a network that it had no part in: with 40 images a split of its own would be ten.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from segdeploy import networks
from segdeploy.assess.evaluate.evaluate import Evaluation
from segdeploy.assess.evaluate.scores import ImageSums, Scores, bootstrap_mious, interval_of
from segdeploy.datasets.dataset import Dataset
from segdeploy.errors import TrainingError
from segdeploy.files import write_text
from segdeploy.model.training import RECORD_OF_TRAINING
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.interface import card_of
from segdeploy.train.finetune import Finetuned, TrainingRequest
from segdeploy.train.processes import chosen_device
from segdeploy.train.report import Reported
from segdeploy.train.scoring import reported_of, score

SUMMARY = "folds.json"
FEWEST = 4  # images; of fewer, a half is one


@dataclass(frozen=True)
class Folded:
    folder: Path
    folds: tuple[Path, ...]
    reported: Reported  # over all images

    def __str__(self) -> str:
        return f"{self.folder}: {self.reported} over {len(self.folds)} folds"


def train_folds(
    request: TrainingRequest,
    count: int,
    output: Path,
    train: Callable[[TrainingRequest, Path], Finetuned],
    progress: Callable[[str], None] = lambda step: None,
) -> Folded:
    """Call `train` for each fold that is not finished, in `output`/fold-1 and so on, and score all together."""
    dataset, device = request.dataset, chosen_device(request.device)
    if len(dataset) < FEWEST:
        raise TrainingError(
            f"{dataset} has too few images with labels for --folds: {len(dataset)}; at least {FEWEST} are needed, so"
            " that each fold has one to learn from and one to watch"
        )
    if not 2 <= count <= len(dataset):
        raise TrainingError(
            f"{count} folds of {len(dataset)} images cannot be; expected 2 to {len(dataset)}, 5 as a rule"
        )
    folders, found = [], []
    for place in range(count):
        learnt, reported = fold(dataset, place, count)
        folder = output / f"fold-{place + 1}"
        if not (folder / RECORD_OF_TRAINING).is_file():
            progress(f"fold {place + 1} of {count}")
            train(replace(request, dataset=learnt, reported=reported), folder)
        checkpoint = read_checkpoint(folder)
        pair = networks.build(checkpoint)
        found.append(score(pair.plain, card_of(checkpoint, None), reported, pair.deployed.output, device))
        folders.append(folder)
    whole = together(dataset, found)
    done = Folded(output, tuple(folders), reported_of(whole))
    write_text(output / SUMMARY, json.dumps(asdict(done.reported), indent=1) + "\n")
    return done


def fold(dataset: Dataset, place: int, count: int) -> tuple[Dataset, Dataset]:
    """Divide by every `count`-th image: neighbours are of one drive, so each fold has some of every drive."""
    aside = dataset.pairs[place::count]
    kept = tuple(pair for index, pair in enumerate(dataset.pairs) if index % count != place)
    return replace(dataset, pairs=kept), replace(dataset, pairs=aside)


def together(dataset: Dataset, found: list[Evaluation]) -> Evaluation:
    parts = [vars(one.sums) for one in found]
    sums = ImageSums(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    counts = np.sum([one.scores.counts for one in found], axis=0)
    return Evaluation(dataset, Scores(counts, dataset.labels), sums, interval_of(bootstrap_mious(sums)))
