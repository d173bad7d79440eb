"""One target for each reader: what reads, seeds from the repository, and words that mutations are made of.

A target takes bytes, and anything that it raises but a SegdeployError is a fault.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACE = (
    Path(tempfile.gettempdir()) / f"segdeploy-fuzz-{os.getpid()}"
)  # where inputs lie that are read by their path
NUMBERS = (
    "-1",
    "0",
    "1e999",
    "NaN",
    "9" * 400,
    "18446744073709551616",
    "2.5",
    "null",
    "true",
    '""',
    "[]",
    "{}",
)


@dataclass(frozen=True)
class Target:
    read: Callable[[bytes], object]
    seeds: Callable[[], Iterator[bytes]]
    words: tuple[str, ...] = ()


def at(name: str, data: bytes) -> Path:
    PLACE.mkdir(exist_ok=True)
    path = PLACE / name
    path.write_bytes(data)
    return path


def as_text(data: bytes) -> str:
    """Half of a character, as file names and JSON have it, among other text."""
    return data.decode("utf-8", "surrogateescape")


def contents(*patterns: str) -> Callable[[], Iterator[bytes]]:
    return lambda: (path.read_bytes() for one in patterns for path in sorted(ROOT.glob(one)))


# ---- text that is typed -------------------------------------------------------------------------------------------


def read_size(data: bytes) -> object:
    from segdeploy.size import Size

    size = Size.parse(as_text(data))
    assert Size.parse(str(size)) == size
    return size


def hide_secrets(data: bytes) -> object:
    """What stands before the `@` of an address is not told, and what was told once is told again as it is."""
    from segdeploy.picture.video_location import as_typed, without_credentials

    text = as_text(data)
    as_typed(text)
    told = without_credentials(f"rtsp://joe:s3cret@{text}")
    assert "s3cret" not in told or "s3cret" in text, told
    return without_credentials(told)


def read_pipeline(data: bytes) -> object:
    from segdeploy.serve.stream.pipes import words_of

    return words_of(as_text(data))


def read_source(data: bytes) -> object:
    """In a folder of its own: a glob may walk through the whole disk, where that is what it says."""
    from segdeploy.serve.stream.sources import expand

    PLACE.mkdir(exist_ok=True)
    os.chdir(PLACE)
    return expand([as_text(data).replace("..", "").lstrip("/")])


# ---- files of text ------------------------------------------------------------------------------------------------


def read_record(data: bytes) -> object:
    from segdeploy.model.record import read_record_file

    record = read_record_file(at("x.onnx.json", data))
    assert json.loads(record.as_text())
    return record.agreement_in_words


def read_card(data: bytes) -> object:
    from segdeploy.model.card import read_card

    return read_card(str(at("card.yaml", data)))


def read_labels(data: bytes) -> object:
    from segdeploy.model.labels import read_labels

    labels = read_labels("labels.yaml", at("labels.yaml", data).parent)
    return labels.lookup_from_ids()


def read_mapping(data: bytes) -> object:
    from segdeploy.datasets.mapping import read_mapping

    return read_mapping(at("mapping.yaml", data))


def read_recipe(data: bytes) -> object:
    from segdeploy.convert.int8.recipe import read_recipe

    return read_recipe(str(at("recipe.yaml", data))).as_text()


def read_cache(data: bytes) -> object:
    """What is read is written, and read again as the same."""
    from segdeploy.convert.int8.cache import read_cache, write_cache

    cache = read_cache(at("x.calib", data))
    write_cache(PLACE / "y.calib", cache)
    assert read_cache(PLACE / "y.calib") == cache
    return cache


def read_scales(data: bytes) -> object:
    from segdeploy.convert.int8.scale_files import described, key_in, read_scale_file

    path = at("x.scales.json", data)
    return described(read_scale_file(path)), key_in(path)


def lint_configuration(data: bytes) -> object:
    from segdeploy.serve.deepstream.lint import lint

    return lint(at("config.txt", data))


def lint_yaml(data: bytes) -> object:
    from segdeploy.serve.deepstream.lint import lint

    return lint(at("config.yml", data))


def read_results(data: bytes) -> object:
    from segdeploy.assess.bench.results import read_results

    return read_results(at("bench.json", data))


def show_report(data: bytes) -> object:
    from segdeploy.assess.report.findings import look_into
    from segdeploy.assess.report.page import page_of

    return page_of(look_into(at("report/x.json", data).parent))


def read_config(data: bytes) -> object:
    """A config.json, as far as the network that it describes; its weights are those of no network."""
    from segdeploy.networks import FAMILIES
    from segdeploy.networks.checkpoints import _read_config

    config = _read_config(at("config.json", data).parent, "x")
    return [family for family in FAMILIES if config["model_type"] in family.types]


# ---- files of bytes -----------------------------------------------------------------------------------------------


def read_image(data: bytes) -> object:
    from segdeploy.picture.image import read_frame

    return read_frame(at("x.png", data), 1 << 20)


def read_image_header(data: bytes) -> object:
    from segdeploy.picture.decoding import sides_in_header

    return sides_in_header(data)


def read_label_file(data: bytes) -> object:
    from segdeploy.datasets.label_files import read_label_file

    return read_label_file(at("x.png", data))


def read_graph(data: bytes) -> object:
    from segdeploy.graph.load import read_graph

    graph = read_graph(at("x.onnx", data), weights=False)
    return graph.digest, graph.opset, graph.counts


def count_cost(data: bytes) -> object:
    from segdeploy.graph.cost import cost_of
    from segdeploy.graph.load import read_graph

    return cost_of(read_graph(at("x.onnx", data)).model).groups()


def read_metadata(data: bytes) -> object:
    """A signature out of what a graph says of itself: `key=value` lines."""
    from segdeploy.model.metadata import read_signature
    from segdeploy.model.signature import TensorFacts

    lines = as_text(data).split("\n")
    metadata = {f"segdeploy.{name}": value for name, _, value in (line.partition("=") for line in lines)}
    inputs = [TensorFacts("input", "float32", (1, 3, 64, 96))]
    outputs = [TensorFacts("output", "int64", (1, 1, 64, 96))]
    signature = read_signature(metadata, inputs, outputs, "x.onnx")
    assert read_signature(signature.metadata(), inputs, outputs, "x.onnx") == signature
    return signature.labels.colours


def recognise_graph(data: bytes) -> object:
    """A signature out of tensors that are said as in `1 3 64 96 float32`."""
    from segdeploy.model.metadata import read_signature
    from segdeploy.model.signature import TensorFacts

    def tensor(name: str, text: str) -> TensorFacts:
        *sides, kind = text.split() or ["?"]
        shape = tuple(int(side[:18]) if side.removeprefix("-").isdecimal() else None for side in sides)
        return TensorFacts(name, kind, shape)

    eaten, _, answered = as_text(data).partition("\n")
    return read_signature(
        {}, [tensor("in", eaten)], [tensor("out", one) for one in answered.splitlines()], "x"
    )


def read_weight_names(data: bytes) -> object:
    """Names of weights with their shapes, a line each, as far as the network that they say."""
    import torch

    from segdeploy.networks.checkpoints import _recognised
    from segdeploy.networks.family import RawCheckpoint
    from segdeploy.networks.weight_names import strip_wrappers

    weights = {}
    for line in as_text(data).splitlines()[:400]:
        name, _, shape = line.partition(" ")
        sides = [int(side[:6]) for side in shape.split("x") if side.isascii() and side.isdecimal()][:5]
        weights[name] = torch.empty(sides, device="meta")
    bare = strip_wrappers(weights)
    family, layout = _recognised(bare, "x")
    settled = {option.name: option.default for option in family.options}
    return family.read(RawCheckpoint("x", layout, bare, {}, None, settled)).config


def read_pickle(data: bytes) -> object:
    from segdeploy.networks.weight_files import read_tensors

    return read_tensors(at("x.pkl", data), "x.pkl")


def read_pth(data: bytes) -> object:
    from segdeploy.networks.weight_files import read_tensors

    return read_tensors(at("x.pth", data), "x.pth")


def read_safetensors(data: bytes) -> object:
    from segdeploy.networks.weight_files import read_tensors

    return read_tensors(at("x.safetensors", data), "x.safetensors")


# ---- seeds --------------------------------------------------------------------------------------------------------


def said(*texts: str) -> Callable[[], Iterator[bytes]]:
    return lambda: (text.encode() for text in texts)


def metadata_seeds() -> Iterator[bytes]:
    yield (
        b"interface=nvinfer\ncard=x\nmean=[123.675, 116.28, 103.53]\nscale=[0.017, 0.017, 0.017]\nresize=linear\n"
        b'classes=["a", "b"]\ncolours=[[1, 2, 3], [4, 5, 6]]\nlabels=x'
    )
    yield (
        b'interface=nvinfer\ncard=x\nmean=[1,2,3]\nscale=[1,2,3]\nresize=pillow\nclasses=["a"]\ncolours=[[1,2,3]]\n'
        b'labels=x\ntensors=["input","output"]\nsize=64x96\nalign_corners=true'
    )


def graph_seeds() -> Iterator[bytes]:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    for kind, answers in ((TensorProto.FLOAT, (1, 5, 64, 96)), (TensorProto.INT64, (1, 1, 64, 96))):
        nodes = [helper.make_node("Conv", ["in", "w"], ["logits"])]
        if kind == TensorProto.INT64:
            nodes.append(helper.make_node("ArgMax", ["logits"], ["out"], axis=1))
        else:
            nodes.append(helper.make_node("Relu", ["logits"], ["out"]))
        made = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("in", TensorProto.FLOAT, (1, 3, 64, 96))],
            [helper.make_tensor_value_info("out", kind, answers)],
            [numpy_helper.from_array(np.ones((5, 3, 1, 1), np.float32), "w")],
        )
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        yield model.SerializeToString()
        helper.set_model_props(model, {"segdeploy.interface": "nvinfer", "segdeploy.classes": '["a"]'})
        yield model.SerializeToString()


def picture_seeds() -> Iterator[bytes]:
    import cv2
    import numpy as np

    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm"):
        yield cv2.imencode(suffix, pixels)[1].tobytes()
    yield cv2.imencode(".png", pixels[..., 0].astype(np.uint16))[1].tobytes()
    yield cv2.imencode(".png", pixels[..., 0] % 2, [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()


def pickle_seeds() -> Iterator[bytes]:
    import pickle

    import numpy as np

    weights = {
        "model": {"a.weight": np.ones((2, 3), np.float32), "b": np.arange(3)},
        "matching_heuristics": True,
    }
    return (pickle.dumps(weights, protocol) for protocol in (0, 2, 4))


def pth_seeds() -> Iterator[bytes]:
    import io

    import torch

    for whole in (True, False):
        buffer = io.BytesIO()
        content = {"state_dict": {"a.weight": torch.ones(2, 3)}, "meta": {"CLASSES": ("a", "b")}}
        torch.save(content, buffer, _use_new_zipfile_serialization=whole)
        yield buffer.getvalue()


def safetensors_seeds() -> Iterator[bytes]:
    import torch
    from safetensors.torch import save

    yield save({"a.weight": torch.ones(2, 3), "b": torch.ones(1, dtype=torch.bfloat16)}, {"format": "pt"})


def weight_name_seeds() -> Iterator[bytes]:
    """Of the shipped network; and the first words of the other layouts."""
    data = (ROOT / "models/demo-b0/model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors = {name: facts["shape"] for name, facts in header.items() if name != "__metadata__"}
    lines = [f"{name} {'x'.join(map(str, shape))}" for name, shape in tensors.items()]
    yield "\n".join(lines).encode()
    yield "\n".join(lines[:40]).encode()
    for names in (
        (
            "backbone.patch_embed1.proj.weight 32x3x7x7",
            "backbone.block1.0.attn.q.weight 32x32",
            "decode_head.linear_c4.proj.weight 256x256",
        ),
        (
            "sem_seg_head.predictor.query_feat.weight 100x256",
            "backbone.stem.conv1.weight 64x3x7x7",
            "criterion.empty_weight 20",
        ),
    ):
        yield "\n".join(names).encode()


def scale_seeds() -> Iterator[bytes]:
    tensors = {"input": {"scale": 0.0174, "threshold": 2.2}, "b": {"scale": 0}}
    yield json.dumps({"schema": 1, "method": "entropy", "key": {"graph": "abc"}, "tensors": tensors}).encode()


CACHE = "TRT-100900-EntropyCalibration2\ninput: 3c8e1f3c\n(Unnamed Layer* 3) [Convolution]_output: 3d010203\ndead: 0\n"
MAPPING = "images: images\nlabels: labels\nimage_ending: .png\nids: {0: road, 1: sky, 255: ignore}\nfrom: {car: none}\n"
YAML_WORDS = (
    "!!timestamp ",
    "!!int ",
    "!!binary ",
    "&a ",
    "*a",
    "<<: ",
    "2024-13-45",
    "? ",
    "- ",
    ": ",
    "[",
    "{",
    *NUMBERS,
)
JSON_WORDS = ("{", "[", '"', ":", ",", '"\\ud800"', *NUMBERS)
RESULTS = ("benchmarks/results/*/*.json", "benchmarks/results/*.json")
TARGETS = {
    "sizes": Target(read_size, said("512x1024", "64X64"), ("x", "X", "٣", "²", "9" * 5000)),
    "addresses": Target(
        hide_secrets,
        said("cam:554/1?password=abc&x=mail@host", "[fe80::1]/x user-pw='a b' ! x", "h%3A%2F%2Fa%3Ab%40c"),
        ("://", "@", "%3A", "%40", "password=", "'", '"', "rtsp", "user-pw", "?", "#", "[", "]"),
    ),
    "pipelines": Target(
        read_pipeline,
        said('videotestsrc num-buffers=3 ! identity name="a b" ! fakesink', "a ! b.mp4"),
        ("!", "'", '"', "\\", "--", "\0", " "),
    ),
    "sources": Target(
        read_source,
        said("gst:videotestsrc ! x", "csi://0", "rtsp://u:p@cam/1", "*.mp4", "/dev/video0", "0"),
        ("gst:", "csi://", "*", "[", "\0", "**/", "~"),
    ),
    "records": Target(read_record, contents("tests/data/records/*.json"), JSON_WORDS),
    "cards": Target(read_card, contents("models/*.yaml"), YAML_WORDS),
    "labels": Target(read_labels, contents("models/labels/*.yaml"), YAML_WORDS),
    "mappings": Target(read_mapping, said(MAPPING), YAML_WORDS),
    "recipes": Target(read_recipe, contents("calibration/*.yaml"), YAML_WORDS),
    "caches": Target(
        read_cache, said(CACHE), (": ", "TRT-8601-MinMaxCalibration", "7f800000", "\r\n", "ffffffff")
    ),
    "scales": Target(read_scales, scale_seeds, JSON_WORDS),
    "configurations": Target(
        lint_configuration, contents("tests/traps/*.txt"), ("[property]", "=", ";", "#", "\\", *NUMBERS)
    ),
    "yaml-configurations": Target(lint_yaml, contents("tests/traps/*.yml"), ("property:", *YAML_WORDS)),
    "results": Target(read_results, contents(*RESULTS), JSON_WORDS),
    "reports": Target(show_report, contents("tests/data/records/*.json", *RESULTS), JSON_WORDS),
    "configs": Target(read_config, contents("models/demo-b0/config.json"), JSON_WORDS),
    "images": Target(read_image, picture_seeds, ("IHDR", "PLTE", "IDAT", "tRNS", "\x00\x00\xff\xff")),
    "image-headers": Target(read_image_header, picture_seeds, ("P7\n", "WIDTH 9\n", "VP8X", "II+\0")),
    "label-files": Target(read_label_file, picture_seeds, ("IHDR", "PLTE", "IDAT", "tRNS")),
    "graphs": Target(read_graph, graph_seeds, ("segdeploy.interface", "frames")),
    "costs": Target(count_cost, graph_seeds, ("MatMul", "ConvTranspose", "Gemm", "Resize")),
    "metadata": Target(read_metadata, metadata_seeds, JSON_WORDS),
    "signatures": Target(
        recognise_graph,
        said(
            "1 3 64 96 float32\n1 5 64 96 float32",
            "1 64 96 3 uint8\n1 64 96 int64",
            "n 3 h w float16\nn 19 16 24 float16",
        ),
        ("float32", "uint8", "int64", " 0 ", " -1 ", "9" * 18, "?"),
    ),
    "weight-names": Target(
        read_weight_names, weight_name_seeds, ("decode_head.", "module.", "backbone.", ".weight", "1x1")
    ),
    "pickles": Target(
        read_pickle, pickle_seeds, ("cos\nsystem\n", "R", "\x93", "numpy.core.multiarray\n_reconstruct\n")
    ),
    "pth": Target(read_pth, pth_seeds, ("archive/data.pkl", "PK\x03\x04")),
    "safetensors": Target(read_safetensors, safetensors_seeds, ('"F32"', '"BOOL"', "data_offsets", *NUMBERS)),
}
