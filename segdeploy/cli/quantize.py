from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy.datasets.known import SCENES, calibration_split, default_splits, names_of_datasets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from segdeploy.convert.int8.quantize import Request
    from segdeploy.convert.int8.recipe import Recipe
    from segdeploy.convert.int8.search import Sensitivity
    from segdeploy.datasets.dataset import Dataset


# What says on which images or scales INT8 is based.
CALIBRATION = ("images", "dataset", "root", "recipe", "scales")


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", type=Path, help="an FP32 .onnx")
    parser.add_argument("--card", metavar="NAME", help="describes a graph from elsewhere: a card, or a .yaml")
    describe_calibration(parser)
    parser.add_argument(
        "--fp16", action="store_true", help="FP16 where INT8 is not; input and output keep their types"
    )
    parser.add_argument(
        "--sensitivity",
        action="store_true",
        help="measure each group of layers alone in INT8 even where all of them cost no more than they may",
    )
    parser.add_argument(
        "--cache-for",
        metavar="VERSION",
        help="also write the calibration cache of this TensorRT, as in 10.9.0",
    )
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, default=Path())


def describe_calibration(parser: argparse._ActionsContainer) -> None:
    """On what INT8 is based, how its scales are found, and what it may cost."""
    parser.add_argument("--images", metavar="DIR", type=Path, help="images to calibrate on, without labels")
    parser.add_argument(
        "--dataset",
        choices=names_of_datasets(),
        help="a labelled data set instead; any two folders are `folder`",
    )
    parser.add_argument("--root", metavar="DIR", type=Path, help="the data set's folder")
    parser.add_argument("--split", metavar="NAME", help=f"default: {default_splits('calibrated_on')}")
    parser.add_argument("--mapping", metavar="YAML", type=Path, help="which id is which class, for folder")
    parser.add_argument(
        "--count",
        type=int,
        metavar="N",
        help="images (default: all, up to 500, but for some that are kept to judge on)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the choice of images (default: 0)")
    parser.add_argument("--method", help="entropy (default), percentile, minmax or mse")
    parser.add_argument("--percentile", type=float, metavar="P", help="default: 99.99")
    parser.add_argument("--equalise", help="auto (default), on or off: balance LayerNorms' channels")
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="replay a shipped recipe, or a .yaml: its images (or your --images), method and layers",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="P",
        help="points of mIoU, and 0.6 as many of pixel accuracy (default: 0.5);"
        " without labels, per cent of the labels that may change (default: 3)",
    )
    parser.add_argument(
        "--probes", type=int, default=48, metavar="N", help="images to judge on (default: 48)"
    )
    parser.add_argument(
        "--scales",
        metavar="CACHE",
        type=Path,
        help="take them from TensorRT's calibration cache or a scales.json; images only judge",
    )


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.cli.console import steps
    from segdeploy.convert.int8.quantize import quantize
    from segdeploy.model.card import read_card

    command = shlex.join(["segdeploy", *sys.argv[1:]])
    more = {
        "card": read_card(arguments.card) if arguments.card else None,
        "fp16": arguments.fp16,
        "cache_for": arguments.cache_for,
        "sensitivity": arguments.sensitivity,
    }
    with steps() as progress, requested(arguments, **more) as request:
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
    if arguments.cache_for:
        print(
            f"calibration cache for TensorRT {arguments.cache_for}: every INT8 layer has scales for what it reads and"
            " what it makes; which layers that TensorRT computes in INT8 was not seen on a device"
        )
    print(f"kept out of INT8: {', '.join(keep) or 'nothing'}")
    wider = done.record.calibration["widened"]
    if wider:
        print(f"with thresholds of least squared error: {', '.join(wider)}")
    dead = done.record.calibration["dead"]
    if dead:
        print(f"out of INT8 because what they read was zero on every image: {', '.join(dead)}")
    return 0


@contextmanager
def requested(arguments: argparse.Namespace, **more: Any) -> Iterator[Request]:
    """What the flags and the recipe say together; made scenes are there for as long as the request is."""
    from segdeploy.convert.int8.quantize import Request
    from segdeploy.convert.int8.recipe import Recipe, read_recipe

    recipe = read_recipe(arguments.recipe) if arguments.recipe else Recipe()
    images = recipe
    if arguments.images is not None and recipe.dataset is not None:
        images = Recipe()  # one's own instead: how many of those, and which, this recipe does not say
    even = {None: None, True: "on", False: "off"}[recipe.equalise]
    method = agreed(arguments, "method", recipe.method, "entropy")
    percentile = agreed(arguments, "percentile", recipe.percentile, 99.99)
    demand_use(arguments, method, recipe)
    # Fewer than the recipe has may be all that is there.
    count = images.count if arguments.count is None else arguments.count
    seed = agreed(arguments, "seed", images.seed, 0)
    with dataset_of(arguments, images, count, seed) as dataset:
        yield Request(
            images=arguments.images,
            dataset=dataset,
            count=count,
            probes=arguments.probes,
            aside=images.aside if arguments.count is None else None,
            max_drop=arguments.max_drop,
            equalise=agreed(arguments, "equalise", even, "auto"),
            recipe=recipe if arguments.recipe else None,
            scales=arguments.scales,
            method=method,
            percentile=percentile,
            seed=seed,
            **more,
        )


def agreed(arguments: argparse.Namespace, flag: str, said: Any, otherwise: Any = None) -> Any:
    """What the flag says, or the recipe: a flag beside a recipe that says something else is a mistake."""
    from segdeploy.errors import RequestError

    given = getattr(arguments, flag)
    if None not in (given, said) and given != said:
        raise RequestError(
            f"--{flag} {given} contradicts the recipe {arguments.recipe}, which says {said}; leave out the flag, or"
            " change the recipe"
        )
    return next((value for value in (given, said) if value is not None), otherwise)


def demand_use(arguments: argparse.Namespace, method: str, recipe: Recipe) -> None:
    """A flag that would change nothing is a mistake too."""
    from segdeploy.errors import RequestError

    if arguments.percentile is not None and method != "percentile":
        raise RequestError(f"--percentile is of --method percentile, the method here is {method}")
    if arguments.scales is not None:
        if arguments.method is not None:
            raise RequestError(
                "--method finds thresholds, and with --scales they are the cache's: leave one out"
            )
        if recipe.method is not None or recipe.widened or recipe.equalise:
            raise RequestError(
                f"the recipe {arguments.recipe} says how thresholds are found, and with --scales they are the file's:"
                " leave one out, or take method, equalise and widened out of the recipe"
            )
        if arguments.equalise == "on":
            raise RequestError(
                "--scales are of the graph that is there, not of an equalised one: leave out --equalise"
            )


@contextmanager
def dataset_of(
    arguments: argparse.Namespace, recipe: Recipe, count: int | None, seed: int
) -> Iterator[Dataset | None]:
    from segdeploy.datasets.layouts import open_dataset
    from segdeploy.errors import RequestError

    name = agreed(arguments, "dataset", recipe.dataset)
    split, mapping = agreed(arguments, "split", recipe.split), arguments.mapping
    if name is None:
        for flag in ("root", "split", "mapping"):
            if getattr(arguments, flag) is not None:
                raise RequestError(f"--{flag} is of a labelled data set: give --dataset too, or leave it out")
        yield None
        return
    if recipe.dataset == SCENES:
        assert count is not None  # noqa: S101 - read_recipe has seen to it
        with scenes_for(arguments, recipe, count, seed) as dataset:
            yield dataset
        return
    if arguments.root is None:
        raise RequestError(f"the data set {name} needs --root DIR, its folder")
    if recipe.mapping is not None:
        mapping = mapping or Path(recipe.mapping).expanduser()
        recipe.demand_mapping(mapping)
    yield open_dataset(name, arguments.root, split or calibration_split(name), mapping)


@contextmanager
def scenes_for(arguments: argparse.Namespace, recipe: Recipe, count: int, seed: int) -> Iterator[Dataset]:
    from segdeploy.datasets.made_scenes import made_scenes
    from segdeploy.errors import RequestError
    from segdeploy.graph.load import read_graph

    for flag in ("root", "mapping"):
        if getattr(arguments, flag) is not None:
            raise RequestError(
                f"--{flag} has no meaning here: the recipe {arguments.recipe} makes its own scenes"
            )
    signature = read_graph(arguments.model, weights=False).signature
    recipe.demand_made_for(signature.card, str(signature.size))
    with made_scenes(count, seed, signature.size) as dataset:
        yield dataset


def show(sensitivities: list[Sensitivity]) -> None:
    if not sensitivities:
        return
    print(f"{'alone in INT8':32}  {'changed labels':>14}  {'lost':>7}  {'KL':>9}  {'MMACs':>8}")
    for one in sorted(sensitivities, key=lambda one: one.kl, reverse=True)[:12]:
        changed = 100 * (1 - one.pixel_agreement)
        print(f"{one.group:32}  {changed:12.3f} %  {one.drop:7.3f}  {one.kl:9.2e}  {one.macs / 1e6:8.1f}")
