"""The parts of the application that runs on a box: pixels, colours, lines, broker, figures and settings."""

import ctypes
import ctypes.util
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from segdeploy_box import pixels
from segdeploy_box.broker import Broker, NoAdapter
from segdeploy_box.messages import MOST_WAITING, LinesFile, Outlet, Seen, areas_of, line_of, wait_for
from segdeploy_box.metrics import Figures, Page
from segdeploy_box.painting import Painter
from segdeploy_box.settings import (
    Drawing,
    Metrics,
    Publishing,
    SegmentedClass,
    Source,
    WrongSettings,
    read_settings,
)

from segdeploy.model.labels import Labels
from segdeploy.picture.segmentation import Segmentation

STANDINS = Path(__file__).parent / "deepstream_standins"
CLASSES = [SegmentedClass("road", [128, 64, 128]), SegmentedClass("sky", [70, 130, 180])]
SETTINGS = {
    "deepstream": "9.1",
    "inference": {"element": "nvinfer", "config": "nvinfer_config.txt"},
    "network_type": 2,
    "output": "output",
    "width": 128,
    "height": 64,
    "classes": [{"name": one.name, "colour": one.colour} for one in CLASSES],
    "sources": [{"name": "rtsp://a/1", "uri": "rtsp://u:p@a/1"}],
    "muxer": {"width": 320, "height": 180, "push_timeout_us": 40000},
    "reconnection": {"interval_s": 10, "latency_ms": 200, "tcp": True},
    "drawing": {"by": "segdeploy", "alpha": 0.5, "legend": False},
    "tiler": {"rows": 1, "columns": 1, "width": 640, "height": 360},
    "sink": {"kind": "fake", "port": 8554, "file": "out.mkv", "bitrate": 4000000, "encoder": "hardware"},
    "messages": {"file": "-", "every": 1, "mask_step": 4},
    "publishing": None,
    "metrics": {"address": "127.0.0.1", "port": 0},
    "patience": {"first_frame_s": 20, "frame_s": 5, "lost_s": 1, "stop_s": 8},
}


class OnDevice:
    """A tensor that says it lies on a GPU, with rows that have a pitch, as a surface has."""

    def __init__(self, array, pitch):
        self.memory = np.zeros((array.shape[0], pitch), np.uint8)
        row = array.shape[1] * array.shape[2]
        self.memory[:, :row] = array.reshape(array.shape[0], row)
        self.shape = array.shape

    def __dlpack__(self):
        channels = self.shape[2]
        self.kept = (ctypes.c_int64 * 3)(*self.shape), (ctypes.c_int64 * 3)(self.memory.shape[1], channels, 1)
        self.described = pixels.Description(
            self.memory.ctypes.data, pixels.Device(2, 0), 3, pixels.DataType(1, 8, 1),
            ctypes.cast(self.kept[0], ctypes.POINTER(ctypes.c_int64)),
            ctypes.cast(self.kept[1], ctypes.POINTER(ctypes.c_int64)), 0,
        )  # fmt: skip
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self.described), b"dltensor", None)


class Runtime:
    """cudaMemcpy2D, whose both sides are on the CPU here."""

    status = 0

    def cudaMemcpy2D(self, to, to_pitch, origin, origin_pitch, width, height, direction):  # noqa: N802
        assert direction == 4
        for row in range(height.value):
            ctypes.memmove(
                to.value + row * to_pitch.value, origin.value + row * origin_pitch.value, width.value
            )
        return self.status


@pytest.fixture
def runtime(monkeypatch):
    monkeypatch.setattr(pixels, "cuda_runtime", lambda: Runtime)
    monkeypatch.setattr(Runtime, "cudaMemcpy2D", Runtime.cudaMemcpy2D.__get__(Runtime()))
    return Runtime


def test_pixels_on_a_cpu_are_changed_where_they_lie():
    frame = np.arange(4 * 6 * 4, dtype=np.uint8).reshape(4, 6, 4)
    before = frame.copy()
    with pixels.opened(frame) as seen:
        assert np.array_equal(seen, before)
        seen[1, 2] = 7
    assert frame[1, 2].tolist() == [7, 7, 7, 7]
    labels = np.arange(12).reshape(1, 3, 4)
    assert pixels.Plane(labels).copied().tolist() == labels.tolist()


def test_pixels_on_a_gpu_are_copied_out_and_back(runtime):
    frame = np.arange(4 * 6 * 4, dtype=np.uint8).reshape(4, 6, 4)
    there = OnDevice(frame, pitch=40)
    with pixels.opened(there) as seen:
        assert np.array_equal(seen, frame)
        seen[3] = 9
    assert there.memory[3, :24].tolist() == [9] * 24
    assert there.memory[3, 24:].tolist() == [0] * 16  # what lies between two rows is not ours
    assert np.array_equal(there.memory[:3, :24], frame[:3].reshape(3, 24))


def test_what_cannot_be_drawn_into_is_refused(runtime, monkeypatch):
    with pytest.raises(pixels.UnreadablePixels, match=r"the rows of a tensor of \(4, 3, 4\) have gaps"):
        pixels.Plane(np.zeros((4, 6, 4), np.uint8)[:, ::2])
    monkeypatch.setattr(runtime, "cudaMemcpy2D", lambda *_: 700)
    with pytest.raises(pixels.UnreadablePixels, match="failed with CUDA's error 700"):
        pixels.Plane(OnDevice(np.zeros((2, 2, 4), np.uint8), 16)).copied()
    monkeypatch.undo()
    monkeypatch.setattr(pixels, "RUNTIMES", ("libnone.so",))
    pixels.cuda_runtime.cache_clear()
    with pytest.raises(pixels.UnreadablePixels, match=r"the CUDA runtime was not found \(libnone.so\)"):
        pixels.Plane(OnDevice(np.zeros((2, 2, 4), np.uint8), 16)).copied()


def test_every_class_is_drawn_as_run_draws_it():
    """131 classes: nvsegvisual has a colour for 19."""
    count = 131
    colours = [((7 * index) % 256, (11 * index) % 256, (13 * index) % 256) for index in range(count)]
    names = [f"class {index}" for index in range(count)]
    painter = Painter(
        [SegmentedClass(name, list(colour)) for name, colour in zip(names, colours, strict=True)],
        Drawing("segdeploy", 0.55, False),
    )
    labels = np.arange(count, dtype=np.int32)[None].repeat(3, 0)
    frame = np.random.default_rng(3).integers(0, 256, (3, count, 4), np.uint8)
    frame[..., 3] = 255
    before = frame.copy()
    painter.paint(frame, labels, {})
    known = Segmentation(
        labels.astype(np.uint8), Labels("131", tuple(names), tuple(colours), tuple(range(count)))
    )
    assert np.array_equal(frame[..., :3], known.overlay(before[..., :3].copy(), 0.55, legend=False))
    assert (frame[..., 3] == 255).all()


def test_without_a_class_the_frame_stays_and_the_map_is_scaled():
    painter = Painter(CLASSES, Drawing("segdeploy", 1.0, False))
    frame = np.full((4, 8, 4), 200, np.uint8)
    painter.paint(frame, np.array([[0, -1], [999, 1]], np.int32), {})
    assert frame[0, 0].tolist() == [128, 64, 128, 255]
    assert frame[0, 4].tolist() == frame[3, 0].tolist() == [200] * 4
    assert frame[3, 7].tolist() == [70, 130, 180, 255]


def test_the_legend_names_what_is_seen():
    painter = Painter(CLASSES, Drawing("segdeploy", 0.0, True))
    frame = np.full((360, 640, 4), 255, np.uint8)
    painter.paint(frame, np.zeros((2, 2), np.int32), {"sky": 0.7, "road": 0.001})
    assert frame[13, 5, :3].tolist() == [70, 130, 180]  # the square of the one row
    assert frame[:20, 30:90, :3].max() == 255
    assert frame[30:, :, :3].min() == 255  # and none for a thousandth
    small = np.full((8, 8, 4), 255, np.uint8)
    painter.paint(small, np.zeros((2, 2), np.int32), {"sky": 1.0})
    assert small.min() == 255


def test_a_line_says_areas_and_a_mask_that_can_be_had_back():
    labels = np.array([[0, 0, 1, 1], [1, 1, 1, -1], [0, 0, 0, 0], [1, 1, 1, 5]], np.int32)
    areas = areas_of(labels, ["road", "sky"])
    assert areas == {"sky": 8 / 16, "road": 6 / 16}
    line = json.loads(line_of(Seen("cam", 3, 1.23456789, labels, areas), 1))
    mask = line.pop("mask")
    assert line == {"source": "cam", "index": 3, "time_s": 1.234568, "areas": areas}
    assert mask["size"] == [4, 4]
    assert np.repeat(mask["ids"], mask["lengths"]).reshape(mask["size"]).tolist() == labels.tolist()
    sampled = json.loads(line_of(Seen("cam", 3, 0, labels, areas), 2))["mask"]
    assert np.repeat(sampled["ids"], sampled["lengths"]).reshape(sampled["size"]).tolist() == [
        [1, -1],
        [1, 5],
    ]
    assert json.loads(line_of(Seen("cam", 3, 0, labels, areas), 99))["mask"]["size"] == [1, 1]
    assert "mask" not in json.loads(line_of(Seen("cam", 3, 0, labels, areas), 0))


@pytest.fixture
def figures():
    return Figures([Source("a", "rtsp://a"), Source('b"\\', "rtsp://b")], lost_s=0.05, frame_s=10)


def test_an_outlet_that_is_slow_loses_the_oldest_and_holds_nothing_up(figures):
    taken, may_go = [], []
    outlet = Outlet(
        "lines", lambda item: (wait_for(lambda: may_go, 5), taken.append(item)), figures, pytest.fail
    )
    began = time.monotonic()
    for number in range(MOST_WAITING + 10):
        outlet.put(number)
    assert time.monotonic() - began < 1
    may_go.append(True)
    outlet.close(5)
    dropped = MOST_WAITING + 10 - len(taken)
    assert taken[-1] == MOST_WAITING + 9
    assert 9 <= dropped <= 10
    assert f'segdeploy_messages_total{{outlet="lines",state="dropped"}} {dropped}' in figures.as_text()


def test_an_outlet_tells_what_went_wrong(figures, tmp_path):
    failures = []
    file = LinesFile(str(tmp_path / "x.jsonl"))
    outlet = Outlet("lines", file.write, figures, failures.append)
    outlet.put("one")
    assert wait_for(lambda: (tmp_path / "x.jsonl").read_text() == "one\n", 5)
    file.close()
    outlet.put("two")
    assert wait_for(lambda: bool(failures), 5)
    assert "closed file" in str(failures[0])
    outlet.close(1)


def test_figures_are_prometheus_text(figures):
    assert figures.last_frame_s() is None
    assert not figures.is_healthy()
    assert [figures.seen(1, {"road": 0.5, "sky": 0.25}) for _ in range(2)] == [0, 1]
    text = figures.as_text()
    label = 'source="1",name="b\\"\\\\"'
    for line in (
        f"segdeploy_frames_total{{{label}}} 2",
        f"segdeploy_source_up{{{label}}} 1",
        'segdeploy_source_up{source="0",name="a"} 0',
        f'segdeploy_class_area_ratio{{{label},class="road"}} 0.500000',
        f"segdeploy_without_class_ratio{{{label}}} 0.250000",
        "# TYPE segdeploy_frames_total counter",
    ):
        assert line in text.splitlines()
    assert figures.are_up() == [None, True]
    time.sleep(0.06)
    assert figures.are_up() == [None, False]


def test_the_page_shows_them(figures):
    page = Page(Metrics("127.0.0.1", 0), figures)
    try:
        assert (
            urllib.request.urlopen(page.url, timeout=5).read().decode().startswith("# HELP segdeploy_frames")
        )
        health = page.url.replace("metrics", "healthz")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(health, timeout=5)
        figures.seen(0, {})
        assert urllib.request.urlopen(health, timeout=5).read() == b"ok\n"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(page.url.replace("metrics", "etc/passwd"), timeout=5)
    finally:
        page.close()


@pytest.fixture(scope="session")
def adapter(tmp_path_factory):
    """NVIDIA's interface to brokers, in C, as the app loads it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    made = tmp_path_factory.mktemp("adapter") / "libnvds_standin_proto.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, STANDINS / "adapter.c"], check=True)
    return made


@pytest.fixture
def broker(adapter, figures, tmp_path, monkeypatch):
    monkeypatch.setenv("STANDIN_BROKER", str(tmp_path / "sent"))
    made = []

    def broker_at(host, config=None):
        own = shutil.copy(adapter, tmp_path / f"lib{len(made)}.so")  # one that is loaded twice counts on
        said = []
        made.append(Broker(Publishing("kafka", host, 9092, "seg", str(own), config), figures, said.append))
        return made[-1], said

    yield broker_at
    for one in made:
        one.give_up()


def sent(tmp_path):
    place = tmp_path / "sent"
    return place.read_text().splitlines() if place.exists() else []


def states(figures):
    return {
        line.split('state="')[1].split('"')[0]: int(line.split()[-1])
        for line in figures.as_text().splitlines()
        if line.startswith('segdeploy_messages_total{outlet="broker"')
    }


def test_lines_reach_the_broker(broker, figures, tmp_path):
    to, said = broker("box", "cfg_kafka.txt")
    for number in range(5):
        to.send(f'{{"ä": {number}}}')
    to.close(1)
    assert sent(tmp_path) == [
        "connect box;9092 cfg_kafka.txt",
        *(f'seg {{"ä": {number}}}' for number in range(5)),
    ]
    assert states(figures) == {"acknowledged": 5}
    assert said == ["publishing to kafka box:9092, topic seg"]


def test_a_broker_that_restarts_is_connected_to_again(broker, figures, tmp_path):
    to, said = broker("restarts")
    for number in range(5):
        to.send(str(number))
    to.close(1)
    assert [line for line in sent(tmp_path) if line.startswith("connect")] == ["connect restarts;9092 -"] * 2
    assert said[1].startswith("the broker (kafka restarts:9092, topic seg) is gone")
    assert sum(states(figures).values()) == 5


def test_a_broker_that_stalls_or_refuses_holds_up_its_thread_alone(broker, figures, tmp_path, monkeypatch):
    monkeypatch.setattr("segdeploy_box.broker.MOST_UNANSWERED", 3)
    for host in ("stalls", "refuses"):
        to, _ = broker(host)
        outlet = Outlet("lines", to.send, figures, pytest.fail)
        for number in range(10):
            outlet.put(str(number))
        assert wait_for(lambda host=host: f"connect {host};9092 -" in sent(tmp_path), 5)
        began = time.monotonic()
        to.give_up()
        outlet.close(5)
        to.close(0.1)
        assert time.monotonic() - began < 3
    assert len([line for line in sent(tmp_path) if line.startswith("seg")]) <= 3
    assert states(figures)["failed"] == 20


def test_what_is_no_adapter_is_said(figures, tmp_path):
    wrong = tmp_path / "libx.so"
    wrong.write_text("no library")
    for path in (wrong, tmp_path / "gone.so", Path(ctypes.util.find_library("m") or "libm.so.6")):
        with pytest.raises(NoAdapter, match="is no adapter that can be loaded"):
            Broker(Publishing("mqtt", "h", 1883, "t", str(path), None), figures, print)


def settings_in(tmp_path, change):
    settings = json.loads(json.dumps(SETTINGS))
    change(settings)
    path = tmp_path / "segdeploy_app.json"
    path.write_text(json.dumps(settings))
    return path


def test_settings_are_read_as_they_are_typed(tmp_path):
    read = read_settings(settings_in(tmp_path, lambda settings: None))
    assert read.sources == [Source("rtsp://a/1", "rtsp://u:p@a/1")]
    assert read.patience.frame_s == 5.0
    assert read.is_live
    assert not replace(read, sources=[Source("x", "file:///x")]).is_live


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("sink"), "sink is missing"),
        (lambda s: s["sink"].pop("port"), "sink.port is missing"),
        (lambda s: s.update(colours=1), "colours is no setting; known: deepstream, inference"),
        (lambda s: s["sink"].update(kind="tape"), "sink.kind is 'tape'; expected one of rtsp, file, display, fake"),
        (lambda s: s["sink"].update(port="8554"), "sink.port is '8554'; expected int"),
        (lambda s: s["sink"].update(port=True), "sink.port is True; expected int"),
        (lambda s: s["metrics"].update(port=1 << 17), "metrics.port is 131072; expected 0 to 65535"),
        (lambda s: s["muxer"].update(width=1.5), "muxer.width is 1.5; expected int"),
        (lambda s: s.update(sources=[]), "sources is empty"),
        (lambda s: s.update(sources={}), "sources is not a list"),
        (lambda s: s["sources"].append("rtsp://x"), "sources[1]. is not an object"),
        (lambda s: s["sources"].append({"name": "b", "uri": "rtsp://b"}), "1 tiles are too few for 2 sources"),
        (lambda s: s["classes"][0].update(colour=[1, 2]), "a colour is red, green and blue"),
        (lambda s: s["messages"].update(every=0), "messages.every is 0; expected 1 to 1000000000"),
        (lambda s: s.update(publishing={"protocol": "kafka"}), "publishing.config is missing"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(tmp_path, change, message):
    path = settings_in(tmp_path, change)
    with pytest.raises(WrongSettings) as refused:
        read_settings(path)
    assert str(refused.value).startswith(f"{path}: {message}")


def test_what_is_no_json_is_said(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(WrongSettings, match="cannot be read: No such file"):
        read_settings(path)
    path.write_bytes(b"\xff{")
    with pytest.raises(WrongSettings, match="is not JSON"):
        read_settings(path)
    path.write_text("[" * 100_000)
    with pytest.raises(WrongSettings, match="is not JSON"):
        read_settings(path)
    path.write_text("[]")
    with pytest.raises(WrongSettings, match="the whole is not an object"):
        read_settings(path)
