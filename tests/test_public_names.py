import ast
from pathlib import Path

import pytest

import segdeploy


def test_every_public_name_is_there_and_comes_from_where_it_says():
    assert sorted(segdeploy._HOME) == sorted(set(segdeploy.__all__) - {"__version__"})
    for name, home in segdeploy._HOME.items():
        assert getattr(segdeploy, name).__module__ == f"segdeploy.{home}"
    assert dir(segdeploy) == sorted(segdeploy.__all__)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(segdeploy.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in guarded.body for alias in node.names}
    assert seen == {name: f"segdeploy.{home}" for name, home in segdeploy._HOME.items()}


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="no attribute 'helpers'"):
        _ = segdeploy.helpers
    assert segdeploy.export_onnx is segdeploy.export_onnx
