from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from segdeploy.cli.arguments import (
    MOST_GPUS,
    MOST_THREADS,
    add_fit,
    add_json,
    add_provider,
    add_ray,
    between,
    list_between,
)
from segdeploy.cli.model_argument import add_model
from segdeploy.cli.printing import print_lines, print_next, put_json
from segdeploy.shell import command_line
from segdeploy.size import is_number

LABELS_CHOICES = ("png", "palette", "cityscapes", "panoptic", "rle", "none")
AREAS_CHOICES = ("parquet", "csv")
MOST_SHARDS = 9999


def describe(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "an .onnx or an .engine", chooses=False)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="+",
        help="folders, images, videos, globs, tars of images (WebDataset), lists of files (.txt), or addresses that"
        " fsspec opens, as in s3://bucket/folder",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        required=True,
        help="the archive's folder, where a stopped run goes on",
    )
    parser.add_argument("--card", metavar="NAME", help="a card or .yaml that describes a foreign graph")
    add_provider(parser)
    describe_frames(parser)
    describe_results(parser)
    describe_workers(parser)


def describe_frames(parser: argparse.ArgumentParser) -> None:
    add_fit(parser)
    parser.add_argument(
        "--every",
        type=between(1, 1_000_000),
        metavar="N",
        default=1,
        help="take every N-th frame of a video or a tar (default: 1)",
    )
    parser.add_argument(
        "--max-pixels",
        type=between(1, 1e12, whole=False),
        metavar="N",
        help="the largest image or frame to read, as in 2e9 (default: 100,000,000, which take about 1 GB)",
    )


def describe_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        choices=LABELS_CHOICES,
        default="png",
        help="png: class ids, grey (default); palette: with the classes' colours; cityscapes: what its server takes;"
        " panoptic: COCO's PNGs with panoptic.json; rle: COCO's run lengths",
    )
    parser.add_argument(
        "--areas",
        choices=AREAS_CHOICES,
        help="also make a table with each class's share of each frame; a later run makes it of what is done",
    )
    add_json(parser)


def describe_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=between(1, 1024),
        metavar="N",
        help="processes that each open the model (default: one for two cores, or for each --device)",
    )
    parser.add_argument(
        "--threads",
        type=between(1, MOST_THREADS),
        metavar="N",
        help="CPU threads of each worker (default: the cores divided among them)",
    )
    parser.add_argument(
        "--device",
        type=list_between(0, MOST_GPUS - 1, whole=True, example="0,1"),
        metavar="LIST",
        default=(),
        help="the GPUs that the workers take in turn, as in 0,1 (default: the first one)",
    )
    parser.add_argument(
        "--shard",
        type=parse_shard,
        metavar="I/N",
        default=(1, 1),
        help="do the I-th of N parts, as a job of a SLURM array does: --shard $SLURM_ARRAY_TASK_ID/8",
    )
    add_ray(parser)


def parse_shard(text: str) -> tuple[int, int]:
    """Take I of N; whether I is one of them is said by the archive, in its words."""
    part, _, whole = text.partition("/")
    if not (is_number(part) and is_number(whole)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a part of a whole; expected I/N, as in 3/8")
    return int(between(0, MOST_SHARDS)(part)), int(between(1, MOST_SHARDS)(whole))


def execute(arguments: argparse.Namespace) -> int:
    from contextlib import nullcontext

    from segdeploy.cli.console import counted
    from segdeploy.picture.decoding import MOST_PIXELS
    from segdeploy.serve.archive.archive import ArchiveRequest, archive, count_files

    request = ArchiveRequest(
        model=arguments.model,
        sources=tuple(arguments.source),
        output=arguments.output,
        labels=arguments.labels,
        areas=arguments.areas,
        workers=arguments.workers,
        shard=arguments.shard[0],
        shards=arguments.shard[1],
        fit=arguments.fit,
        resize=arguments.resize,
        every=arguments.every,
        most_pixels=int(arguments.max_pixels or MOST_PIXELS),
        card=arguments.card,
        provider=arguments.provider,
        threads=arguments.threads,
        devices=tuple(map(int, arguments.device)),
        ray=arguments.ray,
    )
    request.demand_sense()
    # Counting takes a while, and is for whoever sees the bar.
    watched = sys.stderr.isatty()
    with counted(count_files(request), "archiving") if watched else nullcontext(lambda: None) as advance:
        done = archive(request, advance)
    facts = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(done).items()}
    if not put_json(arguments.json, facts):
        print_lines(done)
        again = "the same command again, which tries what failed and leaves out what is done"
        bench = command_line("segdeploy", "bench", arguments.model, "--end-to-end", arguments.source[0])
        print_next(again if done.failed else f"{bench}, which shows where a frame's time goes")
    return 1 if done.failed else 0
