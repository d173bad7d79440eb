import time
from contextlib import ExitStack

import cv2
import numpy as np
import pytest
from bench_fakes import DeviceSession, HostSession

from segdeploy import scenes
from segdeploy.assess.bench.modes import BenchPlan
from segdeploy.assess.bench.waterfall import (
    MEANT,
    STAGES,
    Stopwatch,
    measure_end_to_end,
    one_image,
    open_road,
    summarise_stages,
)
from segdeploy.errors import RequestError, VideoError
from segdeploy.picture import image
from segdeploy.picture.video_writing import ClipWriter
from segdeploy.run.io import from_output, to_input
from segdeploy.run.session import open_session, segment, segmentation_of
from segdeploy.size import Size

QUICK = BenchPlan(warm_up_ms=1, duration_s=0.01)


@pytest.fixture
def folder(tmp_path):
    for seed in range(3):
        frame = scenes.make_scene(seed, 80, 120).image
        cv2.imwrite(str(tmp_path / f"{seed}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return tmp_path


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "street.mp4"
    with ClipWriter(path, Size(64, 128), 25.0) as writer:
        for index, scene in enumerate(scenes.make_clip(3, 4, 64, 128)):
            writer.write(scene.image, index / 25)
    return path


@pytest.mark.slow
def test_every_stage_of_a_folder(graphs, folder):
    with open_session(graphs("nvinfer"), threads=1) as session:
        found = measure_end_to_end(session, folder, QUICK)
    assert tuple(stage.name for stage in found.stages) == STAGES == tuple(MEANT)
    assert found.frames >= 10
    assert found.frame == "80x120"
    assert found.source == folder.name
    assert sum(stage.share for stage in found.stages) == pytest.approx(1)
    times = {stage.name: stage for stage in found.stages}
    assert times["h2d"].median_ms == times["d2h"].median_ms == 0  # it runs on the host
    assert all(times[name].median_ms > 0 for name in STAGES if name not in ("handover", "h2d", "d2h"))
    assert found.outside_network == pytest.approx(1 - times["infer"].share)
    assert not found.stopped


@pytest.mark.slow
def test_a_video_begins_anew_where_it_ends(video):
    found = measure_end_to_end(HostSession(), video, QUICK)
    assert found.frames >= 10
    assert found.frame == "64x128"
    assert found.encoded == "H.264, on disk"


def test_a_device_says_itself_what_transfers_took(folder):
    found = measure_end_to_end(DeviceSession(), folder, QUICK)
    times = {stage.name: stage.median_ms for stage in found.stages}
    assert (times["h2d"], times["infer"], times["d2h"]) == (1, 4, 2)
    assert times["handover"] == 0  # less than the 7 ms, which were not really waited for


class Slow(DeviceSession):
    def run_timed(self, inputs):
        time.sleep(0.02)
        return super().run_timed(inputs)


@pytest.mark.slow
def test_what_a_device_does_not_say_is_the_handover(folder):
    found = measure_end_to_end(Slow(), folder, QUICK)
    times = {stage.name: stage.median_ms for stage in found.stages}
    assert times["handover"] >= 20 - 7


def test_a_graph_of_a_larger_batch_counts_as_that_many_images(folder):
    found = measure_end_to_end(DeviceSession(batch=4), folder, QUICK)
    times = {stage.name: stage.median_ms for stage in found.stages}
    assert (times["h2d"], times["infer"], times["d2h"]) == (0.25, 1, 0.5)


@pytest.mark.parametrize("interface", ["frames", "nvinfer", "logits"])
def test_labels_are_those_that_segment_gives(graphs, interface):
    frame = scenes.make_scene(5, 120, 200).image
    with open_session(graphs(interface), threads=1) as session:
        fitted, geometry = image.fit(frame, session.signature.size, "stretch", session.signature.resize)
        answers = session.run(to_input(session.signature, fitted[None]))
        found = segmentation_of(session.signature, from_output(session.signature, answers)[0], geometry)
        np.testing.assert_array_equal(found.labels, segment(session, frame).labels)


def test_shares_and_percentiles():
    rows = [dict.fromkeys(STAGES, 0.0) | {"decode": 10.0, "infer": 30.0} for _ in range(99)]
    rows.append(dict.fromkeys(STAGES, 0.0) | {"decode": 100.0, "infer": 30.0})
    found = summarise_stages(rows, "x", "1x1", "PNG", False)
    decode = found.stages[0]
    assert (decode.median_ms, decode.p99_ms) == (10, 100)  # p99 of 100 is the last, as in trtexec
    assert decode.mean_ms == pytest.approx(10.9)
    assert found.outside_network == pytest.approx(1090 / 4090)
    assert (found.median_ms, found.p99_ms) == (40, 130)
    assert found.images_per_s == pytest.approx(100 / 4.09)


def test_the_sources_that_there_are_not(tmp_path):
    with pytest.raises(
        RequestError, match=r"there is no file or folder .*nowhere; expected images or a video"
    ):
        measure_end_to_end(HostSession(), tmp_path / "nowhere", QUICK)
    with pytest.raises(RequestError, match="holds no image"):
        measure_end_to_end(HostSession(), tmp_path, QUICK)
    (tmp_path / "x.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"x\.mp4 cannot be opened: it holds no video that can be decoded"):
        measure_end_to_end(HostSession(), tmp_path / "x.mp4", QUICK)


def test_stopped_on_the_way(folder):
    found = measure_end_to_end(HostSession(stop_at=5), folder, BenchPlan(warm_up_ms=0, duration_s=60))
    assert found.stopped
    assert found.frames == 4  # the first one only sets things up
    with pytest.raises(KeyboardInterrupt):
        measure_end_to_end(HostSession(stop_at=1), folder, QUICK)


def test_images_come_round_again(folder):

    with ExitStack() as opened:
        road = open_road(folder, opened)
        frames = [road.decode() for _ in range(4)]
        np.testing.assert_array_equal(frames[0], frames[3])
        watch = Stopwatch()
        one_image(HostSession(), road, watch)
        assert set(watch.times) == set(STAGES)
