"""Lines of --json into a real broker, Debian's Mosquitto, as docs/how-to/results-out.md types it."""

import json
import shutil
import socket
import subprocess
import sys
import time

import clips
import pytest

CLIENT, LISTENER = shutil.which("mosquitto_pub"), shutil.which("mosquitto_sub")
BROKER = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
FRAMES = 40

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CLIENT and LISTENER and BROKER),
        reason="no Mosquitto: apt-get install mosquitto mosquitto-clients",
    ),
]


@pytest.fixture
def broker():
    """Without a configuration it listens on this machine only."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = subprocess.Popen(
        [BROKER, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield str(port)
    finally:
        running.kill()
        running.wait()


def test_every_line_arrives(broker, graphs, tmp_path):
    clip = clips.write_clip(tmp_path / "street.mp4", clips.every_40_ms(FRAMES))
    where = ["-h", "127.0.0.1", "-p", broker, "-q", "1", "-t", "streets/front"]
    listening = [LISTENER, *where, "-i", "listener", "-c"]
    subprocess.run(
        [*listening, "-E"], check=True, timeout=60
    )  # from now on the broker keeps what comes for it
    command = [
        sys.executable,
        "-m",
        "segdeploy",
        "run",
        str(graphs("frames")),
        str(clip),
        "--masks",
        "rle",
        "--json",
        "-",
    ]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    client = subprocess.run([CLIENT, *where, "-l"], stdin=running.stdout, check=False, timeout=120)
    said = running.stderr.read()
    running.stdout.close()
    running.stderr.close()
    assert (running.wait(60), client.returncode, said) == (0, 0, b"")
    came = subprocess.run(
        [*listening, "-C", str(FRAMES), "-W", "60"], capture_output=True, text=True, check=True
    )
    told = [json.loads(line) for line in came.stdout.splitlines()]
    assert [line["index"] for line in told] == list(range(FRAMES))
    assert all(line["schema"] == 1 and line["masks"].keys() == line["areas"].keys() for line in told)
