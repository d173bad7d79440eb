"""Options and a recipe become one request.

No flag contradicts a recipe in silence, and none is taken that would change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from segdeploy.convert.int8.job import Request
from segdeploy.convert.int8.options import CalibrationOptions
from segdeploy.convert.int8.recipe import Recipe, read_recipe
from segdeploy.datasets.dataset import Dataset
from segdeploy.datasets.known import SCENES, calibration_split
from segdeploy.datasets.layouts import open_dataset
from segdeploy.datasets.made_scenes import made_scenes
from segdeploy.errors import RequestError
from segdeploy.graph.load import read_graph
from segdeploy.size import Size

T = TypeVar("T")
DEFAULT = Request()


@contextmanager
def request_for(options: CalibrationOptions, model: Path, size: Size | None = None) -> Iterator[Request]:
    """Give the request that `options` and their recipe make together for the graph `model`, at one of its sizes.

    Where the recipe makes its own scenes, these exist until the context ends.
    """
    recipe = read_recipe(options.recipe) if options.recipe else Recipe()
    images = recipe
    if options.images is not None and recipe.dataset is not None:
        images = Recipe()  # one's own instead: how many of those, and which, this recipe does not say
    even = {None: None, True: "on", False: "off"}[recipe.equalise]
    usual = (
        "entropy" if recipe.widened else DEFAULT.method
    )  # the groups that a recipe widens are chosen already
    method = agreed(options, "method", options.method, recipe.method, usual)
    percentile = agreed(options, "percentile", options.percentile, recipe.percentile, DEFAULT.percentile)
    demand_use(options, method, recipe)
    # Fewer than the recipe has may be all that is there.
    count = images.count if options.count is None else options.count
    seed = agreed(options, "seed", options.seed, images.seed, DEFAULT.seed)
    with dataset_for(options, images, model, count, seed, size) as dataset:
        yield Request(
            images=options.images,
            dataset=dataset,
            count=count,
            probes=DEFAULT.probes if options.probes is None else options.probes,
            aside=images.aside if options.count is None else None,
            max_drop=options.max_drop,
            equalise=agreed(options, "equalise", options.equalise, even, DEFAULT.equalise),
            recipe=recipe if options.recipe else None,
            scales=options.scales,
            method=method,
            percentile=percentile,
            seed=seed,
            size=size,
        )


def agreed(options: CalibrationOptions, flag: str, given: T | None, said: T | None, otherwise: T) -> T:
    """The value given, or else the one that the recipe says: two that differ are a mistake."""
    if given is not None and said is not None and given != said:
        raise RequestError(
            f"--{flag} {given} contradicts the recipe {options.recipe}, which says {said}; leave out the flag, or"
            " change the recipe"
        )
    return next((value for value in (given, said) if value is not None), otherwise)


def demand_use(options: CalibrationOptions, method: str, recipe: Recipe) -> None:
    """Refuse a flag that would change nothing."""
    if options.percentile is not None and method != "percentile":
        raise RequestError(f"--percentile is of --method percentile, the method here is {method}")
    if options.scales is None:
        return
    if options.method is not None:
        raise RequestError("--method finds thresholds, and with --scales they are the cache's: leave one out")
    if recipe.method is not None or recipe.widened or recipe.equalise:
        raise RequestError(
            f"the recipe {options.recipe} says how thresholds are found, and with --scales they are the file's:"
            " leave one out, or take method, equalise and widened out of the recipe"
        )
    if options.equalise == "on":
        raise RequestError(
            "--scales are of the graph that is there, not of an equalised one: leave out --equalise"
        )


@contextmanager
def dataset_for(
    options: CalibrationOptions, recipe: Recipe, model: Path, count: int | None, seed: int, size: Size | None
) -> Iterator[Dataset | None]:
    name = agreed(options, "dataset", options.dataset, recipe.dataset, None)
    split = agreed(options, "split", options.split, recipe.split, None)
    if name is None:
        why = "is of a labelled data set: give --dataset too, or leave it out"
        refuse_given(options, ("root", "split", "mapping"), why)
        yield None
    elif recipe.dataset == SCENES:
        why = f"has no meaning here: the recipe {options.recipe} makes its own scenes"
        refuse_given(options, ("root", "mapping"), why)
        signature = read_graph(model, weights=False).at(size).signature
        recipe.demand_made_for(signature.card, str(signature.size))
        assert count is not None  # noqa: S101 - read_recipe has seen to it
        with made_scenes(count, seed, signature.size) as dataset:
            yield dataset
    else:
        yield open_for_calibration(options, recipe, name, split)


def open_for_calibration(
    options: CalibrationOptions, recipe: Recipe, name: str, split: str | None
) -> Dataset:
    if options.root is None:
        raise RequestError(f"the data set {name} needs --root DIR, its folder")
    mapping = options.mapping
    if recipe.mapping is not None:
        mapping = mapping or Path(recipe.mapping).expanduser()
        recipe.demand_mapping(mapping)
    return open_dataset(name, options.root, split or calibration_split(name), mapping)


def refuse_given(options: CalibrationOptions, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise RequestError(f"--{name} {why}")
