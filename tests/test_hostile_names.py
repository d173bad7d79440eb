"""What somebody else has written is in no verb's output as a command to the terminal, nor as a second message.

Each row puts one text into one kind of place, runs a verb on it, and looks at all that the process prints, libraries
included.
"""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from conftest import write_checkpoint
from onnx import TensorProto, helper
from safetensors.numpy import load_file, save_file

from segdeploy.cli import main
from segdeploy.model.record import record_from, record_path

CACHE = "TRT-100900-EntropyCalibration2\n"
SHORT = ("--duration", "0.2", "--warmup", "1")
BITE = "\x1b]0;x\x07\n segdeploy: forged\u202e\x9b31m"
NAME = BITE.replace("/", "_")
BYTES = "\udcff\udcfe"
SAMPLES = Path(__file__).parent / "data/records"


class Place:
    """A folder with what the rows need."""

    def __init__(self, folder, graphs, tiny):
        self.folder, self.graphs, self.tiny = folder, graphs, tiny

    def graph(self, name="x.onnx", /, **facts):
        """Copy a graph, with its record; `facts` replaces fields of that."""
        source, path = self.graphs("nvinfer"), self.folder / name
        shutil.copy(source, path)
        changed = json.loads(record_path(source).read_text()) | {"artifact": path.name} | facts
        record_path(path).write_text(json.dumps(changed))
        return path

    def with_metadata(self, **facts):
        path = self.folder / "x.onnx"
        model = onnx.load(self.graphs("nvinfer"))
        kept = {one.key: one.value for one in model.metadata_props}
        helper.set_model_props(model, kept | {f"segdeploy.{name}": text for name, text in facts.items()})
        onnx.save(model, path)
        return path

    def foreign(self, eaten="input", answered="output", node="node", opset=17):
        """A graph of somebody else's, whose names are these."""
        ends = [
            helper.make_tensor_value_info(eaten, TensorProto.FLOAT, (1, 3, 64, 64)),
            helper.make_tensor_value_info(answered, TensorProto.FLOAT, (1, 3, 64, 64)),
        ]
        nodes = [helper.make_node("Relu", [eaten], [answered], name=node)]
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
        path = self.folder / "foreign.onnx"
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path
        )
        return path

    def image(self, name="a.png"):
        path = self.folder / name
        picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        return path

    def text(self, name, content):
        path = self.folder / name
        path.write_text(content)
        return path

    def checkpoint(self, keys=lambda name: name, **config):
        folder = write_checkpoint(self.folder / "checkpoint")
        weights = load_file(folder / "model.safetensors")
        save_file({keys(name): one for name, one in weights.items()}, folder / "model.safetensors")
        facts = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(facts | config))
        return folder

    def engine(self):
        facts = json.loads((SAMPLES / "engine.json").read_text())
        facts["engine"]["graph"]["name"] = NAME
        record = record_from(facts).as_text().replace("segformer", json.dumps(BITE)[1:-1])
        self.text("x.engine", "engine")
        return self.text("x.engine.json", record).with_suffix("")


def evil(facts, places):
    for place in places:
        *inside, last = place.split(".")
        holder = facts
        for key in inside:
            holder = holder[int(key) if key.isdecimal() else key]
        holder[last] = BITE
    return facts


def record_that_bites(place):
    path = place.graph()
    facts = json.loads(record_path(path).read_text())
    record_path(path).write_text(
        json.dumps(
            evil(
                facts, ("verdict", "source.checkpoint", "source.licence", "command", "ledger.0.compared_with")
            )
        )
    )
    return path


CONFIG = "[property]\n{}\nonnx-file=x.onnx\nnetwork-type=2\n"
RECORD_FIELDS = (
    "card",
    "artifact",
    "interface",
    "digest",
    "precision",
    "schema",
    "batch",
    "classes",
    "islands",
    "versions",
)


def data(place):
    """Name a labelled data set that is not there, by hostile names."""
    return "--dataset", "camvid", "--root", place.folder / f"root {NAME}"


ROWS = {
    # flags out of a file, and what goes to the Hub
    "a flag of a file": lambda p: ("models", "--config", p.text("c.yaml", json.dumps({BITE: "x"}))),
    "a value of a file": lambda p: ("models", "--config", p.text("c.yaml", json.dumps({"json": BITE}))),
    "a file of flags": lambda p: ("models", "--config", p.folder / NAME),
    "push a record": lambda p: ("push", record_that_bites(p).parent, "acme/x", "--dry-run"),
    "push a name": lambda p: ("push", p.folder / NAME, f"acme/{NAME}", "--dry-run"),
    # what is learnt from
    "finetune a name": lambda p: ("finetune", p.folder / NAME, *data(p), "-o", p.folder / "out"),
    "finetune into a name": lambda p: ("finetune", p.tiny, *data(p), "-o", p.folder / NAME),
    "finetune a recipe": lambda p: (
        "finetune",
        p.tiny,
        *data(p),
        "--recipe",
        p.text(f"{NAME}.yaml", "x: 1"),
        "-o",
        "o",
    ),
    "finetune on a name": lambda p: ("finetune", p.tiny, *data(p), "--split", NAME, "-o", p.folder / "out"),
    "distil a name": lambda p: (
        "distil",
        p.folder / f"{NAME}.onnx",
        p.tiny,
        *data(p),
        "-o",
        p.folder / "out",
    ),
    # names of files
    "inspect a name": lambda p: ("inspect", p.graph(f"{NAME}.onnx")),
    "inspect a name as JSON": lambda p: ("inspect", "--json", p.graph(f"{NAME}.onnx")),
    "inspect what is not there": lambda p: ("inspect", p.folder / f"{NAME}.onnx"),
    "inspect nonsense": lambda p: ("inspect", p.text(f"{NAME}.onnx", "x")),
    "inspect a suffix": lambda p: ("inspect", p.text(f"x.{NAME}", "x")),
    "inspect a cost": lambda p: ("inspect", "--cost", p.graph(f"{NAME}.onnx")),
    "run an image": lambda p: ("run", p.graph(), p.image(f"{NAME}.png"), "-o", p.folder / "out"),
    "run no image": lambda p: ("run", p.graph(), p.text(f"{NAME}.png", "x"), "-o", p.folder / "out"),
    "run as JSON": lambda p: ("run", p.graph(), p.image(f"{NAME}.png"), "-o", p.folder / "out", "--json"),
    "run what is not there": lambda p: ("run", p.graph(), p.folder / NAME),
    "run a glob": lambda p: ("run", p.graph(), p.folder / f"{NAME}*"),
    "run into a name": lambda p: ("run", p.graph(), p.image(), "-o", p.folder / NAME),
    "run into a clip": lambda p: ("run", p.graph(), p.image(), "-o", p.folder / f"{NAME}.mp4"),
    "archive an image": lambda p: ("archive", p.graph(), p.image(f"{NAME}.png"), "-o", p.folder / "out"),
    "archive no image as JSON": lambda p: (
        *("archive", p.graph(), p.text(f"{NAME}.png", "x"), "-o", p.folder / "out", "--json", "-"),
    ),
    "archive what is not there": lambda p: ("archive", p.graph(), p.folder / NAME, "-o", p.folder / "out"),
    "archive into a name": lambda p: (
        "archive",
        p.graph(),
        p.image(),
        "-o",
        p.folder / NAME,
        "--areas",
        "csv",
    ),
    "archive by a list": lambda p: (
        "archive",
        p.graph(),
        p.text("l.txt", f"{NAME}.png"),
        "-o",
        p.folder / "out",
    ),
    "run a clip that is none": lambda p: (
        "run",
        p.graph(),
        p.text(f"{NAME}.mp4", "x"),
        "-o",
        p.folder / "out",
    ),
    "run a pipeline": lambda p: ("run", p.graph(), f"gst:{BITE}"),
    "run an address": lambda p: ("run", p.graph(), f"rtsp://127.0.0.1:1/{BITE}", "--timeout", "1"),
    "run a named model": lambda p: ("run", p.graph(f"{NAME}.onnx"), p.image(), "-o", p.folder / "out.mp4"),
    "run two models": lambda p: (
        "run",
        p.graph(),
        p.image(),
        "-o",
        p.folder / "out.mp4",
        "--compare",
        p.graph(f"{NAME}.onnx"),
    ),
    "export a name": lambda p: ("export", p.folder / NAME),
    "export into a name": lambda p: ("export", p.tiny, "--size", "64x64", "-o", p.folder / NAME),
    "export a renamed checkpoint": lambda p: (
        "export",
        p.checkpoint().rename(p.folder / NAME),
        "--size",
        "64x64",
        "-o",
        p.folder / "out",
    ),
    "quantize a name": lambda p: ("quantize", p.graph(f"{NAME}.onnx"), "--images", p.folder),
    "quantize on a name": lambda p: ("quantize", p.graph(), "--images", p.folder / NAME),
    "tune a name": lambda p: ("tune", p.graph(f"{NAME}.onnx"), "--duration", "0.001"),
    "tune on a name": lambda p: ("tune", p.graph(), "--images", p.folder / NAME),
    "bench a name": lambda p: ("bench", p.graph(f"{NAME}.onnx"), *SHORT),
    "bench two": lambda p: ("bench", p.graph(f"{NAME}.onnx"), "--compare", p.graph(), *SHORT),
    "bench as JSON": lambda p: ("bench", p.graph(f"{NAME}.onnx"), *SHORT, "--json", "-"),
    "bench nothing": lambda p: ("bench", p.folder / f"{NAME}.onnx"),
    "build an engine": lambda p: ("build-engine", p.folder / f"{NAME}.onnx"),
    "build an engine of a name": lambda p: ("build-engine", p.graph(f"{NAME}.onnx"), "--runtime", "tensorrt"),
    "evaluate on a name": lambda p: (
        "evaluate",
        p.graph(),
        "--dataset",
        "folder",
        "--root",
        p.folder / NAME,
        "--mapping",
        p.text("m.yaml", "ids: {0: a}"),
    ),
    "evaluate a name": lambda p: (
        "evaluate",
        p.folder / f"{NAME}.onnx",
        "--dataset",
        "camvid",
        "--root",
        p.folder,
    ),
    "verify a name": lambda p: ("verify", p.folder / f"{NAME}.engine"),
    "report a name": lambda p: ("report", p.folder / NAME),
    "report into a name": lambda p: ("report", p.graph().parent, "-o", p.folder / f"{NAME}.html"),
    "report into another name": lambda p: ("report", p.folder, "-o", p.folder / NAME),
    "show a cache": lambda p: ("cache", "show", p.text(NAME, CACHE + f"{BITE[:8]}: 3c010a14\n")),
    "compare caches": lambda p: (
        "cache",
        "compare",
        p.text(NAME, CACHE + "\x1b[1m: 3c010a14\n"),
        p.text("b", CACHE + "\x1b[2m: 3c010a14\n"),
    ),
    "a cache of another version": lambda p: (
        "cache",
        "show",
        p.text(NAME, CACHE + "a: 3c010a14\n"),
        "--for",
        "10.3.0",
    ),
    "render a name": lambda p: ("deepstream", "config", p.graph(f"{NAME}.onnx"), "-o", p.folder / "out"),
    "render into a name": lambda p: ("deepstream", "config", p.graph(), "-o", p.folder / NAME),
    "lint a name": lambda p: ("deepstream", "lint", p.text(f"{NAME}.txt", CONFIG.format("x=1"))),
    "lint what is not there": lambda p: ("deepstream", "lint", p.folder / NAME),
    "replay a name": lambda p: (
        "deepstream",
        "replay",
        "-c",
        p.folder / NAME,
        "-i",
        p.folder,
        "-o",
        p.folder / "o.mp4",
    ),
    "start a name": lambda p: ("deepstream", "run", "-c", p.folder / NAME, "-i", NAME),
    "adopt a name": lambda p: (
        "adopt",
        p.foreign().rename(p.folder / f"{NAME}.onnx"),
        "-o",
        p.folder / "out",
    ),
    "adopt what is not there": lambda p: ("adopt", p.folder / f"{NAME}.onnx"),
    "adopt tensors": lambda p: ("adopt", p.foreign(BITE, f"{BITE}2"), "-o", p.folder / "out"),
    "adopt an answer": lambda p: ("adopt", p.foreign(BITE), "--answer", BITE, "-o", p.folder / "out"),
    "adopt classes": lambda p: (
        "adopt",
        p.foreign(),
        "--classes",
        p.text("c.txt", BITE),
        "-o",
        p.folder / "out",
    ),
    # names that are no UTF-8
    "run bytes": lambda p: ("run", p.graph(), p.image(BYTES + ".png"), "-o", p.folder / BYTES),
    "run bytes as JSON": lambda p: (
        "run",
        p.graph(),
        p.image(BYTES + ".png"),
        "-o",
        p.folder / "out",
        "--json",
    ),
    "run bytes into a clip": lambda p: (
        "run",
        p.graph(),
        p.image(BYTES + ".png"),
        "-o",
        p.folder / "out.mp4",
        "--compare",
        p.graph(BYTES + ".onnx"),
    ),
    "bench bytes": lambda p: ("bench", p.graph(BYTES + ".onnx"), *SHORT, "--json", p.folder / "b.json"),
    "inspect bytes": lambda p: ("inspect", p.graph(BYTES + ".onnx")),
    "report bytes": lambda p: ("report", p.graph(BYTES + ".onnx").parent),
    "export to bytes": lambda p: ("export", p.tiny, "--size", "64x64", "-o", p.folder / (BYTES + ".onnx")),
    # words
    **{
        f"{' '.join(words)} WORD": lambda p, words=words: words
        for words in (
            (BITE,),
            ("inspect", "x.onnx", f"--{BITE}"),
            ("run", f"triton://{BITE}/b0", "x.png"),
            ("verify", f"triton://box/{BITE}"),
            ("verify", f"triton+http://box/b0?token={BITE}&{BITE}=1"),
            ("triton", "x.onnx", "-o", "x", "--versions-of", BITE),
            ("triton", "x.onnx", "-o", "x", "--policy", BITE),
            ("inspect", "x.onnx", "--card", BITE),
            ("inspect", "x.onnx", "--device", BITE),
            ("export", BITE),
            ("export", "x.onnx", "--size", BITE),
            ("export", "x.onnx", "--batch", BITE),
            ("build-engine", "x.onnx", "--target", BITE),
            ("build-engine", "x.onnx", "--batch", BITE),
            ("quantize", "x.onnx", "--recipe", BITE),
            ("quantize", "x.onnx", "--cache-for", BITE),
            ("bench", "x.onnx", "--reference", BITE),
            ("doctor", "--require", BITE),
            ("evaluate", "x.onnx", "--dataset", "camvid", "--root", BITE, "--corruptions", BITE),
        )
    },
    # names of classes
    "classes of a graph": lambda p: ("inspect", p.with_metadata(classes=json.dumps([BITE, *"abcd"]))),
    "classes in a legend": lambda p: ("run", p.with_metadata(classes=json.dumps([BITE, *"abcd"])), p.image()),
    "half a character": lambda p: (
        "run",
        p.with_metadata(classes=r'["\ud800", "b", "c", "d", "e"]'),
        p.image(),
    ),
    "classes of a configuration": lambda p: (
        "deepstream",
        "config",
        p.with_metadata(classes=json.dumps([BITE] * 5)),
        "-o",
        "x",
    ),
    "classes of a repository": lambda p: (
        "triton",
        p.with_metadata(classes=json.dumps([BITE] * 5)),
        "-o",
        "x",
    ),
    "classes of a checkpoint": lambda p: (
        "export",
        p.checkpoint(id2label={str(n): BITE + str(n) for n in range(5)}),
    ),
    "half a character of a checkpoint": lambda p: (
        "export",
        p.checkpoint(id2label={str(n): "\ud800" for n in range(5)}),
    ),
    "classes of labels": lambda p: (
        "inspect",
        "--card",
        p.text(
            "c.yaml",
            "checkpoint: x\nsize: 64x64\nmean: [1, 2, 3]\nstd: [1, 2, 3]\nlabels: l.yaml\n"
            "resize: linear\nlicence: x\n",
        ),
        p.text("l.yaml", f"classes: [{{name: {json.dumps(BITE)}, colour: [1, 2, 3]}}]") and p.foreign(),
    ),
    # fields of records and metadata
    "words of a record": lambda p: ("inspect", record_that_bites(p)),
    "words of a record as JSON": lambda p: ("inspect", "--json", record_that_bites(p)),
    "a page of a record": lambda p: ("report", record_that_bites(p).parent),
    "words of an engine": lambda p: ("inspect", p.engine()),
    "verify an engine": lambda p: ("verify", p.engine()),
    "run an engine": lambda p: ("run", p.engine(), p.image()),
    **{
        f"record: {field}": lambda p, field=field: ("inspect", p.graph(**{field: BITE}))
        for field in RECORD_FIELDS
    },
    "record: a field": lambda p: ("inspect", p.graph(**{BITE: 1})),
    "metadata: card": lambda p: ("inspect", p.with_metadata(card=BITE)),
    "metadata: labels": lambda p: ("inspect", p.with_metadata(labels=BITE)),
    "metadata: resize": lambda p: ("inspect", p.with_metadata(resize=BITE)),
    "metadata: interface": lambda p: ("inspect", p.with_metadata(interface=BITE)),
    "metadata: mean": lambda p: ("inspect", p.with_metadata(mean=BITE)),
    # names of tensors and weights
    "tensors": lambda p: ("inspect", p.foreign(eaten=BITE, answered=f"{BITE}2")),
    "run tensors": lambda p: (
        "run",
        p.foreign(eaten=BITE, answered=f"{BITE}2"),
        p.image(),
        "-o",
        p.folder / "out",
    ),
    "bench tensors": lambda p: ("bench", p.foreign(eaten=BITE), *SHORT),
    "quantize tensors": lambda p: ("quantize", p.foreign(node=BITE), "--images", p.image().parent),
    "cost of nodes": lambda p: ("inspect", "--cost", p.foreign(node=BITE)),
    "an old graph": lambda p: ("inspect", p.foreign(eaten=BITE, opset=5)),
    "render tensors": lambda p: ("deepstream", "config", p.foreign(eaten=BITE), "-o", p.folder / "out"),
    "keys": lambda p: ("export", p.checkpoint(keys=lambda name: BITE + name)),
    "a key": lambda p: ("export", p.checkpoint(keys=lambda name: name.replace("classifier", BITE))),
    # text of configurations
    "config.json": lambda p: ("export", p.checkpoint(model_type=BITE)),
    "config.json, a value": lambda p: ("export", p.checkpoint(hidden_act=BITE)),
    "config.json, a size": lambda p: ("export", p.checkpoint(depths=BITE)),
    "a card": lambda p: ("inspect", "--card", p.text("c.yaml", f"{json.dumps(BITE)}: 1"), p.foreign()),
    "a card's value": lambda p: (
        "inspect",
        "--card",
        p.text("c.yaml", f"size: {json.dumps(BITE)}"),
        p.foreign(),
    ),
    "a card's tag": lambda p: ("inspect", "--card", p.text("c.yaml", "size: !<\x85> x"), p.foreign()),
    "a card's raw text": lambda p: ("inspect", "--card", p.text("c.yaml", BITE), p.foreign()),
    "a recipe": lambda p: (
        "quantize",
        p.graph(),
        "--images",
        p.folder,
        "--recipe",
        p.text("r.yaml", f"{json.dumps(BITE)}: 1"),
    ),
    "a mapping": lambda p: (
        "evaluate",
        p.graph(),
        "--dataset",
        "folder",
        "--root",
        p.folder,
        "--mapping",
        p.text(
            "m.yaml",
            f"ids: {{0: {json.dumps(BITE)}}}\nfrom: {{{json.dumps(BITE)}: {json.dumps(BITE + 'x')}}}",
        ),
    ),
    "scales": lambda p: (
        "cache",
        "show",
        p.text("x.json", json.dumps({"schema": 1, "method": BITE, "tensors": {BITE: {"scale": 1.0}}})),
    ),
    "a line of a cache": lambda p: ("cache", "show", p.text("x", CACHE + f"{BITE}\n")),
    "the head of a cache": lambda p: ("cache", "show", p.text("x", BITE)),
    "a group of nvinfer's": lambda p: (
        "deepstream",
        "lint",
        p.text("x.txt", CONFIG.format("[\x9b31m]\n\x1b[1m=2\n")),
    ),
    "values of nvinfer's": lambda p: (
        "deepstream",
        "lint",
        p.text("x.txt", CONFIG.format("labelfile-path=\x1b]0;x\x07\ninterval=\u202e\nnet=\x9b")),
    ),
    "values of a .yml": lambda p: (
        "deepstream",
        "lint",
        p.text("x.yml", f"property:\n  {json.dumps(BITE)}: 1\n  interval: {json.dumps(BITE)}\n"),
    ),
    "lint as JSON": lambda p: (
        "deepstream",
        "lint",
        "--json",
        p.text("x.txt", CONFIG.format("interval=\u202e")),
    ),
    "replay values": lambda p: (
        "deepstream",
        "replay",
        "-c",
        p.text("x.txt", CONFIG.format("interval=\u202e")),
        "-i",
        p.image(),
        "-o",
        p.folder / "o.mp4",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_nothing_is_obeyed(row, tmp_path, graphs, tiny, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(word) for word in ROWS[row](Place(tmp_path, graphs, tiny))]
    capfd.readouterr()
    try:
        status = main(words)
    except SystemExit as error:
        status = error.code
    said = capfd.readouterr()
    for text in said:
        assert re.sub(r"\n", "", text).isprintable(), ascii(text)
        assert not re.search(r"^ ?segdeploy: forged", text, re.MULTILINE)
    assert status in (0, 1, 2), said.err
    assert len(said.err) < 5000
    if "JSON" in row and status == 0:
        [json.loads(text) for text in ([said.out] if said.out.startswith("{\n") else said.out.splitlines())]


def test_the_rows_reach_every_verb():
    from segdeploy.cli import VERBS

    reached = {name.split()[0] for name in ROWS} | set(Path(__file__).read_text().replace('"', " ").split())
    assert set(VERBS) - {"models", "demo", "selftest", "completion"} <= reached
