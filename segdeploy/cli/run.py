from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", type=Path, help="an .onnx or an .engine")
    parser.add_argument("source", metavar="SOURCE", type=Path, help="an image, or a folder of images")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, default=Path("out"), help="default: out")
    parser.add_argument(
        "--alpha", type=float, default=0.55, help="opacity of the overlay, 0 to 1 (default: 0.55)"
    )
    parser.add_argument("--no-legend", action="store_true", help="leave the legend out of the overlay")
    parser.add_argument("--fit", default="stretch", help="stretch (default) or letterbox")
    parser.add_argument(
        "--resize", help="linear (as DeepStream does) or pillow (default: as the model was trained)"
    )
    parser.add_argument("--card", metavar="NAME", help="describes a graph from elsewhere: a card, or a .yaml")
    parser.add_argument(
        "--provider",
        help="where an .onnx is computed: cpu (ONNX Runtime, default), openvino, cuda or tensorrt",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    parser.add_argument(
        "--json", action="store_true", help="print the areas per class as JSON, a line an image"
    )


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.card import read_card
    from segdeploy.cli.console import counted
    from segdeploy.errors import RequestError
    from segdeploy.image import FITS, KERNELS, WRITTEN, find_images
    from segdeploy.sessions import open_session
    from segdeploy.stream.images import segment_files

    if not 0 <= arguments.alpha <= 1:
        raise RequestError(f"--alpha {arguments.alpha:g} is outside 0 to 1")
    if arguments.threads is not None and arguments.threads < 1:
        raise RequestError(f"--threads {arguments.threads} is less than 1")
    for flag, value, known in (("--fit", arguments.fit, FITS), ("--resize", arguments.resize, KERNELS)):
        if value is not None and value not in known:
            raise RequestError(f"{flag} {value!r} is not known; known: {', '.join(known)}")
    total = len(find_images(arguments.source, but=WRITTEN))
    card = read_card(arguments.card) if arguments.card else None
    failed = 0
    with (
        open_session(
            arguments.model, threads=arguments.threads, provider=arguments.provider, card=card
        ) as session,
        counted(total, "segmenting") as advance,
    ):
        for done in segment_files(
            session,
            arguments.source,
            arguments.output,
            alpha=arguments.alpha,
            legend=not arguments.no_legend,
            how=arguments.fit,
            kernel=arguments.resize,
        ):
            advance()
            if done.segmentation is None:
                failed += 1
                print(f"segdeploy: {done.error}", file=sys.stderr)
            elif arguments.json:
                print(json.dumps({"image": str(done.path), "areas": done.segmentation.areas()}))
            else:
                shares = list(done.segmentation.areas().items())[:4]
                print(f"{done.written[0]}: " + ", ".join(f"{name} {share:.0%}" for name, share in shares))
    if failed:
        print(f"segdeploy: {failed} of {total} images could not be read", file=sys.stderr)
    return 1 if failed else 0
