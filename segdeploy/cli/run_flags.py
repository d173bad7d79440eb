"""Flags of `run`, by topic: the pictures, how the model runs, what is written, and streams."""

from __future__ import annotations

import argparse
from pathlib import Path

from segdeploy.cli.arguments import (
    LAYOUT_CHOICES,
    LONGEST_S,
    MASK_CHOICES,
    MOST_BATCH,
    MOST_THREADS,
    SHORTEST_S,
    add_device,
    add_fit,
    add_precision,
    add_provider,
    between,
)
from segdeploy.cli.model_argument import parse_model


def add_pictures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--alpha",
        type=between(0, 1, whole=False),
        metavar="A",
        default=0.55,
        help="opacity of the overlay, 0 to 1 (default: 0.55)",
    )
    parser.add_argument(
        "--no-legend", action="store_true", help="leave legend and figures out of the picture"
    )
    parser.add_argument(
        "--max-pixels",
        type=between(1, 1e12, whole=False),
        metavar="N",
        help="the largest image or frame to read, as in 2e9 (default: 100,000,000, which take about 1 GB)",
    )
    parser.add_argument(
        "--labels",
        choices=("png", "palette"),
        default="png",
        help="class ids of images: a grey PNG (default), or one with the classes' colours as its palette",
    )


def add_running(parser: argparse.ArgumentParser) -> None:
    add_fit(parser)
    parser.add_argument("--card", metavar="NAME", help="a card or .yaml that describes a foreign graph")
    add_provider(parser)
    add_device(parser)
    add_precision(parser)
    parser.add_argument(
        "--threads", type=between(1, MOST_THREADS), metavar="N", help="CPU threads (default: all)"
    )


def add_lines(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json",
        metavar="FILE",
        nargs="?",
        const="-",
        help="areas per class as JSON, a line per image or frame: into FILE (.jsonl, or a pipe), or printed",
    )
    parser.add_argument(
        "--masks",
        choices=MASK_CHOICES,
        help="put each class's mask into the lines of --json: as COCO's compressed run lengths",
    )


def add_streams(parser: argparse.ArgumentParser) -> None:
    video = parser.add_argument_group("videos and cameras")
    add_frames(video)
    add_views(video)


def add_frames(video: argparse._ArgumentGroup) -> None:
    """Add which frames are taken, and how long is waited for them."""
    video.add_argument(
        "--every",
        type=between(1, 1_000_000),
        metavar="N",
        default=1,
        help="take every N-th frame (default: 1)",
    )
    video.add_argument(
        "--batch", type=between(1, MOST_BATCH), metavar="N", help="frames at once (default: the model's)"
    )
    video.add_argument(
        "--max-frames", type=between(1, 1_000_000_000), metavar="N", help="stop after N frames of each source"
    )
    video.add_argument("--stdin-size", metavar="HxW", help="size of the frames on standard input")
    video.add_argument(
        "--stdin-fps",
        type=between(0.001, 1000, whole=False),
        metavar="FPS",
        default=25.0,
        help="their rate (default: 25)",
    )
    video.add_argument(
        "--timeout",
        type=between(SHORTEST_S, LONGEST_S, whole=False),
        metavar="S",
        default=10.0,
        help="seconds before a source or an output that hangs is given up (default: 10)",
    )
    video.add_argument(
        "--reconnect",
        type=between(0, LONGEST_S, whole=False),
        metavar="S",
        default=120.0,
        help="seconds to reconnect to a lost source (default: 120)",
    )


def add_views(video: argparse._ArgumentGroup) -> None:
    """Add where the frames are shown, and what is told of them."""
    video.add_argument("--show", action="store_true", help="show the frames in a window")
    video.add_argument(
        "--compare", metavar="OTHER", type=parse_model, help="a second model, whose results are drawn too"
    )
    video.add_argument(
        "--layout",
        choices=LAYOUT_CHOICES,
        help="show two models side by side (default), or with a line that wipes to and fro",
    )
    video.add_argument(
        "--view",
        metavar="PORT",
        nargs="?",
        type=between(0, 65535),
        const=8765,
        help="show the stream on a web page at this port (8765); without a number, put --view last",
    )
    video.add_argument(
        "--view-address",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="the page's address (default: 127.0.0.1, this machine only)",
    )
    video.add_argument(
        "--metrics",
        metavar="FILE",
        type=Path,
        help="write frame rate, latency, drops, reconnections and areas for Prometheus's node_exporter into this .prom,"
        " every 5 s; --view has them at /metrics",
    )
