"""The real Triton for the tests: NVIDIA's `tritonserver` of the nvidia-pytriton wheel, with the Python backend only.

    python3 tests/triton_server.py FOLDER    # makes the environment that it runs in; `make triton` does so

Its Python is the system's, which the backend's processes load, and its NumPy an older one: see `numpy` below. Only the
standard library is needed to make it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FOLDER = Path(os.environ.get("SEGDEPLOY_TRITON") or ROOT / ".venv-triton")
SERVER = "nvidia-pytriton==0.7.0"  # tritonserver 2.51, of October 2024
# Its bindings read no array of NumPy 2.
NEWER = "numpy==2.2.6"  # which is what a trap is made of: it lies apart, and only one test's model takes it
BESIDE = ("numpy==1.26.4", "opencv-python-headless<4.12", "onnx", "onnxruntime", "pyyaml")
STUB = "triton_python_backend_stub"
READY_S = 120.0


def install(folder: Path, python: str = "/usr/bin/python3") -> None:
    """Make the environment; its last step is the stamp."""
    stamp = folder / ".installed"
    if stamp.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip: list[str | Path] = [
        folder / "bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, *BESIDE], check=True)
    subprocess.run([*pip, "--no-deps", SERVER], check=True)  # whose client and web parts are not needed
    subprocess.run([*pip, "--no-deps", "--target", folder / "newer", NEWER], check=True)
    packages = packages_in(folder)
    (packages / "segdeploy.pth").write_text(f"{ROOT}\n")  # its processes heed no PYTHONPATH
    here, version = packages / "pytriton/tritonserver", packages.parent.name.removeprefix("python")
    backend = folder / "backends/python"
    backend.mkdir(parents=True)
    for part in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.copy(here / "backends/python" / part, backend)
    shutil.copy(here / "python_backend_stubs" / version / STUB, backend)
    for program in (backend / STUB, here / "bin/tritonserver"):
        program.chmod(0o755)
    stamp.touch()


def packages_in(folder: Path) -> Path:
    return next((folder / "lib").glob("python3.*")) / "site-packages"


def is_installed() -> bool:
    return (FOLDER / ".installed").exists()


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class TritonServer:
    """Is a running server, until its block ends; `demand_ready=False` also takes one whose models do not load."""

    def __init__(self, repository: Path, log: Path, *flags: str, demand_ready: bool = True) -> None:
        packages = packages_in(FOLDER)
        self.http, self.grpc, self.metrics = free_ports(3)
        self.log = log
        addresses = [
            f"--{kind}-{what}={value}"
            for kind, port in (("http", self.http), ("grpc", self.grpc), ("metrics", self.metrics))
            for what, value in (("address", "127.0.0.1"), ("port", port))
        ]
        path = f"{FOLDER / 'bin'}:{os.environ['PATH']}"
        libraries = str(packages / "nvidia_pytriton.libs")
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [
                    packages / "pytriton/tritonserver/bin/tritonserver",
                    f"--model-repository={repository}",
                    f"--backend-directory={FOLDER / 'backends'}",
                    "--allow-gpu-metrics=false",
                    "--exit-timeout-secs=3",
                    *addresses,
                    *flags,
                ],
                env={**os.environ, "PATH": path, "LD_LIBRARY_PATH": libraries, "OMP_NUM_THREADS": "1"},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait(demand_ready)
        except BaseException:
            self.stop()
            raise

    def _wait(self, demand_ready: bool) -> None:
        end = time.monotonic() + READY_S
        while time.monotonic() < end and self.process.poll() is None:
            if self.answers("health/ready" if demand_ready else "health/live"):
                return
            time.sleep(0.1)
        if demand_ready:
            raise RuntimeError(
                f"Triton did not become ready:\n{self.log.read_text(errors='replace')[-4000:]}"
            )

    def answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v2/{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def counted(self, metric: str, model: str) -> float:
        """Read one of the server's metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith(f"{metric}{{") and f'model="{model}"' in line
        )

    def address(self, model: str, form: str = "triton") -> str:
        port = self.http if "http" in form else self.grpc
        return f"{form}://127.0.0.1:{port}/{model}"

    def kill_backend(self, model: str) -> int:
        """End the processes of one model as the kernel would; returns how many there were."""
        killed = 0
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                session = os.getsid(int(entry.name))
            except (OSError, ProcessLookupError):
                continue
            mine = session == self.process.pid and STUB.encode() in words[0]
            if mine and any(f"/{model}/".encode() in word for word in words[1:2]):
                os.kill(int(entry.name), signal.SIGKILL)
                killed += 1
        return killed

    def resident_bytes(self) -> int:
        """Sum up the memory of the server and of its processes."""
        total = 0
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if os.getsid(int(entry.name)) == self.process.pid:
                    total += int((entry / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            except (OSError, ValueError):
                continue
        return total

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(8)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # a process of a model may outlive it
        self.process.wait()

    def __enter__(self) -> TritonServer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()


if __name__ == "__main__":
    install(Path(sys.argv[1]), *sys.argv[2:])
