"""What a SOURCE is taken for: above all, that a name never becomes anything but the file that it names."""

import os
import shutil
from pathlib import Path

import clips
import cv2
import pytest

from segdeploy.cli import main
from segdeploy.errors import RequestError
from segdeploy.serve.stream.sources import Opening, expand, is_images, open_streams

RUNS = "videotestsrc num-buffers=9 ! tee name=t ! queue ! filesink location=PWNED t. ! queue ! identity name=x.mp4"
HOSTILE = [
    RUNS,
    f"gst:{RUNS}",
    "gst:videotestsrc --gst-plugin-load=x.so ! queue.mp4",
    "a ! b.mp4",
    "rtsp:x.mp4",
    "concat:secret.mp4|b.mp4",
    "http:x.mp4",
    "data:x.mp4",
    "file:x.mp4",
    "subfile,,start,0,end,99,,:secret.mp4",
    "-.mp4",
    "[1].mp4",
    "%d.mp4",
    "{name}.mp4",
    "two\nlines.mp4",
    "\udcff.mp4",
]


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def greys(stream):
    try:
        return [round((int(one.frame[80, 100].mean()) - 40) / 5) for one in stream.read()]
    finally:
        stream.close()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("by_glob", [False, True])
def test_what_exists_is_a_file_whatever_it_is_called(inside, name, by_glob):
    clips.write_clip(inside / "made.mp4", clips.every_40_ms(6))
    Path("made.mp4").rename(name)
    sources = expand(["*.mp4" if by_glob and name.endswith(".mp4") else name])
    assert sources == [Path(name)]
    (stream,) = open_streams(sources, Opening())
    assert stream.path == Path(name)
    assert greys(stream) == list(range(6))
    assert list(Path().iterdir()) == [Path(name)]


def test_an_address_that_exists_is_a_file(inside):
    """The shell may have found it below a folder that somebody called `rtsp:`."""
    Path("rtsp:/cam").mkdir(parents=True)
    clips.write_clip(inside / "rtsp:" / "cam" / "front.mp4", clips.every_40_ms(6))
    (stream,) = open_streams(expand(["rtsp://cam/front.mp4"]), Opening())
    assert greys(stream) == list(range(6))


@pytest.mark.slow
def test_a_name_runs_no_pipeline(inside, graphs, capsys):
    """With GStreamer, where a pipeline would have written PWNED."""
    clips.write_clip(inside / "good.mp4", clips.every_40_ms(3))
    Path(RUNS).write_bytes(b"")
    Path(f"gst:{RUNS}").write_bytes(b"")
    assert main(["run", str(graphs("frames")), "*.mp4", "-o", "out"]) == 1
    assert "cannot be opened: it holds no video" in capsys.readouterr().err
    assert not Path("PWNED").exists()
    for name in (RUNS, f"gst:{RUNS}"):
        Path(name).unlink()
    assert main(["run", str(graphs("frames")), "*.mp4", "-o", "out"]) == 0


@pytest.mark.skipif(
    not shutil.which("gst-launch-1.0"), reason="no gst-launch-1.0: apt-get install gstreamer1.0-tools"
)
def test_a_pipeline_is_one_that_was_asked_for(inside):
    asked = "gst:videotestsrc num-buffers=3 ! video/x-raw,width=128,height=96,framerate=25/1"
    (stream,) = open_streams(expand([asked]), Opening())
    assert (stream.name, stream.live, stream.path) == (asked, True, None)
    assert len(greys(stream)) == 3


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "videotestsrc ! x user-pw=abc",
            "there is no file 'videotestsrc ! x user-pw=…'; if it is a GStreamer pipeline, put gst: in front of it:"
            " 'gst:videotestsrc ! x user-pw=…'",
        ),
        (f"{'x' * 300} ! y", f"there is no file {'x' * 300 + ' ! y'!r}; if it is a GStreamer pipeline"),
        ("gst:", "gst: is followed by no pipeline; expected one such as 'gst:videotestsrc ! queue'"),
        ("gst:a --gst-x=y ! b", "'--gst-x=y' in the pipeline 'a --gst-x=y ! b' is an option of gst-launch-1.0"),
        ("gst:a '-v' ! b", "'-v' in the pipeline \"a '-v' ! b\" is an option of gst-launch-1.0, not an element"),
        ('gst:a ! video/x-raw,format="RGB', "has an open quote or ends in a backslash"),
        ("gst:x ! \\", "has an open quote or ends in a backslash"),
        ("", "SOURCE is empty"),
        ("gone.mp4", "there is no file or folder gone.mp4"),
        ("gone.png", "there is no file or folder gone.png"),
        ("*.mov", "no file matches *.mov"),
        ("77", "there is no camera /dev/video77"),
        ("/dev/video77", "there is no camera /dev/video77"),
        ("csi://front", "csi://front names no CSI camera; expected csi://0, csi://1, …"),
    ],
)  # fmt: skip
def test_what_is_refused(inside, source, said):
    with pytest.raises(RequestError) as caught:
        expand([source])
    assert str(caught.value).startswith(said) or said in str(caught.value)


def test_what_is_neither_file_nor_folder_nor_camera(inside):
    os.mkfifo("pipe.mp4")
    Path("gone.mp4").symlink_to("nowhere.mp4")
    with pytest.raises(
        RequestError, match=r"pipe\.mp4 is neither a file nor a folder nor a camera; .* through -"
    ):
        open_streams(expand(["pipe.mp4"]), Opening())
    with pytest.raises(RequestError, match=r"there is no file or folder gone\.mp4"):
        open_streams(expand(["*.mp4"])[:1], Opening())


def test_globs_and_kinds(inside):
    for name in ("b.mp4", "a.mp4", "[1].png", "0"):
        Path(name).write_text("")
    assert expand(["*.mp4"]) == [Path("a.mp4"), Path("b.mp4")]
    assert expand(["[1].png", "0"]) == [Path("[1].png"), Path("0")]
    for kept in ("http://cam/a?b=[1]*", "gst:filesrc location=*.mp4 ! decodebin", "-", "csi://0"):
        assert expand([kept]) == [kept]
    assert [is_images(source) for source in (inside, Path("a.JPG"), Path("a.mp4"), "http://cam/a.jpg")] == [
        True, True, False, False
    ]  # fmt: skip


def test_images_called_like_a_pipeline(inside, graphs):
    cv2.imwrite("a.png", clips.frame(0))
    Path("a.png").rename("gst:x ! y.png")
    assert main(["run", str(graphs("frames")), "gst:x ! y.png", "-o", "out"]) == 0
    written = {path.name for path in Path("out").iterdir()}
    assert written == {f"gst:x ! y.{kind}.png" for kind in ("colours", "ids", "overlay")}


@pytest.mark.parametrize("source", ["a\0b.mp4", "*\0.mp4", "gst:a\0b"])
def test_a_name_with_a_nul_is_none(source):
    with pytest.raises(RequestError) as refused:
        expand([source])
    assert str(refused.value) == f"SOURCE {source!r} holds a NUL, which no name has"
