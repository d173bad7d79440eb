"""ds-tao-segmentation started where it is, with its own exit status; explained where it is not."""

import stat

import pytest

from segdeploy.cli import main
from segdeploy.errors import DeepStreamError, RequestError
from segdeploy.serve.deepstream import launch

CONFIG = "[property]\ninfer-dims=3;96;160\n"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "nvinfer_config.txt"
    path.write_text(CONFIG)
    return path


def install(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Neither PATH nor the SDK's folder has the app."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(launch, "SDK_FOLDERS", tmp_path / "opt")
    return tmp_path


def test_it_is_started_with_what_the_configuration_says(config, elsewhere, capfd):
    install(elsewhere / "bin" / launch.APP, 'echo "$@"; echo trouble >&2; exit 3')
    uri = "rtsp://camera/stream"
    clip = elsewhere / "clip.mp4"
    clip.write_bytes(b"")
    assert main(["deepstream", "run", "-c", str(config), "-i", uri, "-i", str(clip)]) == 3
    said = capfd.readouterr()
    assert said.out == f"-c {config} -i {uri} -i {clip.as_uri()} -b 2 -w 160 -e 96 -o -a 0.5\n"
    assert said.err == "trouble\n"


def test_the_newest_sdk_is_taken(config, elsewhere, capfd):
    for version in ("7.1", "9.1"):
        install(elsewhere / "opt" / f"deepstream-{version}" / "bin" / launch.APP, f"echo {version}")
    assert main(["deepstream", "run", "-c", str(config), "-i", "rtsp://x"]) == 0
    assert capfd.readouterr().out == "9.1\n"


def test_a_signal_is_told_as_a_shell_tells_it(config, elsewhere):
    install(elsewhere / "bin" / launch.APP, "kill -TERM $$")
    assert launch.run(config, ["rtsp://x"]) == 143


def test_where_it_is_not_a_replay_is_offered(config, elsewhere, capsys):
    assert main(["deepstream", "run", "-c", str(config), "-i", "rtsp://x"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("segdeploy: ds-tao-segmentation is neither on PATH nor below ")
    assert "segdeploy deepstream replay -c CONFIG -i CLIP -o out.mp4" in said
    assert said.count("\n") == 1


def test_what_is_refused_before_it_starts(config, elsewhere):
    install(elsewhere / "bin" / launch.APP, "exit 0")
    with pytest.raises(RequestError, match="expected one, or a URI"):
        launch.run(config, ["gone.mp4"])
    config.write_text("[property]\nbatch-size=0\n")
    with pytest.raises(DeepStreamError, match="batch-size is '0'"):
        launch.run(config, ["rtsp://x"])
