"""A second list of faults for the lint, written before it was run on any, by somebody who had not read its rules.

Where they come from: NVIDIA's own lists of pitfalls (skills/deepstream-dev/references of its DeepStream repository),
questions in the trackers of deepstream_tao_apps and DeepStream-Yolo (lines of a detector's file kept, a wrong parser, a
wrong scale), the sources of nvinfer 9.1, deepstream-app and ds-tao-segmentation, and what GLib and yaml-cpp do with a
line. It was written without the first list at hand, so single lines may stand there too. It reaches over several files,
versions and kinds of graph.
The form is that of deepstream_faults.py; a function changes a file's bytes. After the first count nine words by which a
finding is recognised were corrected, for that count too; what proved to be no fault is in NO_FAULT, with the reason.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deepstream_faults import edited
from setting import RESULTS, setting, write_results

from segdeploy.convert.bundled import bundled_graph
from segdeploy.errors import SegdeployError
from segdeploy.serve.deepstream.lint import lint
from segdeploy.shipped import folder

Edit = str | tuple[str, str, str] | tuple[str, Callable[[bytes], bytes | None]]
Fault = tuple[Edit, str]

MODEL = "segformer-b0-demo.256x512.nvinfer.onnx"
YOLO_LIBRARY = "nvdsinfer_custom_impl_Yolo/libnvdsinfer_custom_impl_Yolo.so"


def gone(_: bytes) -> None:
    """Take a file away."""


def truncated(content: bytes) -> bytes:
    """A copy that was stopped in the middle."""
    return content[: len(content) // 2]


def pointer_of_git_lfs(_: bytes) -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 14900000\n"


def sorted_lines(content: bytes) -> bytes:
    return b"".join(sorted(content.splitlines(keepends=True)))


def numbered_lines(content: bytes) -> bytes:
    return b"".join(b"%d: %s" % row for row in enumerate(content.splitlines(keepends=True)))


def on_one_line(content: bytes) -> bytes:
    return b";".join(content.splitlines()) + b"\n"


def as_json(content: bytes) -> bytes:
    return json.dumps(dict(enumerate(content.decode().splitlines()))).encode()


def with_background(content: bytes) -> bytes:
    return content + b"background\n"


def in_utf16(content: bytes) -> bytes:
    return content.decode().encode("utf-16")


NVINFER: list[Fault] = [
    # a detector's or a classifier's file taken over
    ("network-type=0", "network-type"),
    ("network-type=1", "network-type"),
    ("network-type=3", "network-type"),
    ("net-scale-factor=0.0039215697906911373", "net-scale-factor"),
    ("net-scale-factor=0.00784313725490196", "net-scale-factor"),
    ("net-scale-factor=1.0", "net-scale-factor"),
    ("offsets=127.5;127.5;127.5", "offsets"),
    ("offsets=0;0;0", "offsets"),
    ("offsets=103.53;116.28;123.675", "offsets"),
    ("offsets=77.5;21.2;11.8", "offsets"),
    ("num-detected-classes=80", "num-detected-classes"),
    ("num-detected-classes=4", "num-detected-classes"),
    ("num-detected-classes=150", "num-detected-classes"),
    ("maintain-aspect-ratio=1", "maintain-aspect-ratio"),
    (f"custom-lib-path={YOLO_LIBRARY}", "custom-lib-path"),
    ("+parse-bbox-func-name=NvDsInferParseYolo", "parse-bbox-func-name"),
    ("+parse-bbox-instance-mask-func-name=NvDsInferParseSegdeploy", "parse-bbox-instance-mask-func-name"),
    ("+parse-classifier-func-name=NvDsInferClassiferParseCustomSoftmax", "parse-classifier-func-name"),
    ("parse-segmentation-func-name=NvDsInferParseYolo", "NvDsInferParseYolo"),
    ("parse-segmentation-func-name=NvDsInferParseSegDeploy", "NvDsInferParseSegDeploy"),
    ("parse-segmentation-func-name=segdeploy_parser", "segdeploy_parser"),
    ("parse-segmentation-func-name=NvDsInferParseSegdeploy ", "NvDsInferParseSegdeploy"),
    ("+is-classifier=0", "is-classifier"),
    ("+output-blob-names=conv2d_bbox;conv2d_cov/Sigmoid", "output-blob-names"),
    ("+output-blob-names=softmax_1", "output-blob-names"),
    ("+proto-file=resnet10.prototxt", "proto-file"),
    ("+uff-file=model.uff", "uff-file"),
    ("+custom-network-config=yolov8s.cfg", "custom-network-config"),
    ("+tlt-model-key=nvidia_tlt", "tlt-model-key"),
    ("+engine-create-func-name=NvDsInferYoloEngineGet", "engine-create-func-name"),
    ("+operate-on-gie-id=1", "operate-on-gie-id"),
    ("+output-instance-mask=1", "output-instance-mask"),
    ("+[class-attrs-all]\nmin-boxes=3", "min-boxes"),
    # what belongs to the element, to the muxer, to the app or to another tool
    ("+infer-on-gie-id=1", "infer-on-gie-id"),
    ("+raw-output-file-write=1", "raw-output-file-write"),
    ("+batched-push-timeout=40000", "batched-push-timeout"),
    ("+live-source=1", "live-source"),
    ("+alpha=0.5", "alpha"),
    ("+original-background=1", "original-background"),
    ("+colours-file=colours.csv", "colours-file"),
    ("+fp16=1", "fp16"),
    ("+max-batch-size=8", "max-batch-size"),
    ("+input-shapes=1x3x256x512", "input-shapes"),
    ("+interval-frames=5", "interval-frames"),
    ("+threshold=0.5", "threshold"),
    ("+config-file=nvinfer_config.txt", "config-file"),
    # the network's input
    ("infer-dims=3;512;256", "infer-dims"),
    ("infer-dims=3;720;1280", "infer-dims"),
    ("infer-dims=256;512;3", "infer-dims"),
    ("infer-dims=1;256;512", "infer-dims"),
    ("infer-dims=3x256x512", "infer-dims"),
    ("infer-dims=3;256", "infer-dims"),
    ("+network-input-order=1", "network-input-order"),
    ("model-color-format=2", "model-color-format"),
    ("model-color-format=RGB", "model-color-format"),
    ("model-color-format=1", "model-color-format"),
    ("batch-size=8", "batch-size"),
    ("batch-size=0", "batch-size"),
    ("batch-size=1.0", "batch-size"),
    ("batch-size=1 # one stream", "batch-size"),
    ("network-type=2 ; semantic", "network-type"),
    ("num-detected-classes=19;", "num-detected-classes"),
    ("offsets=123.675", "offsets"),
    ("offsets=123.675;116.28", "offsets"),
    ("offsets=123.675 116.28 103.53", "offsets"),
    ("offsets=0,485;0,456;0,406", "offsets"),
    ("gie-unique-id=0", "gie-unique-id"),
    ("interval=-1", "interval"),
    # paths and names
    ("onnx-file=Segformer-b0-demo.256x512.nvinfer.onnx", "onnx-file"),
    (f"onnx-file={MODEL} ", "onnx-file"),
    (f"onnx-file=file:///model/{MODEL}", "onnx-file"),
    (f"onnx-file=~/model/{MODEL}", "onnx-file"),
    (f"onnx-file=$HOME/model/{MODEL}", "onnx-file"),
    (f'onnx-file="{MODEL}"', "onnx-file"),
    (f"onnx-file=C:\\models\\{MODEL}", "onnx-file"),
    ("labelfile-path=labels.txt ", "labelfile-path"),
    ("labelfile-path=../labels.txt", "labelfile-path"),
    ("labelfile-path=colours.csv", "colours.csv"),
    ("custom-lib-path=parser/libsegdeploy_parser", "custom-lib-path"),
    ("custom-lib-path=./parser/libsegdeploy-parser.so", "custom-lib-path"),
    ("custom-lib-path=/opt/nvidia/deepstream/deepstream/lib/libnvds_infercustomparser.so", "custom-lib-path"),
    ("model-engine-file=model_b1_gpu0_fp16.engine", "model-engine-file"),
    (f"model-engine-file={MODEL}_b4_gpu0_fp32.engine", "model-engine-file"),
    (f"model-engine-file={MODEL}", "model-engine-file"),
    ("model-engine-file=segformer-b0-demo.256x512.nvinfer.engine", "model-engine-file"),
    ("gpu-id=1", "model-engine-file"),
    ("network-mode=2", "model-engine-file"),
    ("+enable-dla=1", "dla"),
    ("+use-dla-core=2", "dla"),
    # numbers that are far off
    ("network-mode=32", "network-mode"),
    ("network-mode=16", "network-mode"),
    ("interval=100", "interval"),
    ("+segmentation-threshold=50", "segmentation-threshold"),
    ("+segmentation-threshold=-1", "segmentation-threshold"),
    ("scaling-filter=9", "scaling-filter"),
    ("scaling-compute-hw=3", "scaling-compute-hw"),
    ("cluster-mode=9", "cluster-mode"),
    ("network-type=200", "network-type"),
    # the same key twice, where the last counts
    ("+network-type=0", "network-type"),
    ("+network-mode=2", "network-mode"),
    ("+net-scale-factor=0.00392", "net-scale-factor"),
    ("+batch-size=16", "batch-size"),
    # the form of the file
    (("nvinfer_config.txt", "[property]", "[property"), ""),
    (("nvinfer_config.txt", "[property]", "[primary-gie]"), "primary-gie"),
    (("nvinfer_config.txt", "[property]", "property:"), ""),
    (("nvinfer_config.txt", "network-type=2", "network-type 2"), ""),
    (("nvinfer_config.txt", "network-type=2", "network-type"), ""),
    (("nvinfer_config.txt", "network-type=2", "=2"), ""),
    (("nvinfer_config.txt", "network-type=2", "-network-type=2"), "network-type"),
    (("nvinfer_config.txt", "network-type=2", "network–type=2"), "type"),
    (("nvinfer_config.txt", "network-type=2", "Network-type=2"), "Network-type"),
    (("nvinfer_config.txt", "network-type=2", "networktype=2"), "networktype"),
    (("nvinfer_config.txt", "batch-size=1", "batchsize=1"), "batchsize"),
    (("nvinfer_config.txt", in_utf16), ""),
    (("nvinfer_config.txt", truncated), ""),
    # labels, the graph and the parser
    (("labels.txt", sorted_lines), "label"),
    (("labels.txt", numbered_lines), "label"),
    (("labels.txt", on_one_line), "label"),
    (("labels.txt", as_json), "label"),
    (("labels.txt", with_background), "label"),
    (("labels.txt", in_utf16), "label"),
    (("labels.txt", truncated), "label"),
    (("labels.txt", gone), "label"),
    (("labels.txt", "car\ntruck\n", "truck\ncar\n"), "label"),
    ((MODEL, truncated), "onnx"),
    ((MODEL, pointer_of_git_lfs), "onnx"),
    ((MODEL, gone), "onnx"),
    (("parser/libsegdeploy_parser.so", lambda _: b""), "libsegdeploy_parser"),
    (("parser/libsegdeploy_parser.so", pointer_of_git_lfs), "libsegdeploy_parser"),
]  # fmt: skip

YML: list[Fault] = [
    (("nvinfer_config.yml", "property:", "model:"), "property"),
    (("nvinfer_config.yml", "property:", "property"), ""),
    (("nvinfer_config.yml", "property:", "[property]"), ""),
    (("nvinfer_config.yml", "  batch-size: 1", "  batch-size=1"), ""),
    (("nvinfer_config.yml", "  batch-size: 1", "   batch-size: 1"), ""),
    (("nvinfer_config.yml", "  batch-size: 1", "batch-size: 1"), ""),
    (("nvinfer_config.yml", "  gpu-id: 0", "  - gpu-id: 0"), ""),
    (("nvinfer_config.yml", "infer-dims: 3;256;512", "infer-dims: [3, 256, 512]"), "infer-dims"),
    (("nvinfer_config.yml", "123.675;116.28;103.53", "123.675, 116.28, 103.53"), "offsets"),
    (("nvinfer_config.yml", "123.675;116.28;103.53", "0.485;0.456;0.406"), "offsets"),
    (("nvinfer_config.yml", "maintain-aspect-ratio: 0", "maintain-aspect-ratio: no"), "maintain-aspect-ratio"),
    (("nvinfer_config.yml", "interval: 0", "interval: 0#every"), "interval"),
    (("nvinfer_config.yml", f"onnx-file: {MODEL}", "onnx-file: ~"), "onnx-file"),
    (("nvinfer_config.yml", f"onnx-file: {MODEL}", "onnx-file:"), "onnx-file"),
    (("nvinfer_config.yml", "labelfile-path: labels.txt", "labelfile-path: ./lables.txt"), "lables"),
    (("nvinfer_config.yml", "network-type: 2", "network_type: 2"), "network_type"),
    (("nvinfer_config.yml", "network-type: 2", "network-type: segmentation"), "network-type"),
    (("nvinfer_config.yml", "  gpu-id: 0", "  network-type: 0\n  gpu-id: 0"), "network-type"),
    (("nvinfer_config.yml", "network-mode: 0", "network-mode: fp32"), "network-mode"),
    (("nvinfer_config.yml", "0.01735207357279195", "1/57.63"), "net-scale-factor"),
]  # fmt: skip

APP: list[Fault] = [
    (("app.yml", "list: file:///opt", "list: file://opt"), "source"),
    (("app.yml", "list: file:///", "list: file:///a.mp4,file:///"), "source"),
    (("app.yml", "list: file:///", "list: rtsp://a/1;file:///"), "batch-size"),
    (("app.yml", "list: file:///", "list: rtsp:/"), "source"),
    (("app.yml", "list: ", "list: # "), "source"),
    (("app.yml", "list: ", "uri: "), "uri"),
    (("app.yml", "list: ", "- list: "), "source-list"),
    (("app.yml", "config-file-path: .//nvinfer_config.yml", "config-file-path: nvinfer_config.yml"), "config"),
    (("app.yml", "config-file-path: .//nvinfer_config.yml", "config-file-path: .//nvinfer_config.txt"), "config"),
    (("app.yml", "config-file-path: .//nvinfer_config.yml", "config-file-path: .//nvinfer.yml"), "nvinfer.yml"),
    (("app.yml", "plugin-type: 0", "plugin-type: nvinfer"), "plugin-type"),
    (("app.yml", "batch-size: 1", "batch_size: 1"), "batch_size"),
    (("app.yml", "batched-push-timeout: 40000", "batched-push-timeout: 40ms"), "batched-push-timeout"),
    (("app.yml", "batched-push-timeout: 40000", "batched-push-timeout: 0.04"), "batched-push-timeout"),
    (("app.yml", "width: 512\n  height: 256", "width: 256\n  height: 128"), "segvisual"),
    (("app.yml", "width: 512\n  height: 256", "width: 0\n  height: 0"), "segvisual"),
    (("app.yml", "width: 512\n", "width: 512px\n"), "width"),
    (("app.yml", "orig_background: 1", "orig-background: 1"), "orig-background"),
    (("app.yml", "orig_background: 1", "original-background: 1"), "original-background"),
    (("app.yml", "alpha: 0.5", "alpha: 1.5"), "alpha"),
    (("app.yml", "alpha: 0.5", "alpha: -0.5"), "alpha"),
    (("app.yml", "alpha: 0.5", "alpha: 0,5"), "alpha"),
    (("app.yml", "filesink:\n  enable: 1", "filesink:\n  enable: 0"), "sink"),
    (("app.yml", "filesink:\n  enable: 1", "filesink:\n  enable: true"), "enable"),
    (("app.yml", "enc-type: 0", "enc-type: 2"), "enc-type"),
    (("app.yml", "enc-type: 0", "enc-type: hardware"), "enc-type"),
    (("app.yml", "enc-type: 0", "enc-type: 1\n  bitrate: 4000000"), "bitrate"),
    (("app.yml", "fakesink:\n  enable: 0", "fakesink:\n  enable: 1"), "sink"),
    (("app.yml", "segvisual:", "  segvisual:"), ""),
    (("app.yml", "primary-gie:\n", ""), ""),
    (("app.yml", "segvisual:", "nvsegvisual:"), "segvisual"),
    (("app.yml", "tests:\n  file-loop: 0\n", ""), "tests"),
    (("app.yml", "streammux:", "streammux"), ""),
    (("app.yml", truncated), ""),
    (("configs/nvinfer_config.yml", gone), "configs"),
]  # fmt: skip

EARLIER: dict[str, list[Fault]] = {
    "of 6.3": [
        ("network-type=2", "own parser"),
        ("-output-tensor-meta", "output-tensor-meta"),
        ("output-tensor-meta=0", "output-tensor-meta"),
        ("+parse-segmentation-func-name=NvDsInferParseSegdeploy", "parse-segmentation-func-name"),
        ("+strongly-typed=1", "strongly-typed"),
        ("network-mode=3", "network-mode"),
        ("num-detected-classes=2", "num-detected-classes"),
    ],
    "of 7.1": [
        ("network-type=0", "network-type"),
        ("-network-type", "network-type"),
        ("output-tensor-meta=yes", "output-tensor-meta"),
        ("+input-tensor-from-meta=1", "input-tensor-from-meta"),
        ("+strongly-typed=1", "strongly-typed"),
        (("app.yml", "plugin-type: 0", "plugin-type: 1"), "plugin-type"),
        (("configs/nvinfer_config.yml", "network-type: 100", "network-type: 2"), "network-type"),
    ],
    "of 8.0": [
        ("network-mode=3", "network-mode"),
        ("+strongly-typed=1", "strongly-typed"),
        ("network-type=100", "network-type"),
        ("-parse-segmentation-func-name", "parse-segmentation-func-name"),
        ("-custom-lib-path", "custom-lib-path"),
        ("-infer-dims", "infer-dims"),
    ],
    "in FP16": [
        ("-strongly-typed", "strongly-typed"),
        ("strongly-typed=0", "strongly-typed"),
        ("strongly-typed=True", "strongly-typed"),
        ("network-mode=2", "network-mode"),
        ("network-mode=1", "network-mode"),
        ("+int8-calib-file=calibration.cache", "int8-calib-file"),
    ],
    "of logits": [
        ("-parse-segmentation-func-name", "parse-segmentation-func-name"),
        ("num-detected-classes=20", "num-detected-classes"),
        ("parse-segmentation-func-name=NvDsInferParseCustomSegformerTAO", "NvDsInferParseCustomSegformerTAO"),
        ("+segmentation-threshold=1.5", "segmentation-threshold"),
        ("network-type=100", "network-type"),
        ("segmentation-output-order=3", "segmentation-output-order"),
    ],
}  # fmt: skip

CAMERAS: list[Fault] = [
    # the sources
    (("deepstream_app.txt", "type=4\nuri=rtsp://camera0", "type=1\nuri=rtsp://camera0"), "type"),
    (("deepstream_app.txt", "type=2\nuri=file", "type=4\nuri=file"), "type"),
    (("deepstream_app.txt", "uri=file:///data/a.mp4", "uri=/data/a.mp4"), "uri"),
    (("deepstream_app.txt", "uri=file:///data/a.mp4", "uri=file://data/a.mp4"), "uri"),
    (("deepstream_app.txt", "uri=rtsp://camera0/stream", 'uri="rtsp://camera0/stream"'), "uri"),
    (("deepstream_app.txt", "uri=rtsp://camera0/stream", "uri=rtsp:/camera0/stream"), "uri"),
    (("deepstream_app.txt", "uri=rtsp://camera0/stream", "url=rtsp://camera0/stream"), "url"),
    (("deepstream_app.txt", "uri=rtsp://camera0/stream", "uri=rtsp://camera0/stream;rtsp://camera1/stream"), "uri"),
    (("deepstream_app.txt", "[source0]\nenable=1", "[source0]\nenable=0"), "batch-size"),
    (("deepstream_app.txt", "[source1]", "[source0]"), "source0"),
    (("deepstream_app.txt", "[source1]", "[source]"), "source"),
    (("deepstream_app.txt", "[source1]", "[sources1]"), "sources1"),
    (("deepstream_app.txt", "[source1]", "[source-b]"), "source-b"),
    (("deepstream_app.txt", "select-rtp-protocol=4", "select-rtp-protocol=tcp"), "select-rtp-protocol"),
    (("deepstream_app.txt", "select-rtp-protocol=4", "select-rtp-protocol=1"), "select-rtp-protocol"),
    (("deepstream_app.txt", "rtsp-reconnect-interval-sec=10",
      "rtsp-reconnect-interval-sec=10s"), "rtsp-reconnect-interval-sec"),
    (("deepstream_app.txt", "latency=200", "latency=-1"), "latency"),
    (("deepstream_app.txt", "latency=200", "latency=200ms"), "latency"),
    # the batch
    (("deepstream_app.txt", "live-source=1\nbatch-size=2", "live-source=1\nbatch-size=1"), "batch-size"),
    (("deepstream_app.txt", "live-source=1", "live-source=0"), "live-source"),
    (("deepstream_app.txt", "batched-push-timeout=40000", "batched-push-timeout=40"), "batched-push-timeout"),
    (("deepstream_app.txt", "batched-push-timeout=40000", "batched-push-timeout=40ms"), "batched-push-timeout"),
    (("deepstream_app.txt", "height=720\n\n[primary", "\n[primary"), "height"),
    (("deepstream_app.txt", "width=1280\nheight=720\n\n[primary", "width=1280x720\n\n[primary"), "width"),
    (("deepstream_app.txt", "[streammux]", "[nvstreammux]"), "nvstreammux"),
    # the network
    (("deepstream_app.txt", "config-file=", "config-file-path="), "config-file"),
    (("deepstream_app.txt", "config-file=nvinfer_config.txt",
      "config-file=./config/nvinfer_config.txt"), "config-file"),
    (("deepstream_app.txt", "config-file=nvinfer_config.txt", "config-file=labels.txt"), "config-file"),
    (("deepstream_app.txt", "config-file=nvinfer_config.txt",
      "config-file=nvinfer_config.txt\nmodel-engine-file=model.engine"), "model-engine-file"),
    (("deepstream_app.txt", "config-file=nvinfer_config.txt",
      "config-file=nvinfer_config.txt\nnetwork-type=2"), "network-type"),
    (("deepstream_app.txt", "config-file=nvinfer_config.txt\n", ""), "config-file"),
    (("deepstream_app.txt", "[primary-gie]\nenable=1", "[primary-gie]\nenable=0"), "primary-gie"),
    (("deepstream_app.txt", "batch-size=2\nplugin-type=0", "batch-size=4\nplugin-type=0"), "batch-size"),
    (("deepstream_app.txt", "plugin-type=0", "plugin-type=1"), "plugin-type"),
    (("deepstream_app.txt", "plugin-type=0", "plugin-type=0\ninput-tensor-meta=1"), "input-tensor-meta"),
    (("deepstream_app.txt", "plugin-type=0", "plugin-type=0\ninterval=60"), "interval"),
    (("deepstream_app.txt", "[primary-gie]\nenable=1\ngpu-id=0", "[primary-gie]\nenable=1\ngpu-id=1"), "gpu-id"),
    (("deepstream_app.txt", "[primary-gie]", "[secondary-gie0]"), "primary-gie"),
    (("deepstream_app.txt", "[primary-gie]", "[primary_gie]"), "primary_gie"),
    # drawing and out
    (("deepstream_app.txt", "[segvisual]\nenable=1", "[segvisual]\nenable=0"), "segvisual"),
    (("deepstream_app.txt", "[segvisual]\nenable=1\ngpu-id=0\nbatch-size=2",
      "[segvisual]\nenable=1\ngpu-id=0\nbatch-size=1"), "batch-size"),
    (("deepstream_app.txt", "width=512\nheight=256", "width=128\nheight=64"), "segvisual"),
    (("deepstream_app.txt", "width=512\nheight=256", "width=512\nheight=256\nalpha=0.5"), "alpha"),
    (("deepstream_app.txt", "rows=1\ncolumns=2", "rows=0\ncolumns=2"), "rows"),
    (("deepstream_app.txt", "width=1280\nheight=720\ngpu-id", "width=0\nheight=0\ngpu-id"), "width"),
    (("deepstream_app.txt", "[tiled-display]", "[tiler]"), "tiler"),
    (("deepstream_app.txt", "[sink0]", "[sink]"), "sink"),
    (("deepstream_app.txt", "[sink0]\nenable=1\ntype=4", "[sink0]\nenable=1\ntype=rtsp"), "type"),
    (("deepstream_app.txt", "[sink0]\nenable=1\ntype=4", "[sink0]\nenable=1\ntype=3"), "output-file"),
    (("deepstream_app.txt", "[sink0]\nenable=1\ntype=4", "[sink0]\nenable=1\ntype=6"), "type"),
    (("deepstream_app.txt", "codec=1", "codec=h264"), "codec"),
    (("deepstream_app.txt", "codec=1", "codec=0"), "codec"),
    (("deepstream_app.txt", "enc-type=0", "enc-type=5"), "enc-type"),
    (("deepstream_app.txt", "bitrate=4000000", "bitrate=4"), "bitrate"),
    (("deepstream_app.txt", "bitrate=4000000", "bitrate=4M"), "bitrate"),
    (("deepstream_app.txt", "rtsp-port=8554", "rtsp-port=85540"), "rtsp-port"),
    (("deepstream_app.txt", "udp-port=5400", "udp-port=8554"), "port"),
    (("deepstream_app.txt", "rtsp-port=8554", "port=8554"), "port"),
    (("deepstream_app.txt", "perf-measurement-interval-sec=5",
      "perf-measurement-interval-sec=five"), "perf-measurement-interval-sec"),
    (("deepstream_app.txt", "[application]", "[aplication]"), "aplication"),
    (("deepstream_app.txt", truncated), ""),
    # the settings of our own application
    (("segdeploy_app.json", '"alpha": 0.55', '"alpha": 55'), "alpha"),
    (("segdeploy_app.json", '"alpha": 0.55', '"alpha": "0.55"'), "alpha"),
    (("segdeploy_app.json", '"kind": "rtsp"', '"kind": "udp"'), "kind"),
    (("segdeploy_app.json", '"kind": "rtsp"', '"type": "rtsp"'), "sink"),
    (("segdeploy_app.json", '"config": "nvinfer_config.txt"', '"config": "config.txt"'), "config.txt"),
    (("segdeploy_app.json", '"uri": "rtsp://camera0/stream"', '"uri": "camera0/stream"'), "uri"),
    (("segdeploy_app.json", '"uri": "rtsp://camera0/stream"', '"url": "rtsp://camera0/stream"'), "uri"),
    (("segdeploy_app.json", '"port": 8554', '"port": 85540'), "port"),
    (("segdeploy_app.json", '"protocol": "mqtt"', '"protocol": "amqp"'), "protocol"),
    (("segdeploy_app.json", '"push_timeout_us": 40000', '"push_timeout_us": -40'), "push_timeout_us"),
    (("segdeploy_app.json", '"network_type": 2', '"network_type": 0'), "network_type"),
    (("segdeploy_app.json", '"width": 512', '"width": 256'), "width"),
    (("segdeploy_app.json", '"name": "bicycle"', '"name": "bike"'), "bike"),
    (("segdeploy_app.json", '"columns": 2', '"columns": 0'), "columns"),
    (("segdeploy_app.json", '"lost_s": 5.0', '"lost_s": null'), "lost_s"),
    (("segdeploy_app.json", '"legend": true', '"legend": true,'), ""),
    (("segdeploy_app.json", truncated), ""),
]  # fmt: skip

# Written as a fault, and none on looking again: the reason.
NO_FAULT: dict[str, str] = {
    "of 9.1: batch-size=1 # one stream": "GLib reads a number up to a space",
    "of 9.1: network-type=2 ; semantic": "GLib reads a number up to a space",
    "of 9.1: +tlt-model-key=nvidia_tlt": "NVIDIA's own configurations have it beside onnx-file, where nothing reads it",
    "of 8.0: -infer-dims": "nvinfer takes the size from a graph whose size is fixed",
    "cameras: deepstream_app.txt: 'uri=file:///data/a.mp4' -> 'uri=file://data/a.mp4'":
        "deepstream-app takes it relative"
    " to its file",
    "cameras: deepstream_app.txt: '[source0]\\nenable=1' -> '[source0]\\nenable=0'":
        "a batch with a place to spare works",
    "cameras: deepstream_app.txt: 'rows=1\\ncolumns=2' -> 'rows=0\\ncolumns=2'":
        "deepstream-app makes as many as it needs",
    "cameras: deepstream_app.txt: 'udp-port=5400' -> 'udp-port=8554'": "ports of UDP and of TCP are apart",
}  # fmt: skip

# What a user lints who changed another file.
LINTED_FOR = {
    **dict.fromkeys(("labels.txt", MODEL, "parser/libsegdeploy_parser.so"), "nvinfer_config.txt"),
    "configs/nvinfer_config.yml": "app.yml",
}  # fmt: skip


def name_of(edit: Edit) -> str:
    if isinstance(edit, str):
        return edit
    what = f"{edit[1]!r} -> {edit[2]!r}" if len(edit) == 3 else edit[1].__name__.replace("<lambda>", "empty")
    return f"{edit[0]}: {what}"


def segdeploy(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "segdeploy", *map(str, words), "-q"], check=True)


def graph(place: Path, *flags: str) -> Path:
    """Export the bundled checkpoint, if `place` has no graph from an earlier run."""
    if not place.exists():
        segdeploy("export", folder("models") / "demo-b0", *flags, "-o", place)
    return next(place.glob("*.onnx"))


def rendered_folders(graphs: Path, place: Path) -> dict[str, Path]:
    """Render as a user does: one folder for each kind of graph and version."""
    usual = bundled_graph("nvinfer")
    orders = {
        "of 9.1": (usual, "9.1"),
        "of 8.0": (usual, "8.0"),
        "of 7.1": (usual, "7.1"),
        "of 6.3": (graph(graphs / "opset16", "--opset", "16"), "6.3"),
        "in FP16": (graph(graphs / "half", "--fp16"), "9.1"),
        "of logits": (graph(graphs / "logits", "--interface", "logits"), "9.0"),
    }
    for name, (model, version) in orders.items():
        segdeploy("deepstream", "config", model, "-o", place / name, "--deepstream", version)
    segdeploy(
        "deepstream", "app", graph(graphs / "dynamic", "--batch", "dynamic"), "-o", place / "cameras",
        "--deepstream", "9.1",
        "--source", "rtsp://camera0/stream", "--source", "file:///data/a.mp4", "--sink", "rtsp", "--publish", "mqtt",
        "--broker", "192.168.1.10",
    )  # fmt: skip
    return {name: place / name for name in (*orders, "cameras")}


@dataclass(frozen=True)
class Said:
    what: str
    code: str
    is_advice: bool = False


def planted(folder: Path, edit: Edit, subject: str) -> dict[str, Any]:
    """Plant a fault, read what the lint says more than before that names it, and take it out again."""
    path = folder / (edit[0] if isinstance(edit, tuple) else "nvinfer_config.txt")
    linted = folder / LINTED_FOR.get(edit[0] if isinstance(edit, tuple) else "", path.name)
    clean = path.read_bytes() if path.exists() else None
    before = said_of_clean(linted)
    change(path, clean, edit)
    try:
        seen = said(linted)
    finally:
        path.unlink(missing_ok=True)
        if clean is not None:
            path.write_bytes(clean)
    reads_the_file = all(one.is_advice for one in before)
    new = [
        one for one in seen if reads_the_file and one not in before and subject in f"{one.code} {one.what}"
    ]
    return {
        "fault": name_of(edit), "folder": folder.name, "found": [one.code for one in new if not one.is_advice],
        "advised": [one.code for one in new if one.is_advice],
    }  # fmt: skip


@cache
def said_of_clean(linted: Path) -> list[Said]:
    return said(linted)


def said(linted: Path) -> list[Said]:
    try:
        return [
            Said(f"{one.what} {one.remedy}", one.code, one.is_advice) for one in lint(linted, strict=True)
        ]
    except SegdeployError as error:
        return [Said(str(error), "refused")]


def change(path: Path, clean: bytes | None, edit: Edit) -> None:
    if isinstance(edit, tuple) and len(edit) == 2:
        changed = edit[1](clean or b"")
    else:
        assert clean is not None, name_of(edit)
        changed = edited(clean.decode(), edit).encode()
    assert changed != clean, name_of(edit)
    if changed is None:
        path.unlink()
    else:
        path.write_bytes(changed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--first", type=Path, help="the result of the first run, whose figures are kept beside"
    )
    parser.add_argument(
        "--graphs", type=Path, required=True, help="where the exported graphs are kept for the next run"
    )
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "deepstream_fresh_faults.json")
    asked = parser.parse_args()
    lists = {"of 9.1": NVINFER + YML + APP, "cameras": CAMERAS} | EARLIER
    with tempfile.TemporaryDirectory() as name:
        folders = rendered_folders(asked.graphs, Path(name))
        rows: list[dict[str, Any]] = [
            planted(folders[where], edit, subject)
            for where, edits in lists.items()
            for edit, subject in edits
        ]
    faults = [row for row in rows if f"{row['folder']}: {row['fault']}" not in NO_FAULT]
    found = sum(bool(row["found"]) for row in faults)
    facts: dict[str, Any] = {
        "faults": len(faults), "found": found, "share": round(found / len(faults), 4),
        "found_with_advice": sum(bool(row["found"] or row["advised"]) for row in faults),
        "no_fault": NO_FAULT, "rows": rows,
    }  # fmt: skip
    first = json.loads(asked.first.read_text()) if asked.first else facts
    facts["before_any_rule_was_mended"] = {
        "faults": first["faults"], "found": first["found"], "share": first["share"],
        "found_with_advice": first["found_with_advice"],
        "missed": [f"{row['folder']}: {row['fault']}" for row in first["rows"] if not row["found"]],
    }  # fmt: skip
    write_results(setting(1) | facts, asked.output)
    missed = [row for row in faults if not row["found"]]
    print(f"{found} of {len(faults)}", *missed, sep="\n")


if __name__ == "__main__":
    main()
