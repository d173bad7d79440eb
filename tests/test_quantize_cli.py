"""What `quantize` is asked by flags and recipe together: a flag never contradicts a recipe in silence."""

import hashlib
import json

import cv2
import numpy as np
import pytest
import yaml

from segdeploy import scenes
from segdeploy.cli import main


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    root = tmp_path_factory.mktemp("city")
    scenes.write_cityscapes(root, 9, seed=500, split="train", height=64, width=128)
    return root


@pytest.fixture(scope="module")
def demo(bundled):
    return bundled("frames", "64x128")


@pytest.fixture
def recipe(tmp_path):
    def write(**facts):
        path = tmp_path / "r.yaml"
        path.write_text(yaml.safe_dump(facts))
        return path

    return write


SAID = {"method": "mse", "percentile": 99.9, "equalise": False, "count": 8, "seed": 3}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--method", "entropy"),
            "--method entropy contradicts the recipe {}, which says mse; leave out the flag",
        ),
        (("--percentile", "99"), "--percentile 99.0 contradicts the recipe {}, which says 99.9"),
        (("--equalise", "on"), "--equalise on contradicts the recipe {}, which says off"),
        (("--seed", "0"), "--seed 0 contradicts the recipe {}, which says 3"),
    ],
)
def test_a_flag_against_the_recipe(flags, words, graphs, city, recipe, refused):
    path = recipe(**SAID)
    said = refused("quantize", graphs("frames"), "--images", city, "--recipe", path, *flags)
    assert words.format(path) in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--dataset", "kitti"), "--dataset kitti contradicts the recipe {}, which says cityscapes"),
        (("--split", "val"), "--split val contradicts the recipe {}, which says train"),
        ((), "10 images were asked for, cityscapes train has 9; give --count 9 or less"),
    ],
)
def test_a_flag_against_the_data_set_of_the_recipe(flags, words, demo, city, recipe, refused):
    path = recipe(dataset="cityscapes", split="train", count=10)
    said = refused("quantize", demo, "--root", city, "--recipe", path, *flags)
    assert words.format(path) in said


@pytest.mark.slow
def test_flags_that_agree_or_of_which_the_recipe_says_nothing(graphs, city, recipe, tmp_path, capsys):
    path = recipe(method="mse", keep=[], dataset="cityscapes", split="train", count=400, made_for="another")
    out = tmp_path / "out"
    flags = ("--method", "mse", "--seed", "7", "--count", "8", "--equalise", "off", "--max-drop", "100")
    # one's own images instead of those of the recipe: how many, it does not say
    given = (
        "quantize",
        graphs("frames"),
        "--images",
        city,
        "--recipe",
        path,
        *flags,
        "--probes",
        "1",
        "-o",
        out,
    )
    assert main([*map(str, given)]) == 0, capsys.readouterr().err
    written = yaml.safe_load(next(out.glob("*.recipe.yaml")).read_text())
    assert (written["method"], written["seed"], written["count"]) == ("mse", 7, 8)
    assert "dataset" not in written


@pytest.mark.parametrize("said", [{"method": "mse"}, {"widened": ["head"]}, {"equalise": True}])
def test_a_recipe_that_finds_thresholds_beside_scales(said, graphs, city, recipe, refused):
    path = recipe(**said)
    told = refused("quantize", graphs("frames"), "--images", city, "--recipe", path, "--scales", "x.calib")
    assert "says how thresholds are found, and with --scales they are the file's" in told


def test_a_recipe_for_another_card(graphs, city, recipe, refused):
    path = recipe(keep=["stages.0.embed"], made_for="segformer-b0-demo")
    said = refused("quantize", graphs("frames"), "--images", city, "--recipe", path)
    assert "the recipe was made for segformer-b0-demo, the graph is of tiny; leave out --recipe" in said


def test_made_scenes_are_for_the_bundled_model_only(graphs, refused, misused):
    said = refused("quantize", graphs("frames"), "--recipe", "demo-scenes")
    assert "the recipe was made for segformer-b0-demo, the graph is of tiny" in said
    for flag in ("--root", "--mapping"):
        said = refused("quantize", graphs("frames"), "--recipe", "demo-scenes", flag, ".")
        assert f"{flag} has no meaning here: the recipe demo-scenes makes its own scenes" in said
    assert "argument --dataset: invalid choice: 'scenes'" in misused(
        "quantize", graphs("frames"), "--dataset", "scenes", "--root", "."
    )


@pytest.mark.slow
@pytest.mark.thorough
def test_the_recipe_of_made_scenes_needs_nothing_else(demo, tmp_path, capsys):
    arguments = ["quantize", str(demo), "--recipe", "demo-scenes", "--max-drop", "50", "--probes", "8"]
    assert main([*arguments, "-o", str(tmp_path / "a")]) == 0, capsys.readouterr().err
    assert "pixels seen in 32 images: road" in capsys.readouterr().out
    (written,) = (tmp_path / "a").glob("*.recipe.yaml")
    facts = yaml.safe_load(written.read_text())
    assert (facts["dataset"], facts["count"], facts["seed"]) == ("scenes", 32, 1_300_000)
    arguments[arguments.index("demo-scenes")] = str(written)
    assert main([*arguments, "-o", str(tmp_path / "b")]) == 0, capsys.readouterr().err
    (first,), (second,) = ((tmp_path / name).glob("*.int8.onnx") for name in "ab")
    assert first.read_bytes() == second.read_bytes()


@pytest.fixture
def two_folders(tmp_path):
    root = tmp_path / "street"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for index in range(9):
        scene = scenes.make_scene(index, 64, 128)
        cv2.imwrite(str(root / f"images/{index}.png"), scene.image)
        cv2.imwrite(str(root / f"labels/{index}.png"), np.uint8(scene.labels < 2))
    mapping = tmp_path / "m.yaml"
    mapping.write_text("{ids: {0: thing, 1: ground}, from: {road: ground, kerb: ground, car: thing}}")
    return root, mapping


@pytest.mark.slow
@pytest.mark.thorough
def test_a_recipe_of_two_folders_is_replayed_with_its_mapping(
    graphs, two_folders, recipe, refused, tmp_path, capsys
):
    root, mapping = two_folders
    digest = hashlib.sha256(mapping.read_bytes()).hexdigest()
    path = recipe(keep=[], dataset="folder", mapping=str(mapping), mapping_digest=digest, count=8)
    given = [
        "quantize",
        graphs("frames"),
        "--root",
        root,
        "--recipe",
        path,
        "--max-drop",
        "100",
        "--probes",
        "2",
    ]
    assert main([*map(str, given), "-o", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    record = json.loads(next((tmp_path / "out").glob("*.int8.onnx.json")).read_text())
    assert set(record["calibration"]["pixels_seen"]) == {"thing", "ground"}
    capsys.readouterr()
    moved = mapping.rename(tmp_path / "moved.yaml")
    assert "m.yaml is not there; give it with --mapping" in refused(*given)
    assert main([*map(str, given), "--mapping", str(moved), "-o", str(tmp_path / "again")]) == 0
    capsys.readouterr()
    moved.write_text(moved.read_text() + "\n")
    assert f"{moved} is another one" in refused(*given, "--mapping", moved)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--percentile", "99"), "--percentile is of --method percentile, the method here is auto"),
        (("--scales", "x.calib", "--method", "mse"), "with --scales they are the cache's: leave one out"),
        (("--scales", "x.calib", "--equalise", "on"), "--scales are of the graph that is there"),
        (("--root", "."), "--root is of a labelled data set: give --dataset too, or leave it out"),
        (("--split", "val"), "--split is of a labelled data set"),
    ],
)
def test_flags_without_a_recipe(flags, words, graphs, city, refused):
    assert words in refused("quantize", graphs("frames"), "--images", city, *flags)


@pytest.mark.parametrize("flag", ["--method", "--equalise"])
def test_what_is_not_among_the_choices(flag, misused):
    assert f"argument {flag}: invalid choice: 'x' (choose from " in misused("quantize", "x.onnx", flag, "x")
