"""Clips whose writer was killed, whose disk was full, or of which a power cut took the end: what is there plays."""

import random
import subprocess
import sys
from pathlib import Path

import av
import clips
import pytest

from segdeploy.picture.video_reading import Video
from segdeploy.picture.video_writing import ClipWriter
from segdeploy.size import Size

LOST_S = 2.0
# Twelve clips at once, which begin at different moments: one kill finds each at another place between its fragments.
RECORDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import clips
from segdeploy.picture.video_writing import ClipWriter
from segdeploy.size import Size
folder, sound = Path(sys.argv[2]), Path(sys.argv[3])
writers, counts = {}, {}
print("ready", flush=True)
for turn in range(10**6):
    if turn % 7 == 0 and len(writers) < 12:
        number = len(writers)
        name = f"{number}.{('mp4', 'mov', 'mkv')[number % 3]}"
        fps = (25, 10, 60, 3)[number % 4]
        writers[name] = ClipWriter(folder / name, Size(96, 128), fps, sound if number % 2 else None), fps
        counts[name] = 0
    for name, (writer, fps) in writers.items():
        writer.write(clips.frame(counts[name]), counts[name] / fps)
        counts[name] += 1
    print(*(f"{name}={counts[name] / fps}" for name, (_, fps) in writers.items()), flush=True)
    time.sleep(0.002)
"""


def seen_until(path):
    """When the last picture that can be decoded was shown, and how many there are: they are those that were written."""
    with Video(path) as clip:  # which, as players do, leaves out half a packet at the end
        shown = [(round((int(one.frame[80, 100].mean()) - 40) / 5), one.time_s) for one in clip.read()]
    assert [grey for grey, _ in shown] == [index % 40 for index in range(len(shown))]
    return shown[-1][1] - shown[0][1], len(shown)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.thorough)])
def test_a_recording_that_is_killed_plays_up_to_its_last_seconds(tmp_path, seed):
    sound = clips.write_clip(tmp_path / "sound.mp4", clips.every_40_ms(750), sound=True, pictures=False)
    folder = tmp_path / "out"
    running = subprocess.Popen(
        [sys.executable, "-c", RECORDER, str(Path(__file__).parent), str(folder), str(sound)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout.readline() == "ready\n"
    turns = 140 + random.Random(seed).randrange(60)
    for _ in range(turns):
        told = running.stdout.readline()
    running.kill()
    told = (running.stdout.read().splitlines() or [told])[-1]  # what it got done until then
    running.communicate()
    written = {name: float(time_s) for name, _, time_s in (word.partition("=") for word in told.split())}
    assert len(written) == 12
    for name, time_s in written.items():
        until_s, count = seen_until(folder / name)
        with av.open(str(folder / name)) as clip:  # and to PyAV it is not even damaged
            assert sum(1 for _ in clip.decode(video=0)) == count
        assert time_s - until_s <= LOST_S, name
        assert count > 2
    hidden = [path for path in folder.iterdir() if path.name not in written]
    assert hidden == []  # every one of them had appeared


def record(path, seconds=6.0, fps=25):
    with ClipWriter(path, Size(96, 128), fps) as writer:
        for index in range(round(seconds * fps)):
            writer.write(clips.frame(index), index / fps)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_a_recording_plays_wherever_it_is_cut_while_it_grows(tmp_path, ending):
    """As a power cut does that takes what was not yet on the disk."""
    path = tmp_path / f"a.{ending}"
    writer = ClipWriter(path, Size(96, 128), 25)
    ends = []  # of the file, after each picture
    for index in range(150):
        writer.write(clips.frame(index), index / 25)
        ends.append(path.stat().st_size if path.exists() else 0)
    data = path.read_bytes()
    writer.close()
    assert ends[: round(0.6 * 25)] != ends[1 : round(0.6 * 25) + 1], "it appears within its first second"
    dice = random.Random(7)
    first = next(end for end in ends if end)
    for _ in range(40):
        cut = tmp_path / f"cut.{ending}"
        size = dice.randrange(first, len(data))
        cut.write_bytes(data[:size])
        until_s, _ = seen_until(cut)
        written_s = max(index for index, end in enumerate(ends) if end <= size) / 25
        assert written_s - until_s <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_a_recording_that_ended_in_order_is_a_plain_file(tmp_path, ending):
    path = record(tmp_path / f"a.{ending}")
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert seen_until(path)[1] == 150
    if ending != "mkv":
        kinds = boxes(path.read_bytes())
        assert kinds.count("moov") == 1 and "moof" not in kinds
        with av.open(str(path)) as clip:
            assert (clip.streams.video[0].frames, float(clip.streams.video[0].average_rate)) == (150, 25)


def boxes(data):
    kinds, at = [], 0
    while at < len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8].decode()
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        kinds.append(kind)
        at += size
    return kinds


@pytest.mark.slow
def test_a_clip_that_is_there_is_replaced_when_the_new_one_plays(tmp_path):
    path = record(tmp_path / "a.mp4", seconds=1)
    old = path.read_bytes()
    with ClipWriter(path, Size(96, 128), 25) as writer:
        for index in range(100):
            writer.write(clips.frame(index), index / 25)
            if index < 5:
                assert path.read_bytes() == old
            elif path.read_bytes() != old:
                assert seen_until(path)[1] > 5
    assert seen_until(path)[1] == 100


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("limit", [40_000, 61_000, 77_777])
def test_a_disk_that_is_full_ends_a_recording_and_costs_nothing_of_it(tmp_path, ending, limit):
    """A limit on a file's size is what a full disk is to whoever writes."""
    script = f"""
import resource, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import clips
from segdeploy.errors import OutputError
from segdeploy.picture.video_writing import ClipWriter
from segdeploy.size import Size
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    with ClipWriter(Path(sys.argv[1]), Size(96, 128), 25) as writer:
        for index in range(5000):
            writer.write(clips.frame(index), index / 25)
except OutputError as error:
    print(index / 25, error)
"""
    path = tmp_path / f"a.{ending}"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    time_s, _, said = done.stdout.partition(" ")
    assert said == f"{path} cannot be written: File too large; what came before is in it\n"
    assert done.stderr == ""
    assert float(time_s) - seen_until(path)[0] <= LOST_S
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_recording_that_breaks_off_with_a_fault_is_kept(tmp_path):
    with pytest.raises(ZeroDivisionError), ClipWriter(tmp_path / "a.mp4", Size(96, 128), 25) as writer:
        for index in range(50):
            writer.write(clips.frame(index), index / 25)
        _ = 1 / 0
    assert seen_until(tmp_path / "a.mp4")[1] == 50
    assert len(list(tmp_path.iterdir())) == 1
