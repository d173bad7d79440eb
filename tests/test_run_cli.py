"""`segdeploy run` on videos, as a user types it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import clips
import cv2
import numpy as np
import pytest
from test_decoding import png

from segdeploy.cli import main
from segdeploy.errors import RequestError
from segdeploy.picture.decoding import MOST_PIXELS
from segdeploy.picture.video_reading import Video
from segdeploy.run.session import open_session, segment
from segdeploy.serve.stream.outputs import output_places, short_names


@pytest.fixture
def model(graphs):
    return str(graphs("frames"))


@pytest.fixture
def clip(tmp_path):
    return clips.write_clip(tmp_path / "street.mp4", clips.every_40_ms(20), sound=True)


def run(*words):
    return main(["run", *map(str, words)])


def command(*words):
    return [sys.executable, "-m", "segdeploy", "run", *map(str, words)]


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_clip_comes_out_whole(model, clip, tmp_path, capsys):
    assert run(model, clip, "-o", tmp_path / "out", "--quiet") == 0
    out = tmp_path / "out" / "street.overlay.mp4"
    said = capsys.readouterr()
    assert said.out.startswith(f"{out}: 20 frames, ")
    assert said.err == ""
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["street.overlay.mp4"]
    with av.open(str(out)) as opened:
        picture, sound = opened.streams.video[0], opened.streams.audio[0]
        assert (picture.codec_context.name, picture.width, picture.height) == ("h264", 128, 96)
        assert (picture.frames, float(picture.average_rate), sound.codec_context.name) == (20, 25, "aac")
    assert clips.times_of(out) == clips.times_of(clip)


@pytest.mark.slow
def test_the_pictures_are_those_of_each_frame(model, clip, tmp_path):
    assert run(model, clip, "-o", tmp_path / "out.mp4", "--no-legend") == 0
    with open_session(model) as session, Video(clip) as given, Video(tmp_path / "out.mp4") as written:
        for before, after in zip(given.read(), written.read(), strict=True):
            expected = segment(session, before.frame).overlay(before.frame, legend=False)
            assert np.abs(expected.astype(int) - after.frame).mean() < 6


@pytest.mark.slow
def test_a_line_a_frame(model, clip, tmp_path, capsys):
    assert run(model, clip, "--json", tmp_path / "a.jsonl", "--every", 4) == 0
    lines = lines_of(tmp_path / "a.jsonl")
    assert [line["index"] for line in lines] == [0, 4, 8, 12, 16]
    assert [line["time_s"] for line in lines] == [0, 0.16, 0.32, 0.48, 0.64]
    keys = ["schema", "time", "source", "index", "time_s", "areas", "latency_ms", "dropped", "flicker"]
    assert [list(line) for line in lines] == [keys] * 5
    assert lines[0]["source"] == str(clip)
    assert sum(lines[0]["areas"].values()) == pytest.approx(1)
    assert capsys.readouterr().out.startswith(f"{clip}: 5 frames, ")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.jsonl",
        "street.mp4",
    ]  # nothing not asked for
    assert run(model, clip, "--max-frames", 2, "--json") == 0
    assert [json.loads(line)["index"] for line in capsys.readouterr().out.splitlines()] == [0, 1]


@pytest.mark.slow
@pytest.mark.thorough
def test_lines_by_the_names_that_standard_output_has(model, clip, tmp_path):
    """A tally that is printed too would stand in the middle of them."""
    shell = " ".join(command(model, clip, "--max-frames", 2, "--json"))
    for redirected in (f"{shell} /dev/stdout | cat", f"{shell} /dev/fd/1 > {tmp_path}/a; cat {tmp_path}/a"):
        done = subprocess.run(["bash", "-c", redirected], capture_output=True, text=True, check=True)
        assert [json.loads(line)["index"] for line in done.stdout.splitlines()] == [0, 1]
    done = subprocess.run(["bash", "-c", f"{shell} /dev/null"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{clip}: 2 frames, ")
    assert Path("/dev/null").is_char_device()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "unbuffered"),
    [
        ("clip", ""),
        *(
            pytest.param(*one, marks=pytest.mark.thorough)
            for one in (("clip", "1"), ("images", ""), ("images", "1"))
        ),
    ],
)
def test_an_output_that_is_full_is_one_message(model, clip, tmp_path, kind, unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    cv2.imwrite(str(tmp_path / "a.png"), clips.frame(0))
    source = clip if kind == "clip" else tmp_path / "a.png"
    for words, said in (
        (["--json"], "segdeploy: standard output cannot be written: No space left on device\n"),
        (["--json", "/dev/full"], "segdeploy: /dev/full cannot be written: No space left on device\n"),
        ([], "segdeploy: standard output cannot be written: No space left on device\n"),
    ):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                command(model, source, "-o", tmp_path / "out", *words),
                stdout=full if "/dev/full" not in words else None, stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
        assert done.stderr == said
        assert done.returncode == 1


@pytest.mark.slow
def test_several_sources_each_with_its_own_clip(graphs, clip, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    second = clips.write_clip(tmp_path / "other" / "street.mp4", clips.every_40_ms(7))
    model = graphs("frames", 4)
    assert run(model, clip, second, "-o", tmp_path / "{name}.seen.mkv") == 0
    assert len(clips.times_of(tmp_path / "street.seen.mkv")) == 20
    assert len(clips.times_of(tmp_path / "street-2.seen.mkv")) == 7
    said = capsys.readouterr().out.splitlines()
    assert [": 20 frames, " in said[0], ": 7 frames, " in said[1], " flickers: " in said[2]] == [True] * 3


@pytest.mark.slow
def test_images_become_a_clip(model, tmp_path, capsys):
    for index in range(5):
        cv2.imwrite(str(tmp_path / f"{index}.png"), clips.frame(index))
    assert run(model, tmp_path, "-o", tmp_path / "folder.mp4") == 0
    assert run(model, tmp_path / "[0-2].png", "-o", tmp_path / "glob.mp4") == 0
    assert clips.times_of(tmp_path / "folder.mp4") == [0, 0.2, 0.4, 0.6, 0.8]
    assert clips.times_of(tmp_path / "glob.mp4") == [0, 0.2, 0.4]
    (tmp_path / "3.png").write_text("no image")
    capsys.readouterr()
    assert run(model, tmp_path, "-o", tmp_path / "folder.mp4") == 1
    assert "1 of 5 images could not be read; the first: " in capsys.readouterr().err
    assert len(clips.times_of(tmp_path / "folder.mp4")) == 4


@pytest.mark.slow
def test_an_absurd_image_among_good_ones(model, tmp_path, capsys):
    """Fifty bytes that say 40000x40000: as single images, and in a clip of them."""
    for name in ("a.png", "c.png"):
        cv2.imwrite(str(tmp_path / name), clips.frame(3))
    (tmp_path / "b.png").write_bytes(png(40_000, 40_000))
    long = tmp_path / f"{'x' * 245}.png"
    (tmp_path / "c.png").rename(long)
    assert run(model, tmp_path, "-o", tmp_path / "out") == 1
    said = capsys.readouterr()
    first, second, total = said.err.splitlines()
    assert first.startswith(
        f"segdeploy: {tmp_path}/b.png is 40000x40000, 1,600,000,000 pixels; at most 100,000,000 are"
    )
    assert second.startswith(
        f"segdeploy: {long} has too long a name: its results' names are up to 12 letters longer"
    )
    assert total == "segdeploy: 2 of 3 images could not be read"
    assert said.out.startswith(f"{tmp_path}/out/a.overlay.png: ")
    assert run(model, tmp_path, "-o", tmp_path / "a.mp4") == 1
    assert "1 of 3 images could not be read; the first: " in capsys.readouterr().err
    assert len(clips.times_of(tmp_path / "a.mp4")) == 2


@pytest.mark.slow
def test_the_largest_image_that_is_read(model, clip, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), clips.frame(3))
    for source in (tmp_path / "a.png", clip):
        assert run(model, source, "-o", tmp_path / "out", "--max-pixels", 96 * 128 - 1) == 1
        assert (
            f"{source} is 96x128, 12,288 pixels; at most 12,287 are read, or as many"
            in capsys.readouterr().err
        )
        assert run(model, source, "-o", tmp_path / "out", "--max-pixels", "2e9") == 0
    with pytest.raises(SystemExit):
        run("--help")
    assert f"default: {MOST_PIXELS:,}" in " ".join(capsys.readouterr().out.split())


def test_images_of_two_folders_do_not_meet(model, tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "x.png"), clips.frame(3))
    assert (
        run(model, tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out", "--json", tmp_path / "l.jsonl")
        == 0
    )
    assert len(list((tmp_path / "out").rglob("x.overlay.png"))) == 2
    assert [line["image"] for line in lines_of(tmp_path / "l.jsonl")] == [
        str(tmp_path / "a/x.png"), str(tmp_path / "b/x.png")
    ]  # fmt: skip


@pytest.mark.slow
def test_a_name_that_is_no_text(model, tmp_path):
    path = tmp_path / "\udcff.png"
    cv2.imwrite(str(tmp_path / "a.png"), clips.frame(0))
    (tmp_path / "a.png").rename(path)
    done = subprocess.run(
        command(model, path, "-o", tmp_path / "out"),
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr[:16]) == (0, "segdeploy: next:")
    assert done.stdout.startswith(f"{tmp_path}/out/\\udcff.overlay.png: ")


@pytest.mark.slow
def test_raw_frames_on_standard_input(model, tmp_path):
    def give(data, *more):
        return subprocess.run(command(model, "-", *more), input=data, capture_output=True, check=False)

    frames = b"".join(clips.frame(index).tobytes() for index in range(6))
    out = tmp_path / "out.mp4"
    done = give(frames, "--stdin-size", "96x128", "--stdin-fps", "10", "-o", str(out))
    assert (done.returncode, done.stderr[:16]) == (0, b"segdeploy: next:")
    assert clips.times_of(out) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    cut = give(frames[:-100], "--stdin-size", "96x128", "-o", str(out))
    assert cut.returncode == 1
    assert b"within a frame: 36764 of the 36864 bytes of 96x128 RGB came after 5 whole frames" in cut.stderr
    assert len(clips.times_of(out)) == 5
    empty = give(b"", "--stdin-size", "96x128", "-o", str(tmp_path / "none.mp4"))
    assert (empty.returncode, empty.stderr) == (1, b"segdeploy: standard input holds no frame\n")
    assert not (tmp_path / "none.mp4").exists()


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_clip_that_plays(model, tmp_path, ending):
    out = tmp_path / "out.mp4"
    running = subprocess.Popen(
        command(model, "-", "--stdin-size", "96x128", "-o", out, "--json", tmp_path / "a.jsonl"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    for index in range(12):
        running.stdin.write(clips.frame(index).tobytes())
    running.stdin.flush()
    end = time.monotonic() + 60
    while not ((tmp_path / "a.jsonl").exists() and (tmp_path / "a.jsonl").stat().st_size):
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(running.pid, ending)
    said = running.communicate(timeout=30)
    assert (running.returncode, said) == (130, (b"", b"segdeploy: stopped\n"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out.mp4"]
    assert len(clips.times_of(out)) == len(lines_of(tmp_path / "a.jsonl")) > 0


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(model):
    frames = b"".join(clips.frame(index).tobytes() for index in range(40))
    line = " ".join(command(model, "-", "--stdin-size", "96x128", "--json"))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line} | head -n 1"], input=frames, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["index"] == 0


@pytest.mark.slow
def test_a_clip_that_grows(model, tmp_path, capsys):
    path = clips.write_growing(tmp_path / "grows.h264")
    assert run(model, path, "-o", tmp_path / "out.mp4") == 0
    said = capsys.readouterr().err
    assert "grows.h264 changes its size to 128x192 at frame " in said
    with Video(tmp_path / "out.mp4") as video:
        assert {timed.frame.shape for timed in video.read()} == {(96, 128, 3)}
        assert video.frames >= 19


def test_one_bad_source_is_told_before_anything_is_written(model, clip, tmp_path, refused):
    sound = clips.write_clip(tmp_path / "sound.mp4", clips.every_40_ms(20), sound=True, pictures=False)
    assert "has no video track" in refused("run", model, clip, sound)


@pytest.mark.slow
def test_what_is_refused(model, clip, tmp_path, refused):
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), clips.frame(0))
    for words, sources in {
        "there is no file or folder": ["gone.mp4"],
        "no file matches": [tmp_path / "*.mov"],
        "is images and": [clip, image],
        "say --stdin-size HxW": ["-"],
        "can be one source only": ["-", "-", "--stdin-size", "96x128"],
        "there is no file 'videotestsrc ! queue'; if it is a GStreamer": ["videotestsrc ! queue"],
        "is an option of gst-launch-1.0, not an element": ["gst:videotestsrc --gst-plugin-load=x.so ! queue"],
        "--batch 2 is more than the 1": [clip, "--batch", "2"],
        "is not a .jsonl": [clip, "--json", "a.mp4"],
        "http://127.0.0.1:9/a.mp4 cannot be opened: Connection refused": [
            "http://joe:secret@127.0.0.1:9/a.mp4"
        ],
    }.items():
        assert words in refused("run", model, *sources)


@pytest.mark.slow
def test_no_password_is_printed(model, clip, tmp_path, capsys):
    two = tmp_path / "two.mp4"
    two.write_bytes(clip.read_bytes())
    for words in (
        ["rtsp://joe:it's-s3cret@127.0.0.1:9/x"],
        ['http://joe:a"s3cret b@127.0.0.1:9/x.mp4'],
        ["rtsp://127.0.0.1:9/?password%3Ds3cret"],
        ["joe:s3cret@127.0.0.1/x"],
        ["gst:rtspsrc location=rtsp://joe:it's-s3cret@cam ! queue"],
        ["rtspsrc user-pw = s3cret ! queue"],
        [clip, two, "-o", "rtsp://joe:s3cret@127.0.0.1:9/x"],
    ):
        assert run(model, *words) == 1
        said = capsys.readouterr()
        assert "s3cret" not in said.out + said.err
        assert said.err.startswith("segdeploy: ")


@pytest.mark.slow
def test_no_password_stands_in_the_traceback_of_a_fault(tmp_path):
    script = (
        "import av, sys\nfrom segdeploy import cli\n"
        "def broken(arguments):\n    av.open('rtsp://joe:s3cret@127.0.0.1:9/x')\n"
        "cli.models.execute = broken\nsys.exit(cli.main(['models']))\n"
    )
    here = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=here
    )
    assert done.returncode == 70
    (kept,) = tmp_path.iterdir()
    for text in (done.stderr, kept.read_text()):
        assert "'rtsp://127.0.0.1:9/x'" in text
        assert "s3cret" not in text.replace("av.open('rtsp://joe:s3cret@127.0.0.1:9/x')", "")


@pytest.mark.slow
def test_an_output_that_is_an_input(model, clip, tmp_path, capsys):
    link = tmp_path / "link.mp4"
    link.symlink_to(clip)
    before = clip.read_bytes()
    assert run(model, clip, "-o", link) == 1
    assert "is both the input and the output" in capsys.readouterr().err
    assert clip.read_bytes() == before
    assert run(model, clip, clip, "-o", tmp_path / "x.mp4") == 1
    assert "2 sources do not go into one" in capsys.readouterr().err
    assert run(model, clip, "-o", tmp_path / "x.avi") == 1
    assert "expected a name that ends in .mp4, .mov, .mkv" in capsys.readouterr().err


@pytest.mark.slow
def test_an_output_that_can_be_no_clip_is_refused_before_the_work(model, clip, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name, said in {
        "pipe.mp4": "it is a pipe, and a file is to be there",
        "folder.mp4": "it is a folder, and a file is to be there",
        f"{'x' * 300}.mp4": "File name too long",
        f"{'x' * 300}.avi": "File name too long",
        f"{'x' * 300}": "File name too long",
        "http://joe:s3cret@host/x.mp4": "http://host/x.mp4 is not an address to publish to",
        "rtmp://host/live": "rtmp://host/live is not an address to publish to",
        "rtsp://host:99999/x": "rtsp://host:99999/x names no server; expected an address as in rtsp://server:8554/live",
        "rtsp://[/x": "rtsp://[/x names no server",
        "rtsp:///x": "rtsp:///x names no server",
    }.items():
        assert run(model, clip, "-o", name if "://" in name else tmp_path / name) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.mp4", "pipe.mp4", "street.mp4"]


@pytest.mark.slow
def test_a_gstreamer_pipeline(model, tmp_path, capsys):
    import shutil

    if not shutil.which("gst-launch-1.0"):
        pytest.skip("no gst-launch-1.0: apt-get install gstreamer1.0-tools gstreamer1.0-plugins-good")
    pipeline = "gst:videotestsrc num-buffers=8 is-live=true ! video/x-raw,width=128,height=96,framerate=20/1"
    assert run(model, pipeline, "-o", tmp_path, "-q") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith(f"{tmp_path / 'pipeline.overlay.mp4'}: ")
    assert 1 <= len(clips.times_of(tmp_path / "pipeline.overlay.mp4")) <= 8
    assert run(model, "gst:nosuchelement ! fakesrc", "-o", tmp_path) == 1
    assert (
        'gives no frames: WARNING: erroneous pipeline: no element "nosuchelement"' in capsys.readouterr().err
    )


def test_without_gstreamer(model, tmp_path, refused, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "needs gst-launch-1.0, which cannot be started" in refused(
        "run", model, "gst:videotestsrc ! queue"
    )


@pytest.mark.slow
def test_a_window_gets_the_drawn_frames(model, clip, tmp_path, monkeypatch, capsys):
    shown = tmp_path / "shown"
    tool = tmp_path / "gst-launch-1.0"
    tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexec cat > {shown}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert run(model, clip, "--show") == 0
    assert shown.stat().st_size == 20 * 96 * 128 * 3
    assert "rawvideoparse format=rgb width=128 height=96" in (tmp_path / "asked").read_text()
    capsys.readouterr()
    for without_screen in (
        "exit 1",
        "echo 'Failed to find a usable video sink' >&2; exec cat > /dev/null",  # as autovideosink says, and goes on
        "kill -SEGV $$",
    ):
        tool.write_text(f"#!/bin/sh\n{without_screen}\n")
        assert run(model, clip, "--show") == 1
        said = capsys.readouterr().err
        assert (
            said == "segdeploy: --show found no screen; leave it out, or watch from elsewhere with --view\n"
        )
    tool.write_text("#!/bin/sh\nhead -c 40000 > /dev/null\n")  # closed after a frame
    assert run(model, clip, "--show") == 0


# ---- names --------------------------------------------------------------------------------------------------------


def test_names_of_outputs():
    names = [
        "a/street.mp4",
        "b/street.mp4",
        "rtsp://cam/front?x=1",
        "rtsp://cam",
        "/dev/video0",
        "-",
        "gst:a ! b",
        "csi://0",
        Path("gst:a ! b.mp4"),
        Path("...mp4"),
        "rtsp://cam/..",
    ]
    assert short_names(names) == [
        "street", "street-2", "front", "cam", "video0", "stdin", "pipeline", "0", "gst_a_b", "stream", "stream-2"
    ]  # fmt: skip


def test_a_template_of_addresses():
    class Source:
        path = None

        def __init__(self, name):
            self.name = name

    two = [Source("a.mp4"), Source("b.mp4")]
    assert output_places("rtsp://server/{name}", two) == ["rtsp://server/a", "rtsp://server/b"]
    with pytest.raises(
        RequestError, match=r"do not go into one rtsp://server/x; name a folder, or: -o 'rtsp:"
    ):
        output_places("rtsp://server/x", two)
