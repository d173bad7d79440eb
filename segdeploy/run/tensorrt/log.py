"""Keeps what TensorRT says, so that it can be told in an exception.

TensorRT keeps the first logger that a process gives it and ignores every later one. So there is one logger per package,
for ever, and whoever wants to hear it listens for a while.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from segdeploy.flavour import Flavour

MOST = 200  # messages kept of a kind; the first ones, which name the cause


class Heard:
    """The messages of one stretch of work; threads of TensorRT add to it at any time."""

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
    """The errors and warnings until the block ends."""
    heard = Heard()
    listeners = logger_of(flavour.module).listeners
    listeners.append(heard)
    try:
        yield heard
    finally:
        listeners.remove(heard)


@cache
def logger_of(module: Any) -> Any:
    """The one logger of this process for `module`, an imported TensorRT; its `listeners` get what it hears."""

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
