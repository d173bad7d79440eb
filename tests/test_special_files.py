import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from segdeploy.special_files import Through, is_file, is_folder, is_special, kind_at, read_file, why_no_file


def test_kinds(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    names = ("file", "pipe", "link", "gone", "file/below")
    assert [kind_at(tmp_path / name) for name in names] == ["a file", "a pipe", "a pipe", "a file", "a file"]
    assert (kind_at(tmp_path), is_special(tmp_path)) == ("a folder", False)
    assert [is_special(tmp_path / name) for name in names] == [False, True, True, False, False]


def test_a_reader_that_comes_later_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []

    def later():
        time.sleep(0.2)
        read.append((tmp_path / "pipe").read_bytes())

    reader = threading.Thread(target=later)
    reader.start()
    data = bytes(range(256)) * 2000  # several times what a pipe holds
    with Through(tmp_path / "pipe", 20) as through:
        through.write(data)
    reader.join()
    assert read == [data]


def test_a_pipe_that_nobody_reads_is_given_up(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TimeoutError, match=r"nobody read it for 0\.2 s"):
        Through(tmp_path / "pipe", 0.2)
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with Through(tmp_path / "pipe", 0.2) as through, pytest.raises(TimeoutError, match=r"for 0\.2 s"):
        through.write(bytes(1 << 20))
    os.close(reader)


@pytest.mark.parametrize("name", ["/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"])
def test_the_standard_output_by_its_name(name):
    """As a pipe and as a socket, which cannot be opened a second time."""
    words = "from pathlib import Path; from segdeploy.files import write_text; write_text(Path({!r}), 'text')"
    command = [sys.executable, "-c", words.format(name)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "text"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run(command, stdout=theirs, check=True)
        assert ours.recv(99) == b"text"


def test_what_nothing_can_be_read_from(tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to("/disk/x")
    (tmp_path / "loop").symlink_to("loop")
    long = tmp_path / ("x" * 300)
    assert read_file(tmp_path / "file") == b"data"
    with pytest.raises(OSError, match=r"it is a pipe, and no file"):
        read_file(tmp_path / "pipe")
    said = {
        path.name[:4]: why_no_file(path)
        for path in (
            tmp_path / "file",
            tmp_path / "pipe",
            tmp_path / "gone",
            tmp_path / "loop",
            long,
            tmp_path,
        )
    }
    assert list(said.values()) == [
        None, "it is a pipe, and no file", "No such file or directory, and it is a link to /disk/x",
        "Too many levels of symbolic links, and it is a link to loop", "File name too long",
        "it is a folder, and no file",
    ]  # fmt: skip
    assert [is_file(path) for path in (tmp_path / "file", tmp_path / "pipe", long)] == [True, False, False]
    assert [is_folder(path) for path in (tmp_path, tmp_path / "file", long)] == [True, False, False]
