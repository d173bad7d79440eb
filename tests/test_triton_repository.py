"""Model repositories for Triton: every configuration read back by Triton's own protobufs, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from engine_records import facts_of_engine, record_of_engine
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from segdeploy.cli import main
from segdeploy.errors import EngineError, GraphError, OutputError, RequestError
from segdeploy.graph.load import read_graph
from segdeploy.model.metadata import read_signature
from segdeploy.model.record import read_record
from segdeploy.model.served import read_served
from segdeploy.prove.golden import make_golden, read_golden
from segdeploy.run.session import open_session
from segdeploy.serve.triton.pbtxt import Word, as_pbtxt
from segdeploy.serve.triton.repository import write_repository
from segdeploy.serve.triton.request import TritonRequest

Config = model_config_pb2.ModelConfig


def read(path: Path) -> Config:
    return text_format.Parse((path / "config.pbtxt").read_text(), Config())


def made(tmp_path, *models, **asked):
    folder = tmp_path / "repository"
    return folder, write_repository(TritonRequest(tuple(models), **asked), folder)


def parameters(config):
    return {key: value.string_value for key, value in config.parameters.items()}


@pytest.fixture
def graph(graphs, tmp_path):
    """A graph of any batch, called tiny.onnx, with its record."""
    source = graphs("frames", batch=None)
    path = Path(shutil.copy(source, tmp_path / "tiny.onnx"))
    record = replace(read_record(source), artifact="tiny.onnx")
    record.write(tmp_path)
    return path


@pytest.fixture
def engine(graph, tmp_path):
    """`engine((1, 2, 8))`: an engine that nothing has built, of this profile, with golden frames in its record."""

    def write(profile, **changes):
        path = tmp_path / "tiny.engine"
        path.write_bytes(b"an engine")
        known = read_graph(graph)
        facts = facts_of_engine(path, known.signature, profile, golden=make_golden(known), **changes)
        record_of_engine(path, known.signature, facts).write(tmp_path)
        return path

    return write


@pytest.mark.slow
def test_a_graph_for_onnxruntime(graph, tmp_path):
    folder, done = made(tmp_path, graph, batch=6, delay_ms=3.5, queue=9, instances=2, gpus=(0, 3))
    assert done.models == ["tiny"]
    assert done.warnings == []
    config = read(folder / "tiny")
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "onnxruntime", 6)
    (eaten,), (answered,) = config.input, config.output
    assert (eaten.name, eaten.data_type, list(eaten.dims)) == (
        "frames",
        model_config_pb2.TYPE_UINT8,
        [96, 160, 3],
    )
    assert (answered.name, answered.data_type, list(answered.dims)) == (
        "labels",
        model_config_pb2.TYPE_UINT8,
        [96, 160],
    )
    assert config.dynamic_batching.max_queue_delay_microseconds == 3500
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 9
    (group,) = config.instance_group
    assert (group.kind, group.count, list(group.gpus)) == (group.KIND_GPU, 2, [0, 3])
    assert config.version_policy.WhichOneof("policy_choice") == "all"
    assert [one.batch_size for one in config.model_warmup] == [1, 6]
    assert {one.inputs["frames"].input_data_file for one in config.model_warmup} == {"golden"}
    assert (folder / "tiny/1/model.onnx").read_bytes() == graph.read_bytes()
    assert read_record(folder / "tiny/1/model.onnx").digest == read_record(graph).digest
    with open_session(folder / "tiny/1/model.onnx") as session:  # the copy is whole, and its record fits
        assert session.signature == read_graph(graph).signature


@pytest.mark.slow
def test_what_travels_in_the_parameters(graph, tmp_path):
    folder, _ = made(tmp_path, graph)
    facts, known = parameters(read(folder / "tiny")), read_graph(graph)
    ends = [known.signature.input], [known.signature.output]
    assert read_signature(facts, *ends, "it") == known.signature
    served = read_served(facts, "1", "it")
    assert (served.artifact, served.digest, served.precision) == ("tiny.onnx", known.digest, "fp32")
    frames, labels = read_golden(served.golden, known.signature.size)
    with open_session(graph) as session:
        assert np.array_equal(session.run(frames), labels)
    warm = np.fromfile(folder / "tiny/warmup/golden", np.uint8)
    assert np.array_equal(warm, frames[0].ravel())
    assert read_served(facts, "2", "it") is None
    with pytest.raises(GraphError, match="carries parameters of segdeploy that do not hold"):
        read_served({"segdeploy.version.1": '{"artifact": 1}'}, "1", "it")


@pytest.mark.slow
def test_a_graph_of_one_batch(graphs, tmp_path):
    folder, done = made(tmp_path, graphs("frames", batch=1), jpeg=True)
    (name, *_) = done.models
    config = read(folder / name)
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [1, 96, 160, 3]
    assert not config.HasField("dynamic_batching")
    assert [one.batch_size for one in config.model_warmup] == [0]
    assert (
        "takes a batch of 1 only, so Triton merges no requests; export it with --batch dynamic"
        in done.warnings[0]
    )
    assert list(read(folder / f"{name}_jpeg").input[0].dims) == [1, 1]


@pytest.mark.slow
def test_an_engine(engine, tmp_path):
    folder, done = made(tmp_path, engine((1, 2, 8)))
    config = read(folder / "tiny")
    assert (config.backend, config.max_batch_size) == ("tensorrt", 8)
    assert list(config.dynamic_batching.preferred_batch_size) == [2]
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
    assert (folder / "tiny/1/model.plan").read_bytes() == b"an engine"
    assert read_record(folder / "tiny/1/model.plan").artifact == "model.plan"
    assert done.warnings == [
        "tiny.engine runs only in a Triton that has TensorRT 10.16.1, and on the kind of GPU it is for",
        "tiny.engine was not compared with its graph (no GPU); segdeploy verify does that",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("profile", "changes", "said"),
    [
        (
            (2, 4, 8),
            {},
            "takes batches of 2 and more, and Triton sends single frames too; build it with --batch 1:4:8",
        ),
        (
            (1, 1, 1),
            {"flavour": "tensorrt-rtx"},
            "is an engine of TensorRT-RTX, for which Triton has no backend",
        ),
    ],
)
def test_engines_that_triton_cannot_serve(profile, changes, said, engine, tmp_path):
    with pytest.raises(EngineError, match=said):
        made(tmp_path, engine(profile, **changes))
    assert not (tmp_path / "repository").exists()


@pytest.mark.slow
def test_the_python_backend_takes_them_all_the_same(engine, tmp_path):
    folder, _ = made(tmp_path, engine((2, 4, 8), flavour="tensorrt-rtx"), backend="python", cpu=True)
    config = read(folder / "tiny")
    assert (config.backend, config.max_batch_size) == ("python", 8)
    assert parameters(config)["segdeploy.file"] == "model.engine"
    assert (folder / "tiny/1/__pycache__").is_file()  # so that no bytecode is written beside a model


@pytest.mark.slow
def test_models_for_image_files(graph, tmp_path):
    folder, done = made(tmp_path, graph, jpeg=True, areas=True, fit="letterbox")
    assert done.models == ["tiny", "tiny_jpeg", "tiny_decode", "tiny_back", "tiny_areas"]
    chain = read(folder / "tiny_jpeg")
    assert chain.platform == "ensemble"
    assert [step.model_name for step in chain.ensemble_scheduling.step] == [
        "tiny_decode",
        "tiny",
        "tiny_back",
    ]
    assert chain.input[0].data_type == model_config_pb2.TYPE_STRING
    assert list(chain.output[0].dims) == [-1, -1]
    areas = read(folder / "tiny_areas")
    assert [(one.name, list(one.dims)) for one in areas.output] == [
        ("areas", [5]),
        ("size", [2]),
        ("masks", [1]),
    ]
    assert parameters(areas)["segdeploy.fit"] == "letterbox"
    assert {parameters(read(folder / name))["segdeploy.belongs_to"] for name in done.models[1:]} == {"tiny"}


@pytest.mark.slow
def test_versions(graph, tmp_path):
    folder, _ = made(tmp_path, graph, graph, versions_of="roads", policy="latest:1")
    config = read(folder / "roads")
    assert config.version_policy.latest.num_versions == 1
    assert {f"segdeploy.version.{number}" for number in (1, 2)} <= parameters(config).keys()
    assert (folder / "roads/2/model.onnx").exists()
    assert list(made(tmp_path, graph, graph, versions_of="roads", policy="2")[1].models) == ["roads"]
    assert list(read(folder / "roads").version_policy.specific.versions) == [2]
    made(tmp_path, graph, versions_of="roads")
    assert not (folder / "roads/2").exists()  # an empty version would not load


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"cpu": True, "gpus": (0,)}, "--cpu and --gpus contradict each other"),
        ({"gpus": (1, 1)}, "--gpus names a GPU twice: 1, 1"),
        ({"gpus": (1,), "backend": "python"}, "the Python backend computes on the first GPU only"),
        ({"threads": 2}, "--threads is for --backend python"),
        ({"versions_of": "A b"}, "--versions-of 'A b' is no name of a model; .* as in a-b"),
        ({"policy": "newest"}, "--policy 'newest' is no version policy; expected all, latest:N, or numbers"),
        ({"policy": "1,3"}, "--policy names version 3, and there are 1 to 1"),
        (
            {"backend": "tensorrt"},
            r"the backend tensorrt does not take tiny.onnx; it is for onnxruntime, or python",
        ),
    ],
)
def test_requests_without_sense(asked, said, graph, tmp_path):
    with pytest.raises(RequestError, match=said):
        made(tmp_path, graph, **asked)
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize("interface", ["nvinfer", "logits"])
def test_other_interfaces_name_the_remedy(interface, graphs, refused):
    said = refused("triton", graphs(interface))
    assert f"has the interface {interface}, which costs up to 20 bytes a pixel on the wire" in said
    assert "segdeploy export CHECKPOINT --interface frames --batch dynamic" in said


@pytest.mark.slow
def test_two_models_of_one_name(graph, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    second = Path(shutil.copy(graph, other / "tiny.onnx"))
    with pytest.raises(RequestError, match="two models would be called 'tiny' in Triton"):
        made(tmp_path, graph, second)
    third = Path(shutil.copy(graph, other / "tiny_decode.onnx"))
    with pytest.raises(RequestError, match="two models would be called 'tiny_decode'"):
        made(tmp_path, graph, third, jpeg=True)


@pytest.mark.slow
def test_versions_of_different_labels(graph, graphs, tmp_path):
    model = onnx.load(graph)
    for item in model.metadata_props:
        if item.key == "segdeploy.classes":
            item.value = json.dumps(["a", "b", "c", "d", "e"])
    other = tmp_path / "renamed.onnx"
    onnx.save(model, other)
    with pytest.raises(RequestError, match="differ in labels, so they cannot be versions of one model"):
        made(tmp_path, graph, other, versions_of="roads")


@pytest.mark.slow
def test_what_it_did_not_make_stays(graph, tmp_path):
    folder, _ = made(tmp_path, graph)
    made(tmp_path, graph, batch=2)  # its own files are replaced
    assert read(folder / "tiny").max_batch_size == 2
    (folder / "tiny/config.pbtxt").write_text("name: 'mine'")
    with pytest.raises(OutputError, match="was changed since segdeploy wrote it, and would be replaced"):
        made(tmp_path, graph)
    assert (folder / "tiny/config.pbtxt").read_text() == "name: 'mine'"


@pytest.mark.slow
def test_names_are_data(graph, tmp_path):
    hostile = 'a"]} parameters { key: "x" \\ \n $(touch x) ä.onnx'
    path = Path(shutil.copy(graph, tmp_path / hostile))
    model = onnx.load(path)
    for item in model.metadata_props:
        if item.key == "segdeploy.classes":
            item.value = json.dumps(['"} name: "x"', "\\", "ä", "$first", "e"])
    onnx.save(model, path)
    folder, done = made(tmp_path, path)
    (name,) = done.models
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    facts = parameters(read(folder / name))
    assert json.loads(facts["segdeploy.classes"])[:3] == ['"} name: "x"', "\\", "ä"]
    assert read_served(facts, "1", "it").artifact == hostile
    assert yaml.safe_load((folder / "compose.yaml").read_text())["services"].keys() == {"triton"}


def test_the_text_format():
    given = {
        "name": 'a"\\\n\x00é',
        "flag": True,
        "kind": Word("KIND_CPU"),
        "none": None,
        "dims": [1, -1],
        "empty": [],
    }
    assert as_pbtxt({"m": given, "many": [{"a": 1}, {"a": 2}]}) == (
        'm {\n  name: "a\\042\\134\\012\\000\\303\\251"\n  flag: true\n  kind: KIND_CPU\n  dims: [1, -1]\n}\n'
        "many {\n  a: 1\n}\nmany {\n  a: 2\n}\n"
    )


@pytest.mark.slow
def test_what_starts_the_server(graph, tmp_path):
    folder, _ = made(tmp_path, graph, jpeg=True)
    compose = yaml.safe_load((folder / "compose.yaml").read_text())["services"]["triton"]
    verify = ["segdeploy", "verify", "triton://localhost:8001/tiny"]
    assert compose["healthcheck"]["test"] == ["CMD", *verify]
    service = yaml.safe_load((folder / "inferenceservice.yaml").read_text())
    model = service["spec"]["predictor"]["model"]
    assert (service["kind"], model["modelFormat"]["name"]) == ("InferenceService", "triton")
    assert model["livenessProbe"]["exec"]["command"][:2] == verify[:2]
    readme = (folder / "README.md").read_text()
    assert "`tiny_jpeg`" in readme and " ".join(verify) in readme and "\\\n" in readme
    assert len(readme.splitlines()) <= 60
    assert "FROM nvcr.io/nvidia/tritonserver:" in (folder / "Dockerfile").read_text()


@pytest.mark.slow
def test_the_verb(graph, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["triton", "tiny.onnx", "-o", "out", "--batch", "2", "--policy", "latest:2"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "out/README.md"
    assert said.err.endswith(", then segdeploy verify triton://localhost:8001/tiny\n")
    assert read(tmp_path / "out/tiny").max_batch_size == 2
