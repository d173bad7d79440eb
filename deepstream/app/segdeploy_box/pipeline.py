"""Builds the pipeline of elements: sources, batch, network, pictures, output."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import Any

from segdeploy_box.settings import Settings, Source, WrongSettings

RGBA = "video/x-raw(memory:NVMM), format=RGBA"  # what is drawn into
ENCODABLE = "video/x-raw(memory:NVMM), format=NV12"
CUDA_DEVICE = (
    2  # nvbuf-memory-type: rows one behind the other on each kind of machine, which cudaMemcpy2D reads
)
ON_GPU = 1  # compute-hw
TCP = 4  # select-rtp-protocol
KEY_FRAMES = 30  # from one to the next: who joins waits a second
WHERE_LABELS_ARE = "infer"
WHERE_PIXELS_ARE = "rgba"


def build_pipeline(pipeline: Any, settings: Settings) -> Any:
    """Add and link everything to an empty pyservicemaker.Pipeline, whose add, link and [] are used."""
    if os.environ.get("USE_NEW_NVSTREAMMUX", "").lower() == "yes":
        raise WrongSettings(
            "USE_NEW_NVSTREAMMUX=yes is set: that nvstreammux does not scale to the muxer's size; unset it"
        )
    muxer, count = settings.muxer, len(settings.sources)
    pipeline.add(
        "nvstreammux",
        "mux",
        {
            "batch-size": count,
            "width": muxer.width,
            "height": muxer.height,
            "batched-push-timeout": muxer.push_timeout_us,
            "live-source": settings.is_live,
        },
    )
    for number, source in enumerate(settings.sources):
        add_source(pipeline, settings, number, source)
    inference = settings.inference
    properties = {"config-file-path": inference.config, "batch-size": count}
    pipeline.add(inference.element, WHERE_LABELS_ARE, properties)
    chain = ["mux", WHERE_LABELS_ARE, *add_drawing(pipeline, settings)]
    pipeline.link(*chain, *add_sink(pipeline, settings))
    return pipeline


def add_source(pipeline: Any, settings: Settings, number: int, source: Source) -> None:
    """Add a source and its converter, whose pads are there from the start.

    So the muxer gives its inputs out in the order of the sources, and not of whichever camera answers first; and as a
    converter takes video only, no sound gets into the batch.
    """
    name, converter = f"source{number}", f"video{number}"
    properties: dict[str, object] = {"uri": source.uri}
    if source.uri.startswith(("rtsp://", "rtsps://")):
        again = settings.reconnection
        properties |= {
            "rtsp-reconnect-interval": again.interval_s,
            "init-rtsp-reconnect-interval": again.interval_s,  # for a camera that is off when the box starts
            "rtsp-reconnect-attempts": -1,
            "latency": again.latency_ms,
            "drop-on-latency": True,
            **({"select-rtp-protocol": TCP} if again.tcp else {}),
        }
    pipeline.add("nvurisrcbin", name, properties)
    pipeline.add("nvvideoconvert", converter)
    pipeline.link(name, converter)
    pipeline.link((converter, "mux"), ("", "sink_%u"))


def add_drawing(pipeline: Any, settings: Settings) -> list[str]:
    """Give the elements from labels to one picture of all sources; none where nobody looks at it."""
    if settings.sink.kind == "fake":
        return []
    chain = []
    if settings.drawing.by == "nvsegvisual":
        size = {"width": settings.width, "height": settings.height, "batch-size": len(settings.sources)}
        pipeline.add(
            "nvsegvisual", "colours", {**size, "alpha": settings.drawing.alpha, "original-background": True}
        )
        chain.append("colours")
    elif settings.drawing.by == "segdeploy":
        pipeline.add("nvvideoconvert", "to_rgba", {"nvbuf-memory-type": CUDA_DEVICE, "compute-hw": ON_GPU})
        pipeline.add("capsfilter", WHERE_PIXELS_ARE, {"caps": RGBA})
        chain += ["to_rgba", WHERE_PIXELS_ARE]
    tiler = settings.tiler
    size = {"rows": tiler.rows, "columns": tiler.columns, "width": tiler.width, "height": tiler.height}
    pipeline.add("nvmultistreamtiler", "tiler", size)
    return [*chain, "tiler"]


def add_sink(pipeline: Any, settings: Settings) -> list[str]:
    sink, in_time = settings.sink, {"sync": not settings.is_live, "qos": False}
    if sink.kind == "fake":
        pipeline.add("fakesink", "sink", {"sync": False, "async": False})
        return ["sink"]
    pipeline.add("queue", "pictures")
    pipeline.add("nvvideoconvert", "to_sink")
    if sink.kind == "display":
        kind = "nv3dsink" if platform.machine() == "aarch64" else "nveglglessink"
        pipeline.add(kind, "sink", in_time)
        return ["pictures", "to_sink", "sink"]
    hardware = sink.encoder == "hardware" and has_encoder()
    if sink.kind == "rtsp":
        properties = {"rtsp-port": sink.port, "bitrate": sink.bitrate, "enc-type": 0 if hardware else 1}
        pipeline.add("nvrtspoutsinkbin", "sink", {**properties, "sync": in_time["sync"]})
        return ["pictures", "to_sink", "sink"]
    # Matroska can be read up to where it was written, also after a power cut; an MP4 without its end cannot.
    if hardware:
        pipeline.add("capsfilter", "encodable", {"caps": ENCODABLE})
        pipeline.add("nvv4l2h264enc", "encoder", {"bitrate": sink.bitrate, "iframeinterval": KEY_FRAMES})
    else:
        pipeline.add("capsfilter", "encodable", {"caps": "video/x-raw, format=I420"})
        pipeline.add(
            "x264enc",
            "encoder",
            {"bitrate": sink.bitrate // 1000, "key-int-max": KEY_FRAMES, "speed-preset": 2, "tune": 4},
        )
    pipeline.add("h264parse", "parser")
    pipeline.add("matroskamux", "container", {"streamable": True})
    pipeline.add("filesink", "sink", {"location": sink.file, "sync": False, "async": False})
    pipeline.link(("parser", "container"), ("", "video_%u"))
    pipeline.link("container", "sink")
    return ["pictures", "to_sink", "encodable", "encoder", "parser"]


def has_encoder() -> bool:
    """Ask GStreamer whether this machine encodes in hardware: an Orin Nano, an A100 and an H100 do not."""
    asked = ["gst-inspect-1.0", "--exists", "nvv4l2h264enc"]
    try:
        return subprocess.run(asked, check=False, timeout=60).returncode == 0  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
