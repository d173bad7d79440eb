"""A record is evidence for one file: nobody prints what it claims about another one."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from segdeploy.cli import main
from segdeploy.errors import GraphError
from segdeploy.graph.load import read_graph
from segdeploy.model.record import read_record, record_path

CLAIMS = ("100.0000%", "100.0000 %", "equal to PyTorch", "made by the test", "WORTH SAYING")


def foreign(path):
    """The same graph with other weights."""
    model = onnx.load(path)
    generator = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            shape = tuple(tensor.dims)
            tensor.CopyFrom(numpy_helper.from_array(generator.normal(size=shape).astype("f4"), tensor.name))
    return model.SerializeToString()


@pytest.fixture
def copied(graphs, tmp_path):
    """`copied("frames")`: a graph with its record, which claims a little more."""

    def copy(interface="frames"):
        source = graphs(interface)
        path = tmp_path / "m.onnx"
        shutil.copy(source, path)
        facts = json.loads(record_path(source).read_text())
        record_path(path).write_text(json.dumps(facts | {"artifact": "m.onnx", "verdict": "WORTH SAYING"}))
        return path

    return copy


@pytest.fixture
def said(capsys):
    """`said("inspect", path)`: the exit status, what is printed, and what is said of errors."""

    def run(*words):
        status = main([*map(str, words)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def of_another(path):
    return (
        f"segdeploy: {path} is not the file that {path.name}.json describes: it was changed after that was written;"
        " make it again, or remove the record\n"
    )


def claims_in(text):
    return [claim for claim in CLAIMS if claim in text]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [("inspect", "{}"), ("inspect", "{}", "--json"), ("bench", "{}", "--duration", "0.3", "--warmup", "1"),
     ("bench", "{}", "--duration", "0.3", "--warmup", "1", "--json", "{}.bench.json"),
     ("deepstream", "config", "{}", "-o", "{}.out")],
)  # fmt: skip
def test_a_file_that_was_changed_since_its_record_is_refused(words, copied, said, tmp_path):
    path = copied("nvinfer")
    words = [word.format(path) for word in words]
    assert said(*words)[0] == 0
    path.write_bytes(foreign(path))
    before = sorted(tmp_path.rglob("*"))
    for one in before:
        if one.name.endswith("bench.json"):
            one.unlink()
    status, printed, wrong = said(*words)
    assert (status, printed, wrong) == (1, "", of_another(path))
    assert not list(tmp_path.glob("*.bench.json"))
    record_path(path).unlink()
    status, printed, wrong = said(*words)
    assert (status, claims_in(printed)) == (0, []), wrong


def test_inspect_says_what_the_record_of_the_file_claims(copied, said):
    status, printed, _ = said("inspect", copied())
    assert status == 0
    assert claims_in(printed) == ["100.0000%", "equal to PyTorch", "WORTH SAYING"]


@pytest.mark.slow
def test_weights_beside_a_graph_are_a_part_of_the_file(copied, said):
    path = copied()
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    digest = read_graph(path).digest
    facts = json.loads(record_path(path).read_text())
    record_path(path).write_text(json.dumps(facts | {"digest": digest}))
    assert said("inspect", path)[0] == 0
    weights = path.with_name("m.data")
    weights.write_bytes(bytes(weights.stat().st_size))
    assert said("inspect", path) == (1, "", of_another(path))
    weights.unlink()
    status, _, wrong = said("inspect", path)
    assert status == 1
    assert f"lie in {weights}, which is not there; keep its files together" in wrong


def test_a_graph_gives_its_own_record_only(copied):
    path = copied()
    assert read_graph(path).record == read_graph(path, weights=False).record == read_record(path)
    path.write_bytes(foreign(path))
    with pytest.raises(GraphError, match="is not the file that"):
        read_graph(path).record  # noqa: B018
    record_path(path).unlink()
    assert read_graph(path).record is None


# ---- the report --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_report_leaves_a_foreign_record_out_and_says_so_first(copied, said, tmp_path):
    path, page = copied(), tmp_path / "r.html"
    assert said("report", tmp_path, "-o", page)[0] == 0
    assert "WORTH SAYING" in page.read_text()
    shutil.copy(path, tmp_path / "other.onnx")
    facts = json.loads(record_path(path).read_text()) | {"artifact": "other.onnx", "verdict": "of the other"}
    record_path(tmp_path / "other.onnx").write_text(json.dumps(facts))
    path.write_bytes(foreign(path))
    status, printed, wrong = said("report", tmp_path, "-o", page)
    assert (status, wrong) == (1, of_another(path))
    assert printed.startswith(f"{page}, ")
    text = page.read_text()
    assert "WORTH SAYING" not in text
    assert "of the other" in text
    ledger = text[text.index('id="ledger"') :]
    assert ledger.index("is not the file that m.onnx.json describes") < ledger.index("of the other")
    assert (
        "1 record, 0 evaluations, 0 benchmark files, 0 trainings; 1 left out, which the ledger names" in text
    )


@pytest.mark.parametrize("spoil", ["cut", "empty", "record", "deep", "changed"])
def test_one_bad_file_does_not_take_the_page_away(spoil, copied, said, tmp_path):
    path, page = copied(), tmp_path / "r.html"
    (tmp_path / "sound").mkdir()
    for one in (path, record_path(path)):
        shutil.copy(one, tmp_path / "sound")
    (tmp_path / "stray.json").write_text("[" * 100_000)
    (tmp_path / "stray.2.json").write_text('{"a": ' * 200 + "1e999" + "}" * 200)
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif spoil == "empty":
        path.write_bytes(b"")
    elif spoil == "changed":
        path.write_bytes(path.read_bytes() + b"\x0a\x00")
    else:
        facts = json.loads(record_path(path).read_text())
        facts["source"] = {} if spoil == "record" else eval("[" * 60 + "]" * 60)
        record_path(path).write_text(json.dumps(facts))
    status, _, wrong = said("report", tmp_path, "-o", page)
    assert status == 1
    assert wrong.startswith(f"segdeploy: {path}")
    assert wrong.count("\n") == 1
    assert page.read_text().count("WORTH SAYING") == 1


def test_the_report_says_of_a_record_alone_that_it_is_only_words(copied, said, tmp_path):
    path, page = copied(), tmp_path / "r.html"
    path.unlink()
    assert said("report", tmp_path, "-o", page)[0] == 0
    assert (
        "It is not here: these are the words of its record, which is not held against it." in page.read_text()
    )


@pytest.mark.parametrize("miou", [1e400, 1e308, "much", None, -1e300])
def test_an_evaluation_with_absurd_numbers_is_refused_or_shown(miou, copied, said, tmp_path):
    copied()
    scores = {"miou": miou, "pixel_accuracy": 1.0, "iou": {"a": miou}, "frequency": {"a": 1.0}}
    model = {
        "model": "m.onnx",
        "scores": scores,
        "miou_interval": {"low": 0, "high": 1},
        "delta": None,
        "images": [],
    }
    facts = {
        "schema": 1, "segdeploy": "0", "options": {}, "models": [model],
        "dataset": {"name": "x", "split": None, "images": 1, "classes": ["a"], "digest": ""},
    }  # fmt: skip
    (tmp_path / "evaluation.json").write_text(json.dumps(facts))
    status, _, wrong = said("report", tmp_path, "-o", tmp_path / "r.html")
    refused = status == 1 and "is not as segdeploy writes it" in wrong
    assert refused or (status == 0 and wrong.startswith("segdeploy: next: "))
