"""Figures for Prometheus: what they count, at /metrics and as a file, and what becomes of a file that fails."""

import threading
import urllib.request

import numpy as np
import pytest

from segdeploy.errors import OutputError, RequestError
from segdeploy.model.labels import generated_labels
from segdeploy.picture.segmentation import Segmentation
from segdeploy.serve.stream import metrics
from segdeploy.serve.stream.live import Live
from segdeploy.serve.stream.metrics import Figures, MetricsFile, demand_metrics_file
from segdeploy.serve.stream.result import Shown
from segdeploy.serve.stream.view import Page

CLASSES = generated_labels(("road", "sky", 'odd "\\'))


class Camera(Live):
    def __init__(self, name):
        self.name, self.reconnections = name, 0


def shown(source, index=0, sky_rows=1, fps=24.96, latency_ms=30.0, dropped=0):
    labels = np.zeros((4, 8), np.uint8)
    labels[:sky_rows] = 1
    return Shown(
        source,
        index,
        0.0,
        np.zeros((4, 8, 3), np.uint8),
        (Segmentation(labels, CLASSES),),
        fps,
        latency_ms,
        dropped,
    )


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


def test_all_figures():
    clock, cameras = Clock(), [Camera("rtsp://cam/front"), Camera('b"ack')]
    figures = Figures(cameras, 10.0, clock)
    for index in range(3):
        figures.take(shown("rtsp://cam/front", index, sky_rows=2, latency_ms=10.0 * index, dropped=index))
    cameras[0].reconnections = 4
    clock.now_s = 101.5
    front, back = 'source="0",name="rtsp://cam/front"', 'source="1",name="b\\"ack"'
    assert (
        figures.as_text()
        == f"""\
# HELP segdeploy_frames_total Frames segmented.
# TYPE segdeploy_frames_total counter
segdeploy_frames_total{{{front}}} 3
segdeploy_frames_total{{{back}}} 0
# HELP segdeploy_dropped_frames_total Frames of a live source left out to keep up.
# TYPE segdeploy_dropped_frames_total counter
segdeploy_dropped_frames_total{{{front}}} 2
segdeploy_dropped_frames_total{{{back}}} 0
# HELP segdeploy_reconnections_total Times that a lost source came back.
# TYPE segdeploy_reconnections_total counter
segdeploy_reconnections_total{{{front}}} 4
segdeploy_reconnections_total{{{back}}} 0
# HELP segdeploy_source_up Whether frames come.
# TYPE segdeploy_source_up gauge
segdeploy_source_up{{{front}}} 1
segdeploy_source_up{{{back}}} 0
# HELP segdeploy_last_frame_age_seconds Time since the last frame.
# TYPE segdeploy_last_frame_age_seconds gauge
segdeploy_last_frame_age_seconds{{{front}}} 1.5
# HELP segdeploy_fps Frames a second, over the last two seconds.
# TYPE segdeploy_fps gauge
segdeploy_fps{{{front}}} 24.96
segdeploy_fps{{{back}}} 0
# HELP segdeploy_latency_seconds Time from a decoded frame to a segmented one.
# TYPE segdeploy_latency_seconds summary
segdeploy_latency_seconds_sum{{{front}}} 0.03
segdeploy_latency_seconds_count{{{front}}} 3
segdeploy_latency_seconds_sum{{{back}}} 0
segdeploy_latency_seconds_count{{{back}}} 0
# HELP segdeploy_class_area_ratio Share of the last frame's pixels.
# TYPE segdeploy_class_area_ratio gauge
segdeploy_class_area_ratio{{{front},class="road"}} 0.5
segdeploy_class_area_ratio{{{front},class="sky"}} 0.5
segdeploy_class_area_ratio{{{front},class="odd \\"\\\\"}} 0
"""
    )


def test_a_source_that_is_silent_is_down():
    clock = Clock()
    figures = Figures([Camera("a")], 10.0, clock)
    figures.take(shown("a"))
    clock.now_s += 10.5
    said = figures.as_text()
    assert 'segdeploy_source_up{source="0",name="a"} 0\n' in said
    assert 'segdeploy_fps{source="0",name="a"} 0\n' in said
    assert 'segdeploy_last_frame_age_seconds{source="0",name="a"} 10.5\n' in said


def test_the_page_has_them_where_they_are_counted():
    figures = Figures([Camera("a")], 10.0)
    figures.take(shown("a"))
    page, bare = Page(0, figures=figures), Page(0)
    try:
        with urllib.request.urlopen(f"{page.url}metrics", timeout=20) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert 'segdeploy_frames_total{source="0",name="a"} 1\n' in answer.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{bare.url}metrics", timeout=20)
    finally:
        page.close()
        bare.close()


def test_a_file_is_whole_at_every_moment_and_right_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "WRITTEN_EVERY_S", 0.002)
    path, figures, over = tmp_path / "a.prom", Figures([Camera("a")], 10.0), threading.Event()
    file = MetricsFile(path, figures)
    seen = []

    def watch():
        while not over.is_set():
            seen.append(path.read_text())

    watching = threading.Thread(target=watch)
    watching.start()
    for index in range(200):
        figures.take(shown("a", index))
        file.take(shown("a", index))
    file.close()
    over.set()
    watching.join()
    assert {text.endswith("\n") and text.startswith("# HELP segdeploy_frames_total") for text in seen} == {
        True
    }
    assert 'segdeploy_frames_total{source="0",name="a"} 200\n' in path.read_text()
    assert [one.name for one in tmp_path.iterdir()] == ["a.prom"]


def test_a_file_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "WRITTEN_EVERY_S", 0.002)
    failed = threading.Event()
    file = MetricsFile(tmp_path / "a.prom", Figures([], 10.0))

    def write(path, text):
        failed.set()
        raise OutputError("the disk is full")

    monkeypatch.setattr(metrics, "write_text", write)
    failed.wait(20)
    with pytest.raises(OutputError, match="the disk is full"):
        file.close()
    with pytest.raises(OutputError, match="the disk is full"):
        file.take(shown("a"))


def test_a_name_that_node_exporter_does_not_read(tmp_path):
    with pytest.raises(RequestError, match="does not end in"):
        demand_metrics_file(tmp_path / "a.txt")
    demand_metrics_file(tmp_path / "a.prom")
