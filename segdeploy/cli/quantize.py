from __future__ import annotations

import argparse
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from segdeploy.cli.arguments import LARGEST_SEED, MOST_IMAGES, add_json, add_processes, add_ray, between
from segdeploy.cli.model_argument import add_model
from segdeploy.cli.printing import print_lines, print_next, put_json
from segdeploy.convert.int8.options import EQUALISE, METHODS, CalibrationOptions
from segdeploy.datasets.known import default_splits, names_of_datasets
from segdeploy.shell import shell_word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segdeploy.model.record import Sensitivity


def describe(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "an FP32 .onnx", own_fp16=True)
    parser.add_argument("--card", metavar="NAME", help="a card or .yaml that describes a foreign graph")
    describe_calibration(parser)
    parser.add_argument(
        "--fp16", action="store_true", help="FP16 outside INT8; input and output keep their types"
    )
    parser.add_argument(
        "--sensitivity",
        action="store_true",
        help="measure each group of layers alone in INT8, even if all together keep --max-drop",
    )
    parser.add_argument(
        "--cache-for",
        metavar="VERSION",
        help="also write the calibration cache of this TensorRT, as in 10.9.0",
    )
    add_processes(parser, "count images; the graph is the same")
    add_ray(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        default=Path(),
        help="a folder, for the graph, its record and its scales (default: the current folder)",
    )
    add_json(parser)


def describe_calibration(parser: argparse._ActionsContainer) -> None:
    """On what INT8 is based, how its scales are found, and what it may cost."""
    parser.add_argument("--images", metavar="DIR", type=Path, help="images to calibrate on, without labels")
    parser.add_argument(
        "--dataset",
        choices=names_of_datasets(),
        help="a labelled data set instead; `folder` means any two folders",
    )
    parser.add_argument("--root", metavar="DIR", type=Path, help="the data set's folder")
    parser.add_argument("--split", metavar="NAME", help=f"default: {default_splits('calibrated_on')}")
    parser.add_argument("--mapping", metavar="YAML", type=Path, help="for folder: maps ids to classes")
    parser.add_argument(
        "--count",
        type=between(1, MOST_IMAGES),
        metavar="N",
        help="images (default: all, up to 500, except some that are kept to judge on)",
    )
    parser.add_argument(
        "--seed",
        type=between(0, LARGEST_SEED),
        metavar="N",
        help="seed of the choice of images (default: 0)",
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        help="how thresholds are found (default: auto, which is entropy or mse for each group of layers)",
    )
    parser.add_argument(
        "--percentile",
        type=between(0.001, 100, whole=False),
        metavar="P",
        help="for --method percentile (default: 99.99)",
    )
    parser.add_argument(
        "--equalise", choices=EQUALISE, help="balance LayerNorms' channels first (default: auto)"
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="repeat a shipped recipe, or a .yaml: its images (or your --images), method and layers",
    )
    parser.add_argument(
        "--max-drop",
        type=between(0, 100, whole=False),
        metavar="P",
        help="points of mIoU, and 0.6 as many of pixel accuracy, that INT8 may cost (default: 0.25);"
        " without labels, per cent of the predictions that may change (default: 3)",
    )
    parser.add_argument(
        "--probes", type=between(1, MOST_IMAGES), metavar="N", help="images to judge on (default: 48)"
    )
    parser.add_argument(
        "--scales",
        metavar="CACHE",
        type=Path,
        help="take scales from TensorRT's calibration cache or a scales.json; images only judge",
    )


def calibration_options(arguments: argparse.Namespace) -> CalibrationOptions:
    return CalibrationOptions(
        **{one.name: getattr(arguments, one.name) for one in fields(CalibrationOptions)}
    )


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.cli.console import steps
    from segdeploy.cli.words import methods_in_words
    from segdeploy.convert.int8.quantize import quantize
    from segdeploy.convert.int8.request import request_for
    from segdeploy.model.card import read_card

    command = arguments.command
    card = read_card(arguments.card) if arguments.card else None
    with (
        steps() as progress,
        request_for(calibration_options(arguments), arguments.model, arguments.graph_size) as request,
    ):
        request = replace(
            request,
            card=card,
            fp16=arguments.fp16,
            cache_for=arguments.cache_for,
            sensitivity=arguments.sensitivity,
            processes=arguments.processes,
            ray=arguments.ray,
        )
        done = quantize(arguments.model, request, output=arguments.output, command=command, progress=progress)
    if put_json(arguments.json, {"file": str(done.path), "record": asdict(done.record)}):
        return 0
    show(done.calibration.sensitivities)
    calibration = done.calibration
    seen = calibration.pixels_seen
    if seen:
        shown = sorted(seen.items(), key=lambda one: -one[1])
        counts = ", ".join(f"{name} {pixels:,}" for name, pixels in shown if pixels)
        unseen = [name for name, pixels in shown if not pixels]
        print_lines(f"pixels seen in {calibration.images} images: {counts}")
        print_lines(f"not seen: {', '.join(unseen) or 'no class'}")
    print_lines(f"{done.path}: {done.record.verdict}")
    if arguments.cache_for:
        print_lines(
            f"calibration cache for TensorRT {arguments.cache_for}: every INT8 layer has scales for what it reads and"
            " what it makes; which layers that TensorRT computes in INT8 was not seen on a device"
        )
    print_lines(f"kept out of INT8: {', '.join(calibration.keep) or 'nothing'}")
    if calibration.methods:
        print_lines(f"thresholds: {methods_in_words(calibration.methods)}")
    if calibration.dead:
        print_lines(
            f"out of INT8 because what they read was zero on every image: {', '.join(calibration.dead)}"
        )
    print_next(f"segdeploy build-engine {shell_word(done.path)}")
    return 0


def show(sensitivities: Sequence[Sensitivity]) -> None:
    if not sensitivities:
        return
    print_lines(f"{'alone in INT8':32}  {'changed labels':>14}  {'lost':>7}  {'KL':>9}  {'MMACs':>8}")
    for one in sorted(sensitivities, key=lambda one: one.kl, reverse=True)[:12]:
        changed = 100 * (1 - one.pixel_agreement)
        print_lines(
            f"{one.group:32}  {changed:12.3f} %  {one.drop:7.3f}  {one.kl:9.2e}  {one.macs / 1e6:8.1f}"
        )
