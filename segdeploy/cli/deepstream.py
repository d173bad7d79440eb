from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segdeploy.cli.arguments import MOST_BATCH, add_json, between, parse_size
from segdeploy.cli.deepstream_app import add_app, add_triton, execute_app
from segdeploy.cli.model_argument import add_model
from segdeploy.cli.printing import print_lines, print_message, print_next, put_json
from segdeploy.releases import USUAL, rendered_versions
from segdeploy.serve.deepstream.request import MUXERS, NETWORK_TYPES, PARSERS, PRECISIONS
from segdeploy.shell import shell_word

if TYPE_CHECKING:
    from segdeploy.serve.deepstream.findings import Finding


def describe(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="step", metavar="STEP", required=True)

    add_config(verbs.add_parser("config", help="render a configuration folder for DeepStream"))
    add_app(verbs.add_parser("app", help="render an application of several cameras for DeepStream"))
    add_lint(verbs.add_parser("lint", help="find faults in a configuration before a device runs it"))
    add_replay(
        verbs.add_parser(
            "replay", help="execute a configuration with nvinfer's semantics, without DeepStream"
        )
    )
    run = verbs.add_parser("run", help="start ds-tao-segmentation on a configuration")
    run.add_argument("-c", "--config", metavar="FILE", type=Path, required=True)
    run.add_argument(
        "-i", "--input", metavar="URI", action="append", required=True, help="once for each stream"
    )


def add_config(config: argparse.ArgumentParser) -> None:
    add_model(config, "an .onnx", chooses=False)
    config.add_argument(
        "--deepstream",
        choices=rendered_versions(),
        default=USUAL,
        help=f"DeepStream's version (default: {USUAL})",
    )
    config.add_argument(
        "--network-type",
        type=int,
        choices=NETWORK_TYPES,
        help="2: nvinfer parses the output (default from DeepStream 8.0 on); 100: it hands the tensors on",
    )
    config.add_argument("--streams", type=between(1, MOST_BATCH), metavar="N", default=1, help="default: 1")
    config.add_argument(
        "--parser",
        choices=PARSERS,
        help="segdeploy, ours, which lies in the folder (default); tao, NVIDIA's, which is built on the machine",
    )
    config.add_argument("--precision", choices=PRECISIONS, help="default: the graph's own")
    config.add_argument("--card", metavar="NAME", help="a card or .yaml that describes a foreign graph")
    config.add_argument("--int8-cache", metavar="FILE", type=Path, help="TensorRT's calibration cache")
    config.add_argument(
        "--dla",
        metavar="CORE",
        type=int,
        choices=(0, 1),
        help="of a Jetson (default: the GPU)",
    )
    add_triton(config)
    config.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="the folder to write")
    add_json(config)


def add_lint(lint: argparse.ArgumentParser) -> None:
    lint.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        nargs="+",
        help="nvinfer's .txt or .yml, app.yml, deepstream_app.txt or segdeploy_app.json",
    )
    lint.add_argument(
        "--model", metavar="MODEL", type=Path, help="an .onnx (default: the file's own onnx-file)"
    )
    lint.add_argument(
        "--deepstream",
        choices=rendered_versions(),
        help="DeepStream's version (default: the file's, else the newest)",
    )
    lint.add_argument(
        "--strict", action="store_true", help="find what the house advises too, as relative paths"
    )
    lint.add_argument("--fix", action="store_true", help="write into the file what is certain")
    add_json(lint)


def add_replay(replay: argparse.ArgumentParser) -> None:
    replay.add_argument("-c", "--config", metavar="FILE", type=Path, required=True)
    replay.add_argument(
        "-i", "--input", metavar="CLIP", type=Path, required=True, help="a clip or a folder of images"
    )
    replay.add_argument("-o", "--output", metavar="MP4", type=Path, required=True)
    replay.add_argument("--reference", metavar="CHECKPOINT", help="compare it with this network in PyTorch")
    muxer = replay.add_mutually_exclusive_group()
    muxer.add_argument(
        "--app",
        choices=sorted(MUXERS),
        help="scale the frames first, as the app's own muxer does (to 1280x720)",
    )
    muxer.add_argument(
        "--muxer",
        metavar="HxW",
        type=parse_size,
        help="scale them to this size first, as nvstreammux is told to",
    )
    replay.add_argument(
        "--trust-parser",
        action="store_true",
        help="load the output parser that the configuration names, which runs its code (default: only segdeploy's own)",
    )
    add_json(replay)


def execute(arguments: argparse.Namespace) -> int:
    steps = {
        "config": execute_config,
        "app": execute_app,
        "lint": execute_lint,
        "replay": execute_replay,
        "run": execute_run,
    }
    return steps[arguments.step](arguments)


def execute_config(arguments: argparse.Namespace) -> int:
    from segdeploy.serve.deepstream.render import render
    from segdeploy.serve.deepstream.request import RenderRequest

    request = RenderRequest(
        arguments.model,
        arguments.deepstream,
        arguments.network_type,
        arguments.streams,
        arguments.parser,
        arguments.precision,
        card=arguments.card,
        int8_cache=arguments.int8_cache,
        dla=arguments.dla,
        triton=arguments.triton,
    )
    rendered = render(request, arguments.output)
    if put_json(arguments.json, {"files": [*map(str, rendered.paths)], "warnings": rendered.warnings}):
        return 0
    print_lines(*rendered.paths)
    for warning in rendered.warnings:
        print_message(warning)
    config = arguments.output / "nvinfer_config.txt"
    served = f"segdeploy verify {shell_word(arguments.triton)}, once the server runs"
    print_next(replay_of(config) if config in rendered.paths else served)
    return 0


OF_APPLICATIONS = ("app.yml", "deepstream_app.txt", "segdeploy_app.json")


def replay_of(config: Path) -> str:
    return f"segdeploy deepstream replay -c {shell_word(config)} -i CLIP -o replay.mp4"


def execute_lint(arguments: argparse.Namespace) -> int:
    from segdeploy.serve.deepstream.lint import lint
    from segdeploy.serve.deepstream.lint_fix import fix

    asked = arguments.model, arguments.deepstream
    reports = []
    for path in arguments.file:
        corrected, found = (
            fix(path, *asked, strict=arguments.strict)
            if arguments.fix
            else ([], lint(path, *asked, strict=arguments.strict))
        )
        reports.append((path, corrected, found))
    said = [
        {
            "file": str(path),
            "corrected": [one._asdict() for one in corrected],
            "findings": [one._asdict() | {"advice": one.is_advice} for one in found],
        }
        for path, corrected, found in reports
    ]
    left = [one for _, _, found in reports for one in found]
    if not put_json(arguments.json, said[0] if len(said) == 1 else said):
        for report in reports:
            print_findings(*report)
        print_next(after_lint(arguments.file, left))
    return 1 if left else 0


def after_lint(files: Sequence[Path], left: Sequence[Finding]) -> str:
    """Give the next command; what replays is nvinfer's configuration, which lies beside an application's."""
    if any(one.fix for one in left):
        return "the same command with --fix, which writes what is certain"
    if left:
        return "correct what is named, and the same command again"
    beside = files[0].with_name("nvinfer_config.txt")
    return replay_of(beside if files[0].name in OF_APPLICATIONS and beside.is_file() else files[0])


def print_findings(path: Path, corrected: Sequence[Finding], found: Sequence[Finding]) -> None:
    for one in corrected:
        written = ", ".join(f"{key}={value}" for key, value in one.fix)
        print_lines(f"{path}:{one.line}: {one.code}: corrected: {written}")
    for one in found:
        print_lines(f"{path}:{one.line}: {one.code}: {one.what}. {one.remedy[:1].upper()}{one.remedy[1:]}.")
    if not found:
        print_lines(f"{path}: nothing found" + " any more" * bool(corrected))


def execute_replay(arguments: argparse.Namespace) -> int:
    from segdeploy.cli.console import counted
    from segdeploy.serve.deepstream.frames import open_source
    from segdeploy.serve.deepstream.replay import BANNER, replay

    reference = None
    if arguments.reference:
        from segdeploy.graph.load import read_graph
        from segdeploy.serve.deepstream.config import read_config
        from segdeploy.serve.deepstream.reference import PyTorchReference
        from segdeploy.serve.deepstream.replay import graph_of

        signature = read_graph(graph_of(read_config(arguments.config)), weights=False).signature
        reference = PyTorchReference(arguments.reference, signature)
    with counted(open_source(arguments.input).frames, "replaying") as advance:
        seen = replay(
            arguments.config,
            arguments.input,
            arguments.output,
            reference=reference,
            trust_parser=arguments.trust_parser,
            muxer=MUXERS.get(arguments.app or "", arguments.muxer),
            progress=advance,
        )
    if put_json(arguments.json, {"output": str(arguments.output)} | seen.as_json()):
        return 0
    print_lines(BANNER)
    print_lines(f"{arguments.output}: {seen.frames} frames, {seen.inferred} of them inferred")
    for held, words in (
        (seen.compared, "against PyTorch"),
        (seen.muxed, "against PyTorch on what the muxer hands on"),
    ):
        if held.agreement and held.lowest:
            print_lines(f"{words}: {held.agreement}, lowest frame {held.lowest.pixel_agreement:.4%}")
    if seen.without_class:
        print_lines(f"without a class: {seen.without_class / seen.pixels:.2%} of the pixels")
    if seen.refused:
        print_lines(f"refused by the parser: {seen.refused} of {seen.inferred} frames")
    if seen.beyond:
        print_lines(
            f"read past the end of the output: {seen.beyond:,} values, 0 here and anything on the device"
        )
    print_lines(*(f"note: {note}" for note in seen.notes))
    print_next(f"on the device: segdeploy deepstream run -c {shell_word(arguments.config)} -i URI")
    return 0


def execute_run(arguments: argparse.Namespace) -> int:
    from segdeploy.serve.deepstream.launch import run

    return run(arguments.config, arguments.input)
