"""The application run for real through GStreamer, on stand-ins for DeepStream's elements and for pyservicemaker."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import av
import numpy as np
import pytest
from test_deepstream_box import CLASSES, SETTINGS, adapter  # noqa: F401 # a fixture

from segdeploy.shipped import folder

STANDINS = Path(__file__).parent / "deepstream_standins"
APP = folder("deepstream") / "app" / "segdeploy_app.py"
DEBIANS = Path("/usr/lib/python3/dist-packages/gi")
CONFIG = "[property]\ninfer-dims=3;64;128\nnum-detected-classes=2\nnetwork-type={}\n"


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Debian's gi, which this Python takes if it has the same version; nothing else of Debian's."""
    place = tmp_path_factory.mktemp("gi")
    (place / "gi").symlink_to(DEBIANS)
    paths = os.pathsep.join(map(str, (STANDINS, place)))
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    code = "import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None)"
    tried = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"python3-gi is missing, or of another Python: {tried.stderr[-200:]}")
    return environment


class Box:
    """A folder with settings, and the application that runs on them."""

    def __init__(self, place, environment, network_type=2, **changes):
        self.place = place
        settings = json.loads(json.dumps(SETTINGS))
        for part, values in changes.items():
            settings[part] = settings[part] | values if isinstance(settings[part], dict) else values
        settings["network_type"] = network_type
        settings["tiler"] |= {"rows": 1, "columns": len(settings["sources"])}
        (place / "nvinfer_config.txt").write_text(CONFIG.format(network_type))
        path = place / "box.json"
        path.write_text(json.dumps(settings))
        self.log = (place / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, str(APP), str(path)],
            env=environment,
            stderr=self.log,
            stdout=subprocess.PIPE,
            text=True,
        )

    def said(self):
        return (self.place / "log").read_text()

    def wait_for(self, words, times=1):
        end = time.monotonic() + 20
        while self.said().count(words) < times:
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.02)

    def ended(self):
        """The exit status, and the lines."""
        out, _ = self.process.communicate(timeout=20)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def box(tmp_path, environment):
    made = []

    def start(**changes):
        place = tmp_path if not made else tmp_path / str(len(made))
        place.mkdir(exist_ok=True)
        made.append(Box(place, environment | changes.pop("variables", {}), **changes))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()
        one.process.stdout.close()
        one.log.close()


def sources(*addresses):
    return [{"name": f"cam{number}", "uri": address} for number, address in enumerate(addresses)]


@pytest.mark.slow
def test_cameras_are_drawn_told_and_counted_while_one_is_lost_and_the_broker_stalls(box, adapter, tmp_path):  # noqa: F811
    running = box(
        variables={"STANDIN_BROKER": str(tmp_path / "sent")},
        sources=sources("rtsp://standin/red?fps=20", "rtsp://standin/green?fps=20&dies=6&back=24"),
        sink={"kind": "file", "file": "out.mkv", "encoder": "software"},
        publishing={
            "protocol": "mqtt", "host": "stalls", "port": 1883, "topic": "seg", "library": str(adapter), "config": None,
        },
        patience={"lost_s": 0.3},
    )  # fmt: skip
    running.wait_for("cam1: no frames come; waiting for it")
    running.wait_for("cam1: frames come", times=2)
    running.wait_for("publishing to mqtt stalls:1883, topic seg")
    url = running.said().partition("figures at ")[2].split()[0]
    figures = urllib.request.urlopen(url, timeout=5).read().decode()
    assert 'segdeploy_source_up{source="1",name="cam1"} 1' in figures
    assert 'segdeploy_class_area_ratio{source="0",name="cam0",class="sky"} 0.500000' in figures
    began = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    status, lines = running.ended()
    assert status == 0, running.said()
    assert time.monotonic() - began < 8
    assert "SIGTERM: stopping" in running.said()
    assert "u:p@" not in running.said()
    for number in (0, 1):
        own = [line for line in lines if line["source"] == f"cam{number}"]
        assert [line["index"] for line in own] == list(range(len(own)))
        assert own[-1]["time_s"] > own[0]["time_s"]
        assert own[0]["mask"]["size"] == [16, 32]
        mask = np.repeat(own[0]["mask"]["ids"], own[0]["mask"]["lengths"]).reshape(16, 32)
        assert mask[0, 0] == -1
        assert [mask[15, 0], mask[15, 31]] == [number, 1 - number]
        assert sum(own[0]["areas"].values()) == pytest.approx(1 - 1 / 16)
    assert len([line for line in lines if line["source"] == "cam0"]) > len(lines) / 2  # the other was away
    assert len((tmp_path / "sent").read_text().splitlines()) > 10
    check_picture(tmp_path / "out.mkv")


def check_picture(path):
    """Both tiles, each with its frame in the corner without a class, and the classes' colours half over it."""
    with av.open(path) as clip:
        frame = next(clip.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    assert frame.shape == (360, 640, 3)
    for number, colour in enumerate(([255, 0, 0], [0, 255, 0])):
        tile = frame[:, number * 320 : number * 320 + 320]
        seen = {(20, 20): colour}
        for column, index in ((100, number), (300, 1 - number)):
            seen[340, column] = [
                (one + other) / 2 for one, other in zip(colour, CLASSES[index].colour, strict=True)
            ]
        for (row, column), expected in seen.items():
            assert np.abs(tile[row, column] - expected).max() < 25, (number, row, column, tile[row, column])


@pytest.mark.slow
@pytest.mark.parametrize("network_type", [2, 100])
def test_clips_that_end_end_it(box, network_type):
    running = box(
        network_type=network_type,
        sources=sources("file:///standin/red?frames=7", "file:///standin/green?frames=5"),
        messages={"every": 2, "mask_step": 0},
    )
    status, lines = running.ended()
    assert status == 0, running.said()
    assert "the sources have ended" in running.said()
    assert "12 frames, end" in running.said()
    assert [line["index"] for line in lines if line["source"] == "cam0"] == [0, 2, 4, 6]
    assert [line["index"] for line in lines if line["source"] == "cam1"] == [0, 2, 4]
    assert all("mask" not in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sink", "by"),
    [("rtsp", "segdeploy"), ("display", "nvsegvisual"), ("file", "segdeploy"), ("file", "nobody")],
)
def test_every_output_takes_the_pictures(box, tmp_path, sink, by):
    tool = tmp_path / "bin" / "gst-inspect-1.0"  # which says that there is an encoder
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexit 0\n")
    tool.chmod(0o755)
    running = box(
        variables={"PATH": f"{tool.parent}:{os.environ['PATH']}"},
        sources=sources("file:///standin/red?frames=5"),
        sink={"kind": sink},
        drawing={"by": by},
    )
    status, lines = running.ended()
    assert status == 0, running.said()
    assert len(lines) == 5
    if sink == "file":
        with av.open(tmp_path / "out.mkv") as clip:
            assert len(list(clip.decode(video=0))) == 5


@pytest.mark.slow
def test_the_watchdog_ends_what_stands_still(box):
    running = box(sources=sources("rtsp://standin/red?dies=3"), patience={"frame_s": 0.6, "lost_s": 0.2})
    status, lines = running.ended()
    assert status == 3
    assert "watchdog: no frame has come from any source for" in running.said()
    assert len(lines) == 3


@pytest.mark.slow
def test_control_c_ends_it(box):
    running = box(sources=sources("rtsp://standin/red"))
    running.wait_for("cam0: frames come")
    running.process.send_signal(signal.SIGINT)
    assert running.ended()[0] == 0
    assert "SIGINT: stopping" in running.said()


@pytest.mark.slow
def test_while_the_engine_is_built_it_can_be_ended(box):
    running = box(variables={"STANDIN_BUILDS_S": "60"}, patience={"stop_s": 0.5})
    running.wait_for("figures at")
    time.sleep(0.3)
    running.process.send_signal(signal.SIGTERM)
    assert running.ended()[0] == 1
    assert running.said().splitlines()[-2:] == [
        "segdeploy_app: SIGTERM: stopping", "segdeploy_app: it did not stop within 0.5 s; ending it"
    ]  # fmt: skip


@pytest.mark.slow
def test_what_cannot_start_says_why(box, tmp_path):
    cases = (
        ({"sink": {"kind": "tape"}}, 2, "sink.kind is 'tape'"),
        ({"variables": {"USE_NEW_NVSTREAMMUX": "yes"}}, 2, "USE_NEW_NVSTREAMMUX=yes is set"),
        ({"publishing": {"library": "x"}}, 2, "publishing.config is missing"),
        ({"metrics": {"address": "192.0.2.1"}}, 1, "metrics: Cannot assign requested address"),
    )
    started = [box(**changes) for changes, _, _ in cases]
    for running, (_, status, words) in zip(started, cases, strict=True):
        assert running.ended()[0] == status, running.said()
        assert words in running.said()
        assert "Traceback" not in running.said()
