from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy.cli.arguments import add_json, between
from segdeploy.cli.model_argument import add_model
from segdeploy.cli.printing import print_lines, print_next, put_json
from segdeploy.cli.quantize import calibration_options, describe_calibration
from segdeploy.cli.words import layers_in_words, verified_in_words
from segdeploy.convert.engine.request import FORMS, LEVELS
from segdeploy.flavour import NAMES
from segdeploy.shell import shell_word

if TYPE_CHECKING:
    from segdeploy.convert.build_engine import Deployed


def describe(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "an .onnx", own_fp16=True, chooses=False)
    parser.add_argument(
        "--fp16", action="store_true", help="build in FP16, which is written into the graph if needed"
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="build in INT8; an FP32 graph is quantised first, on images",
    )
    parser.add_argument("--card", metavar="NAME", help="a card or .yaml that describes a foreign graph")
    images = parser.add_argument_group("images, for --int8 (and to judge --fp16 on)")
    describe_calibration(images)
    images.add_argument(
        "--calibrator",
        choices=("tensorrt",),
        help="use TensorRT's own (up to 10), for a DLA or to compare with ours",
    )
    engine = parser.add_argument_group("the engine")
    engine.add_argument("--runtime", choices=NAMES, help="default: tensorrt where it is installed")
    engine.add_argument("--batch", metavar="MIN:OPT:MAX", help="batches of a dynamic graph (default: 1)")
    engine.add_argument(
        "--target", metavar="LIST", help="for tensorrt-rtx: compute capabilities, as in sm_86,sm_89"
    )
    engine.add_argument(
        "--workspace",
        type=between(0.001, 1024, whole=False),
        metavar="GiB",
        help="GPU memory for trying kernels",
    )
    engine.add_argument(
        "--timing-cache", metavar="FILE", type=Path, help="kernel timings to reuse and update"
    )
    engine.add_argument("--hardware-compatible", action="store_true", help="run on any GPU from Ampere on")
    engine.add_argument(
        "--version-compatible", action="store_true", help="run on newer TensorRTs of this major version"
    )
    engine.add_argument(
        "--dla",
        type=between(0, 15),
        metavar="N",
        help="use this DLA core for the layers that it takes",
    )
    engine.add_argument(
        "--msda",
        choices=FORMS,
        help="build GridSample as it is, or as gathers (default: gather where this TensorRT is reported to sample"
        " wrongly)",
    )
    engine.add_argument("--optimization-level", type=int, choices=LEVELS, help="TensorRT's default: 3")
    add_json(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        default=Path(),
        help="a folder, or an .engine (default: the current folder)",
    )


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.cli.console import steps
    from segdeploy.convert.build_engine import DeployRequest, build_proven
    from segdeploy.convert.engine.request import EngineRequest, parse_targets
    from segdeploy.convert.int8.request import request_for
    from segdeploy.model.engine import Profile

    engine = EngineRequest(
        fp16=arguments.fp16,
        int8=arguments.int8,
        profile=Profile.parse(arguments.batch) if arguments.batch else None,
        targets=parse_targets(arguments.target) if arguments.target else (),
        workspace_gib=arguments.workspace,
        timing_cache=arguments.timing_cache,
        hardware_compatible=arguments.hardware_compatible,
        version_compatible=arguments.version_compatible,
        dla=arguments.dla,
        optimization_level=arguments.optimization_level,
        msda=arguments.msda,
        card=arguments.card,
    )
    calibrator = arguments.calibrator is not None
    command = arguments.command
    options = calibration_options(arguments)
    based = request_for(options, arguments.model) if options.has_source else nullcontext()
    with steps() as progress, based as quantisation:
        request = DeployRequest(engine, arguments.runtime, quantisation, calibrator)
        done = build_proven(
            arguments.model, request, output=arguments.output, command=command, progress=progress
        )
    if not put_json(arguments.json, as_json(done)):
        show(done)
    return 0


def as_json(done: Deployed) -> dict[str, Any]:
    """Say it as `inspect --json` does, and add what is of this build alone."""
    return {
        "file": str(done.built.path),
        "graphs": [str(graph) for graph in done.graphs],
        "notes": done.built.advice,
        "record": asdict(done.built.record),
    }


def show(done: Deployed) -> None:
    record = done.built.record
    engine = record.engine_facts
    for graph in done.graphs:
        print_lines(f"{graph}: made on the way")
    size, seconds = engine.memory.engine_bytes / 1e6, engine.build_seconds
    print_lines(f"{done.built.path}: {record.precision}, {size:.1f} MB, built in {seconds:.1f} s")
    print_lines(f"layers: {layers_in_words(engine.layers)}")
    if engine.dla:
        print_lines(
            f"DLA: {engine.dla.on_dla} of {engine.dla.layers} layers; the others fall back to the GPU"
        )
    print_lines(f"verified: {verified_in_words(engine.verified)}")
    if record.verdict:
        print_lines(record.verdict)
    for note in done.built.advice:
        print_lines(f"note: {note}")
    path = shell_word(done.built.path)
    verify = f"on the target: segdeploy verify {path}"
    print_next(verify if engine.verified.proof is None else f"segdeploy bench {path}")
