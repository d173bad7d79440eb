"""Stands in for DeepStream's elements: the same names, pads and properties, on a CPU with NumPy.

A buffer between them carries a number, as NVIDIA's carry a descriptor of surfaces; the pixels lie in BATCHES. The
address of a source says what it plays: `rtsp://standin/PATTERN?fps=20&dies=30&back=60` is silent from its 30th frame to
its 60th, `file:///standin/PATTERN?frames=30` ends. PATTERN is a pattern of videotestsrc. An rtsp:// address of another
host is played for real, and opened again as nvurisrcbin does it.
"""

from __future__ import annotations

import configparser
import itertools
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2
import gi
import numpy as np
from numpy.typing import NDArray

gi.require_version("Gst", "1.0")
from gi.repository import GObject, Gst  # noqa: E402

Gst.init(None)

NVMM = "video/x-raw(memory:NVMM)"
SIZE_OF_SOURCES = 90, 160
RATE = "20/1"


@dataclass
class Found:
    class_map: NDArray[np.int32]
    classes: int
    is_parsed: bool


@dataclass
class Frame:
    pad_index: int
    batch_id: int
    number: int
    pts: int
    found: Found | None = None


@dataclass
class Batch:
    pixels: list[NDArray[np.uint8]]  # RGBA
    frames: list[Frame] = field(default_factory=list)


BATCHES: dict[int, Batch] = {}
NUMBERS = itertools.count(1)


def batch_of(buffer: Any) -> Batch:
    return BATCHES[buffer.offset]


def carrying(batch: Batch, pts: int) -> Any:
    number = next(NUMBERS)
    BATCHES[number] = batch
    BATCHES.pop(number - 200, None)
    buffer = Gst.Buffer.new_wrapped(number.to_bytes(8, "little"))
    buffer.offset, buffer.pts = number, pts
    return buffer


def pixels_in(buffer: Any, height: int, width: int) -> NDArray[np.uint8]:
    found, mapped = buffer.map(Gst.MapFlags.READ)
    assert found
    pixels = np.frombuffer(mapped.data, np.uint8).reshape(height, width, 4).copy()
    buffer.unmap(mapped)
    return pixels


def template(name: str, direction: Any, presence: Any = Gst.PadPresence.ALWAYS) -> Any:
    return Gst.PadTemplate.new(name, direction, presence, Gst.Caps.from_string(f"{NVMM}; video/x-raw"))


SINK, SRC = template("sink", Gst.PadDirection.SINK), template("src", Gst.PadDirection.SRC)


class Through(Gst.Element):  # type: ignore[misc] # gi has no types
    """Takes a buffer, changes what it carries, and gives it on; sizes and formats are the peers'."""

    def __init__(self) -> None:
        super().__init__()
        self.sink, self.src = (Gst.Pad.new_from_template(one, one.name_template) for one in (SINK, SRC))
        self.sink.set_chain_function_full(self._chain, None)
        self.sink.set_event_function_full(self._event, None)
        self.add_pad(self.sink)
        self.add_pad(self.src)
        self.size: tuple[int, int] = (0, 0)
        self.given = ""  # what downstream wants, as a media type with features

    def change(self, buffer: Any) -> Any:
        return buffer

    def size_out(self) -> tuple[int, int]:
        return self.size

    def _chain(self, _: Any, __: Any, buffer: Any) -> Any:
        return self.src.push(self.change(buffer))

    def _event(self, pad: Any, parent: Any, event: Any) -> Any:
        if event.type != Gst.EventType.CAPS:
            return pad.event_default(parent, event)
        asked = event.parse_caps().get_structure(0)
        self.size = asked.get_value("height"), asked.get_value("width")
        wanted = self.src.peer_query_caps(None)
        self.given = (
            wanted.to_string().partition(";")[0] if wanted.get_size() and not wanted.is_any() else NVMM
        )
        media = "video/x-raw" if self.given.startswith("video/x-raw,") else NVMM
        form = "I420" if media == "video/x-raw" else "RGBA" if "RGBA" in self.given else "NV12"
        height, width = self.size_out()
        caps = f"{media}, format={form}, width={width}, height={height}, framerate={RATE}"
        return self.src.push_event(Gst.Event.new_caps(Gst.Caps.from_string(caps)))


class NvVideoConvert(Through):
    compute_hw = GObject.Property(type=int, default=0)
    nvbuf_memory_type = GObject.Property(type=int, default=0)

    def change(self, buffer: Any) -> Any:
        if not self.given.startswith("video/x-raw,") or buffer.offset not in BATCHES:
            return buffer
        real = cv2.cvtColor(batch_of(buffer).pixels[0], cv2.COLOR_RGBA2YUV_I420)
        made = Gst.Buffer.new_wrapped(real.tobytes())
        made.pts = buffer.pts
        return made


class NvInfer(Through):
    config_file_path = GObject.Property(type=str)
    batch_size = GObject.Property(type=int, default=1)

    def change(self, buffer: Any) -> Any:
        config = configparser.ConfigParser()
        config.read_string(Path(self.config_file_path).read_text())
        network = config["property"]
        _, height, width = map(int, network["infer-dims"].split(";")[:3])
        classes = int(network["num-detected-classes"])
        for frame in batch_of(buffer).frames:
            bands = np.arange(width) * classes // width
            class_map = np.tile((bands + frame.pad_index).astype(np.int32) % classes, (height, 1))
            class_map[: height // 4, : width // 4] = -1  # a corner without a class
            frame.found = Found(class_map, classes, network["network-type"] == "2")
        return buffer


class NvSegVisual(Through):
    width = GObject.Property(type=int, default=0)
    height = GObject.Property(type=int, default=0)
    batch_size = GObject.Property(type=int, default=1)
    alpha = GObject.Property(type=float, default=0.5)
    original_background = GObject.Property(type=bool, default=False)


class NvMultiStreamTiler(Through):
    rows = GObject.Property(type=int, default=1)
    columns = GObject.Property(type=int, default=1)
    width = GObject.Property(type=int, default=0)
    height = GObject.Property(type=int, default=0)

    def size_out(self) -> tuple[int, int]:
        return self.height, self.width

    def change(self, buffer: Any) -> Any:
        batch = batch_of(buffer)
        canvas = np.zeros((self.height, self.width, 4), np.uint8)
        height, width = self.height // self.rows, self.width // self.columns
        for frame, pixels in zip(batch.frames, batch.pixels, strict=True):
            top, left = frame.pad_index // self.columns * height, frame.pad_index % self.columns * width
            canvas[top : top + height, left : left + width] = cv2.resize(pixels, (width, height))
        return carrying(Batch([canvas], batch.frames), buffer.pts)


class NvStreamMux(Gst.Element):  # type: ignore[misc]
    batch_size = GObject.Property(type=int, default=1)
    width = GObject.Property(type=int, default=0)
    height = GObject.Property(type=int, default=0)
    batched_push_timeout = GObject.Property(type=int, default=-1)
    live_source = GObject.Property(type=bool, default=False)

    def __init__(self) -> None:
        super().__init__()
        self.src = Gst.Pad.new_from_template(SRC, "src")
        self.add_pad(self.src)
        self.inputs: list[Any] = []
        self.waiting: dict[int, tuple[NDArray[np.uint8], int]] = {}
        self.sizes: dict[int, tuple[int, int]] = {}
        self.counts: dict[int, int] = {}
        self.ended: set[int] = set()
        self.changed = threading.Condition()
        self.has_stopped = False

    def requested(self, name: str) -> Any:
        """Give the next pad, whatever its number."""
        assert name == "sink_%u"
        pad = Gst.Pad.new_from_template(SINK, f"sink_{len(self.inputs)}")
        pad.set_chain_function_full(self._chain, None)
        pad.set_event_function_full(self._event, None)
        self.inputs.append(pad)
        self.add_pad(pad)
        return pad

    def do_change_state(self, transition: Any) -> Any:
        if transition == Gst.StateChange.PAUSED_TO_READY:
            with self.changed:
                self.has_stopped = True
                self.changed.notify_all()
        result = Gst.Element.do_change_state(self, transition)
        if transition == Gst.StateChange.READY_TO_PAUSED:  # its pads take events from now on
            threading.Thread(target=self._batches, daemon=True).start()
        return result

    def _chain(self, pad: Any, _: Any, buffer: Any) -> Any:
        number = self.inputs.index(pad)
        pixels = np.asarray(
            cv2.resize(pixels_in(buffer, *self.sizes[number]), (self.width, self.height)), np.uint8
        )
        with self.changed:
            while number in self.waiting and not self.has_stopped:
                self.changed.wait(0.1)
            self.waiting[number] = pixels, buffer.pts
            self.changed.notify_all()
        return Gst.FlowReturn.FLUSHING if self.has_stopped else Gst.FlowReturn.OK

    def _event(self, pad: Any, parent: Any, event: Any) -> bool:
        number = self.inputs.index(pad)
        if event.type == Gst.EventType.CAPS:
            caps = event.parse_caps().get_structure(0)
            self.sizes[number] = caps.get_value("height"), caps.get_value("width")
        if event.type == Gst.EventType.EOS:
            with self.changed:
                self.ended.add(number)
                self.changed.notify_all()
        return True

    def _batches(self) -> None:
        caps = f"{NVMM}, format=NV12, width={self.width}, height={self.height}, framerate={RATE}"
        segment = Gst.Segment()
        segment.init(Gst.Format.TIME)
        for event in (
            Gst.Event.new_stream_start("standin"),
            Gst.Event.new_caps(Gst.Caps.from_string(caps)),
            Gst.Event.new_segment(segment),
        ):
            self.src.push_event(event)
        while not self.has_stopped:
            with self.changed:
                end = time.monotonic() + self.batched_push_timeout / 1e6
                while not self.has_stopped and len(self.waiting) < len(self.inputs) - len(self.ended):
                    left = end - time.monotonic()
                    if left <= 0:
                        break
                    self.changed.wait(left)
                taken, self.waiting = dict(sorted(self.waiting.items())), {}
                has_ended = len(self.ended) == len(self.inputs)
                self.changed.notify_all()
            if taken:
                self._push(taken)
            elif has_ended:
                self.src.push_event(Gst.Event.new_eos())
                return

    def _push(self, taken: dict[int, tuple[NDArray[np.uint8], int]]) -> None:
        batch = Batch([pixels for pixels, _ in taken.values()])
        for place, (number, (_, pts)) in enumerate(taken.items()):
            count = self.counts.get(number, 0)
            self.counts[number] = count + 1
            batch.frames.append(Frame(number, place, count, pts))
        self.src.push(carrying(batch, max(pts for _, pts in taken.values())))


class Camera:
    """Plays a real RTSP server into a bin, and opens it again after so long without a frame."""

    PLAYED = (
        "rtspsrc location={uri} latency={latency} protocols=tcp ! rtph264depay ! h264parse ! decodebin ! videoconvert"
        " ! videoscale ! video/x-raw,format=RGBA,width={width},height={height} ! identity name=end"
    )

    def __init__(self, owner: Any) -> None:
        self.owner, self.lost, self.has_stopped = owner, threading.Event(), False
        self.last = time.monotonic()
        self.out = Gst.ElementFactory.make("identity", "out")
        owner.add(self.out)
        self.entry = self.out.get_static_pad("sink")
        self.entry.add_probe(Gst.PadProbeType.BUFFER, self._seen)
        self.entry.add_probe(Gst.PadProbeType.EVENT_DOWNSTREAM, self._no_end)
        ghost = Gst.GhostPad.new("vsrc_0", self.out.get_static_pad("src"))
        ghost.set_active(True)
        owner.add_pad(ghost)

    def start(self) -> None:
        threading.Thread(target=self._keep, daemon=True).start()

    def stop(self) -> None:
        self.has_stopped = True
        self.lost.set()

    def _seen(self, *_: Any) -> Any:
        self.last = time.monotonic()
        return Gst.PadProbeReturn.OK

    def _no_end(self, _: Any, info: Any) -> Any:
        is_end = info.get_event().type == Gst.EventType.EOS
        if is_end:
            self.lost.set()
        return Gst.PadProbeReturn.DROP if is_end else Gst.PadProbeReturn.OK

    def _keep(self) -> None:
        height, width = SIZE_OF_SOURCES
        words = self.PLAYED.format(uri=self.owner.uri, latency=self.owner.latency, width=width, height=height)
        while not self.has_stopped:
            self.lost.clear()
            played = Gst.parse_bin_from_description(words, False)
            end = Gst.GhostPad.new("src", played.get_by_name("end").get_static_pad("src"))
            played.add_pad(end)
            self.owner.add(played)
            end.link(self.entry)
            self.last = time.monotonic()
            played.set_state(Gst.State.PLAYING)
            while not self.lost.wait(0.1):
                if time.monotonic() - self.last > self.owner.rtsp_reconnect_interval:
                    break
            if self.has_stopped:
                return  # the bin stops what it holds
            played.set_state(Gst.State.NULL)
            self.owner.remove(played)
            time.sleep(0.2)


class NvUriSrcBin(Gst.Bin):  # type: ignore[misc]
    uri = GObject.Property(type=str)
    rtsp_reconnect_interval = GObject.Property(type=int, default=0)
    init_rtsp_reconnect_interval = GObject.Property(type=int, default=0)
    rtsp_reconnect_attempts = GObject.Property(type=int, default=-1, minimum=-1)
    latency = GObject.Property(type=int, default=100)
    drop_on_latency = GObject.Property(type=bool, default=False)
    select_rtp_protocol = GObject.Property(type=int, default=0)
    camera: Camera | None = None

    def do_change_state(self, transition: Any) -> Any:
        if transition == Gst.StateChange.NULL_TO_READY:
            if self.uri.startswith("rtsp://") and urlsplit(self.uri).hostname != "standin":
                self.camera = Camera(self)
            else:
                self._play()
        if transition == Gst.StateChange.READY_TO_PAUSED and self.camera:
            self.camera.start()
        if transition == Gst.StateChange.PAUSED_TO_READY and self.camera:
            self.camera.stop()
        return Gst.Bin.do_change_state(self, transition)

    def do_handle_message(self, message: Any) -> None:
        """Keep a camera's faults inside: the pipeline goes on without it."""
        if self.camera and message.type in (Gst.MessageType.ERROR, Gst.MessageType.EOS):
            self.camera.lost.set()
            return
        Gst.Bin.do_handle_message(self, message)

    def _play(self) -> None:
        parts = urlsplit(self.uri)
        asked = {name: int(values[0]) for name, values in parse_qs(parts.query).items()}
        self.dies, self.back, self.count = asked.get("dies", 1 << 60), asked.get("back", 1 << 60), 0
        height, width = SIZE_OF_SOURCES
        live = "true" if parts.scheme == "rtsp" else "false"
        played = Gst.parse_bin_from_description(
            f"videotestsrc pattern={parts.path.rpartition('/')[2]} is-live={live} num-buffers={asked.get('frames', -1)}"
            f" ! video/x-raw,format=RGBA,width={width},height={height},framerate={asked.get('fps', 20)}/1 ! identity",
            True,
        )
        self.add(played)
        pad = played.get_static_pad("src")
        pad.add_probe(Gst.PadProbeType.BUFFER, self._silent)
        ghost = Gst.GhostPad.new("vsrc_0", pad)
        ghost.set_active(True)
        self.add_pad(ghost)

    def _silent(self, *_: Any) -> Any:
        self.count += 1
        lost = self.dies < self.count <= self.back
        return Gst.PadProbeReturn.DROP if lost else Gst.PadProbeReturn.OK


class Ended(Gst.Bin):  # type: ignore[misc]
    """Is a bin with one sink pad, made of a stand-in and what plain GStreamer has."""

    DESCRIPTION = "fakesink sync=false async=false"

    def __init__(self) -> None:
        super().__init__()
        converter, inner = NvVideoConvert(), Gst.parse_bin_from_description(self.DESCRIPTION, True)
        for one in (converter, inner):
            self.add(one)
        converter.src.link(inner.get_static_pad("sink"))
        self.inner = inner
        self.add_pad(Gst.GhostPad.new("sink", converter.sink))


ENCODED = "capsfilter caps=video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast"


class NvV4l2H264Enc(Ended):
    DESCRIPTION = ENCODED
    bitrate = GObject.Property(type=int, default=4000000)
    iframeinterval = GObject.Property(type=int, default=30)

    def __init__(self) -> None:
        super().__init__()
        self.add_pad(Gst.GhostPad.new("src", self.inner.get_static_pad("src")))


class NvRtspOutSinkBin(Ended):
    DESCRIPTION = f"{ENCODED} ! h264parse ! rtph264pay ! fakesink sync=false async=false"
    rtsp_port = GObject.Property(type=int, default=8554)
    bitrate = GObject.Property(type=int, default=4000000)
    enc_type = GObject.Property(type=int, default=0)
    sync = GObject.Property(type=bool, default=False)


class Window(Ended):
    sync = GObject.Property(type=bool, default=True)
    qos = GObject.Property(type=bool, default=True)


ELEMENTS: dict[str, Any] = {
    "nvurisrcbin": NvUriSrcBin,
    "nvstreammux": NvStreamMux,
    "nvinfer": NvInfer,
    "nvvideoconvert": NvVideoConvert,
    "nvsegvisual": NvSegVisual,
    "nvmultistreamtiler": NvMultiStreamTiler,
    "nvv4l2h264enc": NvV4l2H264Enc,
    "nvrtspoutsinkbin": NvRtspOutSinkBin,
    "nveglglessink": Window,
    "nv3dsink": Window,
}


def element(kind: str, name: str) -> Any:
    """Make a stand-in, or an element of GStreamer's own; None where there is neither."""
    if kind not in ELEMENTS:
        return Gst.ElementFactory.make(kind, name)
    made = ELEMENTS[kind]()
    made.set_name(name)
    return made
