"""Publishing to servers that refuse, hang and go away; tests/test_stream_rtsp.py has a real one."""

import contextlib
import os
import socket
import threading
import time
from pathlib import Path

import clips
import pytest

from segdeploy.errors import OutputError
from segdeploy.picture.video_publishing import Publisher


def publish(uri, count=200, timeout_s=0.5):
    publisher = Publisher(uri, 25, timeout_s)
    for index in range(count):
        publisher.write(clips.frame(index), index / 25)
    publisher.close()


@contextlib.contextmanager
def server(serve):
    """`serve(connection)` in a thread, for each that comes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=served, args=(connection,), daemon=True).start()

        def served(connection):
            with connection, contextlib.suppress(OSError):
                serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield f"rtsp://joe:s3cret@127.0.0.1:{listening.getsockname()[1]}/x"
        listening.shutdown(socket.SHUT_RDWR)


def silent(connection):
    while connection.recv(1 << 16):
        pass


def dribbling(connection):
    """It answers OPTIONS, and then a header line every now and then, without an end."""
    sequence = connection.recv(1 << 16).decode().split("CSeq: ")[1].split()[0]
    connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n\r\n".encode())
    connection.recv(1 << 16)
    connection.sendall(b"RTSP/1.0 200 OK\r\n")
    while True:
        time.sleep(0.1)
        connection.sendall(b"X-More: there is more to come\r\n")


def leaving(connection):
    connection.recv(1 << 16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("serve", "count", "why"),
    [
        (silent, 200, "nothing answered in time"),
        (silent, 1, "nothing answered in time"),  # all of it goes into the pipe: found in closing
        (dribbling, 200, "nothing answered in time"),
        (leaving, 200, ""),
    ],
)
def test_a_server_that_takes_no_stream(serve, count, why):
    begin = time.monotonic()
    with server(serve) as uri, pytest.raises(OutputError) as caught:
        publish(uri, count)
    assert time.monotonic() - begin < 12
    assert str(caught.value).startswith(f"{uri.replace('joe:s3cret@', '')} does not take the stream: {why}")
    assert no_process_of(os.getpid())


def no_process_of(parent):
    children = Path(f"/proc/self/task/{parent}/children").read_text().split()
    return not [pid for pid in children if "video_publishing" in Path(f"/proc/{pid}/cmdline").read_text()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("uri", "why"),
    [("rtsp://joe:s3cret@127.0.0.1:9/x", "Connection refused"), ("rtsp://joe:s3cret@127.0.0.1:99999/x", "")],
)
def test_an_address_where_there_is_no_server(uri, why):
    with pytest.raises(OutputError) as caught:
        publish(uri)
    assert str(caught.value).startswith(f"{uri.replace('joe:s3cret@', '')} does not take the stream: {why}")
    assert "s3cret" not in str(caught.value)


@pytest.mark.slow
def test_a_process_that_is_ended_from_outside_is_told():
    with server(silent) as uri:
        publisher = Publisher(uri, 25, 30)
        threading.Timer(0.3, publisher.kill).start()
        with pytest.raises(
            OutputError, match="does not take the stream: its process ended with -9 and said 'nothing'"
        ):
            for index in range(500):
                publisher.write(clips.frame(index), index / 25)
        publisher.close()


@pytest.mark.slow
@pytest.mark.parametrize("places", [None, "", ":/nowhere"], ids=["unset", "empty", "an empty place"])
def test_the_working_folder_is_not_searched_for_modules(places, tmp_path, monkeypatch):
    """What lies beside somebody's clips is not run."""
    if places is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", places)
    for name in ("json.py", "numpy.py", "av.py", "segdeploy.py"):
        (tmp_path / name).write_text("open('RAN', 'w')\nraise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="Connection refused"):
        publish("rtsp://127.0.0.1:9/x")
    assert not (tmp_path / "RAN").exists()


@pytest.mark.slow
def test_no_password_stands_in_a_command_line():
    with server(silent) as uri:
        publisher = Publisher(uri, 25, 5)
        words = Path(f"/proc/{publisher._process.pid}/cmdline").read_text()
        publisher.kill()
        with pytest.raises(OutputError):
            publisher.close()
    assert "video_publishing" in words
    assert "s3cret" not in words
