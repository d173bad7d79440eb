import json
from dataclasses import replace

import pytest

from segdeploy.errors import GraphError
from segdeploy.model.record import ArtifactRecord, in_order, read_record, record_of_graph

RECORD = ArtifactRecord(
    "x.onnx", "ab12", "mine", "nvinfer", "64x96", None, "fp32", 17,
    {"mean": [1, 2, 3]}, "pillow", ["road", "größe"], {"checkpoint": "a"}, {"pixel_agreement": 1.0},
)  # fmt: skip


def test_round_trip(tmp_path):
    path = RECORD.write(tmp_path)
    assert path == tmp_path / "x.onnx.json"
    assert read_record(tmp_path / "x.onnx") == RECORD
    assert read_record(tmp_path / "other.onnx") is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "other": 2}'])
def test_a_file_that_is_no_record(content, tmp_path):
    (tmp_path / "x.onnx.json").write_text(content)
    with pytest.raises(GraphError, match=r"x\.onnx\.json is not a record that can be read .*export again"):
        read_record(tmp_path / "x.onnx")


def test_a_record_of_another_time(tmp_path):
    path = RECORD.write(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 7}))
    with pytest.raises(GraphError, match="has schema 7, this version of segdeploy reads 1"):
        read_record(tmp_path / "x.onnx")


def test_a_command_of_several_steps_is_named_once():
    assert in_order(["a", "b", "b", "", "a"]) == ["a", "b", "a"]
    assert in_order([]) == in_order([""]) == []


def test_a_record_to_make_the_next_one_from_knows_how_it_was_made(tmp_path):
    made = replace(RECORD, commands=["export"], command="quantize")
    made.write(tmp_path)
    assert read_record(tmp_path / "x.onnx").commands == ["export"]
    assert record_of_graph(tmp_path / "x.onnx", "ab12").commands == ["export", "quantize"]
    assert record_of_graph(tmp_path / "other.onnx", "ab12") is None
