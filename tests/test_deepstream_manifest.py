"""The folder of `deepstream config` is written as one thing, over nothing that segdeploy did not write."""

import json
import os
import shutil
from pathlib import Path

import onnx
import pytest

from segdeploy.errors import CalibrationError, DeepStreamError, GraphError, OutputError
from segdeploy.files import digest_of
from segdeploy.graph.load import read_graph
from segdeploy.run.session import open_session
from segdeploy.serve.deepstream import plan
from segdeploy.serve.deepstream.lint import lint
from segdeploy.serve.deepstream.render import render
from segdeploy.serve.deepstream.request import RenderRequest
from segdeploy.serve.manifest import NAME, Manifest, read_manifest


def everything_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_manifest_is_the_folder(graphs, tmp_path):
    rendered = render(RenderRequest(graphs("logits")), tmp_path / "made")
    made = read_manifest(tmp_path / "made")
    assert made.files == {
        str(path.relative_to(tmp_path / "made")): digest_of(path) for path in rendered.paths[:-1]
    }
    assert rendered.paths[-1].name == NAME
    assert set(rendered.paths) == {path for path in (tmp_path / "made").rglob("*") if path.is_file()}


def test_what_segdeploy_did_not_make_is_not_replaced(graphs, tmp_path):
    for name in ("README.md", "labels.txt", "app.yml", "triton/nvinferserver_config.txt"):
        folder = tmp_path / Path(name).name
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("the user's own\n")
        with pytest.raises(OutputError) as refusal:
            render(RenderRequest(graphs("nvinfer")), folder)
        assert str(refusal.value) == (
            f"{folder / name} is not of segdeploy's making, and would be replaced; move it away, or name another"
            " folder with -o"
        )
        assert everything_in(folder) == {Path(name): b"the user's own\n"}
        assert len(list(folder.rglob("*"))) == len(Path(name).parts)


def test_what_it_made_is_replaced_and_what_was_changed_since_is_not(graphs, tmp_path):
    folder = tmp_path / "made"
    render(RenderRequest(graphs("nvinfer"), "7.1", 100), folder)
    built = folder / "tiny.nvinfer.1.onnx_b1_gpu0_fp32.engine"
    built.write_bytes(b"nvinfer's")
    assert (folder / "app.yml").is_file()
    render(RenderRequest(graphs("nvinfer"), "9.2", 100), folder)
    assert not (folder / "app.yml").exists()  # which that version draws nothing with
    assert built.read_bytes() == b"nvinfer's"
    assert "for DeepStream 9.2" in (folder / "nvinfer_config.txt").read_text()
    config = folder / "nvinfer_config.txt"
    config.write_text(config.read_text().replace("interval=0", "interval=2"))
    before = everything_in(folder)
    with pytest.raises(
        OutputError, match=r"nvinfer_config\.txt was changed since segdeploy wrote it, and would be"
    ):
        render(RenderRequest(graphs("nvinfer"), "9.1", 100), folder)
    assert everything_in(folder) == before


def test_a_writer_that_was_killed_half_way_is_followed_by_one_that_finishes(graphs, tmp_path):
    """Some files are new already, and the manifest, which is moved last, is of the old ones."""
    request, old, new = RenderRequest(graphs("nvinfer"), "9.2"), tmp_path / "old", tmp_path / "new"
    render(RenderRequest(graphs("nvinfer"), "9.1"), old)
    render(request, new)
    for name in ("README.md", "nvinfer_config.txt"):
        shutil.copyfile(new / name, old / name)
    render(request, old)
    assert everything_in(old) == everything_in(new)


@pytest.mark.parametrize("old", [True, False])
def test_a_full_disk_leaves_the_old_folder(old, graphs, tmp_path, monkeypatch):
    folder = tmp_path / "made"
    if old:
        render(RenderRequest(graphs("nvinfer"), "9.1"), folder)
    before = everything_in(tmp_path)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OutputError, match=r"cannot be written: No space left on device$"):
        render(RenderRequest(graphs("nvinfer"), "9.2"), folder)
    assert everything_in(tmp_path) == before
    assert folder.exists() == old


@pytest.mark.parametrize("name", ["../prey", "{tmp}/prey", "link", "far/prey", "a\0b"])
def test_a_manifest_from_elsewhere_removes_nothing_outside(name, graphs, tmp_path):
    folder, prey = tmp_path / "made", tmp_path / "prey"
    render(RenderRequest(graphs("nvinfer")), folder)
    prey.write_text("kept")
    (folder / "link").symlink_to(prey)
    (folder / "far").symlink_to(tmp_path)
    forged = read_manifest(folder).files | {name.format(tmp=tmp_path): digest_of(prey)}
    (folder / NAME).write_text(Manifest(forged).as_text())
    render(RenderRequest(graphs("nvinfer"), "9.1"), folder)
    assert prey.read_text() == "kept"
    assert (folder / "link").is_symlink()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"files": 5}', '{"files": {"a": 5}}', "[" * 100_000, "\ud800"]
)
def test_a_manifest_that_cannot_be_read_makes_nothing_ours(text, graphs, tmp_path):
    render(RenderRequest(graphs("nvinfer")), tmp_path)
    (tmp_path / NAME).write_text(text, errors="surrogatepass")
    assert read_manifest(tmp_path).files == {}
    render(RenderRequest(graphs("nvinfer")), tmp_path)  # the same once more
    (tmp_path / NAME).write_text(text, errors="surrogatepass")
    with pytest.raises(OutputError, match="is not of segdeploy's making"):
        render(RenderRequest(graphs("nvinfer"), "9.1"), tmp_path)


def test_a_model_that_was_copied_here_once_is_not_removed_when_it_is_the_model(graphs, tmp_path):
    render(RenderRequest(graphs("nvinfer")), tmp_path)
    own = tmp_path / graphs("nvinfer").name
    before = own.read_bytes()
    for version in ("9.1", "9.2"):
        render(RenderRequest(own, version), tmp_path)
        assert own.read_bytes() == before
    render(RenderRequest(graphs("nvinfer", None)), tmp_path)
    assert not own.exists() or own.name == graphs("nvinfer", None).name


# ---- what a graph brings with it -----------------------------------------------------------------------------------


@pytest.fixture
def outside(graphs, tmp_path):
    """The graph with its weights in a file beside it."""

    def make(location="x.onnx.data"):
        folder = tmp_path / "theirs"
        folder.mkdir()
        (folder / location).parent.mkdir(parents=True, exist_ok=True)
        model = onnx.load(graphs("nvinfer"))
        onnx.save(
            model, folder / "x.onnx", save_as_external_data=True, location=location, size_threshold=1024
        )
        return folder / "x.onnx"

    return make


@pytest.mark.slow
def test_weights_beside_the_graph_are_copied(outside, tmp_path):
    model = outside()
    rendered = render(RenderRequest(model), tmp_path / "made")
    assert tmp_path / "made" / "x.onnx.data" in rendered.paths
    copied = Path(shutil.copytree(tmp_path / "made", tmp_path / "copied"))
    shutil.rmtree(tmp_path / "made")
    assert read_graph(copied / "x.onnx").digest == read_graph(model).digest
    with open_session(copied / "x.onnx"):
        pass
    assert lint(copied / "nvinfer_config.txt") == []
    assert "| x.onnx.data | weights of the graph |\n" in (copied / "README.md").read_text()


def test_weights_in_a_branch_are_weights(outside, monkeypatch):
    monkeypatch.setattr(plan, "why_not_loaded", lambda model: None)  # none would load the branch
    model = onnx.load(path := outside(), load_external_data=False)
    held = next(item for item in model.graph.initializer if item.external_data)
    branch = onnx.helper.make_graph([], "then", [], [onnx.helper.make_tensor_value_info("y", 1, (1,))])
    branch.initializer.append(held)
    branch.initializer[0].external_data[0].value = "branch.data"
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["o"], then_branch=branch, else_branch=branch))
    constant = onnx.helper.make_node("Constant", [], ["v"], value=held)
    constant.attribute[0].t.external_data[0].value = "node.data"
    model.graph.node.append(constant)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(
        GraphError, match=r"x\.onnx lie in .*branch\.data, which is not there; keep its files together"
    ):
        render(RenderRequest(path), path.parent / "no")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (
            lambda data, far: data.unlink(),
            r"lie in .*x\.onnx\.data, which is not there; keep its files together",
        ),
        (lambda data, far: data.unlink() or os.mkfifo(data), r"x\.onnx\.data, which is not there"),
        (
            lambda data, far: data.rename(far) and data.symlink_to(far),
            r"which is a link; put the file itself there",
        ),
        (
            lambda data, far: data.write_bytes(data.read_bytes()[:-1]),
            r"end at byte \d+ of .*, which has \d+; copy it",
        ),
    ],
)
def test_weights_that_make_no_whole_graph_are_refused(harm, words, outside, tmp_path):
    model = outside()
    harm(model.with_name("x.onnx.data"), tmp_path / "far")
    with pytest.raises(GraphError, match=words):
        render(RenderRequest(model), tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("location", ["../x.data", "/etc/passwd", "a\0b", ""])
def test_weights_that_lie_elsewhere_are_refused(location, outside, tmp_path):
    model = onnx.load(path := outside(), load_external_data=False)
    for item in model.graph.initializer:
        if item.external_data:
            item.external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match="which is not beside it"):
        render(RenderRequest(path), tmp_path / "no")


@pytest.mark.parametrize(
    "location", ["labels.txt", "rendered.json", "parser/Makefile", "triton/nvinferserver_config.txt"]
)
def test_two_files_of_one_name_are_refused(location, outside, tmp_path):
    model = outside(location)
    with pytest.raises(DeepStreamError) as refusal:
        render(RenderRequest(model, parser="segdeploy"), tmp_path / "no")
    assert str(refusal.value).endswith(
        f"/{location} would be {location} in the folder, and so would another file; give it another name"
    )
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\x00garbage", "is not text"),
        (b"garbage", "line 1"),
        (b"", "is empty"),
        (b"TRT-100900-EntropyCalibration2\ninput: zz\n", "line 2"),
    ],
)
def test_a_cache_that_is_none_is_refused(content, words, graphs, tmp_path):
    cache = tmp_path / "x.calib"
    cache.write_bytes(content)
    with pytest.raises(CalibrationError, match=words):
        render(RenderRequest(graphs("nvinfer"), precision="int8", int8_cache=cache), tmp_path / "no")
    assert not (tmp_path / "no").exists()


def with_metadata(graphs, path, **changes):
    model = onnx.load(graphs("nvinfer"))
    for item in model.metadata_props:
        item.value = changes.get(item.key.removeprefix("segdeploy."), item.value)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", ["side\nwalk", "door;gate", "", "a\rb", "a\tb", "\x1b[31mred", "\u202egnol"])
def test_class_names_that_nvinfer_would_read_otherwise_are_refused(name, graphs, tmp_path):
    classes = json.dumps(["road", name, "sky", "car", "bus"])
    with pytest.raises((DeepStreamError, GraphError)) as refusal:
        render(RenderRequest(with_metadata(graphs, tmp_path / "x.onnx", classes=classes)), tmp_path / "no")
    assert repr(name) in str(refusal.value)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "change", [{"scale": "[0, 0, 0]"}, {"scale": "[NaN, NaN, NaN]"}, {"scale": "[-1, -1, -1]"},
               {"scale": "[1e999, 1e999, 1e999]"}, {"mean": "[0, NaN, 0]"}]
)  # fmt: skip
def test_a_normalisation_that_is_none_is_refused(change, graphs, tmp_path):
    with pytest.raises((DeepStreamError, GraphError)):
        render(RenderRequest(with_metadata(graphs, tmp_path / "x.onnx", **change)), tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_class_with_a_comma_is_one_cell(graphs, tmp_path):
    classes = json.dumps(['"wall", thing', "kerb", "sky", "car", "bus"])
    render(RenderRequest(with_metadata(graphs, tmp_path / "x.onnx", classes=classes)), tmp_path / "made")
    assert (tmp_path / "made" / "colours.csv").read_text().splitlines()[1] == '0,"""wall"", thing",255,64,64'
    assert (tmp_path / "made" / "labels.txt").read_text().startswith('"wall", thing\nkerb\n')
    assert lint(tmp_path / "made" / "nvinfer_config.txt") == []
