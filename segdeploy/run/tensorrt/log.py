"""Collects TensorRT's log messages for exceptions.

TensorRT keeps the first logger that a process gives it and ignores every later one. So there is one logger per package,
for ever, and callers listen to it for a while.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from segdeploy.flavour import Flavour

MOST = 200  # messages kept per kind: the first ones, which name the cause


class Heard:
    """Holds the messages of one piece of work; TensorRT's threads may add to it at any time."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self._lock = Lock()

    def add(self, kind: str, message: str) -> None:
        kept = self.warnings if kind == "WARNING" else self.errors
        with self._lock:
            if len(kept) < MOST and message not in kept:
                kept.append(message)


@contextmanager
def listening(flavour: Flavour) -> Iterator[Heard]:
    """Collect errors and warnings until the block ends."""
    heard = Heard()
    listeners = logger_of(flavour.module).listeners
    listeners.append(heard)
    try:
        yield heard
    finally:
        listeners.remove(heard)


@cache
def logger_of(module: Any) -> Any:
    """Return this process's one logger for `module`, an imported TensorRT; its `listeners` get the messages."""

    class Listening(module.ILogger):  # type: ignore[misc]  # a class of the package that happens to be there
        def __init__(self) -> None:
            super().__init__()
            self.listeners: list[Heard] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.INFO, module.ILogger.VERBOSE):
                return
            kind = str(severity).rpartition(".")[2]
            for listener in tuple(self.listeners):
                listener.add(kind, message)

    return Listening()
