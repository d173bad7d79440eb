"""Publishes lines through DeepStream's own adapters to Kafka and MQTT, which nvmsgbroker uses as well.

They are C libraries with one interface (nvds_msgapi.h): connect, send_async, do_work, disconnect. What nvmsgbroker puts
in front of it, nvmsgconv, knows objects but no masks, so that the lines go to the adapter without it.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any

from segdeploy_box.messages import Tally, wait_for
from segdeploy_box.settings import Publishing

SENT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)
CHANGED = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)
MOST_UNANSWERED = 256
AGAIN_S = 2.0


class NoAdapter(Exception):
    """Is raised where the adapter's library is not there, or is none."""


class Broker:
    """Sends text to one topic. One thread calls it, and a broker that does not answer holds up nothing else."""

    name = "broker"

    def __init__(self, to: Publishing, tally: Tally, say: Callable[[str], None]) -> None:
        self._to, self._tally, self._say = to, tally, say
        self._place = f"{to.protocol} {to.host}:{to.port}, topic {to.topic}"
        self._handle: int | None = None
        self._lock, self._unanswered = threading.Lock(), 0  # an adapter may answer from a thread of its own
        self._is_down = self._ends = False
        self._on_sent, self._on_change = SENT(self._sent), CHANGED(self._change)  # C keeps them: so must we
        try:
            self._adapter = typed(ctypes.CDLL(to.library))
        except (OSError, AttributeError) as error:
            raise NoAdapter(f"{to.library} is no adapter that can be loaded: {error}") from error

    def send(self, line: str) -> None:
        """Hand on one line, as soon as the broker is there and has answered enough of those before."""
        while not self._ends:
            if self._connected() and self._unanswered < MOST_UNANSWERED:
                break
            self._work()
            time.sleep(0.05)
        if self._ends:
            self._tally.count(self.name, "failed")
            return
        payload = line.encode()
        self._add(1)  # before it is sent: the answer may be faster than send_async
        topic = self._to.topic.encode()
        status = self._adapter.nvds_msgapi_send_async(
            self._handle, topic, payload, len(payload), self._on_sent, None
        )
        if status:
            self._add(-1)
            self._tally.count(self.name, "failed")
        self._work()

    def give_up(self) -> None:
        """End a `send` that hangs in another thread."""
        self._ends = True

    def close(self, timeout_s: float) -> None:
        """Wait for what was sent to be answered, and leave."""
        self._ends = True
        if self._handle:
            wait_for(self._is_answered, timeout_s)
            self._adapter.nvds_msgapi_disconnect(self._handle)
            self._handle = None
        if self._unanswered:
            self._tally.count(self.name, "failed", self._unanswered)

    def _connected(self) -> bool:
        if self._handle and not self._is_down:
            return True
        if self._handle:
            self._adapter.nvds_msgapi_disconnect(self._handle)
            self._say(f"the broker ({self._place}) is gone; connecting again")
            self._tally.count(self.name, "failed", self._unanswered)
            self._add(-self._unanswered)
            self._handle = None
        self._is_down = False
        config = self._to.config.encode() if self._to.config else None
        address = f"{self._to.host};{self._to.port}".encode()
        self._handle = self._adapter.nvds_msgapi_connect(address, self._on_change, config)
        if self._handle:
            self._say(f"publishing to {self._place}")
            return True
        self._say(f"there is no connection to {self._place}; trying again in {AGAIN_S:g} s")
        wait_for(lambda: self._ends, AGAIN_S)
        return False

    def _add(self, number: int) -> None:
        with self._lock:
            self._unanswered += number

    def _work(self) -> None:
        if self._handle:
            self._adapter.nvds_msgapi_do_work(self._handle)

    def _is_answered(self) -> bool:
        self._work()
        return self._unanswered <= 0

    def _sent(self, _: Any, status: int) -> None:
        self._add(-1)
        self._tally.count(self.name, "failed" if status else "acknowledged")

    def _change(self, _: Any, event: int) -> None:
        if event:  # 0 is a connection that was made
            self._is_down = True


def typed(adapter: ctypes.CDLL) -> ctypes.CDLL:
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "nvds_msgapi_connect": (pointer, [text, CHANGED, text]),
        "nvds_msgapi_send_async": (ctypes.c_int, [pointer, text, text, size, SENT, pointer]),
        "nvds_msgapi_do_work": (None, [pointer]),
        "nvds_msgapi_disconnect": (ctypes.c_int, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(adapter, name)
        function.restype, function.argtypes = result, arguments
    return adapter
