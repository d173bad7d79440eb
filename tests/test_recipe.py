import pytest

from segdeploy.calibrate.recipe import Recipe, known_recipes, read_recipe
from segdeploy.errors import CalibrationError


def test_round_trip(tmp_path):
    for recipe in (
        Recipe(),
        Recipe("mse", 99.9, True, ("a.b", "c"), ("d",), "camvid", "train", 40, 3, "mine"),
        Recipe(keep=()),
    ):
        recipe.write(tmp_path / "r.yaml")
        assert read_recipe(str(tmp_path / "r.yaml")) == recipe


def test_shipped_recipes_are_read():
    assert known_recipes() == ["cityscapes", "kitti"]
    for name in known_recipes():
        assert read_recipe(name).dataset == name
        assert read_recipe(name).keep is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no keys"),
        ("- a", "holds no keys"),
        ("method: [", "is not YAML"),
        ("methods: entropy", "'methods' is not a key of a recipe; known: method"),
        ("method: kl", "method is 'kl'; known: entropy"),
        ("count: true", "count is True"),
        ("keep: head", "keep is 'head'"),
        ("keep: [1, 2]", "expected names of groups of layers"),
    ],
)
def test_files_that_are_no_recipe(text, words, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(CalibrationError, match=words):
        read_recipe(str(tmp_path / "r.yaml"))


def test_an_unknown_recipe():
    with pytest.raises(
        CalibrationError, match=r"there is no recipe kiti; known: cityscapes, kitti, or a \.yaml file"
    ):
        read_recipe("kiti")
