"""What `deepstream app` renders, on the stand-ins and fed by real RTSP servers, one of which is lost and comes back."""

import json
import signal
import socket
import subprocess
import sys
import time

import av
import pytest
from test_deepstream_running import environment  # noqa: F401 # a fixture
from test_stream_rtsp import pytestmark, serving  # noqa: F401 # skips without a server

from segdeploy.serve.deepstream.app.folder import render_app
from segdeploy.serve.deepstream.app.request import AppRequest

WAIT_S = 60


def two_ports():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def hastened(path):
    """The settings as they were rendered, with the patience of a test."""
    settings = json.loads(path.read_text())
    settings["reconnection"]["interval_s"] = 1
    settings["patience"] |= {"lost_s": 1.5, "stop_s": 20.0}
    settings["metrics"]["port"] = 0
    settings["drawing"]["legend"] = False
    settings["sink"]["encoder"] = "software"
    path.write_text(json.dumps(settings))


def wait_for(said, words, times, process):
    end = time.monotonic() + WAIT_S
    while said().count(words) < times:
        assert process.poll() is None, said()
        assert time.monotonic() < end, said()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_camera_that_is_off_comes_and_goes_while_the_other_plays_on(graphs, environment, tmp_path):  # noqa: F811
    ports, box = two_ports(), tmp_path / "box"
    cameras = [f"rtsp://127.0.0.1:{port}/live" for port in ports]
    render_app(AppRequest(graphs("nvinfer", None), tuple(cameras), sink="file"), box)
    hastened(box / "segdeploy_app.json")
    with serving(ports[0], "play", "--pattern", "red", "--fps", "10"), (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, str(box / "segdeploy_app.py")],
            env=environment, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip

        def said():
            return (tmp_path / "log").read_text()

        try:
            wait_for(said, f"{cameras[0]}: frames come", 1, process)
            for times in (1, 2):  # off when the box starts, and lost later
                with serving(ports[1], "play", "--pattern", "green", "--fps", "10"):
                    wait_for(said, f"{cameras[1]}: frames come", times, process)
                wait_for(said, f"{cameras[1]}: no frames come; waiting for it", times, process)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        assert process.returncode == 0, said()
        assert f"{cameras[0]}: no frames come" not in said()
    lines = [json.loads(line) for line in out.splitlines()]
    own = {camera: [line for line in lines if line["source"] == camera] for camera in cameras}
    for camera in cameras:
        assert [line["index"] for line in own[camera]] == list(range(len(own[camera])))
        assert own[camera][0]["mask"]["size"] == [24, 40]  # every fourth pixel of 96x160
    assert len(own[cameras[0]]) > len(own[cameras[1]]) > 0
    with av.open(box / "segdeploy_app.mkv") as clip:
        pictures = [frame.to_ndarray(format="rgb24").astype(int) for frame in clip.decode(video=0)]
    left, right = (
        [picture[10, column] for picture in pictures] for column in (10, pictures[0].shape[1] // 2 + 10)
    )
    assert left[-1][0] > 150 > max(left[-1][1:])  # where no class is drawn
    assert any(green > 150 > max(red, blue) for red, green, blue in right)
    assert max(right[-1]) < 50  # it is lost, and its tile is black
