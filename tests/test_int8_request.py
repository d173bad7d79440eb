"""Options and a recipe make one request: what each says, what nobody says, and what is refused in which words."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from segdeploy import scenes
from segdeploy.convert.int8.job import Request
from segdeploy.convert.int8.options import CalibrationOptions
from segdeploy.convert.int8.quantize import quantize
from segdeploy.convert.int8.recipe import read_recipe
from segdeploy.convert.int8.request import request_for
from segdeploy.errors import RequestError

GONE = Path("never-read.onnx")
IMAGES = CalibrationOptions(images=Path("frames"))


@pytest.fixture
def recipe(tmp_path):
    def write(**facts):
        path = tmp_path / "r.yaml"
        path.write_text(yaml.safe_dump(facts))
        return str(path)

    return write


def test_what_nobody_says_is_the_default():
    with request_for(IMAGES, GONE) as request:
        assert request == Request(images=Path("frames"))


def test_what_the_options_say():
    options = replace(
        IMAGES, count=9, seed=3, method="percentile", percentile=99.0, equalise="off", probes=2, max_drop=1.0
    )
    with request_for(options, GONE) as request:
        assert request == Request(
            images=Path("frames"), count=9, seed=3, method="percentile", percentile=99.0, equalise="off",
            probes=2, max_drop=1.0,
        )  # fmt: skip


def test_what_the_recipe_says(recipe):
    path = recipe(method="mse", equalise=True, keep=["head"], count=20, seed=5, aside=4)
    with request_for(replace(IMAGES, recipe=path), GONE) as request:
        assert request == Request(
            images=Path("frames"), count=20, seed=5, aside=4, method="mse", equalise="on", recipe=read_recipe(path)
        )  # fmt: skip
    with request_for(replace(IMAGES, recipe=path, count=8), GONE) as request:
        assert (request.count, request.aside) == (8, None)  # fewer may be all that is there


def test_thresholds_are_chosen_by_group_unless_something_says_otherwise(recipe):
    with request_for(IMAGES, GONE) as request:
        assert (request.method, request.recipe) == ("auto", None)
    with request_for(replace(IMAGES, recipe=recipe(count=9)), GONE) as request:
        assert request.method == "auto"
    with request_for(replace(IMAGES, recipe=recipe(keep=[], widened=["head"])), GONE) as request:
        assert request.method == "entropy"  # which groups are widened was chosen when the recipe was written
    with request_for(replace(IMAGES, recipe=recipe(count=9), method="entropy"), GONE) as request:
        assert request.method == "entropy"


def test_images_of_ones_own_are_not_counted_or_drawn_as_the_recipe_says(recipe):
    path = recipe(method="mse", dataset="cityscapes", split="train", count=400, seed=5, aside=9)
    with request_for(replace(IMAGES, recipe=path), GONE) as request:
        assert (request.method, request.count, request.seed, request.aside) == ("mse", None, 0, None)


@pytest.mark.parametrize(("name", "split"), [(None, "train"), ("val", "val")])
def test_a_data_set_is_opened_at_the_split_that_is_calibrated_on(name, split, tmp_path):
    scenes.write_cityscapes(tmp_path, 1, seed=1, split=split, height=64, width=128)
    with request_for(CalibrationOptions(dataset="cityscapes", root=tmp_path, split=name), GONE) as request:
        assert str(request.dataset) == f"cityscapes {split}"


@pytest.mark.slow
def test_made_scenes_are_there_for_as_long_as_the_request_is(graphs, recipe):
    path = recipe(dataset="scenes", count=8, seed=7, keep=[])
    with request_for(CalibrationOptions(recipe=path), graphs("frames")) as request:
        assert (str(request.dataset), len(request.dataset), request.count) == ("scenes train", 56, 8)
        (first, *_) = request.dataset.pairs
        assert first.image.is_file()
    assert not first.image.exists()


def test_options_that_contradict_the_recipe_or_change_nothing(recipe):
    path = recipe(method="mse", percentile=99.9)
    for options, words in (
        (replace(IMAGES, recipe=path, method="entropy"), f"--method entropy contradicts the recipe {path}, which says"),
        (replace(IMAGES, percentile=99.0), "--percentile is of --method percentile, the method here is auto"),
        (replace(IMAGES, root=Path()), "--root is of a labelled data set: give --dataset too, or leave it out"),
        (replace(IMAGES, scales=Path("x"), method="mse"), "with --scales they are the cache's: leave one out"),
        (CalibrationOptions(dataset="camvid"), "the data set camvid needs --root DIR, its folder"),
        (CalibrationOptions(dataset="coco", root=Path()), "no data set is called 'coco'; known: cityscapes, "),
    ):  # fmt: skip
        with pytest.raises(RequestError) as refused, request_for(options, GONE):
            pass
        assert words in str(refused.value)


def test_a_caller_who_asks_for_no_method_we_have_is_told_ours(graphs, tmp_path):
    for option, words in (
        ({"method": ""}, "no calibration method is called ''; known: entropy, percentile, minmax, mse"),
        ({"equalise": ""}, "--equalise '' is not known; known: auto, on, off"),
    ):
        with request_for(replace(IMAGES, **option), GONE) as request, pytest.raises(RequestError) as refused:
            quantize(graphs("frames"), request, output=tmp_path)
        assert str(refused.value) == words


@pytest.mark.parametrize(
    ("options", "has"),
    [
        (CalibrationOptions(), False),
        (CalibrationOptions(count=8, method="mse", split="val"), False),
        (IMAGES, True),
        (CalibrationOptions(scales=Path("x.calib")), True),
        (CalibrationOptions(recipe="demo-scenes"), True),
    ],
)
def test_whether_int8_can_be_based_on_something(options, has):
    assert options.has_source == has
