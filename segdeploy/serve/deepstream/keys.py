"""Every key that nvinfer reads, with its type, range, default and versions.

From the sources of nvinfer that are public: 6.0, 6.1, 6.1.1, 6.2, 6.3, 9.0 and 9.1 (gstnvinfer_property_parser and the
YAML parser beside it, which came with 6.1). A key that 6.3 has not and 9.0 has counts from 6.4 on, because nothing
public says when it came, but for those whose first public use is of 9.0. Caffe, UFF and the implicit batch went with
TensorRT 10, which came with DeepStream 7.1.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

BEFORE_TENSORRT_10 = "7.0"
AFTER_6_3 = "6.4"

INTEGER, BOOLEAN, NUMBER, TEXT, PATH = "integer", "boolean", "number", "text", "path"
INTEGERS, NUMBERS, TEXTS, PATHS = "integers", "numbers", "texts", "paths"
WORDS = {
    INTEGER: "an integer, as in 1",
    BOOLEAN: "0 or 1",
    NUMBER: "a number, as in 0.5",
    TEXT: "text",
    PATH: "the path of a file",
    INTEGERS: "integers with ; between them, as in 3;512;1024",
    NUMBERS: "numbers with ; between them, as in 123.675;116.28;103.53",
    TEXTS: "texts with ; between them",
    PATHS: "paths with ; between them",
}
LISTS = {INTEGERS: INTEGER, NUMBERS: NUMBER, TEXTS: TEXT, PATHS: PATH}
INT32 = 2**31 - 1

Value = int | bool | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | None


@dataclass(frozen=True)
class Key:
    name: str
    kind: str
    default: Value = None  # None: not set
    low: float | None = None
    high: float | None = None
    choices: tuple[int, ...] = ()
    length: tuple[int, int] | None = None  # of a list, least and most
    since: str = "6.0"
    until: str | None = None  # the last version in which it does anything
    instead: str = ""  # what took its place; such a key is not read from .yml

    def refusal(self, value: Value) -> str | None:
        """Say what is expected instead of `value`, where nvinfer refuses it or makes nonsense of it."""
        if self.choices and value not in self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        if self.length and isinstance(value, tuple) and not self.length[0] <= len(value) <= self.length[1]:
            least, most = self.length
            return f"{least} values" if least == most else f"{least} to {most} values"
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str | None):
                continue
            if (self.low is not None and one < self.low) or (self.high is not None and one > self.high):
                return f"{self.low or 0:g} or more" if self.high is None else f"{self.low:g} to {self.high:g}"
        return None

    def exists_in(self, version: str) -> bool:
        return not is_before(version, self.since) and (
            self.until is None or not is_before(self.until, version)
        )


def is_before(one: str, other: str) -> bool:
    return [int(part) for part in one.split(".")] < [int(part) for part in other.split(".")]


def integer(name: str, default: int | None = None, low: int = -INT32, high: int = INT32, **more: str) -> Key:
    return Key(name, INTEGER, default, low, high, **more)  # type: ignore[arg-type]


def choice(name: str, default: int, choices: tuple[int, ...], **more: str) -> Key:
    return Key(name, INTEGER, default, choices=choices, **more)  # type: ignore[arg-type]


def boolean(name: str, **more: str) -> Key:
    return Key(name, BOOLEAN, False, **more)  # type: ignore[arg-type]


def number(name: str, default: float, low: float | None = None, high: float | None = None) -> Key:
    return Key(name, NUMBER, default, low, high)


PROPERTY = {
    key.name: key
    for key in (
        # the element
        integer("gie-unique-id", 15, 1),
        choice("process-mode", 1, (1, 2)),
        integer("interval", 0, 0),
        integer("gpu-id", 0, 0),
        integer("batch-size", 1, 1, 1024),
        integer("tensor-meta-pool-size", 2, 0),
        integer("secondary-reinfer-interval", INT32),
        integer("operate-on-gie-id", -1),
        Key("operate-on-class-ids", INTEGERS, (), 0),
        Key("filter-out-class-ids", INTEGERS, (), 0),
        integer("input-object-min-width", 1, 0),
        integer("input-object-min-height", 1, 0),
        integer("input-object-max-width", 0, 0),
        integer("input-object-max-height", 0, 0),
        boolean("crop-objects-to-roi-boundary", since="6.2"),
        boolean("input-tensor-from-meta"),
        boolean("output-tensor-meta"),
        integer("disable-output-host-copy", 0, 0, 1, since="6.1.1"),
        integer("auto-inc-mem", 1, 0, 1, since="6.3"),
        integer("max-gpu-mem-per", 99, 0, 100, since="6.3"),
        integer("stabilize-buffer-count", 0, 0, since="9.0"),
        boolean("warmup-engine", since="9.0"),
        Key("dynamic-properties", TEXT, "", since="9.0"),
        # the model and its engine
        Key("onnx-file", PATH),
        Key("model-engine-file", PATH),
        Key("tlt-encoded-model", PATH),
        Key("tlt-model-key", TEXT),
        choice("network-mode", 0, (0, 1, 2, 3)),
        boolean("strongly-typed", since="9.0"),
        Key("int8-calib-file", PATH),
        integer("workspace-size", 0, 0),
        boolean("enable-dla"),
        integer("use-dla-core", 0, 0),
        Key("layer-device-precision", TEXTS, ()),
        Key("output-io-formats", TEXTS, ()),
        Key("output-blob-names", TEXTS, ()),
        Key("engine-create-func-name", TEXT),
        Key("custom-network-config", TEXT),  # not taken relative to the configuration, unlike every path
        # the input
        Key("infer-dims", INTEGERS, None, 1, length=(3, 3)),
        choice("network-input-order", 0, (0, 1)),
        choice("model-color-format", 0, (0, 1, 2)),
        number("net-scale-factor", 1.0),
        Key("offsets", NUMBERS, (), length=(1, 4)),
        Key("mean-file", PATH),
        boolean("maintain-aspect-ratio"),
        boolean("symmetric-padding"),
        choice("scaling-filter", 6, (0, 1, 2, 3, 4, 5, 6)),  # 6: nearest neighbour
        choice("scaling-compute-hw", 0, (0, 1, 2)),
        # the output
        choice("network-type", 0, (0, 1, 2, 3, 100)),
        integer("num-detected-classes", 0, 0),
        Key("labelfile-path", PATH),
        Key("custom-lib-path", PATH),
        Key("parse-segmentation-func-name", TEXT, since=AFTER_6_3),
        Key("parse-bbox-func-name", TEXT),
        Key("parse-bbox-instance-mask-func-name", TEXT),
        Key("parse-classifier-func-name", TEXT),
        number("segmentation-threshold", 0.0, 0),
        choice("segmentation-output-order", 0, (0, 1)),
        boolean("output-instance-mask"),
        choice("cluster-mode", 0, (0, 1, 2, 3, 4)),
        number("classifier-threshold", 0.0, 0),
        boolean("classifier-async-mode"),
        Key("classifier-type", TEXT),
        # tensors to and from files
        integer("dump-input-tensor", 0, since=AFTER_6_3),
        integer("dump-output-tensor", 0, since=AFTER_6_3),
        integer("overwrite-input-tensor", 0, since=AFTER_6_3),
        integer("overwrite-output-tensor", 0, since=AFTER_6_3),
        Key("ip-tensor-file", PATH, since=AFTER_6_3),
        Key("op-tensor-files", PATHS, (), since=AFTER_6_3),
        boolean("raw-output-file-write", since=AFTER_6_3),
        # gone, or called otherwise
        boolean("is-classifier", instead="network-type"),
        boolean("enable-dbscan", instead="cluster-mode"),
        Key("input-dims", INTEGERS, None, length=(4, 4), instead="infer-dims"),
        Key("uff-input-dims", INTEGERS, None, length=(4, 4), instead="infer-dims"),
        boolean("force-implicit-batch-dim", until=BEFORE_TENSORRT_10),
        Key("model-file", PATH, until=BEFORE_TENSORRT_10),
        Key("proto-file", PATH, until=BEFORE_TENSORRT_10),
        Key("uff-file", PATH, until=BEFORE_TENSORRT_10),
        choice("uff-input-order", 0, (0, 1, 2), until=BEFORE_TENSORRT_10),
        Key("uff-input-blob-name", TEXT, until=BEFORE_TENSORRT_10),
    )
}

CLASS_ATTRS = {
    key.name: key
    for key in (
        number("pre-cluster-threshold", 0.2, 0),
        number("post-cluster-threshold", 0.0, 0),
        number("eps", 0.0, 0),
        number("dbscan-min-score", 0.0, 0),
        number("nms-iou-threshold", 0.3, 0, 1),
        integer("group-threshold", 0, 0),
        integer("minBoxes", 0, 0),
        integer("topk", -1, 0),
        integer("roi-top-offset", 0, 0),
        integer("roi-bottom-offset", 0, 0),
        integer("detected-min-w", 0, 0),
        integer("detected-min-h", 0, 0),
        integer("detected-max-w", 0, 0),
        integer("detected-max-h", 0, 0),
        Key("border-color", NUMBERS, (1.0, 0.0, 0.0, 1.0), 0, 1, length=(4, 4)),
        Key("bg-color", NUMBERS, (), 0, 1, length=(4, 4)),
        Key("threshold", NUMBER, 0.2, 0, instead="pre-cluster-threshold"),
    )
}


def keys_of(group: str) -> dict[str, Key] | None:
    """The keys of `property`, `class-attrs-all` and `class-attrs-<class>`; None of any other group."""
    if group == "property":
        return PROPERTY
    prefix, _, suffix = group.rpartition("-")
    return CLASS_ATTRS if prefix == "class-attrs" and (suffix == "all" or suffix.isdecimal()) else None


def likely(name: str, known: dict[str, Key]) -> str | None:
    """The known key that `name` was probably meant to be."""
    plain = name.strip().lower().replace("_", "-")
    if plain in known and plain != name:
        return plain
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.75)
    return close[0] if close else None
