import sys

import pytest

from segdeploy.cli import own_command as module
from segdeploy.cli.own_command import own_command


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "bin" / "segdeploy"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_script_that_the_shell_does_not_find_is_called_by_its_path(script, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(script.parent.parent)
    monkeypatch.setattr(sys, "argv", ["bin/segdeploy", "demo"])
    assert own_command() == [str(script)]


def test_one_that_the_shell_finds_is_called_by_its_name(script, monkeypatch):
    monkeypatch.setenv("PATH", str(script.parent))
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert own_command() == ["segdeploy"]


def test_another_segdeploy_on_the_path_is_not_this_one(script, monkeypatch, tmp_path):
    other = tmp_path / "other" / "segdeploy"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(other.parent))
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert own_command() == [str(script)]


def test_a_module_is_called_by_its_python(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/segdeploy/__main__.py"])
    assert own_command() == [sys.executable, "-m", "segdeploy"]
    assert module.NAME == "segdeploy"
