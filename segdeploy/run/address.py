"""Reads the address of a model on a Triton server: triton://HOST:PORT/MODEL[/VERSION][?memory=shared&timeout=10].

What a session needs to know is in the address, so that every verb that takes a model takes this one.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from segdeploy.errors import RequestError
from segdeploy.picture.video_location import as_typed

EXAMPLE = "triton://localhost:8001/MODEL"
# Protocol, TLS, and the port that Triton takes for it.
SCHEMES: dict[str, tuple[str, bool, int]] = {
    "triton": ("gRPC", False, 8001),
    "triton+grpcs": ("gRPC", True, 8001),
    "triton+http": ("HTTP", False, 8000),
    "triton+https": ("HTTP", True, 8000),
}
OPTIONS = ("memory", "timeout", "ca", "token")
USUAL_TIMEOUT_S, LONGEST_TIMEOUT_S = 10.0, 86_400.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,250}")
_VERSION = re.compile(r"[1-9]\d{0,17}")


@dataclass(frozen=True)
class ModelAddress:
    """Is a model on a server; printed, it has neither a user nor a token."""

    text: str = field(repr=False)  # as it was typed
    protocol: str  # gRPC | HTTP
    secure: bool
    host: str
    port: int
    model: str
    version: str = ""  # "": the newest one that is served
    shared: bool = False  # memory, with a server on this host
    timeout_s: float = USUAL_TIMEOUT_S  # of one request, all its tries together
    authority: str | None = None  # a file with the certificates to trust; None: the system's
    authorization: str = field(default="", repr=False)  # a header's value

    def __str__(self) -> str:
        return as_typed(self.text)

    @property
    def server(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """Give the model's name, with its version where one was asked for."""
        return f"{self.model}/{self.version}" if self.version else self.model

    @classmethod
    def parse(cls, text: str) -> ModelAddress:
        shown = as_typed(text)
        try:
            parts = urlsplit(text)
            host, port, user, password = parts.hostname, parts.port, parts.username, parts.password
        except ValueError as error:
            raise RequestError(
                f"{shown} is no address ({as_typed(str(error))}); expected one as {EXAMPLE}"
            ) from error
        if parts.scheme not in SCHEMES:
            raise RequestError(
                f"{shown} is no address of a model; expected one as {EXAMPLE}, or with {', '.join(list(SCHEMES)[1:])}"
            )
        protocol, secure, usual_port = SCHEMES[parts.scheme]
        model, _, version = unquote(parts.path).strip("/").partition("/")
        if not host or not _NAME.fullmatch(model) or (version and not _VERSION.fullmatch(version)):
            raise RequestError(
                f"{shown} names no model on a server; expected HOST:PORT/MODEL or HOST:PORT/MODEL/VERSION,"
                f" as in {EXAMPLE}/1"
            )
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if unknown := sorted(options.keys() - set(OPTIONS)):
            raise RequestError(f"{shown} has an option {unknown[0]!r}; known: {', '.join(OPTIONS)}")
        if options.get("memory", "shared") != "shared":
            raise RequestError(
                f"{shown} asks for memory={options['memory']}; expected memory=shared, or none"
            )
        return cls(
            text, protocol, secure, host, port or usual_port, model, version, "memory" in options,
            seconds_in(options.get("timeout"), shown), options.get("ca"),
            authorization_of(user, password, options.get("token")),
        )  # fmt: skip


def is_served(model: object) -> bool:
    """Tell whether a text, or what was made of it, is the address of a model on a server."""
    scheme, slashes, _ = str(model).partition("://")
    return bool(slashes) and scheme.partition("+")[0] == "triton"


def as_model(model: str | Path | ModelAddress) -> Path | ModelAddress:
    """Take the address of a model on a server for what it is, and any other text for a path."""
    if isinstance(model, ModelAddress):
        return model
    return ModelAddress.parse(str(model)) if is_served(model) else Path(model)


def seconds_in(text: str | None, shown: str) -> float:
    try:
        seconds = USUAL_TIMEOUT_S if text is None else float(text)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= LONGEST_TIMEOUT_S:
        raise RequestError(
            f"{shown} asks for timeout={text}; expected seconds, 0.001 to {LONGEST_TIMEOUT_S:,.0f}"
        )
    return seconds


def authorization_of(user: str | None, password: str | None, token: str | None) -> str:
    if token:
        return f"Bearer {token}"
    if user is None:
        return ""
    return "Basic " + b64encode(f"{unquote(user)}:{unquote(password or '')}".encode()).decode()
