"""How many planted faults the lint of DeepStream configurations finds, and how often it is wrong about real ones.

    python benchmarks/deepstream_lint.py --graph G.onnx --logits L.onnx --corpus 9.1=DIR 6.3=DIR … --verdicts V.tsv

Faults are planted one at a time into folders that segdeploy renders; each is a value that NVIDIA's public sources
refuse, ignore or compute wrongly with. Real configurations are those that NVIDIA ships with an SDK or its sample
applications, each held against the DeepStream that it was shipped with; they are not part of this repository.
`--verdicts` is what NVIDIA's own parser said of each, a line a file: path, version, `read` or anything else, its words.

A finding is wrong about a real configuration where it says that nvinfer refuses what its parser read, that a key is
unknown of which the parser did not say so, that a file is missing that is there, or that labels are too few or too many
where they are not. Advice (`--strict`) is counted apart.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from setting import RESULTS, setting, write_results

from segdeploy.serve.deepstream.config import read_config
from segdeploy.serve.deepstream.findings import Finding
from segdeploy.serve.deepstream.lint import lint
from segdeploy.serve.deepstream.render import render
from segdeploy.serve.deepstream.request import RenderRequest

GROUP = re.compile(r"^\s*(\[property\]|property:)\s*$", re.MULTILINE)
KEYS_OF_NVINFER = re.compile(
    r"net-scale-factor|model-engine-file|onnx-file|gie-unique-id|network-mode|tlt-encoded"
)
OTHERS = re.compile(r"nvinferserver|preprocess|post_?process|movenet|tracker|analytics", re.IGNORECASE)
STOPS = {"syntax", "wrong-type", "out-of-range", "no-property-group", "offsets-count"}
TAO = "NvDsInferParseCustomSegformerTAO"
PEOPLE = "NvDsInferParseCustomPeopleSemSegNet"
SDK = "/opt/nvidia/deepstream/deepstream/lib"

# What is planted into nvinfer_config.txt of a rendered folder: keys with values; None takes a key out. What stands
# behind a `*` takes the place of the batch in the value that was there.
NUMBERS: dict[str, list[tuple[str, str | None]]] = {
    "scale": [("net-scale-factor", value) for value in ("1", "0.0173", "0.0039215697906911373", "0.017507", "0", "-1")],
    "offsets": [("offsets", value) for value in ("0;0;0", "103.53;116.28;123.675", "127.5;127.5;127.5", "123.675",
                                                  "123.675;116.28;103.53;0", "123.675 116.28 103.53")],
    "dims": [("infer-dims", value) for value in ("3;512;256", "256;512;3", "1;256;512", "3;256", "3;257;512",
                                              "3x256x512")],
    "colours": [("model-color-format", value) for value in ("1", "2", "3", "RGB")],
    "classes": [("num-detected-classes", value) for value in ("0", "18", "20", "150", "-1", "many", None)],
    "type": [("network-type", value) for value in ("0", "1", "3", "4", "100", "segmentation")],
    "filter": [("scaling-filter", value) for value in ("0", "6", "7", "bilinear", None)],
    "order": [("network-input-order", value) for value in ("1", "2")],
    "mode": [("network-mode", value) for value in ("1", "3", "4", "FP16")],
    "batch": [("batch-size", value) for value in ("0", "2", "16", "2000", "1.0")],
    "engine": [("model-engine-file", value) for value in ("model.engine", "*_b4_", None)],
    "files": [("onnx-file", "gone.onnx"), ("labelfile-path", "gone.txt"), ("onnx-file", None),
              ("int8-calib-file", "x.calib"),
              ("labelfile-path", "colours.csv")],
    "aspect": [("maintain-aspect-ratio", "1"), ("maintain-aspect-ratio", "yes"), ("symmetric-padding", "1")],
    "parser": [("parse-segmentation-func-name", value) for value in (
        TAO, f"{TAO}2", PEOPLE, "NvDsInferParseSegdeplo", "NvDsInferParseYolo26", None)],
    "library": [("custom-lib-path", value) for value in (
        None, f"{SDK}/libnvds_infercustomparser_tao.so", f"{SDK}/libnvds_infercustomparser.so", "gone.so")],
    "feeding": [("process-mode", "2"), ("process-mode", "0"), ("input-tensor-from-meta", "1"),
                ("disable-output-host-copy", "1"), ("gie-unique-id", "0"), ("gpu-id", "-1"), ("gpu-id", "1"),
                ("interval", "-1"), ("interval", "0.5"), ("interval", "60")],
    "hardware": [("scaling-compute-hw", "2"), ("scaling-compute-hw", "3"), ("enable-dla", "1"),
                 ("layer-device-precision", "Conv_1"), ("layer-device-precision", "Conv_1:bf16:gpu"),
                 ("output-io-formats", "output:int64:chw"), ("output-io-formats", "output:fp32")],
    "thresholds": [("segmentation-threshold", "0.5"), ("segmentation-threshold", "-0.5"),
                   ("segmentation-threshold", "half"), ("strongly-typed", "true # typed"), ("cluster-mode", "9")],
    "later": [("uff-file", "x.uff"), ("is-classifier", "1"), ("input-dims", "3;256;512;0"), ("threshold", "0.5"),
              ("enable-dbscan", "1")],
}  # fmt: skip
LINES = (
    "net_scale_factor=1", "network_type=2", "scaling-fliter=1", "batchsize=1", "output-blob-name=output",
    "onnx-file:=x", "[class-attrs-road]", "[proprety]", "interval 3", "interval=2", "offset=1;2;3", "[property",
    "labelfile-path=labels.txt # ours",
    "roi-top-offset=0", "num-detected-class=19", "maintain-aspect_ratio=0",
)  # fmt: skip
FOLDERS: dict[str, dict[str, Any]] = {
    "labels": {}, "labels, 7.1": {"deepstream": "7.1"}, "labels, 9.1 FP16": {"deepstream": "9.1", "precision": "fp16"},
    "logits": {"deepstream": "9.1"},
}  # fmt: skip
APP = (
    ("alpha: 0.5", ""), ("tests:\n  file-loop: 0", ""), ("width: 1280", "width: 1920"), ("enable: 1", "enable: 0"),
    ("plugin-type: 0", "plugin-type: 1"), ("file:///opt", "/opt"), (".//nvinfer_config.yml", "nvinfer_config.yml"),
    (".//nvinfer_config.yml", ".//gone.yml"), ("orig_background: 1", "orig-background: 1"),
    ("  width: 512", "  width: 256"), ("eglsink:\n  enable: 0", "eglsink:\n  enable: 1"),
    ("batch-size: 1", "batchsize: 1"), ("streammux:", "stream-mux:"),
    ("list: file:", "list: file:///a.mp4;file:"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--graph", type=Path, required=True, help="of 256x512, interface nvinfer")
    parser.add_argument("--logits", type=Path, required=True, help="the same, interface logits")
    parser.add_argument("--corpus", metavar="VERSION=DIR", nargs="*", default=[])
    parser.add_argument("--verdicts", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "deepstream_lint.json")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        planted = plant(asked, Path(name))
    real = read_real(asked)
    facts = {"planted": planted, "real": real}
    write_results(setting(2) | facts, asked.output)
    print({key: value for key, value in planted.items() if key != "missed"}, planted["missed"], sep="\n")
    print({key: value for key, value in real.items() if key != "wrong"}, *real["wrong"][:20], sep="\n")


def plant(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    found: Counter[bool] = Counter()
    with_advice, missed = 0, []
    for words, request in FOLDERS.items():
        place = folder / words.replace(" ", "")
        model = asked.logits if words == "logits" else asked.graph
        render(RenderRequest(model, **request), place)
        config = place / "nvinfer_config.txt"
        clean = config.read_text()
        assert lint(config) == [], words
        for key, value in [one for group in NUMBERS.values() for one in group] + [
            ("line", one) for one in LINES
        ]:
            text = planted_text(clean, key, value)
            if text == clean or is_legal(words, key, value):
                continue
            config.write_text(text)
            seen, advised = lint(config), lint(config, strict=True)
            found[bool(seen)] += 1
            with_advice += bool(advised)
            if not seen:
                missed.append(f"{words}: {key}={value}" + " (advice)" * bool(advised))
        config.write_text(clean)
        app = place / "app.yml"
        if not app.exists():
            continue
        clean = app.read_text()
        for old, new in APP:
            if old not in clean:
                continue
            app.write_text(clean.replace(old, new, 1))
            seen = lint(app)
            found[bool(seen)] += 1
            with_advice += bool(lint(app, strict=True))
            if not seen:
                missed.append(f"{words}: app.yml: {old!r} -> {new!r}")
        app.write_text(clean)
    total = found.total()
    return {"faults": total, "found": found[True], "share": round(found[True] / total, 4),
            "found_with_advice": with_advice, "missed": missed}  # fmt: skip


def planted_text(clean: str, key: str, value: str | None) -> str:
    if key == "line":
        return f"{clean}{value}\n"
    old = re.search(rf"(?m)^{re.escape(key)}=(.*)\n", clean)
    if value is not None and value.startswith("*"):
        value = re.sub(r"_b\d+_", value[1:], old[1]) if old else None
    written = "" if value is None else f"{key}={value}\n"
    return clean.replace(old[0], written, 1) if old else clean + written


def is_legal(folder: str, key: str, value: str | None) -> bool:
    """Leave out what is no fault in that folder: it is as good as what was there, or what the version is for."""
    hands_on = folder == "labels, 7.1"  # network-type 100: there is no parser
    return (
        (key == "segmentation-threshold" and (folder == "logits" or hands_on) and value == "0.5")
        or (hands_on and key in ("num-detected-classes", "disable-output-host-copy", "input-tensor-from-meta",
                                 "custom-lib-path") and value not in ("-1", "many", "gone.so"))
        or (key == "network-type" and value == "100")
        or (key in ("parse-segmentation-func-name", "custom-lib-path") and hands_on and value is None)
        or (key == "parse-segmentation-func-name" and value == "NvDsInferParseYolo26")
        or (key == "line" and value == "labelfile-path=labels.txt")
    )  # fmt: skip


def read_real(asked: argparse.Namespace) -> dict[str, Any]:
    verdicts = read_verdicts(asked.verdicts)
    files: dict[str, tuple[Path, str]] = {}
    for one in asked.corpus:
        version, _, folder = one.partition("=")
        for path in sorted(
            p for p in Path(folder).rglob("*") if p.suffix in (".txt", ".yml") and p.is_file()
        ):
            data = path.read_bytes()
            text = data.decode(errors="replace")
            if GROUP.search(text) and KEYS_OF_NVINFER.search(text) and not OTHERS.search(str(path)):
                files.setdefault(hashlib.sha256(data).hexdigest(), (path, version))
    codes: Counter[str] = Counter()
    wrong, held, clean = [], 0, 0
    for path, version in files.values():
        seen = lint(path, version=version)
        codes.update(one.code for one in seen)
        clean += not seen
        verdict = verdicts.get(str(path.resolve()))
        held += verdict is not None
        if mistaken := [one for one in seen if is_wrong(one, path, verdict)]:
            wrong.append(f"{path.name}: {mistaken[0].code}: {mistaken[0].what[:120]}")
    total = len(files) or 1
    return {"configurations": len(files), "held_against_nvidia_s_parser": held, "without_a_finding": clean,
            "wrong_about": len(wrong), "share": round(len(wrong) / total, 4), "findings": dict(codes.most_common()),
            "wrong": wrong}  # fmt: skip


def read_verdicts(path: Path | None) -> dict[str, tuple[str, str]]:
    rows = [line.split("\t") for line in path.read_text().splitlines()] if path else []
    return {str(Path(name).resolve()): (verdict, words) for name, _, verdict, words in rows}


def is_wrong(finding: Finding, path: Path, verdict: tuple[str, str] | None) -> bool:
    if verdict is not None and finding.code in STOPS and verdict[0] == "read":
        return True
    text = path.read_text(errors="replace").splitlines()
    if finding.code == "unknown-key" and verdict is not None and verdict[0] == "read":
        key = re.split(r"[=:]", text[finding.line - 1])[0].strip()
        return key not in verdict[1]
    if finding.code == "missing-file":
        key, _, value = text[finding.line - 1].partition("=" if path.suffix == ".txt" else ":")
        return (path.parent / value.strip().strip("'\"")).is_file()
    if finding.code in ("labels-too-few", "labels-too-many"):
        labels = read_config(path).file("labelfile-path")
        return labels is None or len(
            [line for line in labels.read_text().splitlines() if line]
        ) == read_config(path).get("num-detected-classes")
    return False


if __name__ == "__main__":
    main()
