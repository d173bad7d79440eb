"""nvinfer's configuration as text and as values: by GLib's rules in a .txt, by yaml-cpp's in a .yml."""

from pathlib import Path

import pytest

from segdeploy.errors import DeepStreamError
from segdeploy.releases import DEEPSTREAMS
from segdeploy.serve.deepstream.config import NvinferConfig, demand_sound, engine_name, read_config
from segdeploy.serve.deepstream.document import as_yml, quoted, read_document, read_txt, read_yml
from segdeploy.serve.deepstream.keys import BOOLEAN, CLASS_ATTRS, PROPERTY, Key, keys_of, likely
from segdeploy.serve.deepstream.values import read_value, write_value

TXT = """# a head, with = and [brackets]

  [property]
gpu-id=0
net-scale-factor = 0.01735207357279195
# offsets of the three channels
offsets=123.675;116.28;103.53;
labelfile-path=./labels.txt
network-type=100 # skip the parser

[class-attrs-all]\t
topk=20\r
"""
YML = """# a head
property:
  gpu-id: 0   # the first
  offsets: 123.675;116.28;103.53

  labelfile-path: "./la bels.txt"
class-attrs-all:
    topk: 20
"""


def config_of(text, form="txt", path=Path("x.txt")):
    return NvinferConfig(path, read_document(text, form))


def test_a_txt_is_read_as_glib_reads_it():
    config = config_of(TXT)
    assert config.document.problems == ()
    assert config.faults == []
    assert config.document.groups == (("property", 3), ("class-attrs-all", 11))
    assert config.get("net-scale-factor") == 0.01735207357279195
    assert config.get("offsets") == (123.675, 116.28, 103.53)
    assert config.get("network-type") == 100
    assert config.get("topk", "class-attrs-all") == 20
    assert config.get("batch-size") == 1  # nvinfer's default
    assert not config.has("batch-size")
    with pytest.raises(KeyError):
        config.get("batchsize")


def test_a_yml_is_read_as_nvinfer_walks_it():
    config = config_of(YML, "yml")
    assert config.faults == []
    assert config.get("offsets") == (123.675, 116.28, 103.53)
    assert config.get("labelfile-path") == "./la bels.txt"
    assert config.get("topk", "class-attrs-all") == 20
    assert config.line("labelfile-path") == 6


@pytest.mark.parametrize(("text", "form"), [(TXT, "txt"), (YML, "yml")])
def test_a_change_leaves_everything_else_as_it_was(text, form):
    document = read_document(text, form)
    assert document.text == text
    changed = document.with_value("property", "gpu-id", "12")
    assert changed.text == text.replace("gpu-id=0", "gpu-id=12").replace("gpu-id: 0", "gpu-id: 12")
    longer = changed.with_value("property", "interval", "3").with_value("class-attrs-all", "topk", "7")
    assert longer.find("property", "interval").value == "3"
    assert longer.find("class-attrs-all", "topk").value == "7"
    assert [line for line in text.splitlines() if "#" in line] == [
        line.replace("12", "0") for line in longer.text.splitlines() if "#" in line
    ]
    grown = document.with_value("class-attrs-3", "eps", "0.5")
    assert grown.text.startswith(text)
    assert grown.find("class-attrs-3", "eps").value == "0.5"


def test_a_txt_becomes_a_yml_with_the_same_values_and_comments():
    document = as_yml(read_txt(TXT.replace("network-type=100 # skip the parser", "network-type=100")))
    assert document.problems == ()
    assert "  # offsets of the three channels\n  offsets:" in document.text
    one, other = config_of(TXT), config_of(document.text.replace("103.53;", "103.53"), "yml")
    assert [entry[:2] for entry in one.document.entries] == [entry[:2] for entry in other.document.entries]
    for key in ("gpu-id", "net-scale-factor", "offsets", "labelfile-path", "network-type"):
        assert one.get(key) == other.get(key)


@pytest.mark.parametrize(
    "text", ["a: b", "x # y", " lead", "-", "ä;ö", "3;4", "", "a\\b", 'q"', "yes", "#x", "x:"]
)
def test_any_text_survives_in_a_yml(text):
    document = read_yml(f"property:\n  classifier-type: {quoted(text)}\n")
    assert document.problems == ()
    assert document.find("property", "classifier-type").value == text


@pytest.mark.parametrize(
    ("key", "raw", "value"),
    [
        ("interval", "3", 3),
        ("interval", "3 # of four", 3),
        ("interval", "+3", 3),
        ("interval", "3x", None),
        ("interval", "3.5", None),
        ("interval", "", None),
        ("interval", "99999999999", None),
        ("net-scale-factor", "1e-3", 0.001),
        ("net-scale-factor", ".5", 0.5),
        ("net-scale-factor", "0.5 # half", None),
        ("net-scale-factor", "0,5", None),
        ("net-scale-factor", "nan", None),
        ("output-tensor-meta", "true", True),
        ("output-tensor-meta", "0 ", False),
        ("output-tensor-meta", "yes", None),
        ("infer-dims", "3;512;1024", (3, 512, 1024)),
        ("infer-dims", "3;512;1024;", (3, 512, 1024)),
        ("infer-dims", "3;512;x", None),
        ("output-blob-names", "a\\;b;c", ("a;b", "c")),
        ("classifier-type", "a\\sb", "a b"),
        ("classifier-type", "a\\qb", None),
    ],
)
def test_values_of_a_txt(key, raw, value):
    if value is None:
        with pytest.raises(ValueError):
            read_value(PROPERTY[key], raw, "txt")
    else:
        assert read_value(PROPERTY[key], raw, "txt") == value


@pytest.mark.parametrize(
    ("key", "raw", "value"),
    [
        ("interval", "3", 3),
        ("interval", "3 x", None),
        ("batch-size", "010", None),  # 8 to yaml-cpp
        ("output-tensor-meta", "1", True),
        ("output-tensor-meta", "true", None),
        ("infer-dims", "3;512;1024", (3, 512, 1024)),
        ("infer-dims", "3;512;1024;", None),
        ("classifier-type", "a\\sb", "a\\sb"),
    ],
)
def test_values_of_a_yml(key, raw, value):
    if value is None:
        with pytest.raises(ValueError):
            read_value(PROPERTY[key], raw, "yml")
    else:
        assert read_value(PROPERTY[key], raw, "yml") == value


@pytest.mark.parametrize("form", ["txt", "yml"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("interval", 3),
        ("strongly-typed", True),
        ("net-scale-factor", 0.01735207357279195),
        ("offsets", (123.675, 116.28, 103.53)),
        ("infer-dims", (3, 512, 1024)),
        ("onnx-file", "my model\\1.onnx"),
        ("output-blob-names", ("a", "b")),
    ],
)
def test_what_is_written_is_read_back(key, value, form):
    assert read_value(PROPERTY[key], write_value(value, form), form) == value


@pytest.mark.parametrize(
    "line",
    ["key value", "=1", "[property", "[]", "[a[b]", "before=1"],
    ids=lambda line: line.strip("[]=") or line,
)
def test_lines_that_glib_refuses(line):
    first = "" if line.startswith("before") else "[property]\n"
    document = read_txt(f"{first}{line}\n")
    assert [problem.line for problem in document.problems] == [1 if not first else 2]


def test_versions_are_numbers_not_words():
    key = Key("a-key", BOOLEAN, since="9.2")
    assert key.exists_in("10.0")
    assert not key.exists_in("9.1")


def test_the_key_tables():
    assert len(PROPERTY) == 80
    assert len(CLASS_ATTRS) == 17
    for key in (*PROPERTY.values(), *CLASS_ATTRS.values()):
        # () and None are not set; topk's own default is one that nvinfer refuses in a file
        assert key.default in ((), None) or key.name == "topk" or key.refusal(key.default) is None
        assert key.since in DEEPSTREAMS
    assert keys_of("class-attrs-12") is CLASS_ATTRS
    assert keys_of("class-attrs-x") is None
    assert keys_of("tracker") is None
    assert not PROPERTY["strongly-typed"].exists_in("8.0")
    assert PROPERTY["strongly-typed"].exists_in("9.0")
    assert not PROPERTY["parse-segmentation-func-name"].exists_in("6.3")
    assert not PROPERTY["crop-objects-to-roi-boundary"].exists_in("6.1.1")
    assert PROPERTY["disable-output-host-copy"].exists_in("6.1.1")
    assert not PROPERTY["uff-file"].exists_in("7.1")
    assert likely("net_scale_factor", PROPERTY) == "net-scale-factor"
    assert likely("onnx-fle", PROPERTY) == "onnx-file"
    assert likely("colour", PROPERTY) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "model.onnx_b1_gpu0_fp32.engine"),
        ("batch-size=4\ngpu-id=1\nnetwork-mode=2\n", "model.onnx_b4_gpu1_fp16.engine"),
        (
            "network-mode=1\n",
            "model.onnx_b1_gpu0_fp16.engine",
        ),  # no cache: it falls back, and says so in the name
        ("network-mode=1\nint8-calib-file=x.calib\n", "model.onnx_b1_gpu0_int8.engine"),
        ("network-mode=3\nint8-calib-file=x.calib\n", "model.onnx_b1_gpu0_best.engine"),
        ("enable-dla=1\nuse-dla-core=1\nnetwork-mode=2\n", "model.onnx_b1_dla1_fp16.engine"),
    ],
)
def test_engine_names(text, name, tmp_path):
    (tmp_path / "x.calib").write_text("TRT-100900-EntropyCalibration2\n")
    config = config_of(f"[property]\nonnx-file=model.onnx\n{text}", path=tmp_path / "x.txt")
    assert config.engine_name == name
    assert engine_name("a.onnx", 1, "gpu0", "fp32") == "a.onnx_b1_gpu0_fp32.engine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[property]\nnonsense\n", "line 2: 'nonsense' is neither key=value"),
        ("[other]\na=1\n", "has no group property"),
        ("[property]\nbatch-size=many\n", "line 2: batch-size is 'many'; expected an integer, as in 1"),
        ("[property]\nbatch-size=0\n", "batch-size is '0'; expected 1 to 1024"),
        ("[property]\nnetwork-mode=7\n", "expected one of 0, 1, 2, 3"),
        ("[property]\ninfer-dims=3;512\n", "expected 3 values"),
        ("[property]\nsegmentation-threshold=-1\n", "expected 0 or more"),
    ],
)
def test_what_nvinfer_would_not_start_with(text, words, tmp_path):
    path = tmp_path / "x.txt"
    path.write_text(text)
    with pytest.raises(DeepStreamError, match="segdeploy deepstream lint") as refusal:
        demand_sound(read_config(path))
    assert words in str(refusal.value)


def test_an_unknown_key_is_no_reason_not_to_start(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("[property]\nbach-size=1\n")
    demand_sound(read_config(path))
    assert read_config(path).faults[0].expected == "batch-size"


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DeepStreamError, match="No such file"):
        read_config(tmp_path / "gone.txt")
    with pytest.raises(DeepStreamError, match="Is a directory"):
        read_config(tmp_path)
