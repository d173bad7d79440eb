import subprocess
import sys
import threading

import clips
import cv2
import numpy as np
import pytest

from segdeploy.errors import OutputError, RequestError, VideoError
from segdeploy.picture.video_reading import Video
from segdeploy.picture.video_writing import ClipWriter
from segdeploy.size import Size


def read(path):
    with Video(path) as video:
        return list(video.read())


def greys(timed):
    return [round((int(one.frame[80, 100].mean()) - 40) / 5) for one in timed]


@pytest.mark.parametrize(
    ("codec", "name"),
    [("libx264", "a.mp4"), ("libx265", "a.mp4"), ("mjpeg", "a.avi"), ("mpeg4", "a.mkv"), ("libx264", "a.ts")],
)
def test_every_frame_in_order_at_its_time(tmp_path, codec, name):
    path = clips.write_clip(tmp_path / name, clips.every_40_ms(30), codec)
    found = read(path)
    assert greys(found) == list(range(30))
    assert [round(one.time_s, 3) for one in found] == [round(0.04 * index, 3) for index in range(30)]
    assert found[0].frame.shape == (96, 128, 3)
    np.testing.assert_allclose(found[0].frame[5, 5], (255, 0, 0), atol=12)


def test_a_variable_rate_is_kept(tmp_path):
    times = [0, 40, 50, 200, 210, 700, 1000, 1040]
    path = clips.write_clip(tmp_path / "a.mp4", times)
    with Video(path) as video, ClipWriter(tmp_path / "b.mp4", Size(96, 128), video.fps) as writer:
        for one in video.read():
            writer.write(one.frame, one.time_s)
    assert clips.times_of(tmp_path / "b.mp4") == [time / 1000 for time in times]
    assert greys(read(tmp_path / "b.mp4")) == list(range(8))


def test_a_turned_video_is_upright(tmp_path):
    path = clips.turn(clips.write_clip(tmp_path / "a.mp4", clips.every_40_ms(5)))
    first = read(path)[0].frame
    assert first.shape == (128, 96, 3)
    corner = [first[5, 5], first[5, -5], first[-5, -5], first[-5, 5]]
    assert [int(pixel[0]) > 200 for pixel in corner] == [False, True, False, False]  # up left went up right
    shown = cv2.VideoCapture(str(path)).read()[1]
    np.testing.assert_allclose(first.mean((0, 1)), shown[..., ::-1].mean((0, 1)), atol=2)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_sound_is_copied_unchanged(tmp_path, ending):
    path = clips.write_clip(tmp_path / "a.mp4", clips.every_40_ms(50), sound=True)
    out = tmp_path / f"b.{ending}"
    with Video(path) as video, ClipWriter(out, Size(96, 128), video.fps, path) as writer:
        for one in video.read():
            writer.write(one.frame, one.time_s)
    given, kept = clips.packets(path, "audio"), clips.packets(out, "audio")
    assert len(given) - 3 <= len(kept) <= len(given)
    assert kept == given[1 : len(kept) + 1]  # the first is the encoder's run-up, before the beginning
    assert clips.times_of(out) == clips.times_of(path)


def test_sound_ends_with_the_pictures(tmp_path):
    path = clips.write_clip(tmp_path / "a.mp4", clips.every_40_ms(50), sound=True)
    with ClipWriter(tmp_path / "b.mp4", Size(96, 128), 25, path) as writer:
        for one in read(path)[:25]:
            writer.write(one.frame, one.time_s)
    share = len(clips.packets(tmp_path / "b.mp4", "audio")) / len(clips.packets(path, "audio"))
    assert share == pytest.approx(0.5, abs=0.05)


def test_colours_survive(tmp_path):
    colours = [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
        (0, 0, 0),
        (128, 64, 128),
        (70, 130, 180),
    ]
    for size in ((128, 224), (129, 223)):
        picture = np.zeros((*size, 3), np.uint8)
        for place, colour in enumerate(colours):
            picture[:, place * 32 : place * 32 + 32] = colour
        with ClipWriter(tmp_path / "a.mp4", Size(*size), 25) as writer:
            for index in range(3):
                writer.write(picture, index / 25)
        other = cv2.VideoCapture(str(tmp_path / "a.mp4")).read()[1][..., ::-1]
        for seen in (read(tmp_path / "a.mp4")[1].frame, other):
            assert seen.shape == (*size, 3)
            for place, colour in enumerate(colours):
                np.testing.assert_allclose(seen[64, place * 32 + 16].astype(int), colour, atol=5)


def test_pictures_of_another_size_are_brought_to_the_first(tmp_path):
    with ClipWriter(tmp_path / "a.mp4", Size(96, 128), 25) as writer:
        writer.write(np.full((96, 128, 3), 200, np.uint8), 0)
        writer.write(np.full((192, 64, 3), 200, np.uint8), 0.04)
        writer.write(np.full((96, 64, 3), 200, np.uint8), 0.08)  # of its height
    _, second, third = read(tmp_path / "a.mp4")
    assert [int(third.frame[48, column].mean()) // 10 for column in (5, 64, 122)] == [0, 20, 0]
    assert second.frame.shape == (96, 128, 3)
    assert [int(second.frame[48, column].mean()) // 10 for column in (5, 64, 122)] == [0, 20, 0]


def test_times_that_do_not_rise_are_made_to(tmp_path):
    with ClipWriter(tmp_path / "a.mp4", Size(96, 128), 25) as writer:
        for time_s in (0.0, 0.04, 0.04, 0.02, 0.08):
            writer.write(clips.frame(0), time_s)
    assert len(clips.times_of(tmp_path / "a.mp4")) == 5


def test_what_is_no_video(tmp_path):
    with pytest.raises(RequestError, match=r"there is no file .*gone\.mp4"):
        Video(tmp_path / "gone.mp4")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(VideoError, match=r"text\.mp4 cannot be opened: it holds no video"):
        Video(tmp_path / "text.mp4")
    (tmp_path / "notes.txt").write_text("of which FFmpeg's `tty` would make frames\n" * 99)
    with pytest.raises(VideoError) as refused:
        Video(tmp_path / "notes.txt")
    expected = f"{tmp_path}/notes.txt is a text file, whose letters FFmpeg would draw; expected a video"
    assert str(refused.value) == expected
    sound = clips.write_clip(tmp_path / "sound.mp4", clips.every_40_ms(20), sound=True, pictures=False)
    with pytest.raises(VideoError, match=r"sound\.mp4 has no video track, only audio"):
        Video(sound)


def test_a_video_without_frames(tmp_path):
    path = clips.write_clip(tmp_path / "a.avi", clips.every_40_ms(1), "mjpeg")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"movi") + 4])
    with pytest.raises(VideoError, match=r"a\.avi (holds no frame that|cannot be opened)"):
        read(path)


def test_a_video_that_is_cut_short_gives_what_it_has_and_says_so(tmp_path):
    path = in_front(clips.write_clip(tmp_path / "a.mp4", clips.every_40_ms(60)))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 5])
    seen = []
    with (
        Video(path) as video,
        pytest.raises(VideoError, match=r"is cut short or damaged: only \d+ of 60 frames could be decoded"),
    ):
        for one in video.read():
            seen.append(one)
    assert 10 < len(seen) < 60
    assert greys(seen) == list(range(len(seen)))


def in_front(path):
    """The index before the pictures, as for the web: only so a cut file can be opened at all."""
    import av

    moved = path.with_name("front.mp4")
    with av.open(str(path)) as given, av.open(str(moved), "w", options={"movflags": "faststart"}) as out:
        track = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = track
                out.mux(packet)
    return moved


def test_a_cut_index_is_refused(tmp_path):
    path = clips.write_clip(tmp_path / "a.mp4", clips.every_40_ms(60))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(VideoError, match=r"a\.mp4 cannot be opened: it holds no video .* cut short"):
        Video(path)


def test_nothing_is_left_of_a_clip_that_failed(tmp_path):
    with pytest.raises(ZeroDivisionError), ClipWriter(tmp_path / "a.mp4", Size(96, 128), 25) as writer:
        writer.write(clips.frame(0), 0)
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from segdeploy.errors import OutputError
from segdeploy.size import Size
from segdeploy.picture.video_writing import ClipWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
rng = np.random.default_rng(0)
try:
    with ClipWriter(Path(sys.argv[1]), Size(256, 256), 25) as writer:
        for index in range(int(sys.argv[2])):
            writer.write(rng.integers(0, 256, (256, 256, 3), np.uint8), index / 25)
except OutputError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("frames", [3, 60])
def test_a_full_disk_is_one_message_and_no_file(tmp_path, frames):
    """A limit on a file's size is what a full disk is to whoever writes."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "a.mp4"), str(frames)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{tmp_path / 'a.mp4'} cannot be written: File too large\n"
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_frames_that_did_not_come_to_the_file_are_missed(tmp_path, monkeypatch):
    writer = ClipWriter(tmp_path / "a.mp4", Size(96, 128), 25)
    for index in range(5):
        writer.write(clips.frame(index), index / 25)
    writer._encoder.written += 2
    with pytest.raises(OutputError, match=r"only 5 of 7 frames are in .*a\.mp4; the disk may be full"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_nothing(tmp_path):
    with pytest.raises(OutputError, match="cannot be made"):
        (tmp_path / "file").write_text("")
        ClipWriter(tmp_path / "file" / "a.mp4", Size(96, 128), 25)
    with pytest.raises(
        RequestError, match=r"a\.avi is not a clip that is written here; expected .* \.mp4, \.mov, \.mkv"
    ):
        ClipWriter(tmp_path / "a.avi", Size(96, 128), 25)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def silent():
    """An address that takes connections and never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("uri", ["rtsp://joe:secret@127.0.0.1:{}/x", "http://joe:secret@127.0.0.1:{}/x.mp4"])
def test_what_hangs_times_out(silent, uri):
    with pytest.raises(VideoError) as caught:
        Video(uri.format(silent), timeout_s=0.5)
    assert str(caught.value).endswith("cannot be opened: nothing came for 0.5 s")
    assert "secret" not in str(caught.value)
    assert "joe" not in str(caught.value)


def test_a_wrong_password_is_named_and_not_said():
    import http.server

    class Guarded(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.end_headers()

        def log_message(self, *given): ...

    with http.server.HTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            with pytest.raises(VideoError) as caught:
                Video(f"http://joe:secret@127.0.0.1:{server.server_port}/x.mp4", timeout_s=5)
        finally:
            server.shutdown()
    assert str(caught.value).endswith("/x.mp4 cannot be opened: the server refuses this user or password")
    assert "secret" not in str(caught.value)
