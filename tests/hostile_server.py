"""Runs command lines one after the other, each in a child of a process that has imported everything already.

`python tests/hostile_server.py` reads a request a line on standard input and answers with a line, both JSON. A child is
forked, so that what a row does to the process (a hang, a crash, memory without end) costs that row alone, and importing
PyTorch is paid for once.
"""

from __future__ import annotations

import gc
import json
import os
import pkgutil
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HANGS_S = 30.0  # what issue and README promise: no small input takes longer without a word
MOST_MIB = 2048  # nor more memory than this
BEYOND_MIB = (
    4096  # a child gets no more address space than this above its parent's, or it would take the machine's
)
HEAVY = (
    "cv2",
    "numpy",
    "yaml",
    "onnx",
    "onnxruntime",
    "av",
    "torch",
    "safetensors",
    "rich.progress",
    "onnxscript",
)


@dataclass(frozen=True)
class Ended:
    """What came of one command line."""

    status: int  # as a shell says it: 128 + the signal
    output: str
    error: str
    seconds: float
    memory_mib: float

    @property
    def hung(self) -> bool:
        return self.seconds > HANGS_S


class Server:
    """The process that runs them, in the folder `home`."""

    def __init__(self, home: Path) -> None:
        self.said = home / "said"  # standard output and error of the last one
        self.said.mkdir(parents=True)
        (home / "home").mkdir()
        (home / "tmp").mkdir()
        settings = {
            "HOME": str(home / "home"),
            "XDG_CACHE_HOME": str(home / "home/cache"),
            "TMPDIR": str(home / "tmp"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "COLUMNS": "200",
            "OPENCV_LOG_LEVEL": "SILENT",
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | settings,
        )

    def run(
        self, words: Sequence[str], folder: Path, standard: str = "/dev/null", output: str | None = None
    ) -> Ended:
        """Run `segdeploy WORDS` in `folder`, with the file `standard` as its input, and `output` as its output."""
        request = {
            "words": [os.fsencode(word).hex() for word in words],
            "folder": str(folder),
            "standard": standard,
            "output": output or str(self.said / "output"),
            "error": str(self.said / "error"),
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        said = {
            name: (self.said / name).read_bytes().decode(errors="surrogateescape")
            for name in ("output", "error")
            if name == "error" or output is None
        }
        return Ended(
            answer["status"], said.get("output", ""), said["error"], answer["seconds"], answer["memory_mib"]
        )

    def close(self) -> None:
        self._process.communicate()


def answer(request: dict[str, str]) -> dict[str, float]:
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        be_the_program(request)
    ended = False
    while not ended and time.monotonic() - begun < HANGS_S + 1:
        found, status, usage = os.wait4(child, os.WNOHANG)
        ended = found == child
        time.sleep(0 if ended else 0.002)
    seconds = time.monotonic() - begun
    if not ended:
        os.killpg(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return {
        "status": code if code >= 0 else 128 - code,
        "seconds": seconds,
        "memory_mib": usage.ru_maxrss / 1024,
    }


def be_the_program(request: dict[str, str]) -> None:
    """Do what `python -m segdeploy WORDS` does, and end."""
    words = [os.fsdecode(bytes.fromhex(word)) for word in request["words"]]
    os.setsid()
    os.chdir(request["folder"])
    for number, path, flags in (
        (0, request["standard"], os.O_RDONLY | os.O_NONBLOCK),
        (1, request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, request["error"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    size_mib = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() >> 20
    resource.setrlimit(resource.RLIMIT_AS, (size_mib + BEYOND_MIB << 20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    sys.argv = ["segdeploy", *words]
    from segdeploy.cli import main

    try:
        status = main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 # as the interpreter ends with any
        sys.excepthook(*sys.exc_info())
        status = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = 120
    os._exit(status)


def every_module() -> list[str]:
    """Our own, so that a row pays for none of them."""
    import segdeploy

    found = [module.name for module in pkgutil.walk_packages(segdeploy.__path__, "segdeploy.")]
    return [name for name in found if name != "segdeploy.__main__"]


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for name in [*HEAVY, *every_module()]:
        __import__(name)
    gc.collect()
    gc.freeze()  # or each child copies what its collector looks at
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers)


if __name__ == "__main__":
    serve()
