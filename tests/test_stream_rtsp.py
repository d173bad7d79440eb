"""Against a real RTSP server, Debian's GStreamer: played, killed and started anew, guarded, published to."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import clips
import pytest

from segdeploy.errors import VideoError
from segdeploy.growing import Lines
from segdeploy.picture.video_publishing import Publisher
from segdeploy.picture.video_reading import Video
from segdeploy.run.session import open_session
from segdeploy.serve.stream.flicker import Flicker
from segdeploy.serve.stream.pipeline import Pipeline
from segdeploy.serve.stream.sinks import JsonLines, Pictures
from segdeploy.serve.stream.sources import Opening, open_streams

PYTHON = "/usr/bin/python3"  # Debian's, which has its gi
SERVER = Path(__file__).with_name("rtsp_server.py")
ELEMENTS = ("x264enc", "rtph264pay", "h264parse")
NEEDED = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer;"
    f"Gst.init(None); assert all(Gst.ElementFactory.find(name) for name in {ELEMENTS})"
)


def has_server():
    with contextlib.suppress(OSError):
        return subprocess.run([PYTHON, "-c", NEEDED], capture_output=True, check=False).returncode == 0
    return False


pytestmark = pytest.mark.skipif(
    not has_server(),
    reason="no RTSP server: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0"
    " gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly",
)


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextlib.contextmanager
def serving(port, *what):
    server = subprocess.Popen(
        [PYTHON, str(SERVER), str(port), *what], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout.readline() == "ready\n"
        yield server
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.mark.slow
def test_the_runner_outlives_the_server(port, graphs, tmp_path):
    said, out = [], tmp_path / "live.mp4"
    with serving(port, "play"):
        opening = Opening(timeout_s=3, patience_s=30, say=said.append)
        (stream,) = open_streams([f"rtsp://127.0.0.1:{port}/live"], opening)
        pictures = Pictures(str(out), stream, lambda shown: shown.results[0].overlay(shown.frame), 3)
        flicker = Flicker(1)
        lines = JsonLines(Lines(tmp_path / "live.jsonl"))
        session = open_session(graphs("frames"), threads=1)
        pipeline = Pipeline([session], [stream], [[pictures]], [lines], say=said.append, flicker=flicker)
        running = threading.Thread(target=pipeline.run)
        running.start()
        tally = pipeline.tallies[0]
        wait_for(lambda: tally.frames > 25)
    wait_for(lambda: len(said) == 1)
    before = tally.frames
    time.sleep(1)
    with serving(port, "play"):
        wait_for(lambda: tally.frames > before + 25)
        pipeline._stop()
        running.join(20)
        assert not running.is_alive()
    session.close()
    assert "connecting again for up to 30 s" in said[0]
    assert said[1].startswith(f"rtsp://127.0.0.1:{port}/live is back after ")
    (left_out,) = [
        outlet.left_out for outlet in pipeline._own[0]
    ]  # of a live source, while the machine is busy
    assert len(said) == 2 + (left_out > 0)
    times = clips.times_of(out)
    assert len(times) + left_out == tally.frames
    assert times == sorted(times)
    assert max(later - earlier for earlier, later in pairwise(times)) > 1  # the gap stays
    assert [json.loads(line)["index"] for line in (tmp_path / "live.jsonl").read_text().splitlines()][-1] > 50


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.mark.slow
def test_the_verb_with_a_password_that_is_not_said(port, graphs, tmp_path):
    out = tmp_path / "{name}.mp4"
    uri = f"rtsp://joe:sesame@127.0.0.1:{port}/live"
    request = [
        sys.executable,
        "-m",
        "segdeploy",
        "run",
        str(graphs("frames")),
        uri,
        "-o",
        str(out),
        "--max-frames",
        "5",
    ]
    with serving(port, "play", "joe:sesame"):
        done = subprocess.run(
            [*request, "--json", str(tmp_path / "x.jsonl")], capture_output=True, text=True, check=False
        )
        wrong = [word.replace("sesame", "sesam") for word in request]
        refused = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr.startswith("segdeploy: next: ")
    assert done.stdout.startswith(f"{tmp_path / 'live.mp4'}: 5 frames")
    assert len(clips.times_of(tmp_path / "live.mp4")) == 5
    lines = (tmp_path / "x.jsonl").read_text()
    assert json.loads(lines.splitlines()[0])["source"] == f"rtsp://127.0.0.1:{port}/live"
    assert (refused.returncode, refused.stdout) == (1, "")
    assert (
        refused.stderr
        == f"segdeploy: rtsp://127.0.0.1:{port}/live cannot be opened: the server refuses this user or password\n"
    )
    assert "sesam" not in done.stdout + done.stderr + lines + refused.stderr


def test_a_wrong_address_is_refused_at_once(port):
    with serving(port, "play"), pytest.raises(VideoError, match=r"/other cannot be opened: "):
        Video(f"rtsp://127.0.0.1:{port}/other", timeout_s=5)


@pytest.mark.slow
def test_pictures_are_published(port):
    with serving(port, "record") as server:
        publisher = Publisher(f"rtsp://127.0.0.1:{port}/live", 25, 5)
        for index in range(50):
            publisher.write(clips.frame(index, 96, 160), index / 25)
        came = [server.stdout.readline() for _ in range(40)]
        publisher.close()
    assert came == ["frame\n"] * 40


@pytest.mark.slow
def test_a_server_that_is_stopped_while_it_takes_a_stream(port, graphs, tmp_path):
    """The other sink goes on at its rate, and SIGTERM ends what the server holds."""
    lines = tmp_path / "p.jsonl"
    source = "gst:videotestsrc is-live=true pattern=snow ! video/x-raw,width=640,height=360,framerate=10/1"
    request = [sys.executable, "-m", "segdeploy", "run", str(graphs("frames")), source, "--timeout", "3"]
    with serving(port, "record") as server:
        running = subprocess.Popen(
            [*request, "--json", str(lines), "-o", f"rtsp://127.0.0.1:{port}/live"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        for _ in range(5):
            assert server.stdout.readline() == "frame\n"
        server.send_signal(signal.SIGSTOP)
        said = running.stderr.readline()
        before, begin = len(lines.read_text().splitlines()), time.monotonic()
        time.sleep(2)
        rate = (len(lines.read_text().splitlines()) - before) / (time.monotonic() - begin)
        running.terminate()
        begin = time.monotonic()
        status = running.wait(20)
        assert time.monotonic() - begin < 4
        running.communicate()
    assert (
        said
        == f"segdeploy: rtsp://127.0.0.1:{port}/live does not take the stream: nothing answered in time\n"
    )
    assert status == 130
    assert rate > 5
    indices = [json.loads(line)["index"] for line in lines.read_text().splitlines()]
    assert max(later - earlier for earlier, later in pairwise(indices)) < 5
