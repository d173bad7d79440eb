import hashlib

import pytest

from segdeploy import scenes
from segdeploy.convert.int8.recipe import Recipe, known_recipes, read_recipe
from segdeploy.datasets.layouts import open_dataset
from segdeploy.errors import CalibrationError


def test_round_trip(tmp_path):
    for recipe in (
        Recipe(),
        Recipe("mse", 99.9, True, ("a.b", "c"), ("d",), "camvid", "train", 40, 3, 9, "mine", "64x96"),
        Recipe(dataset="folder", mapping="maps/m.yaml", mapping_digest="f" * 64),
        Recipe(keep=()),
        Recipe(count=31, aside=10),
    ):
        (tmp_path / "r.yaml").write_text(recipe.as_text())
        assert read_recipe(str(tmp_path / "r.yaml")) == recipe


def test_shipped_recipes_are_read():
    assert known_recipes() == ["cityscapes", "demo-scenes", "kitti"]
    for name in known_recipes():
        assert read_recipe(name).dataset == ("scenes" if name == "demo-scenes" else name)
        assert read_recipe(name).keep is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no keys"),
        ("- a", "holds no keys"),
        ("method: [", "is not YAML"),
        ("methods: entropy", "'methods' is not a key of a recipe; known: method"),
        ("method: kl", "method is 'kl'; known: auto, entropy"),
        ("count: true", "count is True"),
        ("keep: head", "keep is 'head'"),
        ("keep: [1, 2]", "expected names of groups of layers"),
        ("count: 0", "count is 0, less than 1"),
        ("seed: -1", "seed is -1, less than 0"),
        ("aside: -1", "aside is -1, less than 0"),
        ("size: 512", "size is 512"),
        ("size: large", "size: 'large' is not a size; expected HEIGHTxWIDTH"),
        ("{dataset: scenes, count: 8}", "made scenes need both a count and a seed"),
    ],
)
def test_files_that_are_no_recipe(text, words, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(CalibrationError, match=words):
        read_recipe(str(tmp_path / "r.yaml"))


def test_an_unknown_recipe():
    with pytest.raises(
        CalibrationError,
        match=r"there is no recipe kiti; known: cityscapes, demo-scenes, kitti, or a \.yaml file",
    ):
        read_recipe("kiti")


@pytest.mark.parametrize("facts", [{"keep": ("a",)}, {"widened": ("a",)}, {"dataset": "scenes"}])
def test_a_recipe_for_another_network_or_size(facts):
    recipe = Recipe(**facts, made_for="mine", size="64x96")
    recipe.demand_made_for("mine", "64x96")
    with pytest.raises(
        CalibrationError, match="the recipe was made for mine, the graph is of theirs; leave out"
    ):
        recipe.demand_made_for("theirs", "64x96")
    with pytest.raises(
        CalibrationError, match="the recipe was made for mine at 64x96, the graph is of 64x64; lea"
    ):
        recipe.demand_made_for("mine", "64x64")
    Recipe(**facts).demand_made_for("mine", "64x96")


def test_a_recipe_that_keeps_nothing_is_for_all():
    Recipe(keep=(), made_for="mine", size="64x96").demand_made_for("theirs", "64x64")


def test_two_folders_are_named_by_their_mapping(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"")
    mapping = tmp_path / "m.yaml"
    mapping.write_text("{ids: {0: ground, 9: thing}}")
    facts = open_dataset("folder", tmp_path, mapping=mapping).asked_for()
    assert facts == {
        "dataset": "folder",
        "split": None,
        "mapping": str(mapping),
        "mapping_digest": hashlib.sha256(mapping.read_bytes()).hexdigest(),
    }
    recipe = Recipe(**facts)
    recipe.demand_mapping(mapping)
    with pytest.raises(CalibrationError, match=r"gone.yaml is not there; give it with --mapping"):
        recipe.demand_mapping(tmp_path / "gone.yaml")
    mapping.write_text("{ids: {0: thing, 9: ground}}")
    with pytest.raises(CalibrationError, match=r"\(sha256 \w{12}…\), \S+m\.yaml is another one \(\w{12}…\)"):
        recipe.demand_mapping(mapping)


def test_a_data_set_is_named_by_its_name_and_split(tmp_path):
    scenes.write_cityscapes(tmp_path, 1, seed=0, split="train", height=64, width=96)
    facts = open_dataset("cityscapes", tmp_path, "train").asked_for()
    assert facts == {"dataset": "cityscapes", "split": "train"}


def test_scenes_without_end_are_not_made(tmp_path):
    (tmp_path / "r.yaml").write_text("dataset: scenes\ncount: 999999999\nseed: 1\n")
    with pytest.raises(
        CalibrationError, match=r"r\.yaml: count is 999999999, and at most 10000 scenes are made"
    ):
        read_recipe(str(tmp_path / "r.yaml"))
