"""`.ci/run` with stand-ins for what it starts: it installs what is missing, or fails before anything is tested."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parent.parent / ".ci/run"


@pytest.fixture
def ci(tmp_path):
    """`ci(apt_get=100)`: a machine without browser and GStreamer whose apt-get ends so; gives the run and its calls."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    for name in ("bash", "dirname", "rm"):
        (programs / name).symlink_to(shutil.which(name))
    (tmp_path / ".ci").mkdir()
    shutil.copy(RUN, tmp_path / ".ci/run")

    def run(apt_get):
        for name, status in (("apt-get", apt_get), ("make", 0)):
            text = f'#!{shutil.which("bash")}\necho "{name} $* CI=$CI" >> {calls}\nexit {status}\n'
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        done = subprocess.run(
            [tmp_path / ".ci/run"], env={"PATH": str(programs)}, capture_output=True, text=True, check=False
        )
        return done.returncode, calls.read_text().splitlines()

    return run


def test_what_cannot_be_installed_ends_it(ci):
    assert ci(apt_get=100) == (100, ["apt-get update -qq CI=true"])


def test_what_is_missing_is_installed_and_then_all_is_tested(ci):
    status, calls = ci(apt_get=0)
    assert status == 0
    chromium, streams = calls[1], calls[3]
    assert chromium == "apt-get install -y -qq --no-install-recommends chromium CI=true"
    assert "gir1.2-gst-rtsp-server-1.0" in streams and "gstreamer1.0-plugins-ugly" in streams
    fuzz = "fuzz FUZZ=--plain -seed=1 -runs=500 -max_total_time=5"
    assert calls[4:] == [f"make --jobs 3 --output-sync lint triton {fuzz} CI=true", "make test CI=true"]


def test_it_may_be_started():
    assert os.access(RUN, os.X_OK)
