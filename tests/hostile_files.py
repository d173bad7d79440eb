"""Makes the folder that hostile command lines are about: `good` files of every kind, `junk` in place of each, and more.

`make_files(root)` gives root/in; nothing in it may change, whatever is done with it.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clips
import numpy as np
import onnx
import yaml
from conftest import CLASSES, TINY, write_checkpoint
from hostile_texts import (
    CACHE,
    CACHES,
    CARDS,
    CONFIG,
    CONFIG_CHANGES,
    CONFIGS,
    HEIGHT,
    HTML,
    LABELS,
    MAPPINGS,
    NAMES,
    RECIPES,
    RECORD_CHANGES,
    RECORD_TEXTS,
    SCALES,
    WIDTH,
    YAMLS,
    card,
)
from onnx import TensorProto, helper, numpy_helper

RECORDS = Path(__file__).parent / "data/records"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 14902260\n"
# The kinds of files that are read anywhere, with a good one of each.
GOOD = {
    "onnx": "nvinfer.onnx",
    "engine": "tiny.engine",
    "pth": "tiny.pth",
    "pkl": "tiny.pkl",
    "safetensors": "tiny/model.safetensors",
    "npz": "tiny.npz",
    "calib": "cache.calib",
    "json": "s.scales.json",
    "yaml": "card.yaml",
    "png": "images/a.png",
    "jpg": "photo.jpg",
    "mp4": "clip.mp4",
    "txt": "config/nvinfer_config.txt",
    "yml": "config.yml",
}


def make_files(root: Path) -> Path:
    place = root / "in"
    make_good(place / "good")
    make_junk(place)
    make_graphs(place / "graphs", onnx.load(place / "good/nvinfer.onnx"))
    make_checkpoints(place / "checkpoints", place / "good/tiny")
    make_pickles(place / "pickles", place / "good/tiny")
    make_images(place / "images")
    make_texts(place)
    make_data(place / "data", place / "good")
    make_records(place / "records", place / "good")
    make_names(place / "names", place / "good")
    return place


# ---- what is good -------------------------------------------------------------------------------------------------


def make_good(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from segdeploy.convert.export import export_onnx
    from segdeploy.serve.deepstream.render import render
    from segdeploy.serve.deepstream.request import RenderRequest

    tiny = write_checkpoint(folder / "tiny", size=(HEIGHT, WIDTH))
    for interface in ("nvinfer", "frames", "logits"):
        export_onnx(tiny, interface=interface, output=folder / f"{interface}.onnx")
    weights = load_file(tiny / "model.safetensors")
    torch.save(weights, folder / "tiny.pth")
    (folder / "tiny.pkl").write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in weights.items()}}))
    np.savez(folder / "tiny.npz", np.arange(9))
    (folder / "cache.calib").write_text(CACHE)
    scales = {"schema": 1, "method": "entropy", "tensors": {"input": {"scale": 0.0174}}}
    (folder / "s.scales.json").write_text(json.dumps(scales))
    (folder / "tiny.engine").write_bytes(b"ftrt" + bytes(range(256)) * 4)
    shutil.copy(RECORDS / "engine.json", folder / "tiny.engine.json")
    write_pictures(folder / "images", 8)
    clips.write_clip(folder / "clip.mp4", [0, 40, 80, 120], size=(HEIGHT, WIDTH))
    (folder / "photo.jpg").write_bytes(encoded(".jpg", clips.frame(1, HEIGHT, WIDTH)))
    render(RenderRequest(folder / "nvinfer.onnx"), folder / "config")
    (folder / "config.yml").write_text((Path(__file__).parent / "traps/clean.yml").read_text())
    (folder / "card.yaml").write_text(yaml.safe_dump(card()))
    (folder / "mapping.yaml").write_text(yaml.safe_dump({"ids": dict(enumerate(CLASSES))}))
    write_pictures(folder / "data/images", 2)
    write_labels(folder / "data/labels", 2)


def encoded(suffix: str, pixels: Any) -> bytes:
    import cv2

    return bytes(cv2.imencode(suffix, pixels)[1].tobytes())


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate("abcdefgh"[:count]):
        (folder / f"{name}.png").write_bytes(encoded(".png", clips.frame(number, HEIGHT, WIDTH)))


def write_labels(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for name in "abcdefgh"[:count]:
        ids = np.tile(np.arange(WIDTH, dtype=np.uint8) % len(CLASSES), (HEIGHT, 1))
        (folder / f"{name}.png").write_bytes(encoded(".png", ids))


# ---- junk in place of any file ------------------------------------------------------------------------------------


def make_junk(place: Path) -> None:
    folder = place / "junk"
    folder.mkdir()
    draw = random.Random(5)
    noise = bytes(draw.randrange(256) for _ in range(512))
    picture = (place / "good/images/a.png").read_bytes()
    for suffix, name in GOOD.items():
        good = (place / "good" / name).read_bytes()
        contents = {
            "empty": b"",
            "blank": b"\n\n",
            "noise": noise,
            "zeros": bytes(4096),
            "html": HTML,
            "lfs": LFS,
            "half": good[: len(good) // 2],
            "other": picture if suffix != "png" else CACHE.encode(),
            "deep": b"[" * 100_000,
        }
        for kind, content in contents.items():
            (folder / f"{kind}.{suffix}").write_bytes(content)
        (folder / f"folder.{suffix}").mkdir()
        os.mkfifo(folder / f"pipe.{suffix}")
        links = {
            "loop": f"loop.{suffix}",
            "dangling": "/proc/nonexistent/x",
            "endless": "/dev/zero",
            "broken": "/proc/self/mem",
        }
        for kind, target in links.items():
            (folder / f"{kind}.{suffix}").symlink_to(target)
        make_socket(folder / f"socket.{suffix}")
    (place / "nothing").mkdir()


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the address of a socket is at most 107 bytes
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)
    os.chdir(here)


# ---- graphs -------------------------------------------------------------------------------------------------------

Change = Callable[[onnx.ModelProto], object]


def make_graphs(folder: Path, ours: onnx.ModelProto) -> None:
    folder.mkdir()
    for name, change in OUR_GRAPHS.items():
        model = onnx.ModelProto.FromString(ours.SerializeToString())
        change(model)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    for name, model in foreign_graphs().items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())


def said(**facts: str) -> Change:
    """Changes the metadata; an empty text removes a key."""

    def change(model: onnx.ModelProto) -> None:
        kept = {item.key: item.value for item in model.metadata_props} | {
            f"segdeploy.{name}": value for name, value in facts.items()
        }
        helper.set_model_props(model, kept)

    return change


def outside(location: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return change


def twice_the_nodes(model: onnx.ModelProto) -> None:
    model.graph.node.extend(list(model.graph.node))


def short_weights(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    tensor.raw_data = tensor.raw_data[:-5]


def in_a_circle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def vast_weights(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    tensor.dims[:] = [1 << 31, 1 << 31]
    tensor.ClearField("raw_data")


NAMES_OF_5 = '["road","kerb","sky","car","bus"]'
OUR_GRAPHS: dict[str, Change] = {
    "card-leaves": said(card="../../../../../../../../../../tmp/ESCAPED"),
    "card-runs": said(card="a;touch PWNED;$(touch PWNED)"),
    "card-empty": said(card=""),
    "card-long": said(card="a" * 5000),
    "card-escape": said(card="\x1b]0;forged\x07\nsegdeploy: all is well"),
    "class-newline": said(classes=json.dumps(["road\nkerb", "kerb", "sky", "car", "bus"])),
    "class-escape": said(classes=json.dumps(["\x1b[2J", "kerb", "\u202esky", "car", "bus"])),
    "class-surrogate": said(classes='["\\ud800","kerb","sky","car","bus"]'),
    "class-number": said(classes="[1,2,3,4,5]"),
    "class-empty": said(classes='["","","","",""]'),
    "class-text": said(classes='"abcde"'),
    "class-none": said(classes="[]"),
    "class-more": said(classes=json.dumps([f"c{i}" for i in range(9)])),
    "class-deep": said(classes="[" * 100_000),
    "class-long": said(classes=json.dumps(["x" * 100_000, "kerb", "sky", "car", "bus"])),
    "colour-none": said(colours="[]"),
    "colour-300": said(colours="[[300,0,0],[0,0,0],[0,0,0],[0,0,0],[0,0,0]]"),
    "colour-text": said(colours='"red"'),
    "mean-text": said(mean='["a","b","c"]'),
    "mean-nan": said(mean="[NaN,0,0]"),
    "mean-huge": said(mean="[1e999,0,0]"),
    "mean-long": said(mean="[" + "9" * 5000 + ",0,0]"),
    "scale-zero": said(scale="[0,0,0]"),
    "scale-nan": said(scale="[NaN,NaN,NaN]"),
    "scale-minus": said(scale="[-1,-1,-1]"),
    "interface-other": said(interface="evil"),
    "interface-frames": said(interface="frames"),
    "resize-other": said(resize="rm -rf"),
    "weights-gone": outside("gone.data"),
    "weights-outside": outside("../../../../etc/passwd"),
    "weights-absolute": outside("/etc/passwd"),
    "weights-folder": outside("."),
    "weights-nameless": outside(""),
    "weights-short": short_weights,
    "weights-vast": vast_weights,
    "nodes-twice": twice_the_nodes,
    "circle": in_a_circle,
    "opset-99": lambda model: setattr(model.opset_import[0], "version", 99),
    "opset-1": lambda model: setattr(model.opset_import[0], "version", 1),
    "opset-minus": lambda model: setattr(model.opset_import[0], "version", -1),
    "opset-none": lambda model: model.ClearField("opset_import"),
    "ir-99": lambda model: setattr(model, "ir_version", 99),
    "op-unknown": lambda model: setattr(model.graph.node[0], "op_type", "Bomb"),
    "domain-unknown": lambda model: setattr(model.graph.node[0], "domain", "evil"),
    "nodes-none": lambda model: model.graph.ClearField("node"),
    "graph-none": lambda model: model.ClearField("graph"),
}
Side = int | str | None


def graph(
    *nodes: onnx.NodeProto,
    eats: tuple[Side, ...] = (1, 3, HEIGHT, WIDTH),
    answers: tuple[Side, ...] | None = (1, 5, HEIGHT, WIDTH),
    dtype: int = TensorProto.FLOAT,
    answered: int = TensorProto.FLOAT,
    constants: dict[str, Any] | None = None,
    inputs: int = 1,
) -> onnx.ModelProto:
    outputs = [] if answers is None else [helper.make_tensor_value_info("out", answered, list(answers))]
    eaten = [
        helper.make_tensor_value_info(("in", "more", "third")[i], dtype, list(eats)) for i in range(inputs)
    ]
    made = helper.make_graph(
        list(nodes),
        "g",
        eaten,
        outputs,
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def foreign_graphs() -> dict[str, onnx.ModelProto]:
    """A convolution from three channels to as many classes as wanted, and what does not hold in such graphs."""

    def convolved(classes: int) -> onnx.ModelProto:
        weights = np.linspace(-1, 1, classes * 3, dtype=np.float32).reshape(classes, 3, 1, 1)
        conv = helper.make_node("Conv", ["in", "w"], ["out"])
        return graph(conv, answers=(1, classes, HEIGHT, WIDTH), constants={"w": weights})

    same = helper.make_node("Identity", ["in"], ["out"])
    conv = helper.make_node("Conv", ["in", "w"], ["out"])
    weights = {"w": np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3, 1, 1)}
    filled = helper.make_node("ConstantOfShape", ["shape"], ["out"])
    untyped = graph(same)
    untyped.graph.output[0].ClearField("type")
    sequence = graph(helper.make_node("SequenceConstruct", ["in"], ["out"]))
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])
    sequence.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(inner))
    mean = helper.make_node("ReduceMean", ["in"], ["out"], keepdims=0)
    nan = helper.make_node("Mul", ["in", "nan"], ["hurt"])
    after = helper.make_node("Conv", ["hurt", "w"], ["out"])
    return {
        "foreign": convolved(5),
        "one-class": convolved(1),
        "classes-300": convolved(300),
        "no-output": graph(same, answers=None),
        "no-input": graph(same, inputs=0),
        "two-inputs": graph(same, inputs=2),
        "three-inputs": graph(same, inputs=3),
        "untyped": untyped,
        "sequence": sequence,
        "rank-0": graph(mean, answers=()),
        "rank-2": graph(same, eats=(1, 3), answers=(1, 3)),
        "rank-5": graph(same, eats=(1, 3, 4, HEIGHT, WIDTH), answers=(1, 3, 4, HEIGHT, WIDTH)),
        "side-0": graph(same, eats=(1, 3, 0, WIDTH), answers=(1, 3, 0, WIDTH)),
        "side-1": graph(conv, eats=(1, 3, 1, 1), answers=(1, 5, 1, 1), constants=weights),
        "side-vast": graph(
            conv, eats=(1, 3, 1 << 31, 1 << 31), answers=(1, 5, 1 << 31, 1 << 31), constants=weights
        ),
        "side-minus": graph(conv, eats=(1, 3, -1, -1), answers=(1, 5, -1, -1), constants=weights),
        "channels-vast": graph(conv, answers=(1, 1 << 40, HEIGHT, WIDTH), constants=weights),
        "channels-many": graph(conv, answers=(1, 200_000_000, HEIGHT, WIDTH), constants=weights),
        "channels-4": graph(same, eats=(1, 4, HEIGHT, WIDTH), answers=(1, 4, HEIGHT, WIDTH)),
        "batch-0": graph(conv, eats=(0, 3, HEIGHT, WIDTH), answers=(0, 5, HEIGHT, WIDTH), constants=weights),
        "batch-vast": graph(
            conv, eats=(1 << 40, 3, HEIGHT, WIDTH), answers=(1 << 40, 5, HEIGHT, WIDTH), constants=weights
        ),
        "size-open": graph(conv, eats=("n", 3, "h", "w"), answers=("n", 5, "h", "w"), constants=weights),
        "size-lies": graph(conv, answers=(1, 5, 7, 7), constants=weights),
        "answers-text": graph(helper.make_node("Cast", ["in"], ["out"], to=8), answered=TensorProto.STRING),
        "eats-text": graph(same, dtype=TensorProto.STRING, answered=TensorProto.STRING),
        "answers-nan": graph(nan, after, constants=weights | {"nan": np.float32("nan")}),
        "type-unknown": graph(same, dtype=99, answered=99),
        "memory": graph(
            filled, answers=(1, 5, HEIGHT, WIDTH), constants={"shape": np.array([1, 5, 1 << 20, 1 << 20])}
        ),
        "input-unknown": graph(helper.make_node("Relu", ["gone"], ["out"])),
        "output-unknown": graph(helper.make_node("Relu", ["in"], ["other"])),
        "name-escape": graph(
            helper.make_node("Conv", ["in", "w"], ["out"], name="\x1b]0;forged\x07\nsegdeploy: fine"),
            constants=weights,
        ),
        "deep": nested(300),
    }


def nested(depth: int) -> onnx.ModelProto:
    """If in If in If: protobuf reads a hundred levels."""
    made = graph(helper.make_node("Identity", ["in"], ["out"])).graph
    for _ in range(depth):
        branch = helper.make_node("If", ["c"], ["out"], then_branch=made, else_branch=made)
        data = branch.SerializeToString()
        if len(data) > 1 << 20:
            break
        made = helper.make_graph([onnx.NodeProto.FromString(data)], "g", [], list(made.output))
    return helper.make_model(made)


# ---- checkpoints --------------------------------------------------------------------------------------------------


def make_checkpoints(folder: Path, good: Path) -> None:
    """The good one with another config.json, and with other weights."""
    from safetensors.torch import load_file, save_file

    classes = {"id2label": {str(i): name for i, name in enumerate(CLASSES)}}
    for name, changes in CONFIGS.items():
        config = {k: v for k, v in (TINY | classes | changes).items() if v is not None}
        copy_of(good, folder / name, json.dumps(config).encode())
    texts = {
        "deep": b"[" * 100_000,
        "list": b"[]",
        "html": HTML,
        "empty": b"",
        "latin": b'{"model_type": "\xe9"}',
    }
    for name, text in texts.items():
        copy_of(good, folder / f"config-{name}", text)
        copy_of(good, folder / f"preprocessor-{name}", (good / "config.json").read_bytes())
        (folder / f"preprocessor-{name}/preprocessor_config.json").write_bytes(text)
    weights = load_file(good / "model.safetensors")
    first = next(name for name, tensor in weights.items() if tensor.ndim == 2)
    changed = {
        "weights-nan": weights | {first: weights[first] * float("nan")},
        "weights-transposed": weights | {first: weights[first].T[:, 1:].contiguous()},
        "weights-fewer": dict(list(weights.items())[5:]),
        "weights-more": weights | {"\x1b]0;forged\x07": weights[first].clone()},
        "weights-none": {},
        "weights-bert": {"bert.encoder.layer.0.weight": weights[first].clone()},
    }
    for name, tensors in changed.items():
        copy_of(good, folder / name, (good / "config.json").read_bytes())
        (folder / name / "model.safetensors").unlink()
        save_file(tensors, folder / name / "model.safetensors")
    indices = {
        "leaves": "../../good/tiny/model.safetensors",
        "number": 5,
        "gone": "gone.safetensors",
        "folder": ".",
    }
    for name, shard in indices.items():
        place = folder / f"index-{name}"
        copy_of(good, place, (good / "config.json").read_bytes())
        (place / "model.safetensors").unlink()
        (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {first: shard}}))
    (folder / "index-list").mkdir()
    shutil.copy(good / "config.json", folder / "index-list")
    (folder / "index-list/model.safetensors.index.json").write_text('{"weight_map": []}')
    for name in ("config.json", "model.safetensors"):
        (folder / f"only-{name.partition('.')[0]}").mkdir()
        shutil.copy(good / name, folder / f"only-{name.partition('.')[0]}")
    headers = {
        "length": struct.pack("<Q", 1 << 60),
        "json": struct.pack("<Q", 4) + b"[[[[",
        "deep": struct.pack("<Q", 90_000) + b"[" * 90_000,
        "offsets": named_tensor([0, 1 << 40]),
        "minus": named_tensor([8, 4]),
        "type": named_tensor([0, 4], "F13"),
    }
    for name, data in headers.items():
        (folder / f"header-{name}.safetensors").write_bytes(data)


def named_tensor(offsets: list[int], dtype: str = "F32") -> bytes:
    header = json.dumps({"a.weight": {"dtype": dtype, "shape": [1], "data_offsets": offsets}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def copy_of(good: Path, place: Path, config: bytes) -> None:
    place.mkdir(parents=True)
    (place / "config.json").write_bytes(config)
    os.link(good / "model.safetensors", place / "model.safetensors")
    shutil.copy(good / "preprocessor_config.json", place)


class Runs:
    """Unpickled by a reader that runs what it finds, it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch PWNED",)


def make_pickles(folder: Path, good: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder.mkdir()
    weights = load_file(good / "model.safetensors")
    first = next(iter(weights))
    itself: dict[str, Any] = {}
    itself["model"] = itself
    saved = {
        "itself": itself,
        "runs": Runs(),
        "number": 5,
        "list": [1, 2, 3],
        "nested-deep": deep(200),
        "names": {f"\x1b]0;{i}\x07": weights[first] for i in range(3)},
        "keys": dict.fromkeys(range(9), weights[first]),
        "bytes": {b"a": weights[first]},
        "sparse": {"a": torch.eye(3).to_sparse()},
        "complex": {name: tensor.to(torch.complex64) for name, tensor in weights.items()},
        "meta": {name: tensor.to("meta") for name, tensor in weights.items()},
        "vast": {name: torch.zeros(1).expand(1 << 20, 1 << 20) for name in weights},
        "strings": {"state_dict": dict.fromkeys(weights, "text")},
        "meta-config": {"state_dict": weights, "meta": {"config": "import os; os.system('touch PWNED')"}},
        "meta-classes": {"state_dict": weights, "meta": {"CLASSES": ["\x1b[2J"] * 5}},
        "meta-number": {"state_dict": weights, "meta": 5},
        "module": torch.nn.Linear(2, 2),
    }
    for name, content in saved.items():
        torch.save(content, folder / f"{name}.pth")
    old = {"runs-old": Runs(), "itself-old": itself, "array-text": {"a": np.array(["x", "y"])}}
    old |= {"array-struct": {"a": np.zeros(2, "i4,f4")}, "array-long": {"a": np.zeros(2, np.longdouble)}}
    old |= {
        "array-object": {"a": np.array([{}, []], dtype=object)},
        "array-date": {"a": np.zeros(2, "M8[s]")},
    }
    for name, content in old.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps({"model": content} if "array" in name else content))
    texts = {
        "global": b"cos\nsystem\n(S'touch PWNED'\ntR.",
        "dots": b"\x80\x04\x8c\x08builtins\x8c\x0b__import__.x\x93.",
        "long": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60),
        "memo": b"\x80\x02" + b"r" + struct.pack("<I", 1 << 31) + b".",
        "stop": b".",
        "marks": b"(" * 100_000,
        "dups": b"\x80\x02]" + b"2" * 1_000_000 + b".",
        "frame": b"\x80\x04\x95" + b"\xff" * 8,
    }
    for name, data in texts.items():
        (folder / f"raw-{name}.pkl").write_bytes(data)
    with zipfile.ZipFile(folder / "zip-bomb.pth", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(400 << 20))
    with zipfile.ZipFile(folder / "zip-names.pth", "w") as file:
        file.writestr("../../../../tmp/ESCAPED", b"x")


def deep(levels: int) -> Any:
    made: Any = {}
    for _ in range(levels):
        made = {"model": made}
    return made


# ---- images -------------------------------------------------------------------------------------------------------


def png(width: int, height: int, data: bytes = b"", depth: int = 8, kind: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def make_images(folder: Path) -> None:
    """A folder of each, so that every reader of folders can be given one: in/images/NAME/x.png."""
    pixels = clips.frame(3, HEIGHT, WIDTH)
    whole = encoded(".png", pixels)
    packed = zlib.compress(bytes(20_000 * 2501), 9)
    made = {
        "header": png(40_000, 40_000),
        "bomb": png(20_000, 20_000, packed, depth=1, kind=0),
        "zero": png(0, 0),
        "vast": png(1 << 31, 1 << 31),
        "row": encoded(".png", pixels[:1]),
        "dot": encoded(".png", pixels[:1, :1]),
        "cut": whole[:-40],
        "crc": whole[:60] + b"\xff" + whole[61:],
        "palette": png(4, 4, zlib.compress(bytes(20)), kind=3),
        "depth": png(4, 4, zlib.compress(bytes(20)), depth=13),
    }
    for name, data in made.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "x.png").write_bytes(data)
    others = {
        "bmp/x.bmp": b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 60, 0, 54, 40, 100_000, -100_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "tiff/x.tif": b"II*\0\x08\0\0\0" + b"\xff" * 64,
        "tiff-loop/x.tiff": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "webp/x.webp": b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff",
        "pnm/x.ppm": b"P6 999999999 999999999 255\n",
        "jpeg/x.jpg": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03" + bytes(64),
        "gif/x.gif": b"GIF89a\xff\xff\xff\xff\0\0\0",
        "svg/x.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    }
    for name, data in others.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(data)
    (folder / "mixed").mkdir()
    for name, data in (("a", whole), ("b", made["header"]), ("c", whole), ("d", HTML)):
        (folder / "mixed" / f"{name}.png").write_bytes(data)
    links = {
        "loop": "x.png",
        "dangling": "/proc/nonexistent/x.png",
        "endless": "/dev/zero",
        "broken": "/proc/self/mem",
    }
    for name, target in links.items():
        (folder / name).mkdir()
        (folder / name / "x.png").symlink_to(target)
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe/x.png")
    (folder / "inside/x.png").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "empty/x.png").write_bytes(b"")
    (folder / "upwards").symlink_to(".")


# ---- YAML, JSON, configurations -----------------------------------------------------------------------------------


def as_yaml(facts: Any) -> str:
    return str(yaml.dump(facts, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), allow_unicode=True))


def make_texts(place: Path) -> None:
    for folder, table in (("cards", CARDS), ("mappings", MAPPINGS), ("recipes", RECIPES)):
        (place / folder).mkdir()
        for name, facts in table.items():
            (place / folder / f"{name}.yaml").write_text(as_yaml(facts))
    for name, facts in LABELS.items():
        (place / "cards" / f"l-{name}.yaml").write_text(as_yaml(facts))
        (place / "cards" / f"labels={name}.yaml").write_text(yaml.safe_dump(card(labels=f"l-{name}.yaml")))
    (place / "yaml").mkdir()
    laughs = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'lol'}]" for i in range(30))
    for name, text in (YAMLS | {"laughs": laughs}).items():
        (place / "yaml" / f"{name}.yaml").write_text(text)
    for folder, suffix, texts in (("scales", "json", SCALES), ("caches", "calib", CACHES)):
        (place / folder).mkdir()
        for name, text in texts.items():
            (place / folder / f"{name}.{suffix}").write_text(text)
    make_configurations(place / "configs", place / "good")


def make_configurations(folder: Path, good: Path) -> None:
    folder.mkdir()
    for name in ("nvinfer.onnx", "config/labels.txt"):
        shutil.copy(good / name, folder)
    (folder / "evil.so").write_bytes(b"\x7fELF" + bytes(60))
    for name, changes in CONFIG_CHANGES.items():
        lines = [f"{key}={value}" for key, value in (CONFIG | changes).items()]
        (folder / f"{name}.txt").write_text("\n".join(["[property]", *lines, ""]))
    texts = {
        "group": "[evil]\na=1\n",
        "bracket": "[property\n",
        "equals": "[property]\nonnx-file\n",
        "twice": "[property]\n[property]\n",
        "bom": "\ufeff[property]\n",
        "line": "[property]\nx=" + "y" * 1_000_000 + "\n",
        "lines": "[property]\n" + "x=1\n" * 50_000,
        "nothing": "[property]\n",
        "percent": "[property]\nonnx-file=%(onnx-file)s\n",
        "app": "[application]\n[source0]\nuri=rtsp://joe:s3cret@cam/1\n",
    }
    for name, text in texts.items():
        (folder / f"text-{name}.txt").write_text(text)
    for name, text in YAMLS.items():
        (folder / f"yaml-{name}.yml").write_text(text)


# ---- data sets, records, names ------------------------------------------------------------------------------------


def make_data(folder: Path, good: Path) -> None:
    def data(name: str) -> Path:
        shutil.copytree(good / "data", folder / name)
        return folder / name / "labels/b.png"

    data("whole")
    for name, target in (
        ("loop", "b.png"),
        ("dangling", "/proc/nonexistent/x"),
        ("endless", "/dev/zero"),
        ("broken", "/proc/self/mem"),
    ):
        label = data(f"label-{name}")
        label.unlink()
        label.symlink_to(target)
    label = data("label-pipe")
    label.unlink()
    os.mkfifo(label)
    contents = {
        "header": png(40_000, 40_000),
        "bomb": png(20_000, 20_000, zlib.compress(bytes(20_000 * 2501), 9), 1, 0),
        "empty": b"",
        "html": HTML,
        "size": encoded(".png", np.zeros((9, 9), np.uint8)),
        "colours": encoded(".png", np.full((HEIGHT, WIDTH, 3), 77, np.uint8)),
        "ids": encoded(".png", np.full((HEIGHT, WIDTH), 200, np.uint8)),
        "wide": encoded(".png", np.full((HEIGHT, WIDTH), 60_000, np.uint16)),
    }
    for name, content in contents.items():
        data(f"label-{name}").write_bytes(content)
    data("label-gone").unlink()
    for name in ("images", "labels"):
        shutil.rmtree(data(f"no-{name}").parent.parent / name)
        shutil.rmtree(data(f"empty-{name}").parent.parent / name)
        (folder / f"empty-{name}" / name).mkdir()
    image = data("image-header").parent.parent / "images/a.png"
    image.write_bytes(png(40_000, 40_000))
    (folder / "calibration").mkdir()


def make_records(folder: Path, good: Path) -> None:
    """The good graph, and an engine, each with a record that does not hold: in/records/NAME/x.onnx and x.engine."""
    for suffix, source in (("onnx", "nvinfer.onnx"), ("engine", "tiny.engine")):
        facts = json.loads((good / f"{source}.json").read_text())
        texts = dict(RECORD_TEXTS)
        texts |= {name: json.dumps(facts | changes) for name, changes in RECORD_CHANGES.items()}
        texts["half"] = json.dumps(facts)[:400]
        for name, text in texts.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            os.link(good / source, folder / name / f"x.{suffix}")
            (folder / name / f"x.{suffix}.json").write_text(text.replace(f'"{source}"', f'"x.{suffix}"'))


def make_names(folder: Path, good: Path) -> None:
    """Good files under such names: in/names/KIND/NAME.onnx, .png, .mp4, .txt, .calib, .yaml."""
    for kind, name in NAMES.items():
        (folder / kind).mkdir(parents=True)
        for suffix in ("onnx", "png", "mp4", "calib", "yaml"):
            os.link(good / GOOD[suffix], folder / kind / f"{name}.{suffix}")


def snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """What tells whether anything below was touched: kind, size, times and number of every file."""
    found: dict[str, tuple[int, ...]] = {}
    waiting = [os.fspath(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                facts = entry.stat(follow_symlinks=False)
                found[entry.path] = (
                    facts.st_mode,
                    facts.st_size,
                    facts.st_mtime_ns,
                    facts.st_ctime_ns,
                    facts.st_ino,
                )
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return found


def name_of(kind: str, suffix: str) -> str:
    return f"in/names/{kind}/{NAMES[kind]}.{suffix}"
