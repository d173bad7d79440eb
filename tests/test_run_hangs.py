"""`segdeploy run` with outputs that hang: the others go on, --timeout holds, and SIGTERM ends what is left."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import clips
import pytest
from test_video_publishing import dribbling, server, silent

TIMEOUT_S = 2.0


class Run:
    """The verb on raw frames through standard input, which come every hundredth of a second until they are ended."""

    def __init__(self, model, *words):
        command = [sys.executable, "-m", "segdeploy", "run", str(model), "-", "--stdin-size", "96x128"]
        self.process = subprocess.Popen(
            [*command, "--timeout", str(TIMEOUT_S), *map(str, words)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.fed, self._ended = 0, threading.Event()
        self._feeding = threading.Thread(target=self._feed, daemon=True)
        self._feeding.start()

    def _feed(self):
        with contextlib.suppress(OSError):
            while not self._ended.wait(0.01):
                self.process.stdin.write(clips.frame(self.fed).tobytes())
                self.process.stdin.flush()
                self.fed += 1

    def says(self):
        """The next line of its standard error."""
        return self.process.stderr.readline().decode()

    def end(self):
        self._ended.set()
        self._feeding.join(20)
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def status(self, seconds):
        """Its exit status, without reading its standard output, which a pipe that hangs needs not to be."""
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()
            self.end()
            for pipe in (self.process.stdout, self.process.stderr):
                pipe.close()


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("serve", [silent, dribbling])
def test_a_server_that_hangs_costs_its_stream_alone(graphs, tmp_path, serve):
    lines = tmp_path / "a.jsonl"
    with server(serve) as uri:
        run = Run(graphs("frames"), "-o", uri, "--json", lines)
        told = uri.replace("joe:s3cret@", "")
        assert run.says() == f"segdeploy: {told} does not take the stream: nothing answered in time\n"
        before = len(lines_of(lines))
        time.sleep(0.5)
        assert len(lines_of(lines)) > before
        run.end()
        status = run.status(20)
    assert status == 1
    assert len(lines_of(lines)) == run.fed


@pytest.mark.slow
@pytest.mark.parametrize("serve", [silent, dribbling])
def test_sigterm_ends_in_time_while_a_server_hangs(graphs, tmp_path, serve):
    lines = tmp_path / "a.jsonl"
    with server(serve) as uri:
        run = Run(graphs("frames"), "-o", uri, "--json", lines)
        wait_for(lambda: lines.exists() and lines.stat().st_size)
        begin = time.monotonic()
        run.process.send_signal(signal.SIGTERM)
        status = run.status(20)
    assert time.monotonic() - begin < TIMEOUT_S + 1  # and the interpreter's own end
    assert status == 130
    assert len(lines_of(lines)) > 0


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_pipe_that_nobody_reads_costs_the_lines_alone(graphs, tmp_path):
    clip = tmp_path / "a.mp4"
    run = Run(graphs("frames"), "-o", clip, "--json")
    assert run.says() == "segdeploy: --json is given up: it took nothing for 2 s\n"
    time.sleep(0.5)
    run.end()
    assert run.status(20) == 1
    assert len(clips.times_of(clip)) == run.fed > 200  # what a pipe holds, and more


@pytest.mark.slow
def test_sigterm_ends_in_time_while_nobody_reads(graphs, tmp_path):
    clip = tmp_path / "a.mp4"
    run = Run(graphs("frames"), "-o", clip, "--json")
    wait_for(lambda: run.fed > 300 or run.process.poll() is not None)
    begin = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    status = run.status(20)
    assert time.monotonic() - begin < TIMEOUT_S + 1
    assert status == 130
    assert len(clips.times_of(clip)) > 200


@pytest.mark.slow
def test_a_named_pipe_is_written_through_and_given_up(graphs, tmp_path):
    pipe, clip = tmp_path / "a.jsonl", tmp_path / "a.mp4"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    run = Run(graphs("frames"), "-o", clip, "--json", pipe)
    assert run.says() == f"segdeploy: {pipe} cannot be written: nobody read it for 2 s\n"
    assert json.loads(os.read(reader, 1 << 16).splitlines()[0])["index"] == 0
    os.close(reader)
    run.end()
    assert run.status(20) == 1
    assert len(clips.times_of(clip)) == run.fed
    assert pipe.is_fifo()
