from __future__ import annotations

import argparse
import sys
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from segdeploy.cli.model_argument import add_model, interface_asked
from segdeploy.cli.printing import print_lines, print_message, print_next, print_talk
from segdeploy.cli.run_flags import add_lines, add_pictures, add_running, add_streams
from segdeploy.shell import command_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from segdeploy.growing import Lines
    from segdeploy.run.address import ModelAddress
    from segdeploy.run.session import Session
    from segdeploy.serve.stream.flicker import Flicker
    from segdeploy.serve.stream.metrics import Figures
    from segdeploy.serve.stream.pipeline import SourceTally
    from segdeploy.serve.stream.result import Shown
    from segdeploy.serve.stream.sinks import Sink
    from segdeploy.serve.stream.sources import Source, Stream


def describe(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "an .onnx or an .engine", served=True)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="+",
        help="images, folders, videos, globs, rtsp:// or http:// addresses, cameras (0, /dev/video0, csi://0),"
        " 'gst:PIPELINE' for a GStreamer pipeline, or - for raw RGB frames on standard input",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="a folder (default: out), an .mp4, .mov or .mkv ({name} stands for the source's; a camera goes on in"
        " ….2.mp4 after 250,000 frames), or an rtsp:// address",
    )
    add_pictures(parser)
    add_running(parser)
    add_lines(parser)
    add_streams(parser)


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.convert.bundled import bundled_graph, is_bundled
    from segdeploy.errors import RequestError
    from segdeploy.picture.decoding import MOST_PIXELS
    from segdeploy.serve.stream.outputs import is_clip
    from segdeploy.serve.stream.sources import expand, is_images

    if arguments.max_pixels is None:
        arguments.max_pixels = MOST_PIXELS
    if arguments.json not in (None, "-"):
        demand_lines_file(Path(arguments.json))
    if arguments.masks and arguments.json is None:
        raise RequestError("--masks goes into the lines of --json, which was not asked for")
    if arguments.layout and not arguments.compare:
        raise RequestError(
            f"--layout {arguments.layout} is for two models; name the other one with --compare"
        )
    if isinstance(arguments.compare, Path) and is_bundled(arguments.compare):
        arguments.compare = bundled_graph(interface_asked(arguments))
    sources = expand(arguments.source)
    if all(is_images(source) for source in sources) and not is_clip(arguments.output or ""):
        for flag, unset in (
            ("compare", None),
            ("view", None),
            ("metrics", None),
            ("show", False),
            ("every", 1),
            ("max_frames", None),
        ):
            if getattr(arguments, flag) != unset:
                asked = flag.replace("_", "-")
                raise RequestError(f"--{asked} is for a stream; make one of these images with -o out.mp4")
        return run_images(arguments, [Path(source) for source in sources])
    if arguments.labels != "png":
        raise RequestError(
            f"--labels {arguments.labels} is for images; `archive` writes the labels of videos"
        )
    return run_streams(arguments, sources)


def run_images(arguments: argparse.Namespace, sources: list[Path]) -> int:
    import time
    from contextlib import ExitStack, closing

    from segdeploy.cli.console import counted
    from segdeploy.picture.image import WRITTEN, find_images
    from segdeploy.serve.stream.images import segment_files
    from segdeploy.serve.stream.messages import line_of_image

    total = sum(len(find_images(source, but=WRITTEN)) for source in sources)
    failed = 0
    with ExitStack() as stack:
        lines = stack.enter_context(closing(lines_for(arguments))) if arguments.json else None
        session = stack.enter_context(session_for(arguments, arguments.model, shares_cores=False))
        advance = stack.enter_context(counted(total, "segmenting"))
        for done in segment_files(
            session,
            sources,
            Path(arguments.output or "out"),
            alpha=arguments.alpha,
            legend=not arguments.no_legend,
            how=arguments.fit,
            kernel=arguments.resize,
            most_pixels=int(arguments.max_pixels),
            indexed=arguments.labels == "palette",
        ):
            advance()
            if done.segmentation is None:
                failed += 1
                print_message(done.error)
                continue
            areas = done.segmentation.areas()
            if lines is not None:
                lines.write(line_of_image(done.path, done.segmentation, time.time(), arguments.masks))
            if arguments.json != "-":
                shares = list(areas.items())[:4]
                print_lines(
                    f"{done.written[0]}: " + ", ".join(f"{name} {share:.0%}" for name, share in shares)
                )
    if failed:
        print_message(f"{failed} of {total} images could not be read")
    elif arguments.json != "-":
        print_next(command_line("segdeploy", "bench", arguments.model))
    return 1 if failed else 0


def demand_lines_file(path: Path) -> None:
    """It may be the next word, which was meant for something else."""
    from segdeploy.errors import RequestError
    from segdeploy.files import cannot_be_written
    from segdeploy.special_files import is_special, is_standard_output

    with cannot_be_written(path):
        if path.suffix not in (".jsonl", ".json") and not is_special(path) and not is_standard_output(path):
            raise RequestError(f"--json {path} is not a .jsonl; without a name, put --json last")


def lines_for(arguments: argparse.Namespace) -> Lines:
    """Open --json; standard output by another name is standard output, where nothing else is then printed."""
    from segdeploy.growing import Lines
    from segdeploy.special_files import is_standard_output

    if arguments.json != "-" and is_standard_output(Path(arguments.json)):
        arguments.json = "-"
    return Lines(sys.stdout if arguments.json == "-" else Path(arguments.json), arguments.timeout)


def run_streams(arguments: argparse.Namespace, sources: list[Source]) -> int:
    from contextlib import ExitStack

    from segdeploy.cli.console import streaming
    from segdeploy.cli.endings import ended_in_time
    from segdeploy.serve.stream.flicker import Flicker
    from segdeploy.serve.stream.metrics import Figures, demand_metrics_file
    from segdeploy.serve.stream.outputs import output_places
    from segdeploy.serve.stream.paced import paced
    from segdeploy.serve.stream.pipeline import Pipeline, StreamPlan
    from segdeploy.serve.stream.sources import Opening, open_streams
    from segdeploy.size import Size

    models = [arguments.model, *([arguments.compare] if arguments.compare else [])]
    flicker = Flicker(len(models))
    names = tuple(model.name for model in models)
    plan = StreamPlan(arguments.every, arguments.batch, arguments.max_frames, arguments.fit, arguments.resize)
    size = Size.parse(arguments.stdin_size) if arguments.stdin_size else None
    if arguments.metrics is not None:
        demand_metrics_file(arguments.metrics)
    # With one of these nothing is written that was not asked for.
    elsewhere = arguments.show or any(
        one is not None for one in (arguments.json, arguments.view, arguments.metrics)
    )
    output = arguments.output or (None if elsewhere else "out")
    with ExitStack() as stack:
        sessions = [stack.enter_context(session_for(arguments, model, shares_cores=True)) for model in models]
        screen = stack.enter_context(streaming())
        how = Opening(
            arguments.timeout,
            arguments.reconnect,
            size,
            arguments.stdin_fps,
            int(arguments.max_pixels),
            screen.say,
        )
        streams = open_streams(sources, how)
        for stream in streams:
            stack.callback(stream.close)
            screen.expect(stream.name, arguments.max_frames or -(-stream.frames // arguments.every))
        written = output_places(output, streams) if output else []
        figures = Figures(streams, arguments.timeout)

        def watch(shown: Shown) -> None:
            screen.take(shown)
            figures.take(shown)

        shared = shared_sinks(arguments, names, streams, figures, screen.say, stack)
        stack.enter_context(ended_in_time(arguments.timeout))
        pipeline = Pipeline(
            sessions,
            [paced(stream, place) for stream, place in zip_longest(streams, written)],
            drawn_into(arguments, names, streams, written),
            shared,
            plan,
            screen.say,
            flicker=flicker,
            watch=watch,
            timeout_s=arguments.timeout,
        )
        tallies = pipeline.run()
    if arguments.json != "-":
        tell(tallies, streams, written)
        print_lines(*flicker_words(flicker, names))
        if not pipeline.errors:
            print_next(command_line("segdeploy", "bench", arguments.model))
    return 1 if pipeline.errors else 0


def session_for(arguments: argparse.Namespace, model: Path | ModelAddress, shares_cores: bool) -> Session:
    from segdeploy.convert.bundled import BUNDLED_CARD
    from segdeploy.model.card import read_card
    from segdeploy.prove.opening import open_session

    session = open_session(
        model,
        threads=arguments.threads,
        provider=arguments.provider,
        card=read_card(arguments.card) if arguments.card else None,
        shares_cores=shares_cores,
        precision=arguments.precision,
        as_exported=arguments.as_exported,
        size=arguments.graph_size,
        tell=print_message,
    )
    if session.signature.card == BUNDLED_CARD:
        print_talk(f"{BUNDLED_CARD} knows made street scenes only: of real pictures its answers mean nothing")
    return session


def shared_sinks(
    arguments: argparse.Namespace,
    names: tuple[str, ...],
    streams: list[Stream],
    figures: Figures,
    say: Callable[[str], None],
    stack: ExitStack,
) -> list[Sink]:
    """Make the sinks that take every stream: the page, the lines of --json and the file of --metrics."""
    from segdeploy.serve.stream.metrics import MetricsFile
    from segdeploy.serve.stream.outputs import demand_other
    from segdeploy.serve.stream.sinks import JsonLines
    from segdeploy.serve.stream.view import Page

    shared: list[Sink] = []
    if arguments.view is not None:
        shared.append(page := Page(arguments.view, arguments.view_address, names, figures))
        stack.callback(page.close)
        say(f"look at {page.url}")
    if arguments.json is not None:
        if arguments.json != "-":
            demand_other(Path(arguments.json), streams)
        shared.append(JsonLines(lines_for(arguments), arguments.masks))
    if arguments.metrics is not None:
        shared.append(MetricsFile(arguments.metrics, figures))
    return shared


def drawn_into(
    arguments: argparse.Namespace, names: tuple[str, ...], streams: list[Stream], written: list[str]
) -> list[list[Sink]]:
    """Makes the sinks that take the pictures of each stream."""
    from segdeploy.serve.stream.drawing import Drawing, Style
    from segdeploy.serve.stream.sinks import Pictures
    from segdeploy.serve.stream.window import Window

    style = Style(names, arguments.alpha, not arguments.no_legend, arguments.layout or "side")
    sinks: list[list[Sink]] = [[Window(Drawing(style).draw)] if arguments.show else [] for _ in streams]
    for own, stream, place in zip(sinks, streams, written, strict=False):
        own.insert(0, Pictures(place, stream, Drawing(style).draw, arguments.timeout))
    return sinks


def tell(tallies: list[SourceTally], streams: list[Stream], written: list[str]) -> None:
    from segdeploy.picture.video_location import without_credentials

    for number, tally in enumerate(tallies):
        if tally.frames:
            place = without_credentials(written[number]) if written else tally.name
            lost = f", {tally.dropped} dropped" if streams[number].live else ""
            print_lines(f"{place}: {tally.frames} frames, {tally.fps:.1f} a second{lost}")


def flicker_words(flicker: Flicker, names: tuple[str, ...]) -> list[str]:
    """Empty where the scene never stood still."""
    still = flicker.still_share()
    return [
        f"{name} flickers: {share:.2%} of what stood still ({still:.0%} of the pixels) changed class"
        for name, share in zip(names, flicker.share(), strict=True)
        if share is not None
    ]
