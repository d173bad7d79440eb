"""Asks a server in time: tries again where it is away or full, with growing pauses, and says a refusal in words."""

from __future__ import annotations

import random
import socket
import ssl
import time
from collections.abc import Callable
from typing import TypeVar

from segdeploy.errors import RequestError, SegdeployError, ServerError
from segdeploy.run.address import SCHEMES, ModelAddress
from segdeploy.run.triton import wire
from segdeploy.run.triton.wire import Refused, Wire

T = TypeVar("T")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
LEAST_S = 0.001  # a deadline that is over is still one
ANSWERED_S = 1.0  # within which who is there begins with TLS


class Asking:
    """Gives each request the time that its address allows, and all of them together what is left until `until`."""

    def __init__(self, address: ModelAddress, carrier: Wire) -> None:
        self.address = address
        self.wire = carrier
        self.until: float | None = None  # on the clock time.monotonic

    def ask(self, call: Callable[[float], T], *, again: bool = True) -> T:
        """Return what `call` gives, which gets the seconds that are left; a request changes nothing on the server."""
        end = time.monotonic() + self.address.timeout_s
        end = end if self.until is None else min(end, self.until)
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return call(max(end - time.monotonic(), LEAST_S))
            except Refused as error:
                wait_s = pause_s * random.uniform(0.5, 1.5)  # noqa: S311 # so that clients do not come all at once
                if not again or error.kind != wire.AWAY or time.monotonic() + wait_s > end:
                    raise
                time.sleep(wait_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def told(self, call: Callable[[float], T]) -> T:
        """Do as `ask`; a refusal is raised in words."""
        try:
            return self.ask(call)
        except Refused as error:
            raise self.said(error) from error

    def said(self, error: Refused) -> SegdeployError:
        """Say a refusal in words, with what can be done about it."""
        address, what = self.address, WORDS[error.kind]
        kind = RequestError if error.kind == wire.WRONG else ServerError
        allowed = address.timeout_s if self.until is None else max(self.until - time.monotonic(), 0)
        return kind(
            what.format(
                server=address.server, name=address.name, said=error.said, protocol=address.protocol,
                allowed=allowed or address.timeout_s, plain=scheme_of(address, secure=False),
                hint=hint(address) if error.kind == wire.AWAY else "",
            )
        )  # fmt: skip

    def why_not_opened(self, error: Refused) -> SegdeployError:
        """Tell a server that is not there from a model or a version that it does not have."""
        if error.kind not in (wire.UNKNOWN, wire.AWAY, wire.WRONG):
            return self.said(error)
        try:
            found = self.wire.models(self.address.timeout_s)
        except Refused:
            return self.said(error)
        address, reason = self.address, found.get(self.address.model)
        if reason is None:
            known = ", ".join(sorted(found)) or "none"
            return ServerError(f"{address.server} has no model {address.model!r}; it has: {known}")
        if reason:
            return ServerError(
                f"the model {address.model!r} on {address.server} is not ready: {reason}; see the server's log"
            )
        return ServerError(
            f"{address.server} does not serve version {address.version} of {address.model!r} ({error.said}); leave the"
            " version out for the newest"
        )


WORDS = {
    wire.AWAY: (
        "no Triton server answers {protocol} at {server} ({said}); start it as the README.md of its repository says, or"
        " correct the address{hint}"
    ),
    wire.LATE: (
        "{name} on {server} did not answer within {allowed:.3g} s; allow more with ?timeout=SECONDS at the address, or"
        " see what keeps the server busy"
    ),
    wire.UNKNOWN: "{server} does not know {name}: {said}",
    wire.WRONG: "{server} refuses this request to {name}: {said}",
    wire.FORBIDDEN: (
        "{server} does not let this client in ({said}); name a user in the address, as in"
        " triton+https://USER:PASSWORD@HOST/MODEL, or ?token=TOKEN"
    ),
    wire.UNSAFE: (
        "there is no TLS with {server} ({said}); write {plain}:// where the server has none, or ?ca=FILE.pem at the"
        " address where its certificate is of your own authority"
    ),
    wire.FAULT: "{name} on {server} failed: {said}",
}


def scheme_of(address: ModelAddress, secure: bool) -> str:
    """Name the scheme of the same protocol with TLS or without."""
    return next(name for name, facts in SCHEMES.items() if facts[:2] == (address.protocol, secure))


def hint(address: ModelAddress) -> str:
    """Say which port is whose where the address has the other protocol's, or that TLS is spoken there."""
    usual = {port: protocol for protocol, secure, port in SCHEMES.values() if not secure}
    other = usual.get(address.port, address.protocol)
    if other != address.protocol:
        return f" ({address.port} is Triton's port for {other})"
    if not address.secure and speaks_tls(address):
        return f": what answers there speaks TLS, so write {scheme_of(address, secure=True)}://"
    return ""


def speaks_tls(address: ModelAddress) -> bool:
    """Ask for TLS: to a plain request, who wants it answers as who is away, by closing the connection."""
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE  # nothing is sent
    try:
        with (
            socket.create_connection((address.host, address.port), ANSWERED_S) as plain,
            anyone.wrap_socket(plain),
        ):
            return True
    except OSError:
        return False
