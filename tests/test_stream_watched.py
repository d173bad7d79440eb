"""What `segdeploy run` shows of a stream: two models in one clip, the page, and how much each flickers."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest
from test_stream_view import unpacked

from segdeploy.cli import main
from segdeploy.picture.segmentation import Segmentation
from segdeploy.run.session import open_session, segment

HEIGHT, WIDTH = 96, 160


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Six frames of a still picture."""
    path = tmp_path_factory.mktemp("clip") / "still.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (WIDTH, HEIGHT))
    for _ in range(6):
        writer.write(still()[..., ::-1].copy())
    writer.release()
    return path


def still():
    return cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8), (WIDTH, HEIGHT))


def frames_of(path):
    clip, found = cv2.VideoCapture(str(path)), []
    while (read := clip.read())[0]:
        found.append(read[1][..., ::-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "width"), [("side", 2 * WIDTH), ("wipe", WIDTH)])
def test_two_models_in_one_clip(graphs, clip, tmp_path, capsys, layout, width):
    one, other = graphs("frames"), graphs("nvinfer")
    out = tmp_path / "both.mp4"
    asked = ["--compare", str(other), "--layout", layout, "--no-legend"]
    assert main(["run", str(one), str(clip), *asked, "-o", str(out)]) == 0
    shown = frames_of(out)
    assert {frame.shape for frame in shown} == {(HEIGHT, width, 3)} and len(shown) == 6
    with open_session(one) as session:
        expected = segment(session, frames_of(clip)[0]).overlay(frames_of(clip)[0], legend=False)
    if layout == "side":
        assert np.abs(shown[0][:, :WIDTH].astype(int) - expected).mean() < 8
        assert np.abs(shown[0][:, :WIDTH].astype(int) - shown[0][:, WIDTH:]).mean() < 4
    else:  # the line has gone by half a second of eight to and fro
        assert np.abs(shown[5][:, 30:].astype(int) - expected[:, 30:]).mean() < 8
    said = capsys.readouterr().out
    for name in (one.name, other.name):
        assert re.search(rf"^{re.escape(name)} flickers: \d+\.\d\d% of what stood still", said, re.MULTILINE)


def test_the_lines_tell_the_flicker_so_far(graphs, clip, tmp_path):
    lines = tmp_path / "frames.jsonl"
    assert main(["run", str(graphs("frames")), str(clip), "--json", str(lines)]) == 0
    told = [json.loads(line)["flicker"] for line in lines.read_text().splitlines()]
    assert told[0] == [None] and len(told) == 6
    assert all(0 <= share <= 0.2 for (share,) in told[1:])


def test_a_model_that_flips_is_told(graphs, clip, monkeypatch, tmp_path, capsys):
    """Every second answer has all classes moved on by one."""
    from segdeploy.serve.stream import pipeline

    made, turn = pipeline.segmentation_of, []

    def flipping(*given):
        turn.append(0)
        result = made(*given)
        return Segmentation(np.full_like(result.labels, len(turn) % 2), result.classes)

    monkeypatch.setattr(pipeline, "segmentation_of", flipping)
    assert main(["run", str(graphs("frames")), str(clip), "-o", str(tmp_path / "out.mp4")]) == 0
    assert f"{graphs('frames').name} flickers: 100.00% of what stood still" in capsys.readouterr().out


def test_what_makes_no_sense_is_refused(graphs, clip, tmp_path, refused, capsys):
    model = graphs("frames")
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), still())
    assert "name the other one with --compare" in refused("run", model, clip, "--layout", "wipe")
    both = ("--compare", model, "--layout")
    with pytest.raises(SystemExit):
        main(["run", str(model), str(clip), *map(str, both), "over"])
    assert "--layout: invalid choice: 'over'" in capsys.readouterr().err
    assert "--view is for a stream" in refused("run", model, image, "--view", 0)
    assert "--compare is for a stream" in refused("run", model, image, "--compare", model)
    assert "--show is for a stream" in refused("run", model, image, "--show")
    assert "--every is for a stream" in refused("run", model, image, "--every", 2)
    assert "--max-frames is for a stream" in refused("run", model, image, "--max-frames", 1)
    with pytest.raises(SystemExit):
        main(["run", str(model), str(clip), "--view", "70000"])
    assert "--view: 70000 is outside 0 to 65,535" in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_is_there_as_long_as_the_stream(graphs, tmp_path):
    """Frames come through a pipe, so that the stream lasts as long as the test wants."""
    model = str(graphs("frames"))
    command = [sys.executable, "-m", "segdeploy", "run", model, "-", "--stdin-size", f"{HEIGHT}x{WIDTH}"]
    runner = subprocess.Popen(
        [*command, "--view", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ,
    )
    try:
        said = runner.stderr.readline().decode()
        address = re.fullmatch(r"segdeploy: look at (http://127\.0\.0\.1:\d+/)\n", said)[1]
        runner.stdin.write(still().tobytes() * 2)
        runner.stdin.flush()
        serial = 0
        for _ in range(2):
            with urllib.request.urlopen(f"{address}frame?after={serial}", timeout=30) as answer:
                facts, pictures = unpacked(answer.read())
            serial = facts["serial"]
            if facts["sources"] and facts["index"] == 1:
                break
        assert (facts["sources"], facts["index"], len(pictures)) == (["-"], 1, 2)
        assert facts["models"][0]["name"] == graphs("frames").name
        out, err = runner.communicate(timeout=60)
    finally:
        runner.kill()
        runner.wait()
    assert runner.returncode == 0, err
    assert out.startswith(b"-: 2 frames, ")
    assert list(tmp_path.iterdir()) == []  # who looks has not asked for a file
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=10)
