"""Holds what is asked of an application, and refuses what no box can do. Nothing heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from segdeploy.errors import RequestError
from segdeploy.picture.video_location import as_typed, without_credentials
from segdeploy.releases import rendered_versions
from segdeploy.run.address import ModelAddress
from segdeploy.serve.deepstream.request import RenderRequest
from segdeploy.size import Size, is_number

SINKS = ("rtsp", "file", "display", "fake")
PROTOCOLS = {"kafka": 9092, "mqtt": 1883}  # with their usual ports
LIVE = ("rtsp", "rtsps")
SCHEMES = (*LIVE, "http", "https", "file")
MOST_SOURCES = 64  # one picture has a tile for each, and one GPU a decoder: more than that are more boxes
FIRST_WITH_SERVICE_MAKER = (7, 1)
FIRST_WITH_CLASS_MAPS = (9, 0)  # whose Service Maker hands class maps to Python, as its public sources say
USUAL_FOR_APPS = "9.0"
MUXER = Size(720, 1280)  # what every stream is scaled to before the batch
TOPIC = "segdeploy"
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\]")
_TOPIC = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*")


@dataclass(frozen=True)
class AppRequest:
    model: Path
    sources: tuple[str, ...]
    deepstream: str = USUAL_FOR_APPS
    sink: str = "fake"
    publish: str | None = None
    broker: str | None = None  # HOST or HOST:PORT
    topic: str = TOPIC
    muxer: Size = MUXER
    precision: str | None = None
    int8_cache: Path | None = None
    triton: ModelAddress | None = None  # the model on a server, which nvinferserver asks

    @property
    def has_class_maps(self) -> bool:
        return release_numbers(self.deepstream) >= FIRST_WITH_CLASS_MAPS

    @property
    def folder(self) -> RenderRequest:
        """Ask for the folder of nvinfer: parsed by it where Python sees class maps, else its tensors."""
        return RenderRequest(
            self.model,
            self.deepstream,
            2 if self.has_class_maps else 100,
            len(self.sources),
            precision=self.precision,
            int8_cache=self.int8_cache,
            triton=self.triton,
        )


@dataclass(frozen=True)
class Address:
    host: str
    port: int


def release_numbers(deepstream: str) -> tuple[int, ...]:
    return tuple(map(int, deepstream.split(".")))


def versions_with_apps() -> tuple[str, ...]:
    """List the rendered versions of DeepStream that have Service Maker for Python."""
    return tuple(one for one in rendered_versions() if release_numbers(one) >= FIRST_WITH_SERVICE_MAKER)


def demand_sound_request(request: AppRequest) -> Address | None:
    """Refuse what cannot run; gives the broker, where there is to be one."""
    if request.deepstream not in versions_with_apps():
        raise RequestError(
            f"DeepStream {request.deepstream} has no Service Maker for Python, or is not known here;"
            f" known: {', '.join(versions_with_apps())}"
        )
    if request.sink not in SINKS:
        raise RequestError(f"{request.sink!r} is no output; known: {', '.join(SINKS)}")
    demand_sources(request.sources)
    return demand_broker(request)


def demand_sources(sources: Sequence[str]) -> None:
    if not sources:
        raise RequestError(
            "there is no source; name each camera or clip with --source, as in rtsp://camera/stream"
        )
    if len(sources) > MOST_SOURCES:
        raise RequestError(
            f"{len(sources)} sources are more than the {MOST_SOURCES} that one application takes; render one folder"
            " for each box or GPU"
        )
    for source in sources:
        demand_source(source)


def demand_source(source: str) -> None:
    shown = as_typed(source)
    if not source.isprintable() or "\\" in source or source != source.strip():
        raise RequestError(
            f"the source {shown!r} holds a character that no address has; write it as %XX (a space is %20)"
        )
    scheme, separator, rest = source.partition("://")
    if not separator:
        remedy = (
            f"as in {Path(source).absolute().as_uri()}"
            if Path(source).exists()
            else "as in rtsp://camera/stream"
        )
        raise RequestError(
            f"the source {shown} has no scheme; expected one of {', '.join(SCHEMES)} and ://, {remedy}"
        )
    if scheme not in SCHEMES:
        raise RequestError(
            f"the source {shown} has the scheme {scheme!r}, which DeepStream's nvurisrcbin is not asked for here;"
            f" expected one of {', '.join(SCHEMES)}"
        )
    if scheme == "file" and not (rest.startswith("/") and rest.strip("/")):
        raise RequestError(
            f"the source {shown} names no file; expected file:// and the whole path on the box, as in file:///clips/a.mp4"
        )
    if scheme != "file" and not has_host(source):
        raise RequestError(
            f"the source {shown} has no valid host or port; expected an address as in rtsp://camera:554/stream"
        )


def has_host(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def demand_broker(request: AppRequest) -> Address | None:
    if request.publish is None:
        if request.broker is not None or request.topic != TOPIC:
            raise RequestError(
                "--broker and --topic are for --publish; name the protocol, as in --publish kafka"
            )
        return None
    if request.publish not in PROTOCOLS:
        raise RequestError(f"{request.publish!r} is no protocol known here; known: {', '.join(PROTOCOLS)}")
    if not request.broker:
        raise RequestError(f"--publish {request.publish} names no host; add --broker HOST[:PORT]")
    if not _TOPIC.fullmatch(request.topic) or (request.publish == "kafka" and "/" in request.topic):
        raise RequestError(
            f"--topic {request.topic!r} is no topic of {request.publish}; expected letters, digits and ._-"
            + ("" if request.publish == "kafka" else ", with / between levels")
        )
    return broker_at(request.broker, PROTOCOLS[request.publish])


def broker_at(text: str, usual: int) -> Address:
    """Read HOST[:PORT]. A user or a password is refused: it belongs into the adapter's own file on the box."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(usual)
    if not _HOST.fullmatch(host) or not (is_number(port) and 0 < int(port) < 65536):
        raise RequestError(
            f"--broker {as_typed(text)} is not HOST[:PORT]; a user and a password go into the adapter's own file, which"
            " segdeploy_app.json names on the box (publishing.config)"
        )
    return Address(host, int(port))


def names_of(sources: Sequence[str]) -> list[str]:
    """Call each source by its address without credentials, and tell equal ones apart."""
    names: list[str] = []
    for source in sources:
        name = without_credentials(source)
        names.append(name if name not in names else f"{name} ({len(names)})")
    return names


def holds_secrets(sources: Sequence[str]) -> bool:
    return any(without_credentials(source) != source for source in sources)
