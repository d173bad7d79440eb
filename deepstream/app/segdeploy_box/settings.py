"""Reads segdeploy_app.json, which says everything that may differ between two boxes."""

from __future__ import annotations

import json
import typing
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

Made = TypeVar("Made")


class WrongSettings(Exception):
    """Is raised for a file that does not say what the app needs; the message names the place in it."""


@dataclass(frozen=True)
class Source:
    name: str  # as messages and metrics call it: an address without its password
    uri: str


@dataclass(frozen=True)
class SegmentedClass:
    name: str
    colour: list[int]  # red, green, blue


@dataclass(frozen=True)
class Inference:
    element: str  # nvinfer: on this box; nvinferserver: on the server that its file names
    config: str


@dataclass(frozen=True)
class Muxer:
    width: int
    height: int
    push_timeout_us: int  # after which a batch goes on without the sources that are late


@dataclass(frozen=True)
class Reconnection:
    interval_s: (
        int  # after so long without a frame of an rtsp:// source it is opened again, as often as it takes
    )
    latency_ms: int  # of the jitter buffer
    tcp: bool


@dataclass(frozen=True)
class Drawing:
    by: str  # segdeploy: in the colours below; nvsegvisual: in NVIDIA's; nobody
    alpha: float
    legend: bool


@dataclass(frozen=True)
class Tiler:
    rows: int
    columns: int
    width: int
    height: int


@dataclass(frozen=True)
class Sink:
    kind: str  # rtsp, file, display, fake
    port: int  # of rtsp
    file: str
    bitrate: int
    encoder: str  # hardware, software


@dataclass(frozen=True)
class Messages:
    file: str | None  # a .jsonl that grows; - is standard output
    every: int  # frames of a source from one message to the next
    mask_step: int  # pixels from one of a mask to the next; 0: no masks


@dataclass(frozen=True)
class Publishing:
    protocol: str  # kafka, mqtt
    host: str
    port: int
    topic: str
    library: str  # NVIDIA's adapter, a libnvds_…_proto.so
    config: str | None  # the adapter's own file: user, TLS, partition key


@dataclass(frozen=True)
class Metrics:
    address: str
    port: int  # 0: any that is free


@dataclass(frozen=True)
class Patience:
    first_frame_s: float  # nvinfer builds its engine in this time, which takes minutes
    frame_s: (
        float  # after so long without any frame the app ends, so that whatever started it starts it again
    )
    lost_s: float  # after so long a source counts as lost
    stop_s: float  # to end cleanly after SIGTERM or SIGINT


@dataclass(frozen=True)
class Settings:
    deepstream: str
    inference: Inference
    network_type: int  # 2: nvinfer hands on class maps; 100: the tensor
    output: str  # the tensor's name
    width: int  # of the network's input, which nvsegvisual wants to know
    height: int
    classes: list[SegmentedClass]
    sources: list[Source]
    muxer: Muxer
    reconnection: Reconnection
    drawing: Drawing
    tiler: Tiler
    sink: Sink
    messages: Messages
    publishing: Publishing | None
    metrics: Metrics | None
    patience: Patience

    @property
    def is_live(self) -> bool:
        return any(source.uri.startswith(("rtsp://", "rtsps://")) for source in self.sources)


CHOICES = {
    ("inference", "element"): ("nvinfer", "nvinferserver"),
    ("drawing", "by"): ("segdeploy", "nvsegvisual", "nobody"),
    ("sink", "kind"): ("rtsp", "file", "display", "fake"),
    ("sink", "encoder"): ("hardware", "software"),
    ("publishing", "protocol"): ("kafka", "mqtt"),
}

# From least to most of what a number may be; what is not set has none.
RANGES = {
    ("drawing", "alpha"): (0.0, 1.0),
    ("muxer", "width"): (1, 16384),
    ("muxer", "height"): (1, 16384),
    ("muxer", "push_timeout_us"): (1000, 10_000_000),
    ("tiler", "rows"): (1, 64),
    ("tiler", "columns"): (1, 64),
    ("tiler", "width"): (1, 16384),
    ("tiler", "height"): (1, 16384),
    ("reconnection", "interval_s"): (1, 86400),
    ("reconnection", "latency_ms"): (0, 60_000),
    ("sink", "bitrate"): (10_000, 1_000_000_000),
    ("sink", "port"): (0, 65535),
    ("publishing", "port"): (0, 65535),
    ("metrics", "port"): (0, 65535),
    ("messages", "every"): (1, 1_000_000_000),
    ("messages", "mask_step"): (0, 1_000_000),
    ("patience", "first_frame_s"): (0.1, 86400.0),
    ("patience", "frame_s"): (0.1, 86400.0),
    ("patience", "lost_s"): (0.1, 86400.0),
    ("patience", "stop_s"): (0.1, 3600.0),
}


def read_settings(path: Path) -> Settings:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongSettings(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WrongSettings(f"{path} is not JSON: {error}") from error
    try:
        settings = made_of(Settings, read, "")
        for (part, name), known in CHOICES.items():
            value = getattr(getattr(settings, part), name, known[0])
            demand(value in known, f"{part}.{name} is {value!r}; expected one of {', '.join(known)}")
        demand(len(settings.sources) > 0, "sources is empty; expected one or more")
        demand(len(settings.classes) > 0, "classes is empty; expected one or more")
        demand(all(len(one.colour) == 3 for one in settings.classes), "a colour is red, green and blue")
        for (part, name), (least, most) in RANGES.items():
            number: float = getattr(getattr(settings, part), name, least)
            demand(least <= number <= most, f"{part}.{name} is {number}; expected {least} to {most}")
        demand(
            settings.network_type in (2, 100), f"network_type is {settings.network_type}; expected 2 or 100"
        )
        tiles = settings.tiler.rows * settings.tiler.columns
        demand(
            tiles >= len(settings.sources), f"{tiles} tiles are too few for {len(settings.sources)} sources"
        )
    except WrongSettings as error:
        raise WrongSettings(f"{path}: {error}") from error
    return settings


def demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise WrongSettings(otherwise)


def made_of(kind: type[Made], read: Any, place: str) -> Made:
    """Make a dataclass of what JSON says; a key too many or too few, or of another type, is refused."""
    demand(isinstance(read, dict), f"{place or 'the whole'} is not an object")
    types = typing.get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in sorted(read.keys() ^ set(names)):
        demand(name in read, f"{place}{name} is missing")
        demand(name in names, f"{place}{name} is no setting; known: {', '.join(names)}")
    return kind(**{name: value_of(types[name], read[name], f"{place}{name}") for name in names})


def value_of(kind: Any, read: Any, place: str) -> Any:
    options = typing.get_args(kind)
    if type(None) in options:
        return None if read is None else value_of(options[0], read, place)
    if typing.get_origin(kind) is list:
        demand(isinstance(read, list), f"{place} is not a list")
        return [value_of(options[0], one, f"{place}[{number}]") for number, one in enumerate(read)]
    if is_dataclass(kind):
        return made_of(typing.cast(type[Any], kind), read, f"{place}.")
    if kind is float and type(read) is int:
        return float(read)
    demand(type(read) is kind, f"{place} is {read!r}; expected {kind.__name__}")
    return read
