"""Workers for tests of crews: they open nothing, and do as their tasks say."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segdeploy.errors import ImageError
from segdeploy.run.crew import Answer, Task


def open_told(setup: Mapping[str, Any], name: str) -> Told:
    if setup.get("opens") == "error":
        raise ImageError("it cannot be opened")
    if setup.get("opens") == "death":
        os.kill(os.getpid(), signal.SIGKILL)
    return Told(setup, name)


class Told:
    batch = 2

    def __init__(self, setup: Mapping[str, Any], name: str) -> None:
        self._setup, self._name = setup, name

    def work(self, tasks: Sequence[Task]) -> Iterator[Answer]:
        for key, what in tasks:
            if what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "raise":
                raise ImageError("this ends all")
            if what == "fault":
                raise ZeroDivisionError
            if what == "print":
                print("no answer")
                os.write(1, b"nor this\n")
            yield {"key": key, "saw": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid()}
