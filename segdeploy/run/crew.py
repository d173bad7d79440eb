"""Runs workers as processes of this machine, each with pipes of its own: one that is killed takes nothing with it.

A worker opens a model once, and answers for each thing that it is handed. What it is told and answers is JSON, so that
a process here and an actor on a cluster (`crew_ray`) are the same to whoever hands out (`hands`).
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import selectors
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from segdeploy import errors
from segdeploy.errors import RequestError, SegdeployError
from segdeploy.run.gpu_choice import visible_gpu

ENDING_S = 5.0
GONE = "gone"
Answer = dict[
    str, Any
]  # `key` and what was done; `ready`: how much it takes at once; `gone`: how; or `fatal`
Task = list[Any]  # what is handed out; it begins with its key


class Worker(Protocol):
    """Has opened what it needs."""

    batch: int  # tasks that it takes at once with profit

    def work(self, tasks: Sequence[Task]) -> Iterator[Answer]:
        """Answer for each task; an error that is not of a task is raised, and ends the work of all."""


@dataclass(frozen=True)
class Order:
    """Says what workers are: `opener` (`module:function`) is called with `setup` and the worker's name."""

    opener: str
    setup: Mapping[str, Any]

    def opened(self, name: str) -> Worker:
        module, _, function = self.opener.partition(":")
        worker: Worker = getattr(importlib.import_module(module), function)(self.setup, name)
        return worker


class Crew(Protocol):
    """Is a number of workers, where one that is gone may be hired anew under its number."""

    count: int

    def hire(self, worker: int) -> str:
        """Start a worker; returns the name that it is told, which no other one ever had."""

    def give(self, worker: int, tasks: Sequence[Task]) -> None: ...

    def wait(self) -> list[tuple[int, Answer]]:
        """Wait for answers; that a worker is gone is one too, `{"gone": how}`."""

    def close(self) -> None: ...


class ProcessCrew:
    def __init__(self, order: Order, count: int, devices: Sequence[int] = ()) -> None:
        self.count = count
        self._order, self._devices = order, devices
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._begun: dict[int, bytes] = {}  # of a line
        self._selector = selectors.DefaultSelector()

    def hire(self, worker: int) -> str:
        name = new_name()
        process = subprocess.Popen(  # our own module, by this Python
            [sys.executable, "-m", "segdeploy.run.crew_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment_of(worker, self._devices),
        )
        self._processes[worker], self._begun[worker] = process, b""
        self._selector.register(self._output(worker), selectors.EVENT_READ, worker)
        self._tell(worker, {"opener": self._order.opener, "setup": dict(self._order.setup), "worker": name})
        return name

    def give(self, worker: int, tasks: Sequence[Task]) -> None:
        self._tell(worker, tasks)

    def wait(self) -> list[tuple[int, Answer]]:
        answers: list[tuple[int, Answer]] = []
        for key, _ in self._selector.select():
            worker: int = key.data
            data = os.read(key.fd, 1 << 16)
            if not data:
                answers.append((worker, {GONE: self._dismissed(worker)}))
                continue
            *lines, self._begun[worker] = (self._begun[worker] + data).split(b"\n")
            answers += [(worker, json.loads(line)) for line in lines]
        return answers

    def close(self) -> None:
        for process in self._processes.values():
            with suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
        for process in self._processes.values():
            try:
                process.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()  # type: ignore[union-attr]
        self._selector.close()

    def _output(self, worker: int) -> int:
        return self._processes[worker].stdout.fileno()  # type: ignore[union-attr]

    def _tell(self, worker: int, words: object) -> None:
        if worker in self._processes:
            with suppress(BrokenPipeError):  # that it is gone is read from its output
                self._processes[worker].stdin.write(json.dumps(words).encode() + b"\n")  # type: ignore[union-attr]
                self._processes[worker].stdin.flush()  # type: ignore[union-attr]

    def _dismissed(self, worker: int) -> str:
        self._selector.unregister(self._output(worker))
        process = self._processes.pop(worker)
        with suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        process.stdout.close()  # type: ignore[union-attr]
        return ending_in_words(process.wait())


def new_name() -> str:
    return secrets.token_hex(6)


def environment_of(worker: int, devices: Sequence[int]) -> dict[str, str]:
    """Give the GPUs to the workers in turn: each sees one alone."""
    if not devices:
        return dict(os.environ)
    return {**os.environ, "CUDA_VISIBLE_DEVICES": visible_gpu(devices[worker % len(devices)])}


def ending_in_words(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


# ---- errors, told and made again ----------------------------------------------------------------------------------


def error_in_words(error: BaseException) -> Answer:
    """Answer that nothing further can be done; an error that no user causes is told with its traceback."""
    if isinstance(error, SegdeployError):
        return {"fatal": str(error), "kind": type(error).__name__}
    return {"fatal": "".join(traceback.format_exception(error)), "kind": "fault"}


def error_told(answer: Answer) -> Exception:
    """Make the error that a worker has told of."""
    kind = getattr(errors, answer["kind"], None)
    if kind is None:
        return RuntimeError(answer["fatal"])
    if kind is errors.MissingExtra:  # it makes its message of parts
        return RequestError(answer["fatal"])
    made: Exception = kind(answer["fatal"])
    return made
