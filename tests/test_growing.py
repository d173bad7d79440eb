import errno
import fcntl
import io
import os
import re
import threading
import time

import pytest

from segdeploy import growing
from segdeploy.errors import OutputError
from segdeploy.growing import GrowingFile, Lines, Recording


@pytest.fixture
def file(tmp_path):
    made = GrowingFile(os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT))
    yield made
    if not made._closed.is_set():
        made.close()


@pytest.mark.slow
def test_what_is_written_is_there_at_once_and_on_the_disk_soon(file, tmp_path, monkeypatch):
    synced, on_disk = os.fdatasync, threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (synced(descriptor), on_disk.set()))
    file.write(b"abc")
    assert (tmp_path / "file").read_bytes() == b"abc"
    assert on_disk.wait(2)
    on_disk.clear()
    assert not on_disk.wait(3 * growing.ON_DISK_EVERY_S)  # nothing is newer
    file.write(b"d")
    file.close()
    assert on_disk.is_set()


def test_an_earlier_place_is_written_when_all_else_is_on_the_disk(file, monkeypatch):
    """Its index is what a clip is read by: pointing at what a power cut took, it would cost the clip."""
    done = []
    write, synced = os.write, os.fdatasync
    monkeypatch.setattr(
        os, "write", lambda descriptor, data: (done.append(bytes(data)), write(descriptor, data))[1]
    )
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (done.append("disk"), synced(descriptor)))
    file.write(b"header")
    file.write(b"index")
    file.seek(0)
    file.write(b"HEADER")
    file.seek(0, os.SEEK_END)
    assert done == [b"header", b"index", "disk", b"HEADER"]


def test_nothing_is_written_behind_a_gap(file, tmp_path, monkeypatch):
    write, full = os.write, []

    def limited(descriptor, data):
        if full:
            return write(descriptor, data)
        if len(data) > 3:
            return write(descriptor, data[:3])
        full.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", limited)
    for data in (b"abcdef", b"ghi"):  # there is room again by the second time
        with pytest.raises(OSError, match="No space left on device"):
            file.write(data)
    assert file.failed
    assert (tmp_path / "file").read_bytes() == b"abc"
    with pytest.raises(OSError, match="No space left on device"):
        file.close()


def test_an_error_of_the_disk_is_raised_at_the_next_write(file, monkeypatch):
    def broken(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    file.write(b"abc")
    wait_for(lambda: file.failed)
    with pytest.raises(OSError, match="Input/output error"):
        file.write(b"def")
    with pytest.raises(OSError, match="Input/output error"):
        file.close()


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


# ---- recordings ------------------------------------------------------------------------------------------------------


def test_a_recording_stands_under_its_name_once_it_appears(tmp_path):
    path = tmp_path / "below" / "a.mp4"
    recording = Recording(path)
    recording.file.write(b"beg")
    assert not path.exists()
    recording.appear()
    assert path.read_bytes() == b"beg"
    recording.file.write(b"inning")
    assert path.read_bytes() == b"beginning"
    recording.appear()
    recording.close()
    assert list(path.parent.iterdir()) == [path]


def test_a_recording_that_never_appeared_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("old")
    recording = Recording(path)
    recording.file.write(b"new")
    recording.close()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_recorder_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    first, late = Recording(path), Recording(path)
    first.appear()
    for second in (lambda: Recording(path), late.appear):
        with pytest.raises(
            OutputError, match=r"a\.mp4 is being written by another segdeploy; name another file"
        ):
            second()
    first.close()
    late.appear()
    late.close()
    assert list(tmp_path.iterdir()) == [path]


# ---- lines -----------------------------------------------------------------------------------------------------------


def test_lines_are_in_the_file_as_they_come(tmp_path):
    path = tmp_path / "below" / "a.jsonl"
    for _ in range(2):
        lines = Lines(path)
        for count in (1, 2, 3):
            lines.write(f"line {count}")
            assert len(path.read_text().splitlines()) == count
        lines.close()
    assert path.read_text() == "line 1\nline 2\nline 3\n"
    assert list(path.parent.iterdir()) == [path]


def test_lines_go_on_in_a_file_that_somebody_shortened(tmp_path):
    lines = Lines(tmp_path / "a.jsonl")
    lines.write("one")
    os.truncate(tmp_path / "a.jsonl", 0)
    lines.write("two")
    lines.close()
    assert (tmp_path / "a.jsonl").read_text() == "two\n"


def test_a_second_writer_of_lines_is_refused_and_destroys_nothing(tmp_path):
    lines = Lines(tmp_path / "a.jsonl")
    lines.write("one")
    with pytest.raises(OutputError, match=r"a\.jsonl is being written by another segdeploy"):
        Lines(tmp_path / "a.jsonl")
    lines.close()
    assert (tmp_path / "a.jsonl").read_text() == "one\n"


def test_lines_to_a_stream(capsys):
    told = io.StringIO()
    lines = Lines(told)
    lines.write("one")
    lines.close()
    assert told.getvalue() == "one\n"


def test_lines_through_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    reader = os.open(tmp_path / "pipe.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    lines = Lines(tmp_path / "pipe.jsonl", 0.3)
    lines.write("one")
    assert os.read(reader, 99) == b"one\n"
    with pytest.raises(OutputError, match=r"pipe\.jsonl cannot be written: nobody read it for 0\.3 s"):
        lines.write("x" * (1 << 20))
    os.close(reader)
    with pytest.raises(OutputError, match=r"pipe\.jsonl cannot be written: Broken pipe"):
        lines.write("two")
    lines.close()
    with pytest.raises(OutputError, match=r"pipe\.jsonl cannot be written: nobody read it for 0\.3 s"):
        Lines(tmp_path / "pipe.jsonl", 0.3)


def test_lines_that_cannot_be_written(tmp_path):
    for place, why in ((tmp_path, "it is a folder"), (tmp_path / ("x" * 300), "File name too long")):
        with pytest.raises(OutputError, match=f"{re.escape(str(place))} cannot be written: {why}"):
            Lines(place)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_locks_is_no_hindrance(tmp_path, monkeypatch):
    def none(*given):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    for _ in range(2):
        recording = Recording(tmp_path / "a.mp4")
        recording.appear()
        recording.close()
        lines = Lines(tmp_path / "a.jsonl")
        lines.write("one")
        lines.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.mp4"]
