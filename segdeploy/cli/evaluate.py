from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segdeploy.cli.arguments import (
    MOST_IMAGES,
    add_device,
    add_fit,
    add_json,
    add_precision,
    add_processes,
    add_provider,
    add_ray,
    between,
    list_between,
    parse_size,
)
from segdeploy.cli.model_argument import add_model
from segdeploy.cli.printing import print_json, print_lines, print_message, print_next
from segdeploy.datasets.known import default_splits, names_of_datasets
from segdeploy.shell import command_line


def describe(parser: argparse.ArgumentParser) -> None:
    add_model(
        parser,
        "an .onnx or an .engine; further ones are compared with the first",
        dest="models",
        several=True,
        served=True,
    )
    describe_scored_images(parser)
    parser.add_argument(
        "--workers",
        type=between(1, 256),
        metavar="N",
        default=2,
        help="threads that decode (default: 2)",
    )
    add_processes(parser, "count images; the scores are the same")
    add_ray(parser)
    parser.add_argument("--card", metavar="NAME", help="a card or .yaml that describes foreign graphs")
    add_provider(parser)
    add_device(parser)
    add_precision(parser)
    describe_modes(parser)
    parser.add_argument(
        "--corruptions",
        metavar="LIST",
        help="also score on spoilt frames: all, or names as in fog,shot_noise",
    )
    parser.add_argument(
        "--severities",
        type=list_between(1, 5, whole=True, example="1,3,5"),
        metavar="LIST",
        help="severities of corruptions (default: 1,2,3,4,5)",
    )
    add_json(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        help="write evaluation.json and pictures to this folder, where a stopped run can go on",
    )
    parser.add_argument(
        "--worst", type=between(0, 1000), metavar="N", default=8, help="worst frames to draw (default: 8)"
    )


def describe_scored_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset", choices=names_of_datasets(), required=True, help="`folder` means any two folders"
    )
    parser.add_argument("--root", metavar="DIR", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--split", metavar="NAME", help=f"default: {default_splits('scored_on')}")
    parser.add_argument("--mapping", metavar="YAML", type=Path, help="for folder: maps ids to classes")
    parser.add_argument(
        "--limit", type=between(1, MOST_IMAGES), metavar="N", help="score this many images, evenly spread"
    )


def describe_modes(parser: argparse.ArgumentParser) -> None:
    """Say how frames go through a model."""
    add_fit(parser)
    parser.add_argument(
        "--windows",
        action="store_true",
        help="average the logits of sliding windows of the graph's size, as the card says",
    )
    parser.add_argument(
        "--stride",
        type=parse_size,
        metavar="HxW",
        help="stride of the windows (default: the card's, or two thirds of a window)",
    )
    parser.add_argument(
        "--frame",
        type=parse_size,
        metavar="HxW",
        help="first resize frames into this size, aspect kept (default: the card's)",
    )
    parser.add_argument(
        "--scales",
        type=list_between(0.001, 16),
        default=(),
        metavar="LIST",
        help="average over scales, as in 0.5,0.75,1,1.25,1.5,1.75",
    )
    parser.add_argument("--flip", action="store_true", help="average over the mirrored frame too")


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.assess.evaluate.corruptions import CORRUPTIONS, SEVERITIES
    from segdeploy.assess.evaluate.models import EvaluationRequest, evaluate_models
    from segdeploy.assess.evaluate.modes import Mode
    from segdeploy.assess.evaluate.report import result_tables, robustness_shown
    from segdeploy.cli.console import counted, show_tables
    from segdeploy.datasets.layouts import open_dataset
    from segdeploy.errors import RequestError
    from segdeploy.model.card import read_card

    if arguments.severities and not arguments.corruptions:
        raise RequestError("--severities are of corruptions: give --corruptions too, as in --corruptions all")
    corruptions = tuple(arguments.corruptions.split(",")) if arguments.corruptions else ()
    dataset = open_dataset(arguments.dataset, arguments.root, arguments.split, arguments.mapping)
    request = EvaluationRequest(
        tuple(arguments.models),
        dataset.limited(arguments.limit),
        Mode(
            arguments.fit,
            arguments.resize,
            arguments.windows,
            arguments.stride,
            arguments.frame,
            arguments.scales,
            arguments.flip,
        ),
        read_card(arguments.card) if arguments.card else None,
        arguments.provider,
        arguments.workers,
        arguments.output,
        None if arguments.json in (None, "-") else Path(arguments.json),
        arguments.worst,
        CORRUPTIONS if corruptions == ("all",) else corruptions,
        arguments.severities or SEVERITIES,
        arguments.card,
        arguments.processes,
        arguments.ray,
        arguments.precision,
        arguments.as_exported,
        print_message,
        arguments.graph_size,
    )
    done = evaluate_models(request, counted)
    if arguments.json == "-":
        print_json(done.report())
        return 0
    show_tables(
        [
            *result_tables(done.scores),
            *(robustness_shown(name, table) for name, table in done.robustness.items()),
        ]
    )
    print_lines(*published_scores(done.facts, dataset.name))
    kept = command_line("segdeploy", "report", arguments.output) if arguments.output else ""
    print_next(kept or "the same command with -o DIR, of which `segdeploy report DIR` makes a page")
    return 0


def published_scores(models: Mapping[str, Mapping[str, Any]], dataset: str) -> Iterator[str]:
    """Say beside a score what its card has published on this data set, where there is such a card."""
    from segdeploy.model.card import known_cards, read_card

    for name, facts in models.items():
        card = read_card(facts["card"]) if facts["card"] in known_cards() else None
        if card is not None and card.published_miou is not None and card.labels.name == dataset:
            yield f"published for {name}: {card.published_miou} mIoU ({card.miou_source})"
