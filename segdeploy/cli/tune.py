from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy.cli.arguments import MOST_IMAGES, add_json, between
from segdeploy.cli.model_argument import add_model
from segdeploy.cli.printing import print_lines, print_message, print_next, put_json
from segdeploy.datasets.known import default_splits, names_of_datasets
from segdeploy.model.tuned import GOALS
from segdeploy.shell import command_line

if TYPE_CHECKING:
    from rich.table import Table

    from segdeploy.assess.bench.meter import Sensors
    from segdeploy.datasets.dataset import Dataset
    from segdeploy.ways.accuracy import JudgedFrames
    from segdeploy.ways.tune import Tuned


def describe(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "an FP32 .onnx", own_fp16=True, chooses=False)
    parser.add_argument(
        "--images",
        metavar="DIR",
        type=Path,
        help="frames that the model will see: what bf16 and int8 change is counted on them, and int8 is calibrated",
    )
    parser.add_argument(
        "--dataset", choices=names_of_datasets(), help="a labelled data set instead, for losses in mIoU"
    )
    parser.add_argument("--root", metavar="DIR", type=Path, help="the data set's folder")
    parser.add_argument("--split", metavar="NAME", help=f"default: {default_splits('scored_on')}")
    parser.add_argument("--mapping", metavar="YAML", type=Path, help="for folder: maps ids to classes")
    parser.add_argument(
        "--count",
        type=between(1, MOST_IMAGES),
        metavar="N",
        default=48,
        help="frames to compare on, evenly spread (default: 48)",
    )
    parser.add_argument(
        "--max-drop",
        type=between(0, 100, whole=False),
        metavar="P",
        help="what a way may lose: points of mIoU with --dataset (default: 0.25), else per cent of the labels"
        " (default: 3)",
    )
    parser.add_argument(
        "--for",
        dest="goal",
        choices=GOALS,
        default=GOALS[0],
        help="latency: one image at a time (default); throughput: several, as streams on a CPU and batches on a GPU",
    )
    parser.add_argument(
        "--duration",
        metavar="S",
        type=between(0.001, 1_000_000, whole=False),
        default=2.0,
        help="seconds for each way (default: 2)",
    )
    parser.add_argument("--card", metavar="NAME", help="a card or .yaml that describes a foreign graph")
    add_json(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        help="keep all that was made here too, and tuned.json with all figures (the choice lies beside the graph)",
    )


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.assess.bench.jetson import open_board
    from segdeploy.assess.bench.nvml import open_gpu
    from segdeploy.cli.console import show_tables, steps
    from segdeploy.machine import this_machine
    from segdeploy.model.card import read_card
    from segdeploy.ways.request import TuneRequest
    from segdeploy.ways.tune import tune

    request = TuneRequest(
        arguments.model,
        frames_asked(arguments),
        arguments.max_drop,
        arguments.goal,
        arguments.output,
        read_card(arguments.card) if arguments.card else None,
        arguments.duration,
        calibration_asked(arguments),
    )
    sensors: Sensors | None = open_board() or (open_gpu() if this_machine().gpus else None)
    with steps() as progress:
        done = tune(request, sensors=sensors, progress=progress)
    if put_json(arguments.json, done.as_json()):
        return 0
    for warning in done.warnings:
        print_message(warning)
    show_tables([table_of(done)])
    for one in done.left_out:
        print_lines(f"not measured: {one.words}: {one.why}")
    print_lines(done.choice.verdict)
    print_lines(
        f"kept beside the graph for this machine ({done.choice.machine}): run, evaluate and bench take it,"
        " --as-exported does not"
    )
    print_next(f"{command_line('segdeploy', 'run', arguments.model)} SOURCE")
    return 0


def calibration_asked(arguments: argparse.Namespace) -> Dataset | None:
    """Find the labelled frames that int8 is calibrated on: another split than the one that ways are compared on."""
    from segdeploy.datasets.known import calibration_split
    from segdeploy.datasets.layouts import open_dataset

    name = arguments.dataset
    if name is None or (split := calibration_split(name)) in (None, arguments.split):
        return None
    return open_dataset(name, arguments.root, split, arguments.mapping)


def frames_asked(arguments: argparse.Namespace) -> JudgedFrames | None:
    from segdeploy.datasets.layouts import open_dataset
    from segdeploy.errors import RequestError
    from segdeploy.ways.accuracy import JudgedFrames, frames_in

    if arguments.images is not None and arguments.dataset is not None:
        raise RequestError("--images and --dataset both say which frames to take; leave one out")
    for flag in ("root", "split", "mapping"):
        if arguments.dataset is None and getattr(arguments, flag) is not None:
            raise RequestError(f"--{flag} is of a labelled data set: give --dataset too, or leave it out")
    if arguments.images is not None:
        return frames_in(arguments.images, arguments.count)
    if arguments.dataset is None:
        return None
    if arguments.root is None:
        raise RequestError(f"the data set {arguments.dataset} needs --root DIR, its folder")
    dataset = open_dataset(arguments.dataset, arguments.root, arguments.split, arguments.mapping)
    return JudgedFrames(dataset=dataset.limited(arguments.count))


def table_of(done: Tuned) -> Table:
    from rich.table import Table

    table = Table()
    energy = any(one.speed.joules is not None for one in done.measured)
    for column in ("way", "network ms", "frame to labels ms", "times as fast", *(["mJ"] if energy else [])):
        table.add_column(column, justify="left" if column == "way" else "right")
    table.add_column(done.unit if done.compared_on else "loss", justify="right")
    table.add_column("")
    for one in sorted(done.measured, key=lambda one: one.speed.network_ms):
        speed = one.speed
        joules = [] if not energy else ["" if speed.joules is None else f"{1e3 * speed.joules:.1f}"]
        table.add_row(
            one.way.words,
            f"{speed.network_ms:.1f}",
            f"{speed.whole_ms:.1f}",
            f"{speed.ratio:.2f} ({speed.ratio_low:.2f} to {speed.ratio_high:.2f})",
            *joules,
            loss_in_words(one, done.compared_on),
            "chosen" if one is done.best else "on the line" if one in done.line else "",
        )
    return table


def loss_in_words(one: Any, compared_on: int) -> str:
    if not compared_on:
        return "the graph's own precision"
    between = f" ({one.cost.interval[0]:.2f} to {one.cost.interval[1]:.2f})" if one.cost.interval else ""
    return f"{one.cost.drop:.2f}{between}"
