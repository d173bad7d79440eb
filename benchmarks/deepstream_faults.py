"""Faults for the lint, written from DeepStream's documentation of its keys and from what people get wrong.

They were written before they were run, by somebody who had read the list of findings and not the rules behind them, and
are not changed afterwards: one that proves to be none is listed in NO_FAULT, with the reason. Each is planted alone:

* `key=value` sets a key of nvinfer_config.txt, `-key` takes it out, `+line` adds a line at the end;
* (file, old, new) replaces text in another file of the folder.

Behind it stands what a finding has to name, so that a chance finding about something else is not counted.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from setting import RESULTS, setting, write_results

from segdeploy.convert.bundled import bundled_graph
from segdeploy.serve.deepstream.app.folder import render_app
from segdeploy.serve.deepstream.app.request import AppRequest
from segdeploy.serve.deepstream.findings import Finding
from segdeploy.serve.deepstream.lint import lint
from segdeploy.serve.deepstream.render import render
from segdeploy.serve.deepstream.request import RenderRequest

Fault = tuple[str | tuple[str, str, str], str]

NVINFER: list[Fault] = [
    # numbers as people write them
    ("net-scale-factor=0,01735", "net-scale-factor"),
    ("net-scale-factor=1/57.63", "net-scale-factor"),
    ('net-scale-factor="0.01735207357279195"', "net-scale-factor"),
    ("net-scale-factor=0.01735f", "net-scale-factor"),
    ("net-scale-factor=57.63", "net-scale-factor"),
    ("net-scale-factor=0.0078125", "net-scale-factor"),
    ("net-scale-factor=0.0171;0.0175;0.0174", "net-scale-factor"),
    ("net-scale-factor=", "net-scale-factor"),
    ("offsets=0.485;0.456;0.406", "offsets"),
    ("offsets=123.675,116.28,103.53", "offsets"),
    ("offsets=[123.675;116.28;103.53]", "offsets"),
    ("offsets=104;117;123", "offsets"),
    ("offsets=-123.675;-116.28;-103.53", "offsets"),
    ("offsets=123.675;116.28;103.53 # the means", "offsets"),
    ("infer-dims=3,256,512", "infer-dims"),
    ("infer-dims=1;3;256;512", "infer-dims"),
    ("infer-dims=3;0;0", "infer-dims"),
    ("infer-dims=3;-1;-1", "infer-dims"),
    ("infer-dims=3;1024;2048", "infer-dims"),
    ("infer-dims=512;256", "infer-dims"),
    ("batch-size=-1", "batch-size"),
    ("batch-size=one", "batch-size"),
    ("batch-size=", "batch-size"),
    ("network-mode=fp16", "network-mode"),
    ("network-mode=-1", "network-mode"),
    ("network-mode=FP32", "network-mode"),
    ("strongly-typed=yes", "strongly-typed"),
    ("num-detected-classes=21", "num-detected-classes"),
    ("num-detected-classes=nineteen", "num-detected-classes"),
    ("num-detected-classes=1", "num-detected-classes"),
    ("network-type=seg", "network-type"),
    ("network-type=5", "network-type"),
    ("network-type=-1", "network-type"),
    ("model-color-format=BGR", "model-color-format"),
    ("model-color-format=-1", "model-color-format"),
    ("network-input-order=NCHW", "network-input-order"),
    ("network-input-order=-1", "network-input-order"),
    ("scaling-filter=-1", "scaling-filter"),
    ("scaling-filter=Bilinear", "scaling-filter"),
    ("scaling-compute-hw=GPU", "scaling-compute-hw"),
    ("interval=0.0", "interval"),
    ("interval=none", "interval"),
    ("gie-unique-id=-1", "gie-unique-id"),
    ("gie-unique-id=pgie", "gie-unique-id"),
    ("gpu-id=cuda:0", "gpu-id"),
    ("gpu-id=all", "gpu-id"),
    ("process-mode=3", "process-mode"),
    ("process-mode=primary", "process-mode"),
    ("cluster-mode=DBSCAN", "cluster-mode"),
    ("cluster-mode=-1", "cluster-mode"),
    ("maintain-aspect-ratio=True", "maintain-aspect-ratio"),
    ("maintain-aspect-ratio=2", "maintain-aspect-ratio"),
    ("symmetric-padding=0.5", "symmetric-padding"),
    ("segmentation-threshold=0,5", "segmentation-threshold"),
    ("segmentation-output-order=2", "segmentation-output-order"),
    ("segmentation-output-order=NHWC", "segmentation-output-order"),
    ("output-tensor-meta=2", "output-tensor-meta"),
    ("workspace-size=4GB", "workspace-size"),
    ("workspace-size=-1", "workspace-size"),
    ("secondary-reinfer-interval=never", "secondary-reinfer-interval"),
    ("filter-out-class-ids=road", "filter-out-class-ids"),
    ("enable-dla=yes", "enable-dla"),
    ("input-object-min-width=-5", "input-object-min-width"),
    # files
    ("onnx-file=sub/model.onnx", "onnx-file"),
    ("onnx-file=labels.txt", "onnx-file"),
    ("onnx-file=", "onnx-file"),
    ("model-engine-file=/tmp/model.engine", "model-engine-file"),
    ("int8-calib-file=calibration.table", "int8-calib-file"),
    ("mean-file=mean.ppm", "mean-file"),
    ("mean-file=labels.txt", "mean-file"),
    ('labelfile-path="labels.txt"', "labelfile-path"),
    ("labelfile-path=/labels.txt", "labelfile-path"),
    ("labelfile-path=", "labelfile-path"),
    ("custom-lib-path=parser/segdeploy_parser.cpp", "custom-lib-path"),
    ("custom-lib-path=parser", "custom-lib-path"),
    ("custom-lib-path=libsegdeploy_parser.so", "custom-lib-path"),
    ("custom-lib-path=", "custom-lib-path"),
    ("parse-segmentation-func-name=NvDsInferParseSegdeploy()", "NvDsInferParseSegdeploy"),
    ("parse-segmentation-func-name=NvDsInferParseCustomMrcnnTLTV2", "NvDsInferParseCustomMrcnnTLTV2"),
    ("parse-segmentation-func-name=nvdsinferparsesegdeploy", "nvdsinferparsesegdeploy"),
    # keys of something else, or called otherwise
    ("+tlt-encoded-model=model.etlt", "tlt-"),
    ("+model-file=model.caffemodel", "model-file"),
    ("+uff-input-dims=3;256;512;0", "uff-input-dims"),
    ("+engine-create-func-name=NvDsInferYoloCudaEngineGet", "engine-create-func-name"),
    ("+pre-cluster-threshold=0.5", "pre-cluster-threshold"),
    ("+enable=1", "enable"),
    ("+unique-id=1", "unique-id"),
    ("+config-file-path=nvinfer_config.txt", "config-file-path"),
    ("+input-tensor-meta=1", "input-tensor-meta"),
    ("+model-path=model.onnx", "model-path"),
    ("+num-classes=19", "num-classes"),
    ("+mean=123.675;116.28;103.53", "mean"),
    ("+std=58.395;57.12;57.375", "std"),
    ("+precision=fp16", "precision"),
    ("+BATCH-SIZE=4", "BATCH-SIZE"),
    ("+net scale factor=1", "net scale factor"),
    ("+infer_dims=3;256;512", "infer_dims"),
    ("+parse-seg-func-name=NvDsInferParseSegdeploy", "parse-seg-func-name"),
    # the form of the file
    ("+// our model", "our model"),
    ("+network-type: 2", "network-type"),
    ("+[class-attrs-all]\nconfidence=0.3", "confidence"),
    ("+[class-attrs-all]\nnms-iou-threshold=2", "nms-iou-threshold"),
    ("+[class-attrs-0]\ntopk=many", "topk"),
    ("+[Property]\nbatch-size=1", "Property"),
    ("+[property]\nbatch-size=8", "batch-size"),
    (("nvinfer_config.txt", "[property]", "property"), ""),
    (("nvinfer_config.txt", "# for DeepStream", "\ufeff# for DeepStream"), ""),
    (("nvinfer_config.txt", "[property]", "[properties]"), ""),
    # labels
    (("labels.txt", "road\n", ""), "labels"),
    (("labels.txt", "road\n", "background\nroad\n"), "labels"),
    (("labels.txt", "road\nsidewalk\n", "sidewalk\nroad\n"), "labels"),
    # the .yml
    (("nvinfer_config.yml", "  batch-size: 1", "\tbatch-size: 1"), ""),
    (("nvinfer_config.yml", "  batch-size: 1", "  batch-size:1"), ""),
    (("nvinfer_config.yml", "123.675;116.28;103.53", "[123.675, 116.28, 103.53]"), "offsets"),
    (("nvinfer_config.yml", "maintain-aspect-ratio: 0", "maintain-aspect-ratio: false"), "maintain-aspect-ratio"),
    (("nvinfer_config.yml", "infer-dims: 3;256;512", "infer-dims: 3;256;512;"), "infer-dims"),
    (("nvinfer_config.yml", "property:\n", ""), ""),
    (("nvinfer_config.yml", "property:", "properties:"), ""),
    (("nvinfer_config.yml", "interval: 0", "interval: off"), "interval"),
]  # fmt: skip

APP: list[Fault] = [
    (("app.yml", "batch-size: 1", "batch-size: 0"), "batch-size"),
    (("app.yml", "batch-size: 1", "batch-size: 4"), "batch-size"),
    (("app.yml", "plugin-type: 0", "plugin-type: 2"), "plugin-type"),
    (("app.yml", "alpha: 0.5", "alpha: 50"), "alpha"),
    (("app.yml", "alpha: 0.5", "alpha: half"), "alpha"),
    (("app.yml", "file-loop: 0", "file-loop: yes"), "file-loop"),
    (("app.yml", "primary-gie:", "primary_gie:"), "primary"),
    (("app.yml", "segvisual:", "segvis:"), "segvis"),
    (("app.yml", "source-list:", "sources:"), "source"),
    (("app.yml", "config-file-path:", "config-file:"), "config-file"),
]  # fmt: skip

DEEPSTREAM_APP: list[Fault] = [
    (("deepstream_app.txt", "uri=rtsp://camera0/stream", "uri=camera0/stream"), "uri"),
    (("deepstream_app.txt", "uri=rtsp://camera0/stream\n", ""), "uri"),
    (("deepstream_app.txt", "batch-size=1\nbatched", "batch-size=2\nbatched"), "batch-size"),
    (("deepstream_app.txt", "[sink0]\nenable=1\ntype=1", "[sink0]\nenable=1\ntype=9"), "type"),
    (("deepstream_app.txt", "config-file=nvinfer_config.txt", "config-file=gone.txt"), "config-file"),
    (("deepstream_app.txt", "rtsp-reconnect-interval-sec=", "rtsp-reconnect-interval="), "rtsp-reconnect"),
    (("deepstream_app.txt", "width=1280\nheight=720\n\n[primary", "width=0\nheight=0\n\n[primary"), "width"),
    (("deepstream_app.txt", "[sink0]\nenable=1", "[sink0]\nenable=0"), "sink"),
    (("deepstream_app.txt", "[source0]\nenable=1", "[source0]\nenable=yes"), "enable"),
    (("deepstream_app.txt", "live-source=1", "live-source=true"), "live-source"),
    (("deepstream_app.txt", "[tiled-display]\nenable=1\nrows=1", "[tiled-display]\nenable=1\nrows=none"), "rows"),
    (("deepstream_app.txt", "[source0]\nenable=1\ntype=4", "[source0]\nenable=1\ntype=rtsp"), "type"),
    (("deepstream_app.txt", "[primary-gie]\nenable=1", "[primary-gie]\nenable=1\ninterval=often"), "interval"),
    (("deepstream_app.txt", "[segvisual]", "[seg-visual]"), "seg-visual"),
    (("deepstream_app.txt", "[streammux]", "[stream-mux]"), "stream-mux"),
]  # fmt: skip

# Written as a fault, and none on looking again: the reason.
NO_FAULT: dict[str, str] = {}  # so far all stand, two that only cost 40 ms a batch too


def name_of(edit: str | tuple[str, str, str]) -> str:
    return edit if isinstance(edit, str) else f"{edit[0]}: {edit[1]!r} -> {edit[2]!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--deepstream", default="9.1")
    parser.add_argument(
        "--first", type=Path, help="the result of the first run, whose figures are kept beside"
    )
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "deepstream_faults.json")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = bundled_graph("nvinfer", into=place / "model")
        request = RenderRequest(model, asked.deepstream)
        render(request, place / "box")
        cameras = ("rtsp://camera0/stream",)
        app = AppRequest(model, cameras, asked.deepstream)
        render_app(app, place / "app")
        for folder, edits in (("box", NVINFER + APP), ("app", DEEPSTREAM_APP)):
            rows += [planted(place / folder, edit, subject) for edit, subject in edits]
    faults = [row for row in rows if row["fault"] not in NO_FAULT]
    found = sum(bool(row["found"]) for row in faults)
    facts = {"faults": len(faults), "found": found, "share": round(found / len(faults), 4),
             "found_with_advice": sum(bool(row["found"] or row["advised"]) for row in faults),
             "no_fault": NO_FAULT, "rows": rows}  # fmt: skip
    first: dict[str, Any] = json.loads(asked.first.read_text()) if asked.first else facts
    facts["before_any_rule_was_mended"] = {
        "found": first["found"], "share": first["share"], "found_with_advice": first["found_with_advice"],
        "missed": [row["fault"] for row in first["rows"] if not row["found"]],
    }  # fmt: skip
    write_results(setting(1) | facts, asked.output)
    print(f"{found} of {len(faults)}", *(row for row in faults if not row["found"]), sep="\n")


def planted(folder: Path, edit: str | tuple[str, str, str], subject: str) -> dict[str, Any]:
    """Plant a fault, read what the lint says more than before that names it, and take it out again."""
    file = edit[0] if isinstance(edit, tuple) else "nvinfer_config.txt"
    path = folder / file
    linted = folder / "nvinfer_config.txt" if file == "labels.txt" else path
    clean = path.read_text()
    before = {(one.code, one.what) for one in lint(linted, strict=True)}
    path.write_text(text := edited(clean, edit))
    assert text != clean, name_of(edit)
    try:
        seen = [lint(linted, strict=strict) for strict in (False, True)]
    finally:
        path.write_text(clean)
    found, advised = (
        [one.code for one in findings if (one.code, one.what) not in before and names(one, subject)]
        for findings in seen
    )
    return {"fault": name_of(edit), "found": found, "advised": [one for one in advised if one not in found]}


def names(finding: Finding, subject: str) -> bool:
    return subject in f"{finding.code} {finding.what} {finding.remedy}"


def edited(clean: str, edit: str | tuple[str, str, str]) -> str:
    if isinstance(edit, tuple):
        return clean.replace(edit[1], edit[2], 1)
    if edit.startswith("+"):
        return f"{clean}{edit[1:]}\n"
    key = edit.lstrip("-").partition("=")[0]
    old = re.search(rf"(?m)^{re.escape(key)}=.*\n", clean)
    line = "" if edit.startswith("-") else f"{edit}\n"
    return clean.replace(old[0], line, 1) if old else clean + line


if __name__ == "__main__":
    main()
