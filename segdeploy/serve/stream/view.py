"""Serves a small page that shows a running stream in a browser, and can change nothing; and its figures, at /metrics.

A browser asks for the newest frame when it has drawn the last one, and the frame is encoded then. The pipeline only
stores its newest frame here, so a slow browser, or none, costs it nothing. One answer holds the frame and the class ids
as separate pictures, so that each page sets opacity, pause and the wipe by itself.

Threads that stay do the encoding for all requests: OpenCV keeps 880 bytes of each thread that ever called it.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import socket
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import RequestError
from segdeploy.picture.image import LabelMap
from segdeploy.picture.segmentation import Segmentation
from segdeploy.picture.video_location import as_typed
from segdeploy.serve.stream.metrics import CONTENT_TYPE, Figures
from segdeploy.serve.stream.result import Shown

HERE = Path(__file__).parent
FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LONGEST_WAIT_S = 10.0  # for a newer frame, before the browser is told to ask again
PATIENCE_S = 10.0  # with a browser that neither asks nor reads
JPEG_QUALITY = 80
ENCODERS = 2  # threads for all browsers


@dataclass(frozen=True)
class Latest:
    serial: int  # counts the frames of all sources; a page asks for a newer one than it has
    shown: Shown


class Page:
    """Serves the newest frame of each source at `url`, as a sink, until it is closed."""

    name = "--view"

    def __init__(
        self,
        port: int,
        address: str = "127.0.0.1",
        names: tuple[str, ...] = (),
        figures: Figures | None = None,  # shown at /metrics
    ) -> None:
        self.names = names  # of the models, in the order of the results
        self.figures = figures
        self._newer = threading.Condition()
        self._latest: dict[str, Latest] = {}
        self._serial = 0
        self.closed = False
        self.encoding = ThreadPoolExecutor(ENCODERS, "view: encode")
        self._server = listen(self, port, address)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="view", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        name = str(host)
        if name in ("0.0.0.0", "::"):  # noqa: S104 - what was asked for with --view-address
            name = socket.gethostname()
        return f"http://{f'[{name}]' if ':' in name else name}:{port}/"

    def take(self, shown: Shown) -> None:
        with self._newer:
            self._serial += 1
            self._latest[shown.source] = Latest(self._serial, shown)
            self._newer.notify_all()

    def close(self) -> None:
        if self.closed:
            return
        with self._newer:
            self.closed = True
            self._newer.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()  # joins the browsers' threads too
        self.encoding.shutdown()

    def give_up(self) -> None:
        """Do nothing: closing ends all connections."""

    def wait(self, source: int, after: int) -> tuple[list[str], Latest | None]:
        """Wait for a frame of the chosen source with another serial than `after`; returns it and all sources' names."""

        def newest() -> Latest | None:
            found = list(self._latest.values())[source : source + 1]
            return found[0] if found and found[0].serial != after else None

        with self._newer:
            self._newer.wait_for(lambda: self.closed or newest() is not None, LONGEST_WAIT_S)
            return list(self._latest), None if self.closed else newest()

    def allows(self, host: str) -> bool:
        """Tell whether a request for `host` gets an answer, which DNS rebinding must not.

        An address cannot be rebound; of names, only this machine's own and the requested one are allowed.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:  # an open bracket
            return False
        own = socket.gethostname().lower()
        return is_address(name) or name in ("localhost", own, f"{own}.local", self._server.asked_address)


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing joins them
    allow_reuse_address = True
    page: Page
    asked_address: str

    def __init__(self, where: tuple[str, int], family: socket.AddressFamily) -> None:
        self.address_family = family
        self._open: set[Any] = set()
        super().__init__(where, Answer)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a browser that went away or reads nothing; any other error is a bug, and is printed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        for request in list(self._open):
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:  # it had gone already
                continue
        super().server_close()

    def server_bind(self) -> None:
        # http.server would look up the host's name in DNS here, which can take seconds and is not needed.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()


class Answer(BaseHTTPRequestHandler):
    """Answers requests in HTTP/1.0: one connection per answer, so that none is idle when the page is closed."""

    server: Server
    timeout = PATIENCE_S
    server_version, sys_version = "segdeploy", ""  # Python's version would help only an attacker

    def do_GET(self) -> None:
        if not self.server.page.allows(self.headers.get("Host", "")):
            said = "this page answers to the address it was opened at, and to no other name\n"
            self.answer(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", said.encode())
            return
        try:
            asked = urlsplit(self.path)
        except ValueError:  # an open bracket
            self.answer(HTTPStatus.BAD_REQUEST, "text/plain", b"that is no address\n")
            return
        if asked.path in FILES:
            name, kind = FILES[asked.path]
            self.answer(HTTPStatus.OK, kind, (HERE / name).read_bytes())
        elif asked.path == "/frame":
            self.answer_frame(parse_qs(asked.query))
        elif asked.path == "/metrics" and self.server.page.figures is not None:
            self.answer(HTTPStatus.OK, CONTENT_TYPE, self.server.page.figures.as_text().encode())
        else:
            self.answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is nothing here\n")

    def answer_frame(self, asked: dict[str, list[str]]) -> None:
        try:
            source, after = (int(asked.get(key, ["0"])[0]) for key in ("source", "after"))
        except ValueError:
            source = after = -1
        if source < 0 or after < 0:
            self.answer(HTTPStatus.BAD_REQUEST, "text/plain", b"source and after are whole numbers\n")
            return
        page = self.server.page
        sources, latest = page.wait(source, after)
        if page.closed:
            self.answer(HTTPStatus.GONE, "text/plain", b"the stream has ended\n")
        else:
            body = page.encoding.submit(packed, sources, latest, page.names).result()
            self.answer(HTTPStatus.OK, "application/octet-stream", body)

    def answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Print nothing: the terminal shows the run."""


def listen(page: Page, port: int, address: str) -> Server:
    if not 0 <= port <= 65535:
        raise RequestError(f"{port} is not a port; expected 1 to 65535, or 0 for any that is free")
    try:
        family, _, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        server = Server((str(where[0]), int(where[1])), family)
    except (OSError, UnicodeError) as error:  # the latter is of a name that is none
        raise RequestError(why_not_served(error, port, address)) from error
    server.page, server.asked_address = page, address.lower()
    return server


def why_not_served(error: OSError | UnicodeError, port: int, address: str) -> str:
    address = as_typed(address)
    if isinstance(error, UnicodeError):
        return f"{address[:60]!r} is no address; expected one of this machine's with --view-address"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {address} is in use; name another one, such as --view {port + 1}"
    if error.errno == errno.EACCES:
        return f"port {port} of {address} needs more rights than this user has; name one from 1024 on: --view 8765"
    return (
        f"{address} is no address of this machine ({error.strerror}); name one of its own with --view-address"
    )


def packed(sources: list[str], latest: Latest | None, names: tuple[str, ...]) -> bytes:
    """Pack the facts as JSON, the frame, and each model's class ids, each preceded by its length."""
    facts: dict[str, Any] = {"sources": sources, "serial": latest.serial if latest else 0}
    parts: list[bytes] = []
    if latest:
        shown = latest.shown
        facts |= {
            "index": shown.index,
            "time_s": shown.time_s,
            "fps": shown.fps,
            "latency_ms": shown.latency_ms,
            "dropped": shown.dropped,
            "models": [
                told(result, names[index] if index < len(names) else "")
                for index, result in enumerate(shown.results)
            ],
        }
        stored = np.asarray(cv2.cvtColor(shown.frame, cv2.COLOR_RGB2BGR), np.uint8)
        parts.append(encoded(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]))
        # Ids take a third of the time of colours, and a lossless format keeps every class.
        quick = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        parts += [encoded(".png", ids_picture(result.labels), quick) for result in shown.results]
    whole = [json.dumps(facts).encode(), *parts]
    return b"".join(struct.pack("<I", len(part)) + part for part in whole)


def told(result: Segmentation, name: str) -> dict[str, Any]:
    classes = result.classes
    palette = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in classes.colours]
    return {
        "name": name,
        "classes": classes.names,
        "palette": palette,
        "areas": list(result.areas().items()),
    }


def ids_picture(labels: LabelMap) -> NDArray[np.uint8]:
    """Turn labels into a picture that a browser decodes exactly: grey, or red + 256·green beyond 256 classes."""
    if labels.dtype == np.uint8:
        return labels.astype(np.uint8, copy=False)
    blue = np.zeros_like(labels)
    return np.dstack([blue, labels >> 8, labels & 255]).astype(np.uint8)


def encoded(suffix: str, picture: NDArray[np.uint8], how: list[int]) -> bytes:
    _, data = cv2.imencode(suffix, picture, how)
    return data.tobytes()
