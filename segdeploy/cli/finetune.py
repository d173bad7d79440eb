from __future__ import annotations

import argparse
import functools
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy.cli.arguments import MOST_THREADS, add_json, between, parse_size
from segdeploy.cli.printing import print_lines, print_next, print_talk, put_json
from segdeploy.datasets.known import SCENES, default_splits, names_of_datasets
from segdeploy.shell import shell_word
from segdeploy.train.recipe import OF_A_TEACHER, WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from segdeploy.train.finetune import Finetuned, TrainingRequest


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="as `export` takes it")
    describe_training(parser, [name for name in WORDS if name not in OF_A_TEACHER])


def describe_training(parser: argparse.ArgumentParser, parts: Iterable[str]) -> None:
    """Add what `finetune` and `distil` have in common; the recipe's flags are made of its fields."""
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset",
        choices=(*names_of_datasets(), SCENES),
        required=True,
        help=f"`folder` means any two folders; `{SCENES}` are made into --root, to try it without a data set",
    )
    data.add_argument("--root", metavar="DIR", type=Path, required=True, help="the data set's folder")
    data.add_argument(
        "--mapping", metavar="YAML", type=Path, help="for folder and scenes: maps ids to classes"
    )
    data.add_argument(
        "--split", metavar="NAME", help=f"learnt from (default: {default_splits('calibrated_on')})"
    )
    data.add_argument(
        "--report-split",
        metavar="NAME",
        help=f"scored at the end only (default: {default_splits('scored_on')})",
    )
    data.add_argument(
        "--report-root",
        metavar="DIR",
        type=Path,
        help="for folder: other images, which are scored at the end only",
    )
    data.add_argument(
        "--folds",
        type=between(2, 1000),
        metavar="K",
        help="for a small set: train K times, each without another part, and report on what was left out",
    )
    parser.add_argument("--recipe", metavar="YAML", type=Path, help="a file with the values below")
    parser.add_argument(
        "--size", type=parse_size, metavar="HxW", help="size that it will run at (default: the card's)"
    )
    parser.add_argument("--card", metavar="NAME", help="a card or .yaml that describes CHECKPOINT")
    parser.add_argument(
        "--watch-every",
        type=between(1, 10_000_000),
        metavar="N",
        help="steps between two scores (default: a tenth)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    parser.add_argument(
        "--threads",
        type=between(1, MOST_THREADS),
        metavar="N",
        default=2,
        help="threads that draw crops (default: 2)",
    )
    add_json(parser)
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, required=True, help="folder of the new checkpoint"
    )
    recipe = parser.add_argument_group("recipe")
    for name in parts:
        default, words = WORDS[name]
        flag = "--" + name.replace("_", "-")
        if isinstance(default, bool):
            recipe.add_argument(
                flag, dest=f"recipe_{name}", action=argparse.BooleanOptionalAction, help=words
            )
        else:
            shown = f"{words} (default: {default})"
            recipe.add_argument(
                flag, dest=f"recipe_{name}", type=type(default), metavar=type(default).__name__, help=shown
            )


def request_from(arguments: argparse.Namespace, unlabelled: tuple[Path, ...]) -> TrainingRequest:
    from segdeploy.train.finetune import TrainingRequest
    from segdeploy.train.material import learnt_and_reported
    from segdeploy.train.recipe_file import read_training_recipe

    asked = {
        name: value for name in WORDS if (value := getattr(arguments, f"recipe_{name}", None)) is not None
    }
    learnt, reported = learnt_and_reported(
        arguments.dataset, arguments.root, arguments.mapping, arguments.split, arguments.report_split,
        arguments.report_root, folded=arguments.folds is not None,
    )  # fmt: skip
    return TrainingRequest(
        learnt, reported, read_training_recipe(arguments.recipe, asked), arguments.size, arguments.card,
        arguments.watch_every, arguments.device, arguments.threads, arguments.command, unlabelled,
    )  # fmt: skip


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.networks.sources import demand_there

    demand_there(arguments.checkpoint)
    from segdeploy.train.finetune import finetune

    return trained_and_shown(arguments, functools.partial(finetune, arguments.checkpoint))


def trained_and_shown(
    arguments: argparse.Namespace, train: Callable[..., Finetuned], unlabelled: tuple[Path, ...] = ()
) -> int:
    """Train once, or once for each fold, and show what came out."""
    from segdeploy.cli.console import steps
    from segdeploy.train.folds import train_folds

    request = request_from(arguments, unlabelled)
    with steps() as progress:

        def once(request: TrainingRequest, folder: Path) -> Finetuned:
            return train(
                request, output=folder, progress=progress, tell=lambda event: tell_progress(event, request)
            )

        if arguments.folds is None:
            show(once(request, arguments.output), arguments)
            return 0
        folded = train_folds(request, arguments.folds, arguments.output, once, progress)
    facts = {
        "folder": str(folded.folder),
        "folds": [*map(str, folded.folds)],
        "reported": asdict(folded.reported),
    }
    if not put_json(arguments.json, facts):
        print_lines(str(folded), *(f"  {path}" for path in folded.folds))
        print_next("the same command without --folds, which learns from all of them")
    return 0


def tell_progress(event: dict[str, Any], request: TrainingRequest) -> None:
    steps, done = request.recipe.steps, event["step"]
    left = event["seconds"] / done * (steps - done)
    print_talk(
        f"step {done} of {steps}: loss {event['loss']:.3f}, mIoU {100 * event['miou']:.2f} %, {left:.0f} s left"
    )


def show(done: Finetuned, arguments: argparse.Namespace) -> None:
    training = done.training
    if put_json(arguments.json, asdict(training)):
        return
    print_lines(
        f"{done}; it began with {100 * training.before:.2f} % on {training.watched_images} watched images, best step"
        f" {training.best_step}: {100 * training.best_miou:.2f} %",
        f"licence: {training.licence}, of the weights it started from",
    )
    print_next(f"segdeploy export {shell_word(done.folder)} -o .")
