"""Each file in traps/ is a good configuration but for one thing, and its name is the one finding that it gets."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from engine_records import facts_of_engine, record_of_engine
from onnx import TensorProto, helper, numpy_helper

from segdeploy.cli import main
from segdeploy.errors import DeepStreamError, RequestError
from segdeploy.graph.load import read_graph
from segdeploy.model.engine import Verified
from segdeploy.serve.deepstream.document import as_yml, read_txt
from segdeploy.serve.deepstream.findings import ADVICE
from segdeploy.serve.deepstream.launch import command
from segdeploy.serve.deepstream.lint import lint

TRAPS = Path(__file__).parent / "traps"
CLEAN = {"clean", "clean-app", "tensors"}


@pytest.fixture(scope="module")
def models(graphs, typed, tmp_path_factory):
    """The graphs that the traps name in their second line."""
    folder = tmp_path_factory.mktemp("models")
    made = {kind: graphs(kind) for kind in ("nvinfer", "logits", "frames")}
    made |= typed
    made["whole-logits"] = whole_logits(made["logits"], folder / "whole.onnx")
    made["batch-two"] = of_batch(made["nvinfer"], 2, folder / "two.onnx")
    made["batch-open"] = of_batch(made["nvinfer"], None, folder / "open.onnx")
    made["halves"] = of_size(made["nvinfer"], 48, 80, folder / "halves.onnx", ends=("output",))
    made["large"] = of_size(made["nvinfer"], 1024, 2048, folder / "large.onnx")
    made["many"] = renamed_classes(made["nvinfer"], 150, folder / "many.onnx")
    made["rubbish"] = folder / "rubbish.onnx"
    made["rubbish"].write_bytes(b"<html>")
    return made


def whole_logits(path, target):
    """Logits of the input's own resolution, with the metadata of one of our graphs."""
    model = onnx.load(path)
    weights = np.random.default_rng(0).standard_normal((5, 3, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "w"], ["logits"])],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, 96, 160))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 5, 96, 160))],
        [numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made.metadata_props.extend(model.metadata_props)
    onnx.save(made, target)
    return target


def of_batch(path, batch, target):
    """The graph as far as its interface goes: lint reads no more of it."""
    model = onnx.load(path)
    for tensor in (*model.graph.input, *model.graph.output):
        first = tensor.type.tensor_type.shape.dim[0]
        first.CopyFrom(onnx.TensorShapeProto.Dimension(dim_value=batch, dim_param=None if batch else "N"))
    onnx.save(model, target)
    return target


def renamed_classes(path, count, target):
    """The graph with so many classes in its metadata; its logits keep their channels."""
    model = onnx.load(path)
    for item in model.metadata_props:
        if item.key == "segdeploy.classes":
            item.value = json.dumps([f"class {index}" for index in range(count)])
        if item.key == "segdeploy.colours":
            item.value = json.dumps([[index, index, index] for index in range(count)])
    onnx.save(model, target)
    return target


def of_size(path, height, width, target, ends=("input", "output", "size")):
    model = onnx.load(path)
    for tensor in [one for one in (*model.graph.input, *model.graph.output) if one.name in ends]:
        sides = tensor.type.tensor_type.shape.dim
        sides[2].dim_value, sides[3].dim_value = height, width
    for item in model.metadata_props:
        if item.key == "segdeploy.size" and "size" in ends:
            item.value = f"{height}x{width}"
    onnx.save(model, target)
    return target


@pytest.fixture
def place(models, tmp_path):
    """A folder with what the traps name; `place(trap)` puts one there."""
    names = read_graph(models["nvinfer"]).signature.labels.names
    lists = {"": names, ".four": names[:4], ".six": (*names, "boat"), ".swapped": names[::-1]}
    lists |= {
        ".gaps": ("", *names, ""),
        ".spaced": (f"{names[0]} ", *names[1:]),
        ".last": (*names[:4], "BUS"),
    }
    for which, classes in lists.items():
        (tmp_path / f"labels{which}.txt").write_text("\n".join(classes) + "\n")
    (tmp_path / "built.engine").write_bytes(b"")
    (tmp_path / "broken.so").write_bytes(b"")
    (tmp_path / "model.calib").write_bytes(b"")
    (tmp_path / "mean.ppm").write_bytes(b"P6\n160 96\n255\n" + bytes(3 * 160 * 96))
    (tmp_path / "comment.ppm").write_bytes(b"P6\n# made by hand\n160 96\n255\n" + bytes(3 * 160 * 96))
    refuted = tmp_path / "refuted.engine"
    refuted.write_bytes(b"an engine")
    wrong = Verified(why="in slot 2 of batch 4 0.00% of the pixels are equal", disagrees=True)
    signature = read_graph(models["nvinfer"]).signature
    facts = facts_of_engine(refuted, signature, verified=wrong)
    record_of_engine(refuted, signature, facts).write(tmp_path)

    def put(trap):
        kind = trap.read_text().splitlines()[1].removeprefix("# with: ")
        if kind in models:
            shutil.copy(models[kind], tmp_path / "model.onnx")
        for name in ("clean.txt", "tensors.txt"):
            shutil.copy(TRAPS / name, tmp_path)
        (tmp_path / "configs").mkdir()
        for name in ("clean.txt", "tensors.txt"):
            shutil.copy(TRAPS / name, tmp_path / "configs")
        shutil.copy(TRAPS / "clean.txt", tmp_path / "other.txt")
        shutil.copy(TRAPS / "tensors.txt", tmp_path / "configs" / "other.txt")
        return Path(shutil.copy(trap, tmp_path))

    return put


@pytest.mark.slow
@pytest.mark.parametrize("trap", sorted(TRAPS.iterdir()), ids=lambda path: path.name)
def test_a_trap_gets_exactly_its_finding(trap, place, tmp_path):
    found = lint(place(trap), strict=trap.stem in ADVICE)
    assert [one.code for one in found] == ([] if trap.stem in CLEAN else [trap.stem]), found
    shown = [] if trap.stem in CLEAN | ADVICE else [trap.stem]
    assert [one.code for one in lint(tmp_path / trap.name)] == shown
    for one in found:
        assert 1 <= one.line <= len(trap.read_text().splitlines())
        assert one.what
        assert one.remedy


def test_an_engine_that_was_built_anew_is_not_the_one_that_was_refuted(place, tmp_path):
    trap = place(TRAPS / "engine-refuted.txt")
    (found,) = lint(trap)
    assert found.what == (
        "model-engine-file is refuted.engine, which was compared with its graph, and is wrong: in slot 2 of batch 4"
        " 0.00% of the pixels are equal"
    )
    with pytest.raises(
        DeepStreamError, match=r"is wrong: in slot 2 of batch 4 .* Instead remove it and its record"
    ):
        command(Path("ds-tao-segmentation"), trap, ["rtsp://camera/stream"])
    (tmp_path / "refuted.engine").write_bytes(b"another engine")
    assert lint(trap) == []
    assert command(Path("ds-tao-segmentation"), trap, ["rtsp://camera/stream"])


def test_every_finding_has_a_trap_and_an_edge():
    sources = Path(__file__).parent.parent.joinpath("segdeploy", "serve", "deepstream").glob("lint*.py")
    written = set(re.findall(r'Finding\(\s*"([a-z0-9-]+)"', "".join(path.read_text() for path in sources)))
    chosen = {"unknown-key", "wrong-type", "out-of-range", "labels-too-few", "labels-too-many"}
    chosen |= {"nearest-scaling", "nearest-detector", "our-parser-output", "tao-parser-output"}
    trapped = {path.stem for path in TRAPS.iterdir()} - CLEAN
    assert written | chosen == trapped | {"not-text", "nul-byte"}
    assert trapped - {"syntax", "group-unread"} == {*EDGES, *APP_EDGES}
    assert trapped >= ADVICE - {"muxer-not-live"}  # of deepstream-app, in its own tests


# ---- where each rule ends ----------------------------------------------------------------------------------------

CACHE, TYPED = {"int8-calib-file": "there.calib"}, {"strongly-typed": 1}
NAMED = "model.onnx_b{}_gpu0_{}.engine"
INT8 = {**CACHE, "network-mode": 1, "model-engine-file": NAMED.format(1, "int8")}
FP16 = {"network-mode": 2, "model-engine-file": NAMED.format(1, "fp16")}
BEST = {**CACHE, "network-mode": 3, "model-engine-file": NAMED.format(1, "best")}
OURS = {"parse-segmentation-func-name": "NvDsInferParseSegdeploy", "custom-lib-path": "/opt/nvidia/our.so"}
TENSORS = {
    "network-type": 100, "output-tensor-meta": 1, "parse-segmentation-func-name": None, "custom-lib-path": None,
}  # fmt: skip
STOCK = {"parse-segmentation-func-name": None, "custom-lib-path": None, "segmentation-output-order": 0}


def batch(count):
    return {"batch-size": count, "model-engine-file": NAMED.format(count, "fp32")}


# To each rule the nearest settings on both sides of where it ends: what they change in the clean configuration, all
# that is found then (None: the rule alone), the graph, and the version of DeepStream.
EDGES = {
    # what is read
    "no-property-group": [({"[property]": "[property] "}, []), ({"[property]": "[Property]"}, None)],
    "unknown-group": [
        ({"+": "[class-attrs-all]\n[class-attrs-0]\n[class-attrs-18]"}, []),
        ({"+": "[class-attrs-car]"}, None),
        ({"+": "[class-attrs]"}, None),
    ],
    "unknown-key": [({"cluster-mode": 2}, []), ({"Cluster-mode": 2}, None), ({"eps": 1}, None)],
    "wrong-type": [
        ({"interval": "0 # each"}, []),
        ({"interval": 2**31 - 1}, []),
        ({"interval": 2**31}, None),
        ({"interval": "0.0"}, None),
        ({"interval": "0# each"}, None),
        ({"maintain-aspect-ratio": "false"}, []),
        ({"maintain-aspect-ratio": "False"}, None),
        ({"offsets": "123.675;116.28;103.53;"}, []),
        ({"gie-unique-id": "1;2"}, None),
    ],
    "out-of-range": [
        (batch(1024), [], "batch-open"),
        (batch(1025), ["out-of-range", "engine-rebuilt"], "batch-open"),
        ({"scaling-filter": 5}, []),
        ({"scaling-filter": 7}, ["out-of-range", "nearest-scaling"]),
        ({"max-gpu-mem-per": 100}, []),
        ({"max-gpu-mem-per": 101}, None),
        ({"segmentation-threshold": 0}, []),
        ({"segmentation-threshold": -0.01}, None),
        ({"infer-dims": "3;96"}, None),
    ],
    "duplicate-key": [
        ({"+": "[class-attrs-0]\ntopk=1\n[class-attrs-1]\ntopk=1"}, []),
        ({"+": "[class-attrs-0]\ntopk=1\ntopk=1"}, None),
        ({"+": "interval=0"}, None),
    ],
    "deprecated-key": [({"cluster-mode": 1}, []), ({"enable-dbscan": 1}, None)],
    "other-version": [
        ({"warmup-engine": 1}, [], "nvinfer", "9.0"),
        ({"warmup-engine": 1}, None, "nvinfer", "8.0"),
        ({"force-implicit-batch-dim": 1, **OURS}, None, "nvinfer", "7.1"),
    ],
    "trailing-text": [
        ({"tlt-model-key": "a#b"}, []),
        ({"tlt-model-key": "a #b"}, None),
        ({"tlt-model-key": "a "}, None),
        ({"interval": "0 "}, []),
    ],
    # files
    "no-model": [
        ({"onnx-file": None, "model-engine-file": "built.engine"}, []),
        ({"onnx-file": None, "model-engine-file": None}, None),
    ],
    "path-outside-folder": [
        ({"labelfile-path": "configs/../labels.txt"}, []),
        ({"labelfile-path": "/opt/nvidia/labels.txt"}, []),
        ({"labelfile-path": "../labels.txt"}, None),
        ({"labelfile-path": "/opt/nvidia-labels.txt"}, None),
    ],
    "foreign-library": [
        ({**OURS, "custom-lib-path": "configs/../made/our.so"}, []),
        ({**OURS, "custom-lib-path": "/opt/nvidia/our.so"}, []),
        ({**OURS, "custom-lib-path": "/opt/nvidia/../our.so"}, None),
        ({**OURS, "custom-lib-path": "/our.so"}, None),
        ({**OURS, "custom-lib-path": "there.so"}, []),
        ({**OURS, "custom-lib-path": "link.so"}, None),
    ],
    "missing-file": [
        ({"labelfile-path": "labels.none"}, None),
        ({**OURS, "custom-lib-path": "made/our.so"}, []),
        ({**OURS, "custom-lib-path": "configs/our.so"}, None),
        ({**OURS, "custom-lib-path": "made/other.so"}, None),
        ({"onnx-file": None, "model-engine-file": "gone.engine"}, None),
        ({**CACHE, "network-mode": 0}, []),
        ({"int8-calib-file": "gone.calib"}, None),
    ],
    "no-library": [
        ({**OURS, "custom-lib-path": "there.so"}, []),
        ({**OURS, "custom-lib-path": "pointer.so"}, None),
    ],
    "labels-too-few": [
        ({"labelfile-path": "labels.four.txt"}, None),
        ({"labelfile-path": "labels.four.txt", "network-type": 1}, ["parser-unused", "not-segmentation"]),
    ],
    "labels-too-many": [({"labelfile-path": "labels.gaps.txt"}, []), ({"labelfile-path": "labels.six.txt"}, None)],
    "labels-differ": [
        ({"labelfile-path": "labels.gaps.txt"}, []),
        ({"labelfile-path": "labels.spaced.txt"}, []),
        ({"labelfile-path": "labels.last.txt"}, None),
    ],
    # precision and engine
    "mode-beside-strongly-typed": [
        (TYPED, [], "fp16", "9.1"),
        *(({**TYPED, **mode}, None, "fp16", "9.1") for mode in (FP16, INT8, BEST)),
    ],
    "int8-without-cache": [
        (INT8, []),
        (BEST, [], "nvinfer", "9.0"),
        ({**INT8, **FP16, "int8-calib-file": None}, []),
        ({**FP16, "network-mode": 1}, None),
        ({**FP16, "network-mode": 3}, None, "nvinfer", "9.0"),
        ({**FP16, "network-mode": 1, "int8-calib-file": "gone.calib"}, None),
    ],
    "untyped-int8": [
        (INT8, [], "int8"),
        (BEST, [], "int8", "9.0"),
        (FP16, None, "int8"),
        ({}, None, "int8"),
        (TYPED, [], "int8", "9.1"),
    ],
    "untyped-fp16": [
        (FP16, [], "fp16"),
        (BEST, [], "fp16", "9.0"),
        (INT8, None, "fp16"),
        ({}, None, "fp16"),
        (TYPED, [], "fp16", "9.1"),
    ],
    "engine-rebuilt": [
        ({"model-engine-file": None}, None),
        ({"model-engine-file": NAMED.format(1, "fp16")}, None),
        ({"gpu-id": 1}, None),
        ({"gpu-id": 1, "model-engine-file": "model.onnx_b1_gpu1_fp32.engine"}, []),
        ({"enable-dla": 1, "use-dla-core": 1, "model-engine-file": "model.onnx_b1_dla1_fp32.engine"}, []),
        ({"model-engine-file": "built.engine"}, []),
        ({"model-engine-file": "model.onnx"}, None),
        ({"model-engine-file": "built_b1_.engine"}, []),
        ({"model-engine-file": "built_b12_.engine"}, None),
    ],
    "engine-refuted": [
        ({"model-engine-file": "built.engine"}, []),
        ({"model-engine-file": "refuted.engine"}, None),
    ],
    # the input
    "nearest-scaling": [
        *(({"scaling-filter": kind}, []) for kind in (1, 2, 3, 4, 5)),
        *(({"scaling-filter": kind}, None) for kind in (0, 6, None)),
    ],
    "padding-unused": [
        ({"symmetric-padding": 0}, []),
        ({"symmetric-padding": 1}, None),
        ({"symmetric-padding": 1, "maintain-aspect-ratio": 1}, ["padded-mask"]),
    ],
    "padded-mask": [
        ({"maintain-aspect-ratio": 0, **TENSORS}, []),
        ({"maintain-aspect-ratio": 1}, None),
        ({"maintain-aspect-ratio": 1, **TENSORS}, None),
        ({"maintain-aspect-ratio": 1, "network-type": 1}, ["parser-unused", "not-segmentation"]),
    ],
    "colour-channels": [
        ({"model-color-format": 2, "infer-dims": "1;96;160", "offsets": 123.675},
         ["input-size", "colour-order", "offsets-differ"]),
        ({"model-color-format": 2, "offsets": 123.675}, ["colour-channels", "colour-order", "offsets-differ"]),
        ({"infer-dims": "4;96;160"}, ["colour-channels", "input-size"]),
        ({"infer-dims": "96;160;3", "network-input-order": 1}, ["input-size", "input-order"]),
    ],
    "offsets-count": [
        ({"offsets": "123.675;116.28"}, ["offsets-count", "offsets-differ"]),
        ({"offsets": "123.675;116.28;103.53;0"}, ["offsets-count", "offsets-differ"]),
    ],
    "offsets-differ": [
        ({"offsets": "123.6755;116.2805;103.5305"}, []),
        ({"offsets": "123.675;116.28;103.532"}, None),
        ({"offsets": None}, None),
        ({"offsets": "103.53;116.28;123.675"}, None),
        ({"offsets": "103.53;116.28;123.675", "model-color-format": 1}, ["colour-order"]),
    ],
    "scale-differs": [
        ({"net-scale-factor": 0.01735207}, []),  # 2e-7 below
        ({"net-scale-factor": 0.0173521}, None),  # 1.5e-6 above
        ({"net-scale-factor": 0.017507}, None),  # NVIDIA's own, of another mean
    ],
    "colour-order": [({"model-color-format": None}, []), ({"model-color-format": 1}, None)],
    "input-type": [({}, []), ({}, None, "frames")],
    "input-size": [
        ({"infer-dims": None}, []),
        ({"infer-dims": "3;96;161"}, None),
        ({"infer-dims": "3;160;96"}, None),
    ],
    "input-order": [({"network-input-order": 0}, []), ({"network-input-order": 1}, None)],
    "batch-differs": [
        (batch(1), []),
        (batch(2), None),
        (batch(3), [], "batch-open"),
    ],
    "batch-fixed": [
        (batch(2), None, "batch-two"),
        (batch(1), None, "batch-two"),
        (batch(2), [], "batch-open"),
    ],
    "scaling-on-vic": [
        ({"scaling-compute-hw": 1}, []),
        ({"scaling-compute-hw": 0}, []),
        ({"scaling-compute-hw": 2}, None),
    ],
    "dla-unused": [
        ({"enable-dla": 1, "use-dla-core": 1, "model-engine-file": "model.onnx_b1_dla1_fp32.engine"}, []),
        ({"use-dla-core": 1}, None),
    ],
    "mode-of-later-version": [(BEST, [], "nvinfer", "9.0"), (BEST, None, "nvinfer", "8.0"), (INT8, [])],
    "builder-refuses": [
        ({"layer-device-precision": "a/b:fp32:gpu;c:fp16:dla"}, []),
        ({"layer-device-precision": "a:fp33:gpu"}, None),
        ({"output-io-formats": "output:int32:chw"}, []),
        ({"output-io-formats": "output:int64:chw"}, None),
    ],
    "mean-file-form": [({"mean-file": "mean.ppm"}, []), ({"mean-file": "comment.ppm"}, None)],
    "mean-file-large": [
        ({"mean-file": "mean.ppm", "infer-dims": "3;512;1023"}, ["input-size"]),
        ({"mean-file": "mean.ppm", "infer-dims": "3;512;1024"}, ["input-size", "mean-file-large"]),
        ({"infer-dims": "3;1024;2048"}, ["input-size"]),
    ],
    "nearest-detector": [
        ({"scaling-filter": 6}, ["nearest-scaling"]),
        ({"scaling-filter": 1, "network-type": 1}, ["parser-unused", "not-segmentation"]),
    ],
    # the output
    "output-on-gpu": [
        ({"disable-output-host-copy": 0}, []),
        ({"disable-output-host-copy": 1}, None),
        ({"disable-output-host-copy": 1, **TENSORS}, []),
    ],
    "objects-only": [
        ({"process-mode": 1}, []),
        ({"process-mode": 2}, None),
        ({"process-mode": 2, **TENSORS}, None),
    ],
    "tensors-awaited": [
        ({"input-tensor-from-meta": 0}, []),
        ({"input-tensor-from-meta": 1}, None),
        ({"input-tensor-from-meta": 1, **TENSORS}, []),
    ],
    "parser-not-in-library": [
        ({"parse-segmentation-func-name": "NvDsInferParseCustomChangeNet"}, []),
        ({"parse-segmentation-func-name": "NvDsInferParseSegdeploy"}, None),
        ({"custom-lib-path": "/opt/nvidia/libnvds_infercustomparser.so"}, None),
        ({"custom-lib-path": "/opt/nvidia/libsegdeploy_parser.so"}, None),
        ({"custom-lib-path": "/opt/nvidia/libnvds_infercustomparser_tao.so.1"}, None),
        ({"custom-lib-path": "/opt/nvidia/libnvds_infercustomparser_tao.cpp"}, None),
        ({**OURS, "custom-lib-path": "/opt/nvidia/libsegdeploy_parser.so", "engine-create-func-name": "Yolo"}, None),
        (OURS, []),
        ({**OURS, "parse-segmentation-func-name": "NvDsInferParseSegdeplo"}, None),
        ({**OURS, "parse-segmentation-func-name": "NvDsInferParseYolo"}, []),
    ],
    "threshold-unused": [
        ({"segmentation-threshold": 0.0}, []),
        ({"segmentation-threshold": 0.01}, None),
        ({"segmentation-threshold": 0.5, **OURS}, None),
        ({"segmentation-threshold": 0.5, **OURS}, [], "logits"),
    ],
    "threshold-high": [
        ({"segmentation-threshold": 1, **OURS}, [], "logits"),
        ({"segmentation-threshold": 1.01, **OURS}, None, "logits"),
    ],
    "our-parser-output": [
        (OURS, []),
        (OURS, [], "logits"),
        ({**OURS, "num-detected-classes": 4, "labelfile-path": None}, ["our-parser-output", "class-count"], "logits"),
    ],
    "colours-end": [
        ({"num-detected-classes": 19, "labelfile-path": None}, ["class-count"]),
        ({"num-detected-classes": 20, "labelfile-path": None}, ["class-count", "colours-end"]),
    ],
    "tensors-undrawn": [(TENSORS, None), (TENSORS, [], "nvinfer", "7.1")],
    "interval-long": [({"interval": 9}, []), ({"interval": 10}, None)],
    "reported-bad": [
        (batch(1), [], "batch-open"),
        (batch(2), None, "batch-open"),
        ({**batch(2), **OURS}, [], "batch-open", "7.1"),
    ],
    "graph-not-understood": [({}, None, "rubbish")],
    "class-count": [
        ({"num-detected-classes": 4, "labelfile-path": None}, None),
        ({"num-detected-classes": 6, "labelfile-path": None}, None),
        ({"num-detected-classes": 6, "labelfile-path": None, **TENSORS}, []),
    ],
    "no-classes": [
        ({"num-detected-classes": None}, None),
        ({"num-detected-classes": 0}, None),
        ({"num-detected-classes": 0, **TENSORS}, []),
    ],
    "tensors-unseen": [(TENSORS, []), ({**TENSORS, "output-tensor-meta": 0}, None)],
    "key-unused": [
        ({"output-instance-mask": 1}, None),
        ({"parse-classifier-func-name": "Mine", **TENSORS}, None),
        ({"operate-on-gie-id": 1}, None),
        ({"operate-on-gie-id": 1, "process-mode": 2}, ["objects-only"]),
        ({"operate-on-gie-id": 1, "network-type": 1}, ["parser-unused", "not-segmentation"]),
    ],
    "no-such-output": [
        ({"output-blob-names": "output"}, []),
        ({"output-blob-names": "output;conv2d_bbox"}, None),
        ({"output-blob-names": "logits"}, ["tao-parser-output"], "logits"),
    ],
    "parser-unused": [({**TENSORS, **OURS}, None)],
    "parser-without-library": [({"custom-lib-path": None}, None)],
    "library-without-parser": [
        ({"parse-segmentation-func-name": None}, ["library-without-parser", "stock-parser-type"]),
        ({**TENSORS, "custom-lib-path": "/opt/nvidia/x.so"}, []),
    ],
    "no-such-parser": [
        ({}, [], "nvinfer", "8.0"),
        ({}, None, "nvinfer", "7.1"),
        (OURS, [], "nvinfer", "7.1"),
    ],
    "not-segmentation": [
        *(({"network-type": kind}, ["parser-unused", "not-segmentation"]) for kind in (0, 1, 3)),
        (TENSORS, []),
    ],
    "tao-parser-output": [({}, None, "logits"), ({}, None, "whole-logits"), (OURS, [], "logits")],
    "stock-parser-type": [(STOCK, None)],
    "stock-parser-size": [(STOCK, None, "logits")],
    "output-order": [({**STOCK, "segmentation-output-order": 1}, None, "whole-logits")],
    "stock-parser-negative": [(STOCK, None, "whole-logits")],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("rule", EDGES)
def test_a_rule_ends_where_it_should(rule, place, models, tmp_path):
    (tmp_path / "made").mkdir()
    for name in ("there.calib", "built_b1_.engine", "built_b12_.engine"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "made" / "Makefile").write_text("our.so: our.cpp\n")
    (tmp_path / "there.so").write_bytes(b"\x7fELF")
    (tmp_path / "pointer.so").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "link.so").symlink_to(TRAPS / "clean.txt")
    path = place(TRAPS / "clean.txt")
    clean = path.read_text()
    for changes, codes, graph, version in (edge(*one) for one in EDGES[rule]):
        path.write_text(changed(clean, changes))
        found = [one.code for one in lint(path, models[graph], version, strict=rule in ADVICE)]
        assert sorted(found) == sorted([rule] if codes is None else codes), (changes, graph, version)


def edge(changes, codes, graph="nvinfer", version=None):
    return changes, codes, graph, version


# The same of ds-tao-segmentation's file, each change a pair of an old and a new text.
APP_EDGES = {
    "no-sink": [
        ([("enable: 1\n  enc-type: 1", "enable: 0\neglsink:\n  enable: 1")], []),
        ([("enable: 1\n  enc-type: 1", "enable: 0\nfakesink:\n  enable: 1")], []),
        ([("enable: 1", "enable: 0")], None),
        ([("  enable: 1\n", "")], None),
    ],
    "encoder-ignored": [
        ([("enable: 1\n  enc-type: 1", "enc-type: 1\n  enable: 1")], None),
        ([("enable: 1\n  enc-type: 1", "enc-type: 0\n  enable: 1")], []),
    ],
    "unknown-group": [([("segvisual:", "segvisual :")], []), ([("+", "sink0:\n  enable: 1")], None)],
    "unknown-key": [
        ([("alpha: 0.5", "alpha: 0.5\n  orig_background: 1")], []),
        ([("batch-size: 1", "batch-size: 1\n  sync-inputs: 1")], []),
        ([("alpha: 0.5", "alpha: 0.5\n  orig-background: 1")], None),
        ([("alpha: 0.5", "alpha: 0.5\n  enable-padding: 1")], None),
    ],
    "missing-file": [
        ([(".//clean.txt", ".//gone.txt")], None),
        ([("  config-file-path: .//clean.txt\n", "")], None),
        ([("plugin-type: 0", "plugin-type: 1"), (".//clean.txt", ".//gone.txt")], []),
    ],
    "app-looks-elsewhere": [([(".//clean.txt", "clean.txt")], None)],
    "two-sinks": [
        ([("filesink:", "eglsink:\n  enable: 0\nfilesink:")], []),
        ([("filesink:", "eglsink:\n  enable: 1\nfilesink:")], None),
    ],
    "app-unset": [([("  alpha: 0.5\n", "")], None), ([("tests:\n  file-loop: 0\n", "")], None)],
    "muxer-ignored": [
        ([("  width: 1280\n  height: 720\n", "")], []),
        ([("height: 720", "height: 721")], None),
    ],
    "source-without-scheme": [
        ([("file:///clip.mp4", "rtsp://camera/1")], []),
        ([("file:///clip.mp4", "clip.mp4")], None),
    ],
    "no-source": [
        ([("  list: file:///clip.mp4\n", "")], None),
        ([("source-list:\n  list: file:///clip.mp4\n\n", "")], None),
    ],
    "source-form": [
        ([("file:///clip.mp4", "file://localhost/clip.mp4")], []),
        ([("file:///clip.mp4", "file://clip.mp4")], None),
        ([("file:///clip.mp4", "file:///a.mp4,file:///b.mp4")], None),
        ([("file:///clip.mp4", "rtsp://camera/a,b")], []),
    ],
    "app-reads-another": [
        ([(".//clean.txt", ".//other.txt")], None),
        ([(".//clean.txt", ".//tensors.txt"), ("DeepStream 8.0", "DeepStream 7.1")], []),
    ],
    "plugin-type": [
        ([("plugin-type: 0", "plugin-type: 1")], None),
        ([("plugin-type: 0", "plugin-type: 1"), (".//clean.txt", ".//gone.txt")], []),
    ],
    "app-leaves-class-0": [
        ([("alpha: 0.5", "alpha: 0.5\n  orig_background: 0")], []),
        ([("alpha: 0.5", "alpha: 0.5\n  orig_background: 1")], None),
    ],
    "wrong-type": [
        ([("alpha: 0.5", "alpha: .5")], []),
        ([("alpha: 0.5", "alpha: half")], None),
        ([("file-loop: 0", "file-loop: no")], None),
        ([("height: 720", "height: 720\n  batched-push-timeout: 40ms")], None),
        ([("batch-size: 1", "batch-size: 1.0")], None),
    ],
    "out-of-range": [
        ([("alpha: 0.5", "alpha: 1")], []),
        ([("alpha: 0.5", "alpha: 1.01")], None),
        ([("batch-size: 1", "batch-size: 0")], None),
        ([("height: 720", "height: 720\n  batched-push-timeout: -1")], []),
        ([("height: 720", "height: 720\n  batched-push-timeout: -2")], None),
        ([("plugin-type: 0", "plugin-type: 2")], None),
    ],
    "segvisual-too-small": [
        ([("  width: 160", "  width: 161"), ("height: 96", "height: 97")], []),
        ([("  width: 160", "  width: 159")], None),
        ([("height: 96", "height: 95")], None),
        ([("  height: 96\n", "")], None),
        ([("height: 96", "height: 96.0")], None),
    ],
    "streams-differ": [
        ([("file:///clip.mp4", "file:///clip.mp4;")], []),
        ([("file:///clip.mp4", "file:///clip.mp4;file:///b.mp4")], None),
    ],
    "app-draws-nothing": [
        ([(".//clean.txt", ".//tensors.txt")], None),
        ([(".//clean.txt", ".//tensors.txt"), ("DeepStream 8.0", "DeepStream 7.1")], []),
    ],
}  # fmt: skip


@pytest.mark.parametrize("rule", APP_EDGES)
def test_a_rule_of_the_app_ends_where_it_should(rule, place):
    path = place(TRAPS / "clean-app.yml")
    clean = path.read_text()
    for changes, codes in APP_EDGES[rule]:
        text = clean
        for old, new in changes:
            assert old == "+" or old in text, old
            text = text + new + "\n" if old == "+" else text.replace(old, new)
        path.write_text(text)
        found = [one.code for one in lint(path, strict=rule in ADVICE)]
        assert found == ([rule] if codes is None else codes), changes


def changed(text, changes):
    """The configuration with other values: None takes a key out, `+` adds lines at the end."""
    for key, value in changes.items():
        line = rf"(?m)^{re.escape(key)}(=.*)?\n"
        written = "" if value is None else f"{value}\n" if key in ("+", "[property]") else f"{key}={value}\n"
        text = re.sub(line, written, text) if re.search(line, text) else text + written
    return text


def test_a_misspelt_key_is_told_the_likely_one(place):
    (found,) = lint(place(TRAPS / "unknown-key.txt"))
    assert found.remedy == "interval was probably meant"
    assert found.line == 18


def test_scales_are_told_per_channel(place):
    (found,) = lint(place(TRAPS / "scale-differs.txt"))
    assert "-77.40 %, -77.40 %, -77.40 %" in found.what
    assert found.remedy == "write net-scale-factor=0.01735207357279195"


def test_a_foreign_graph_of_three_scales_cannot_be_written_down(place, tmp_path):
    path = place(TRAPS / "clean.txt")
    model = onnx.load(tmp_path / "model.onnx")
    for item in model.metadata_props:
        if item.key == "segdeploy.scale":
            item.value = str([1 / 58.395, 1 / 57.12, 1 / 57.375])
    onnx.save(model, tmp_path / "model.onnx")
    (found,) = lint(path)
    assert found.code == "scale-differs"
    assert "+1.33 %, -0.88 %, -0.44 %" in found.what


def test_another_model_and_another_version(place, models):
    path = place(TRAPS / "clean.txt")
    assert [one.code for one in lint(path, models["logits"])] == ["tao-parser-output"]
    assert [one.code for one in lint(path, version="7.1")] == ["no-such-parser"]


# ---- bad files ---------------------------------------------------------------------------------------------------


def test_a_nul_byte(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"[property]\nbatch-size=1\n\0\n")
    assert [(one.code, one.line) for one in lint(path)] == [("nul-byte", 3)]


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"[property]\n\xff\xfe\n")
    (found,) = lint(path)
    assert found.code == "not-text"
    assert "not UTF-8 text (invalid start byte at byte 11)" in found.what


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".txt", ".yml"])
def test_ten_thousand_lines(suffix, place, tmp_path):
    path = place(TRAPS / f"clean{suffix}")
    line = "untrue-key-{}=1\n" if suffix == ".txt" else "  untrue-key-{}: 1\n"
    many = "# nothing\n" * 9000 + "".join(line.format(number) for number in range(1000))
    path.write_text(path.read_text() + many)
    began = time.monotonic()
    found = lint(path)
    assert time.monotonic() - began < 30
    assert {one.code for one in found} == {"unknown-key"}
    assert len(found) == 1000


def test_yaml_that_is_none(tmp_path):
    path = tmp_path / "x.yml"
    for text, words in (
        ("property:\n\tx: 1\n", "it is not YAML"),
        ("- 1\n", "it has no groups"),
        ("[" * 700, "nested too deeply"),
    ):
        path.write_text(text)
        (found,) = lint(path)
        assert found.code == "syntax"
        assert words in found.what


def test_an_empty_file(tmp_path):
    for name in ("x.txt", "x.yml"):
        (tmp_path / name).write_text("")
        assert [one.code for one in lint(tmp_path / name)] in (["no-property-group"], ["syntax"])


# ---- the verb ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_verb(place, capsys):
    path = place(TRAPS / "nearest-scaling.txt")
    assert main(["deepstream", "lint", str(path)]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"{path}:4: nearest-scaling: frames are scaled")
    assert said.endswith("Write scaling-filter=1, bilinear.\n")
    assert main(["deepstream", "lint", "--json", str(path)]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert [one["code"] for one in facts["findings"]] == ["nearest-scaling"]
    clean = path.with_name("clean.txt")
    assert main(["deepstream", "lint", str(clean)]) == 0
    assert capsys.readouterr().out == f"{clean}: nothing found\n"


def test_what_the_verb_refuses(tmp_path, capsys, misused):
    assert main(["deepstream", "lint", str(tmp_path / "gone.txt")]) == 1
    assert "cannot be read: No such file or directory" in capsys.readouterr().err
    (tmp_path / "x.txt").write_text("[property]\n")
    said = misused("deepstream", "lint", tmp_path / "x.txt", "--deepstream", "5.0")
    assert "argument --deepstream: invalid choice: '5.0'" in said
    with pytest.raises(
        RequestError, match=r"DeepStream '5\.0' is not known here; known: 6\.0, 6\.1, 6\.1\.1"
    ):
        lint(tmp_path / "x.txt", version="5.0")
    assert main(["deepstream", "lint", str(tmp_path / "x.txt"), "--model", str(tmp_path / "x.onnx")]) == 1
    assert "there is no file" in capsys.readouterr().err


# ---- what is no file, and names that none can have -----------------------------------------------------------------


@pytest.mark.slow
def test_a_pipe_is_no_configuration(images, tmp_path, capsys):
    pipe = tmp_path / "config.txt"
    os.mkfifo(pipe)
    for words in (("lint", pipe), ("replay", "-c", pipe, "-i", images, "-o", tmp_path / "x.mp4")):
        assert main(["deepstream", *map(str, words)]) == 1
        assert capsys.readouterr().err == f"segdeploy: {pipe} cannot be read: it is a pipe, and no file\n"


@pytest.mark.parametrize("key", ["labelfile-path", "onnx-file", "int8-calib-file", "model-engine-file", "mean-file",
                                 "custom-lib-path"])  # fmt: skip
@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "pipe", "loop"])
def test_a_name_that_no_file_has_is_a_finding(key, name, place, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    path = place(TRAPS / "clean.txt")
    text = re.sub(rf"^{key}=.*\n", "", path.read_text(), flags=re.MULTILINE)
    path.write_text(f"{text}{key}={name}\n")
    assert {one.code for one in lint(path, strict=True)} & {
        "missing-file",
        "engine-rebuilt",
        "int8-without-cache",
        "foreign-library",
    }


@pytest.mark.slow
def test_what_is_certain_is_written(place, capsys):
    path = place(TRAPS / "clean.txt")
    clean = path.read_text()
    wrong = {
        "scaling-filter": 6,
        "net-scale-factor": 1,
        "offsets": "0;0;0",
        "infer-dims": "3;96;161",
        "process-mode": 2,
    }
    path.write_text(
        changed(clean, {**wrong, "interval": 2, "num-detected-classes": 4, "labelfile-path": None})
    )
    assert main(["deepstream", "lint", "--fix", str(path)]) == 0
    said = capsys.readouterr().out
    assert ": scale-differs: corrected: net-scale-factor=0.01735207357279195\n" in said
    assert said.endswith(f"{path}: nothing found any more\n")
    again = {"process-mode": 1, "interval": 2, "num-detected-classes": 5, "labelfile-path": None}
    assert sorted(path.read_text().splitlines()) == sorted(
        changed(clean, again).splitlines()
    )  # and nothing else
    form = place_yml(path, clean, {"scaling-filter": 6})
    assert main(["deepstream", "lint", "--fix", "--json", str(form)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [one["code"] for one in facts["corrected"]] == ["nearest-scaling"]
    assert "  scaling-filter: 1\n" in form.read_text()


def place_yml(path, clean, changes):
    target = path.with_suffix(".yml")
    target.write_text(as_yml(read_txt(changed(clean, changes))).text)
    return target


def test_what_is_no_certain_value_stays(place, capsys):
    path = place(TRAPS / "no-such-parser.txt")
    before = path.read_bytes()
    assert main(["deepstream", "lint", "--fix", str(path)]) == 1
    assert path.read_bytes() == before
    assert "no-such-parser" in capsys.readouterr().out


def test_several_files_and_advice(place, capsys):
    path = place(TRAPS / "interval-long.txt")
    other = path.with_name("clean.txt")
    assert main(["deepstream", "lint", str(path), str(other)]) == 0
    assert capsys.readouterr().out == f"{path}: nothing found\n{other}: nothing found\n"
    assert main(["deepstream", "lint", "--strict", "--json", str(path), str(other)]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert [(one["code"], one["advice"]) for one in first["findings"]] == [("interval-long", True)]
    assert second == {"file": str(other), "corrected": [], "findings": []}


def test_a_yaml_directive_and_a_repeated_group(place):
    path = place(TRAPS / "clean.yml")
    text = path.read_text()
    path.write_text(f"# theirs\n\n%YAML:1.0\n---\n{text}")
    assert lint(path) == []
    path.write_text(f"{text}property:\n  scaling-filter: 6\n")  # yaml-cpp takes the first
    assert [(one.code, one.line) for one in lint(path)] == [("group-unread", text.count("\n") + 1)]
    path.write_text(f"{text}class-attrs-all:\npre-cluster-threshold: 1\n")
    assert [one.code for one in lint(path)] == ["group-unread", "group-unread"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("x.yml", "property:\n  interval: -0\n"), ("x.txt", "[property]\nlabelfile-path=a\\;b.txt\n")],
)
def test_what_glib_and_yaml_cpp_refuse(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert "wrong-type" in [one.code for one in lint(tmp_path / name)]


def test_the_hook_for_pre_commit_names_the_verb():
    hooks = yaml.safe_load((Path(__file__).parent.parent / ".pre-commit-hooks.yaml").read_text())
    assert [hook["entry"] for hook in hooks] == ["segdeploy deepstream lint"]
    wanted = re.compile(hooks[0]["files"])
    assert wanted.search("ds/nvinfer_config.txt")
    assert wanted.search("configs/pgie_unet_tao_config.yml")
    assert not wanted.search("ds/labels.txt")
