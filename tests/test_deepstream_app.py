"""`deepstream app`: the folder with an application of several cameras, and what is refused before it is written."""

import json
import re
import shlex
import shutil
import stat
from pathlib import Path

import pytest
from segdeploy_box.settings import read_settings

from segdeploy.cli import main, parser
from segdeploy.errors import RequestError
from segdeploy.serve.deepstream.app.configuration import configuration_of
from segdeploy.serve.deepstream.app.folder import render_app
from segdeploy.serve.deepstream.app.keys import group_kind, types_of
from segdeploy.serve.deepstream.app.request import (
    MOST_SOURCES,
    PROTOCOLS,
    SINKS,
    Address,
    AppRequest,
    broker_at,
    names_of,
    versions_with_apps,
)
from segdeploy.serve.deepstream.app.settings import tiles_for
from segdeploy.serve.deepstream.config import read_config
from segdeploy.serve.deepstream.lint import lint
from segdeploy.serve.deepstream.plan import make_plan
from segdeploy.shipped import folder
from segdeploy.size import Size

CAMERAS = tuple(f"rtsp://camera{number}/stream" for number in range(4))


@pytest.fixture(scope="module")
def rendered(graphs, tmp_path_factory):
    output = tmp_path_factory.mktemp("app") / "box"
    request = AppRequest(graphs("nvinfer", None), (*CAMERAS[:2], "file:///clips/a.mp4"), sink="rtsp", publish="kafka",
                         broker="10.0.0.5", muxer=Size(360, 640))  # fmt: skip
    return output, render_app(request, output)


@pytest.mark.slow
def test_the_folder_is_that_of_config_and_what_runs_on_it(rendered, graphs):
    output, said = rendered
    assert len(said.warnings) == 2
    assert all("NVIDIA/TensorRT#4853" in warning for warning in said.warnings)  # of both TensorRTs of 9.0
    names = {str(path.relative_to(output)) for path in said.paths}
    parts = {f"segdeploy_box/{name}.py" for name in
             ("__init__", "broker", "messages", "metrics", "painting", "pipeline", "pixels", "settings")}  # fmt: skip
    assert names > parts | {
        "APP.md",
        "segdeploy_app.py",
        "segdeploy_app.json",
        "deepstream_app.txt",
        "rendered.json",
    }
    assert names > {"README.md", "nvinfer_config.txt", "labels.txt", graphs("nvinfer", None).name}
    assert all(path.is_file() for path in said.paths)
    assert {str(path.relative_to(output)) for path in output.rglob("*.py")} == parts | {"segdeploy_app.py"}
    config = read_config(output / "nvinfer_config.txt")
    assert (config.get("batch-size"), config.get("network-type")) == (3, 2)


def test_python_renders_the_same_folder(graphs, tmp_path):
    import segdeploy

    model, words = (
        graphs("nvinfer", None),
        ["--sink", "file", "--muxer", "480x640", "-o", str(tmp_path / "typed")],
    )
    assert (
        main(["deepstream", "app", str(model), "--source", CAMERAS[0], "--source", CAMERAS[1], *words]) == 0
    )
    called = segdeploy.render_deepstream_app(
        model, source=CAMERAS[:2], sink="file", muxer="480x640", output=tmp_path / "called"
    )
    texts = {path.name: path.read_bytes() for path in called.paths if path.parent == tmp_path / "called"}
    assert {name: (tmp_path / "typed" / name).read_bytes() for name in texts} == texts


def test_the_application_reads_its_settings(rendered, graphs):
    output, _ = rendered
    settings = read_settings(output / "segdeploy_app.json")
    labels = make_plan(AppRequest(graphs("nvinfer", None), CAMERAS).folder).graph.signature.labels
    assert [(one.name, tuple(one.colour)) for one in settings.classes] == [
        (name, tuple(colour)) for name, colour in zip(labels.names, labels.colours, strict=True)
    ]
    assert [source.uri for source in settings.sources] == [*CAMERAS[:2], "file:///clips/a.mp4"]
    assert (settings.muxer.width, settings.muxer.height) == (640, 360)
    assert (settings.tiler.rows, settings.tiler.columns) == (2, 2)
    publishing = settings.publishing
    assert (publishing.protocol, publishing.host, publishing.port, publishing.topic) == (
        "kafka", "10.0.0.5", 9092, "segdeploy")  # fmt: skip
    assert publishing.library.endswith("/lib/libnvds_kafka_proto.so")
    assert settings.messages.file is None
    assert settings.is_live


def test_the_page_says_which_does_what(rendered):
    page = (rendered[0] / "APP.md").read_text()
    assert "$" not in page
    assert "| 2 | `file:///clips/a.mp4` |" in page
    assert "| areas and masks per frame | JSON lines to kafka, topic segdeploy | no:" in page
    assert "| output (rtsp) | yes | yes |" in page
    assert "Not seen on a device" in page


@pytest.mark.parametrize("version", versions_with_apps())
@pytest.mark.parametrize("sink", SINKS)
def test_the_configuration_of_deepstream_app_is_clean(rendered, graphs, tmp_path, version, sink):
    request = AppRequest(graphs("nvinfer", None), CAMERAS[:3], version, sink)
    text = configuration_of(request, make_plan(request.folder))
    nvinfer = (rendered[0] / "nvinfer_config.txt").read_text()
    if not request.has_class_maps:
        nvinfer = nvinfer.replace("network-type=2", "network-type=100")
    (tmp_path / "nvinfer_config.txt").write_text(nvinfer)
    path = tmp_path / "deepstream_app.txt"
    path.write_text(text)
    assert lint(path) == []
    assert ("[segvisual]" in text) == (version[0] == "9")
    assert "rtsp-reconnect-interval-sec=10" in text


FAULTS = {
    "unknown-group": ("[osd]", "[osdd]"),
    "unknown-key": ("live-source=", "live_source="),
    "wrong-type": ("columns=2\n", "columns=two\n"),
    "no-source": ("", ""),  # of all three
    "no-sink": ("[sink0]\nenable=1", "[sink0]\nenable=0"),
    "source-without-uri": ("uri=rtsp://camera0/stream\n", ""),
    "source-without-scheme": ("uri=file:///clips/a.mp4", "uri=clips/a.mp4"),
    "source-type": ("type=2\nuri=file", "type=4\nuri=file"),
    "streams-differ": ("batch-size=3\nbatched-push-timeout", "batch-size=2\nbatched-push-timeout"),
    "missing-file": ("config-file=nvinfer_config.txt", "config-file=nvinfer.txt"),
    "app-draws-nothing": ("[segvisual]\nenable=1", "[segvisual]\nenable=0"),
    "segvisual-too-small": ("width=160\nheight=96", "width=160\nheight=95"),
    "syntax": ("[osd]", "[osd"),
    "source-form": ("uri=rtsp://camera0/stream", "uri=rtsp://camera0/stream;rtsp://camera9/stream"),
    "out-of-range": ("latency=200", "latency=-1"),
    "duplicate-key": ("[osd]\nenable=0", "[osd]\nenable=0\nenable=0"),
    "muxer-without-size": ("width=640\nheight=360", "width=640"),
    "push-timeout-short": ("batched-push-timeout=40000", "batched-push-timeout=40"),
    "protocol-ignored": ("select-rtp-protocol=4", "select-rtp-protocol=1"),
    "sink-unset": ("[sink0]\nenable=1", "[sink1]\nenable=1\ntype=3\n\n[sink0]\nenable=1"),
    "bitrate-low": ("bitrate=4000000", "bitrate=4000"),
    "no-inference": ("[primary-gie]\nenable=1", "[primary-gie]\nenable=0"),
    "tensors-awaited": ("[primary-gie]\nenable=1", "[primary-gie]\nenable=1\ninput-tensor-meta=1"),
    "gpu-differs": ("[segvisual]\nenable=1\ngpu-id=0", "[segvisual]\nenable=1\ngpu-id=1"),
    "plugin-type": ("plugin-type=0", "plugin-type=1"),
    "engine-rebuilt": ("plugin-type=0", "plugin-type=0\nmodel-engine-file=model.engine"),
}
LEGAL = [
    ("columns=2", "columns=2 # of three"),
    ("[osd]\nenable=0", "[osd]\nenable=0\n[secondary-gie0]\nenable=0\nbbox-border-color3=1;0;0;1"),
    ("type=2\nuri=file", "type=3\nnum-sources=1\nuri=file"),
    ("width=160\nheight=96", "width=1600\nheight=96"),
    ("batch-size=3\nbatched-push-timeout", "batch-size=4\nbatched-push-timeout"),
    ("[osd]", "[tracker]\nenable=0\n\n[osd]"),
    ("[osd]", "[sink1]\nenable=0\ntypo=many\n\n[osd]"),  # nothing is read of what is off
    ("[osd]", "[osd]\ntext-color=1;0.5;.5;1;"),
    ("file:///clips/a.mp4", "file://../clips/a.mp4"),  # which the app takes relative to its file
    ("latency=200", "latency=0"),
    ("width=640\nheight=360", ""),
    ("batched-push-timeout=40000", "batched-push-timeout=1000"),
    ("batched-push-timeout=40000", "batched-push-timeout=-1"),
    ("select-rtp-protocol=4", "select-rtp-protocol=7"),
    ("[sink0]\nenable=1", "[sink1]\nenable=1\ntype=3\noutput-file=a.mp4\n\n[sink0]\nenable=1"),
    ("bitrate=4000000", "bitrate=10000"),
    ("[osd]", "[pre-process]\nenable=1\nconfig-file=p.txt\n\n[primary-gie]\ninput-tensor-meta=1\n\n[osd]"),
    ("gpu-id=0", "gpu-id=1"),  # in every group
    ("[application]", "[application]\nglobal-gpu-id=1\n"),
]


def changed(rendered, tmp_path, old, new, strict=False):
    text = (rendered[0] / "deepstream_app.txt").read_text()
    assert old in text
    (tmp_path / "nvinfer_config.txt").write_text((rendered[0] / "nvinfer_config.txt").read_text())
    path = tmp_path / "x.txt"
    path.write_text(text.replace(old, new))
    return lint(path, strict=strict)


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_of_a_configuration_is_found(rendered, tmp_path, code):
    old, new = FAULTS[code]
    if code == "no-source":
        text = (rendered[0] / "deepstream_app.txt").read_text()
        old = text[text.index("[source0]") : text.index("[sink0]")]
        new = old.replace("enable=1", "enable=0")
    found = changed(rendered, tmp_path, old, new)
    assert {one.code for one in found} == {code}
    assert all(one.what and one.remedy and one.line >= 1 for one in found)


@pytest.mark.parametrize(("old", "new"), LEGAL)
def test_the_nearest_that_is_legal_is_silent(rendered, tmp_path, old, new):
    assert changed(rendered, tmp_path, old, new) == []


@pytest.mark.parametrize(
    ("old", "new", "codes"),
    [
        ("[osd]\nenable=0", "[osd]\nenable=0\ntext-color=1;1;1", ["wrong-type"]),
        ("[primary-gie]\nenable=1", "[primary-gie]\nenable=1\nbbox-border-color0=red", ["wrong-type"]),
        ("[sink0]\nenable=1", "[sink0]\nenable=true", ["no-sink", "wrong-type"]),
    ],
)
def test_what_a_value_may_be(rendered, tmp_path, old, new, codes):
    assert [one.code for one in changed(rendered, tmp_path, old, new)] == codes


def test_a_muxer_that_is_told_of_no_camera_is_advised_against(rendered, tmp_path):
    pair = "live-source=1", "live-source=0"
    assert changed(rendered, tmp_path, *pair) == []
    assert [one.code for one in changed(rendered, tmp_path, *pair, strict=True)] == ["muxer-not-live"]


SETTINGS_FAULTS = {
    "wrong-setting": ('"alpha": 0.55', '"alpha": 55'),
    "source-form": ('"uri": "file:///clips/a.mp4"', '"uri": "clips/a.mp4"'),
    "missing-file": ('"config": "nvinfer_config.txt"', '"config": "nvinfer.txt"'),
    "settings-differ": ('"network_type": 2', '"network_type": 100'),
}


@pytest.mark.parametrize("code", SETTINGS_FAULTS)
def test_settings_are_linted_as_the_box_reads_them(rendered, tmp_path, code):
    folder = Path(shutil.copytree(rendered[0], tmp_path / "box"))
    path = folder / "segdeploy_app.json"
    assert lint(path, strict=True) == []
    old, new = SETTINGS_FAULTS[code]
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    (found,) = lint(path)
    assert found.code == code
    assert found.what and found.remedy
    assert 1 <= found.line <= len(text.splitlines())


@pytest.mark.parametrize(
    ("old", "new", "following"),
    [
        ("", "", "replay -c {}/nvinfer_config.txt"),
        ('"alpha": 0.55', '"alpha": 55', "next: correct what is named"),
    ],
)
def test_what_comes_after_a_lint_of_the_settings(rendered, tmp_path, capsys, old, new, following):
    folder = Path(shutil.copytree(rendered[0], tmp_path / "box"))
    path = folder / "segdeploy_app.json"
    path.write_text(path.read_text().replace(old, new))
    assert main(["deepstream", "lint", str(path)]) == bool(old)
    assert following.format(folder) in capsys.readouterr().err


def test_classes_in_another_order_are_found(rendered, tmp_path):
    folder = Path(shutil.copytree(rendered[0], tmp_path / "box"))
    names = (folder / "labels.txt").read_text().splitlines()
    (folder / "labels.txt").write_text("\n".join([names[0], names[2], names[1], *names[3:]]) + "\n")
    (found,) = lint(folder / "segdeploy_app.json")
    assert found.what == f"class 1 is {names[1]!r}, and {names[2]!r} in labels.txt"


def test_the_lint_shows_no_password(rendered, tmp_path):
    found = changed(rendered, tmp_path, "type=2\nuri=file:///clips/a.mp4", "type=2\nuri=rtsp://me:pw@cam/x")
    assert [one.code for one in found] == ["source-type"]
    assert "pw" not in found[0].what


def test_groups_are_told_as_deepstream_app_tells_them():
    assert [group_kind(name) for name in ("source0", "sink12", "secondary-gie3", "source-attr-all", "osd")] == [
        "source", "sink", "primary-gie", "source", "osd"]  # fmt: skip
    assert [group_kind(name) for name in ("source", "sinks", "osd1", "property", "")] == [None] * 5
    assert types_of("streammux")["sort-batch"] == "true or false"


def test_passwords_are_for_the_box_alone(graphs, tmp_path, capsys):
    secret = "rtsp://admin:hunter2@camera/stream"
    output = tmp_path / "box"
    model = graphs("nvinfer", None)
    arguments = ["deepstream", "app", str(model), "-o", str(output), "--source", secret, "--source", secret]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "hunter2" not in said.out + said.err
    assert "can be read by you alone" in said.err
    assert said.err.splitlines()[-1] == (
        f"segdeploy: next: segdeploy deepstream lint {output}/deepstream_app.txt; then read {output}/APP.md on the box"
    )
    holding = {path.name for path in output.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()}
    assert holding == {"segdeploy_app.json", "deepstream_app.txt"}
    for name in holding:
        assert stat.S_IMODE((output / name).stat().st_mode) == 0o600
    names = [one["name"] for one in json.loads((output / "segdeploy_app.json").read_text())["sources"]]
    assert names == ["rtsp://camera/stream", "rtsp://camera/stream (1)"]
    assert lint(output / "deepstream_app.txt") == []
    assert main(arguments) == 0  # what it wrote itself it replaces


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "camera"], "the source camera has no scheme; expected one of rtsp, rtsps, http, https, file"),
        (["--source", "me:pw@camera/x"], "the source …@camera/x has no scheme"),
        (["--source", "ftp://me:pw@camera/x"], "the source ftp://camera/x has the scheme 'ftp'"),
        (["--source", "file://clip.mp4"], "the source file://clip.mp4 names no file"),
        (["--source", "file:///"], "the source file:/// names no file"),
        (["--source", "rtsp://"], "the source rtsp:// has no valid host or port"),
        (["--source", "rtsp://cam:99999/x"], "has no valid host or port"),
        (["--source", "rtsp://cam/a b\n"], "holds a character that no address has; write it as %XX"),
        (["--source", "rtsp://cam/a\\tb"], "holds a character that no address has"),
        (["--source", CAMERAS[0]] * 1000, f"1000 sources are more than the {MOST_SOURCES}"),
        (["--source", CAMERAS[0], "--publish", "kafka"], "--publish kafka names no host; add --broker HOST[:PORT]"),
        (["--source", CAMERAS[0], "--broker", "h"], "--broker and --topic are for --publish"),
        (["--source", CAMERAS[0], "--topic", "t"], "--broker and --topic are for --publish"),
        (["--source", CAMERAS[0], "--publish", "mqtt", "--broker", "me:pw@h:1"], "--broker …@h:1 is not HOST[:PORT]"),
        (["--source", CAMERAS[0], "--publish", "mqtt", "--broker", "h:0"], "--broker h:0 is not HOST[:PORT]"),
        (["--source", CAMERAS[0], "--publish", "mqtt", "--broker", "h;9092"], "is not HOST[:PORT]"),
        (["--source", CAMERAS[0], "--publish", "kafka", "--broker", "h", "--topic", "a/b"], "is no topic of kafka"),
        (["--source", CAMERAS[0], "--publish", "mqtt", "--broker", "h", "--topic", "a/#"], "is no topic of mqtt"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused(refused, graphs, arguments, words):
    said = refused("deepstream", "app", graphs("nvinfer", None), *arguments)
    assert words in said
    assert "pw" not in said


def test_a_graph_that_no_batch_fits_is_refused(refused, graphs):
    two = ["--source", CAMERAS[0], "--source", CAMERAS[1]]
    assert "--batch" in refused("deepstream", "app", graphs("nvinfer", 1), *two)
    said = refused("deepstream", "app", graphs("logits", 1), *two[:2], "--deepstream", "8.0")
    assert "export it with --interface nvinfer" in said


def test_flags_are_checked(misused, graphs):
    model = graphs("nvinfer", None)
    assert "--source" in misused("deepstream", "app", model, "-o", "x")
    assert "invalid choice: 'tape'" in misused(
        "deepstream", "app", model, "--source", CAMERAS[0], "--sink", "tape", "-o", "x"
    )
    assert "invalid choice: '6.3'" in misused(
        "deepstream", "app", model, "--source", CAMERAS[0], "--deepstream", "6.3", "-o", "x"
    )


def test_from_python_the_same_is_refused(graphs, tmp_path):
    for changes, words in (
        ({"sources": ()}, "there is no source"),
        ({"sink": "tape"}, "'tape' is no output"),
        ({"publish": "amqp"}, "'amqp' is no protocol"),
        ({"deepstream": "6.3"}, "has no Service Maker"),
    ):
        with pytest.raises(RequestError, match=re.escape(words)):
            render_app(
                AppRequest(**{"model": graphs("nvinfer", None), "sources": CAMERAS} | changes), tmp_path
            )
    assert list(tmp_path.iterdir()) == []


def test_what_another_wrote_stays(graphs, tmp_path, capsys):
    mine = tmp_path / "box" / "segdeploy_app.json"
    mine.parent.mkdir()
    mine.write_text("{}")
    arguments = [
        "deepstream",
        "app",
        str(graphs("nvinfer", None)),
        "-o",
        str(mine.parent),
        "--source",
        CAMERAS[0],
    ]
    assert main(arguments) == 1
    assert "is not of segdeploy's making" in capsys.readouterr().err
    assert mine.read_text() == "{}"
    assert sorted(path.name for path in mine.parent.iterdir()) == ["segdeploy_app.json"]


def test_small_parts():
    assert [tiles_for(count) for count in (1, 2, 3, 4, 5, 64)] == [
        (1, 1),
        (1, 2),
        (2, 2),
        (2, 2),
        (2, 3),
        (8, 8),
    ]
    assert broker_at("[::1]", 1883) == Address("[::1]", 1883)
    assert broker_at("[::1]:99", 1883) == Address("[::1]", 99)
    assert broker_at("h", 1883) == Address("h", 1883)
    assert names_of(["file:///a", "file:///a", "rtsp://u:p@b"]) == ["file:///a", "file:///a (1)", "rtsp://b"]
    assert list(PROTOCOLS) == ["kafka", "mqtt"]


def test_the_page_of_ten_commands_has_ten_and_each_is_one():
    page = (folder("deepstream") / "four-cameras.md").read_text()
    blocks = "".join(re.findall(r"```\n(.*?)```", page, re.DOTALL))
    lines = blocks.replace("\\\n", " ").splitlines()
    assert len(lines) == 10
    ours = [shlex.split(line)[1:] for line in lines if line.startswith("segdeploy ")]
    assert [words[:2] for words in ours[1:]] == [["deepstream", step] for step in ("app", "lint", "replay")]
    for words in ours:
        parser().parse_args(words)
    assert len(parser().parse_args(ours[1]).source) == 4
