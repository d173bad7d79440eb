from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segdeploy.calibrate.recipe import Recipe
    from segdeploy.calibrate.search import Sensitivity
    from segdeploy.evaluate.datasets import Dataset


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", type=Path, help="an FP32 .onnx")
    parser.add_argument("--images", metavar="DIR", type=Path, help="images to calibrate on, without labels")
    parser.add_argument(
        "--dataset", help="a labelled data set instead: cityscapes, kitti, camvid, or folder with --mapping"
    )
    parser.add_argument("--root", metavar="DIR", type=Path, help="the data set's folder")
    parser.add_argument("--split", help="default: train; training for kitti")
    parser.add_argument("--mapping", metavar="YAML", type=Path, help="which id is which class, for folder")
    parser.add_argument("--count", type=int, metavar="N", help="images (default: all, up to 500)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the choice of images (default: 0)"
    )
    parser.add_argument("--method", default="entropy", help="entropy (default), percentile, minmax or mse")
    parser.add_argument("--percentile", type=float, default=99.99, metavar="P", help="default: 99.99")
    parser.add_argument(
        "--equalise", default="auto", help="auto (default), on or off: balance LayerNorms' channels"
    )
    parser.add_argument(
        "--recipe", metavar="NAME", help="replay a shipped recipe, or a .yaml: its images, method and layers"
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="P",
        help="points of mIoU, and 0.6 as many of pixel accuracy (default: 0.5);"
        " without labels, per cent of the labels that may change (default: 3)",
    )
    parser.add_argument(
        "--fp16", action="store_true", help="FP16 where INT8 is not; input and output keep their types"
    )
    parser.add_argument(
        "--probes", type=int, default=48, metavar="N", help="images to judge on (default: 48)"
    )
    parser.add_argument(
        "--scales",
        metavar="CACHE",
        type=Path,
        help="take them from TensorRT's calibration cache; images only judge",
    )
    parser.add_argument(
        "--cache-for",
        metavar="VERSION",
        help="also write the calibration cache of this TensorRT, as in 10.9.0",
    )
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, default=Path())


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.calibrate.recipe import read_recipe
    from segdeploy.cli.console import steps
    from segdeploy.quantize import Request, quantize

    recipe = read_recipe(arguments.recipe) if arguments.recipe else None
    dataset = dataset_of(arguments, recipe)
    request = Request(
        images=arguments.images,
        dataset=dataset,
        count=recipe.count if recipe and arguments.count is None else arguments.count,
        probes=arguments.probes,
        max_drop=arguments.max_drop,
        equalise=arguments.equalise,
        recipe=recipe,
        method=recipe.method if recipe else arguments.method,
        percentile=recipe.percentile if recipe else arguments.percentile,
        seed=recipe.seed if recipe else arguments.seed,
        scales=arguments.scales,
        fp16=arguments.fp16,
        cache_for=arguments.cache_for,
    )
    command = shlex.join(["segdeploy", *sys.argv[1:]])
    with steps() as progress:
        done = quantize(arguments.model, request, output=arguments.output, command=command, progress=progress)
    show(done.sensitivities)
    keep = done.record.calibration["keep"]
    seen = done.record.calibration["pixels_seen"]
    if seen:
        shown = sorted(seen.items(), key=lambda one: -one[1])
        counts = ", ".join(f"{name} {pixels:,}" for name, pixels in shown if pixels)
        unseen = [name for name, pixels in shown if not pixels]
        print(f"pixels seen in {done.record.calibration['images']} images: {counts}")
        print(f"not seen: {', '.join(unseen) or 'no class'}")
    print(f"{done.path}: {done.words}")
    print(f"kept out of INT8: {', '.join(keep) or 'nothing'}")
    wider = done.record.calibration["widened"]
    if wider:
        print(f"with thresholds of least squared error: {', '.join(wider)}")
    return 0


def dataset_of(arguments: argparse.Namespace, recipe: Recipe | None) -> Dataset | None:
    """The labelled data set that was named, or that the recipe was made on."""
    from segdeploy.errors import RequestError
    from segdeploy.evaluate.datasets import open_dataset

    name = arguments.dataset
    if recipe and name is None and arguments.images is None:
        name = recipe.dataset
    if name is None:
        return None
    if arguments.root is None:
        raise RequestError(f"the data set {name} needs --root DIR, its folder")
    split = arguments.split or (recipe.split if recipe else None)
    split = split or ("train" if name in ("cityscapes", "camvid") else None)
    return open_dataset(name, arguments.root, split, arguments.mapping)


def show(sensitivities: list[Sensitivity]) -> None:
    if not sensitivities:
        return
    print(f"{'alone in INT8':32}  {'changed labels':>14}  {'KL':>9}  {'MMACs':>8}")
    for one in sorted(sensitivities, key=lambda one: one.kl, reverse=True)[:12]:
        changed = 100 * (1 - one.pixel_agreement)
        print(f"{one.group:32}  {changed:12.3f} %  {one.kl:9.2e}  {one.macs / 1e6:8.1f}")
