"""Stands in for NVIDIA's pyservicemaker: the names and calls of its public samples and headers, on plain GStreamer.

Nothing of it is NVIDIA's, and no GPU is used. Metadata is gone after a probe, as on a device: its maps are overwritten.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gi
import nv_elements

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402


class EOSMessage:
    pass


class StateTransitionMessage:
    pass


class BatchMetadataOperator:
    def handle_metadata(self, batch_meta: BatchMetadata) -> None:
        raise NotImplementedError


class BufferOperator:
    def handle_buffer(self, buffer: Buffer) -> bool:
        raise NotImplementedError


class Probe:
    def __init__(self, name: str, operator: BatchMetadataOperator | BufferOperator) -> None:
        if not isinstance(operator, (BatchMetadataOperator, BufferOperator)):
            raise TypeError(f"{operator!r} is no operator")
        self.name, self.operator = name, operator


class Segmentation:
    def __init__(self, found: nv_elements.Found) -> None:
        height, width = found.class_map.shape
        self.unique_id, self.classes, self.width, self.height = 1, found.classes, width, height
        self.class_map = found.class_map

    def as_segmentation(self) -> Segmentation:
        return self


class Tensors:
    def __init__(self, found: nv_elements.Found) -> None:
        self._layers = {"output": found.class_map[None].astype("i8")}

    def as_tensor_output(self) -> Tensors:
        return self

    def get_layers(self) -> dict[str, Any]:
        return self._layers


class FrameMetadata:
    def __init__(self, one: nv_elements.Frame) -> None:
        self.pad_index = self.source_id = one.pad_index
        self.batch_id, self.frame_number, self.buffer_pts = one.batch_id, one.number, one.pts
        self._found = one.found

    @property
    def segmentation_items(self) -> Iterator[Segmentation]:
        return iter([Segmentation(self._found)] if self._found and self._found.is_parsed else [])

    @property
    def tensor_items(self) -> Iterator[Tensors]:
        return iter([Tensors(self._found)] if self._found and not self._found.is_parsed else [])


class BatchMetadata:
    def __init__(self, batch: nv_elements.Batch) -> None:
        self._batch = batch

    @property
    def frame_items(self) -> Iterator[FrameMetadata]:
        return iter([FrameMetadata(one) for one in self._batch.frames])


class Buffer:
    def __init__(self, batch: nv_elements.Batch) -> None:
        self._batch = batch
        self.batch_size = len(batch.frames)
        self.batch_meta = BatchMetadata(batch)

    def extract(self, batch_id: int) -> Any:
        """Give the very pixels, as an array, which has __dlpack__ as their tensors have."""
        return self._batch.pixels[batch_id]


class Node:
    def __init__(self, element: Any) -> None:
        self.element = element

    def set(self, properties: dict[str, Any]) -> None:
        for name, value in properties.items():
            if self.element.find_property(name) is None:
                raise RuntimeError(f"{self.element.get_name()} has no property {name}")
            if name == "caps":
                value = Gst.Caps.from_string(value)
            self.element.set_property(name, value)


class Pipeline:
    def __init__(self, name: str) -> None:
        self._pipeline = Gst.Pipeline.new(name)
        self._nodes: dict[str, Node] = {}
        self._stopped = threading.Event()
        self._on_message: Callable[[Any], None] = lambda _: None

    def add(self, element_type: str, name: str, properties: dict[str, Any] | None = None) -> Pipeline:
        element = nv_elements.element(element_type, name)
        if element is None:
            raise RuntimeError(f"there is no element {element_type}")
        self._pipeline.add(element)
        self._nodes[name] = Node(element)
        self._nodes[name].set(properties or {})
        return self

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    def link(self, *route: Any) -> Pipeline:
        if isinstance(route[0], tuple):
            (origin, target), (origin_pad, target_pad) = route
            self._link(origin, target, origin_pad, target_pad)
        else:
            for origin, target in itertools.pairwise(route):
                self._link(origin, target, "", "")
        return self

    def _link(self, origin: str, target: str, origin_pad: str, target_pad: str) -> None:
        one, other = self._nodes[origin].element, self._nodes[target].element
        source = one.get_static_pad(origin_pad or "src")
        if source is None:  # it comes when the element knows what it plays
            one.connect("pad-added", lambda _, pad: pad.link(sink_of(other, target_pad)))
            return
        linked = source.link(sink_of(other, target_pad))
        if linked != Gst.PadLinkReturn.OK:
            raise RuntimeError(f"{origin} and {target} cannot be linked: {linked.value_nick}")

    def attach(self, target: str, what: Probe, name: str = "", tips: str = "") -> Pipeline:
        pad = self._nodes[target].element.get_static_pad(tips or "src")
        pad.add_probe(Gst.PadProbeType.BUFFER, self._probed, what.operator)
        return self

    @staticmethod
    def _probed(_: Any, info: Any, operator: Any) -> Any:
        batch = nv_elements.batch_of(info.get_buffer())
        keep = True
        if isinstance(operator, BufferOperator):
            keep = operator.handle_buffer(Buffer(batch))
        else:
            operator.handle_metadata(BatchMetadata(batch))
        for frame in batch.frames:
            if frame.found:
                frame.found.class_map[:] = -999
        return Gst.PadProbeReturn.OK if keep else Gst.PadProbeReturn.DROP

    def start(self, on_message: Callable[[Any], None] | None = None) -> Pipeline:
        self._on_message = on_message or self._on_message
        time.sleep(float(os.environ.get("STANDIN_BUILDS_S", "0")))  # as nvinfer does at its first start
        self._pipeline.set_state(Gst.State.PLAYING)
        return self

    def wait(self) -> None:
        bus = self._pipeline.get_bus()
        kinds = Gst.MessageType.EOS | Gst.MessageType.ERROR
        while not self._stopped.is_set():
            message = bus.timed_pop_filtered(50 * Gst.MSECOND, kinds)
            if message and message.type == Gst.MessageType.EOS:
                self._on_message(EOSMessage())
                return
            if message:
                error, details = message.parse_error()
                print(f"stand-in: {error.message} {details}", file=sys.stderr, flush=True)
                return

    def stop(self) -> Pipeline:
        self._stopped.set()
        self._pipeline.set_state(Gst.State.NULL)
        return self


def sink_of(element: Any, name: str) -> Any:
    if "%" not in name:
        return element.get_static_pad(name or "sink")
    return element.requested(name) if hasattr(element, "requested") else element.request_pad_simple(name)
