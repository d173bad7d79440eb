"""Flags of `bench`, by topic: how is timed, how the model runs, what a checkpoint is, and what is compared and told."""

from __future__ import annotations

import argparse
from pathlib import Path

from segdeploy.cli.arguments import (
    INTERFACE_CHOICES,
    LONGEST_S,
    MOST_BATCH,
    MOST_THREADS,
    NETWORK_CHOICES,
    SHORTEST_S,
    add_device,
    add_json,
    add_precision,
    add_provider,
    between,
    list_between,
    parse_size,
)


def add_timing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch",
        type=list_between(1, MOST_BATCH, whole=True, example="1,2,4,8"),
        metavar="LIST",
        help="batch sizes, as in 1,2,4,8 (default: the model's own, or its best)",
    )
    parser.add_argument(
        "--duration",
        metavar="S",
        type=between(SHORTEST_S, LONGEST_S, whole=False),
        default=3.0,
        help="seconds per batch size (default: 3)",
    )
    parser.add_argument(
        "--warmup",
        metavar="MS",
        type=between(0, 1000 * LONGEST_S, whole=False),
        default=200.0,
        help="warm-up (default: 200)",
    )
    parser.add_argument(
        "--streams", metavar="N", type=between(1, 256), default=1, help="queries run at once (default: 1)"
    )
    parser.add_argument(
        "--trtexec-compat",
        metavar="VERSION",
        default="11",
        help="take this trtexec's defaults: 11 (default: no transfers, CUDA graph, spin) or 8.6 to 10.16 (transfers,"
        " no graph, blocking; warns above 1 %% of variation up to 10.13.0, above 2.5 %% from 10.13.2 on)",
    )
    parser.add_argument(
        "--cuda-graph",
        action=argparse.BooleanOptionalAction,
        help="replay a CUDA graph (default: as trtexec)",
    )
    parser.add_argument(
        "--transfers",
        choices=("include", "exclude"),
        help="time copies to the GPU and back (default: as trtexec)",
    )


def add_runtime(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", metavar="N", type=between(1, MOST_THREADS), help="CPU threads (default: all)"
    )
    add_provider(parser, "an .onnx (or a checkpoint: cpu or cuda)")
    add_device(parser)
    add_precision(parser)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network",
        choices=NETWORK_CHOICES,
        help="for a checkpoint: plain, as published (default), or deployed, as exported, both in PyTorch; or graph:"
        " exported, kept and run as an .onnx",
    )
    parser.add_argument("--interface", choices=INTERFACE_CHOICES, help="for a checkpoint (default: nvinfer)")
    parser.add_argument(
        "--size",
        type=parse_size,
        metavar="HxW",
        help="of a checkpoint (default: its card's); of a graph of several, the one to measure",
    )
    parser.add_argument("--fp16", action="store_true", help="for a checkpoint: compute in FP16, on the GPU")


def add_comparison(parser: argparse.ArgumentParser) -> None:
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        "--compare",
        metavar="OTHER",
        nargs="+",
        help="run these and MODEL in turn, and print the ratios as Markdown",
    )
    other.add_argument(
        "--end-to-end",
        metavar="SOURCE",
        type=Path,
        help="time every stage from the images of a folder, or a video, to their overlays",
    )
    parser.add_argument(
        "--allow-unlike",
        action="store_true",
        help="compare models that differ in size, classes or output",
    )
    parser.add_argument(
        "--reference",
        metavar="DEVICE",
        nargs="?",
        const="",
        help="print published numbers of this device beside ours (default: the one here)",
    )
    add_json(parser)
    parser.add_argument(
        "--export-times", metavar="FILE", type=Path, help="write each query as trtexec --exportTimes does"
    )
