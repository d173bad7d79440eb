"""`segdeploy bench` as a user types it: what it prints and writes, and what a wrong request gets."""

import json
import shutil

import cv2
import pytest
import torch
from bench_fakes import DeviceSession, HostSession

from segdeploy import scenes
from segdeploy.assess.bench import models
from segdeploy.assess.bench.meter import Reading
from segdeploy.assess.bench.results import SCHEMA, read_results
from segdeploy.cli import main
from segdeploy.errors import RequestError
from segdeploy.files import digest_of
from segdeploy.version import __version__

QUICK = ["--duration", "0.01", "--warmup", "1"]
HERE = [*QUICK, "--threads", "1"]


@pytest.fixture(autouse=True)
def threads():
    """PyTorch has one number of threads for all: the next test gets it back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def instead(monkeypatch, tmp_path):
    """`instead(session)`: the path of a graph that opens as this session."""

    def given(session, name="fake.onnx"):
        monkeypatch.setattr(models, "open_chosen", lambda way, tell, size: session)
        path = tmp_path / name
        path.write_bytes(b"fake")
        return str(path)

    return given


@pytest.mark.slow
def test_a_model_at_several_batches(graphs, tmp_path, capsys):
    model, written = graphs("nvinfer", None), tmp_path / "results.json"
    assert main(["bench", str(model), "--batch", "1,2", *HERE, "--json", str(written)]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0].startswith(f"{model.name} in ONNX Runtime ")
    assert [cell.strip() for cell in lines[2].strip("┃").split("┃")] == ["batch", "1", "2"]
    for row in ("images/s", "queries/s", "latency median, ms", "latency p99, ms", "compute median, ms"):
        assert f"│ {row} " in said
    for row in ("to device", "enqueue", "power", "clock, MHz"):  # there is none of it on the host
        assert f"│ {row} " not in said
    assert (
        "modes: trtexec 11 defaults; transfers none: host memory; CUDA graph none; wait: the call returns; streams 1;"
        " clock: host; labels: from the small logits, interpolated only where classes meet; attention: 5 fused;"
        " warm-up 1 ms; duration 0.01 s"
    ) in said
    assert "has no record" not in said

    results = read_results(written)
    assert results["schema"] == SCHEMA
    assert results["versions"]["segdeploy"] == __version__
    assert set(results["versions"]) >= {"python", "numpy", "onnxruntime"}
    assert results["machine"]["threads"] == 1
    assert results["machine"]["cpu"]
    assert results["plan"] == {
        "trtexec": "11",
        "modes": {"transfers": False, "cuda_graph": True, "spin": True, "streams": 1},
        "unstable_percent": 2.5,
        "warm_up_ms": 1.0,
        "duration_s": 0.01,
        "iterations": 10,
    }
    (known,) = results["models"]
    assert known["digest"] == digest_of(model)
    assert known["record"]["precision"] == "fp32"
    assert (known["size"], known["classes"], known["interface"]) == ("96x160", 5, "nvinfer")
    assert [one["batch"] for one in results["measurements"]] == [1, 2]
    for one in results["measurements"]:
        assert one["images_per_s"] == pytest.approx(one["batch"] * one["timings"]["qps"])
        assert one["timings"]["queries"] >= 10
        assert not one["stopped"]


def test_json_alone_on_standard_output(graphs, capsys):
    assert main(["bench", str(graphs("frames")), *HERE, "--json", "-"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert len(results["measurements"]) == 1
    assert results["comparisons"] == []
    assert results["waterfall"] is None


def test_a_device_shows_its_parts(instead, capsys):
    model = instead(DeviceSession())
    assert main(["bench", model, "--duration", "0.1", "--trtexec-compat", "10", "--batch", "4"]) == 0
    said = capsys.readouterr().out
    for row, value in {
        "images/s": "571.4",
        "latency p99, ms": "7.000",
        "to device median, ms": "1.000",
        "compute median, ms": "4.000",
        "from device median, ms": "2.000",
        "enqueue median, ms": "0.500",
    }.items():
        assert f"│ {row} " in said
        assert value in said
    assert (
        "modes: trtexec 10 defaults; transfers included; CUDA graph off; wait: blocking; streams 1;" in said
    )
    assert "fake.onnx has no record: how well it agrees with its checkpoint is not known" in said


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        ([], (False, True)),
        (["--no-cuda-graph"], (False, False)),
        (["--transfers", "include"], (True, True)),
        (["--trtexec-compat", "10"], (True, False)),
        (["--trtexec-compat", "10.16"], (True, False)),
        (["--trtexec-compat", "10", "--cuda-graph", "--transfers", "exclude"], (False, True)),
    ],
)
def test_modes(instead, flags, asked):
    session = DeviceSession()
    assert main(["bench", instead(session), "--duration", "0.1", *flags]) == 0
    assert (session.asked_modes.transfers, session.asked_modes.cuda_graph) == asked
    assert session.closed


def test_times_as_trtexec_exports_them(graphs, tmp_path):
    path = tmp_path / "times.json"
    assert main(["bench", str(graphs("frames")), *HERE, "--export-times", str(path)]) == 0
    times = json.loads(path.read_text())
    assert len(times) >= 10
    assert list(times[0]) == [
        "startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs", "startD2hMs",
        "endD2hMs", "h2dMs", "computeMs", "d2hMs", "latencyMs",
    ]  # fmt: skip
    assert times[0]["startComputeMs"] >= 1  # the warm-up is not in it
    assert times[0]["latencyMs"] == pytest.approx(times[0]["endComputeMs"] - times[0]["startComputeMs"])


@pytest.mark.slow
def test_compare(graphs, tmp_path, capsys):
    models = [str(graphs("nvinfer", None)), str(graphs("frames"))]
    written = tmp_path / "results.json"
    assert main(["bench", models[0], "--compare", models[1], *HERE, "--json", str(written)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("| batch 1, ")
    assert said[2].startswith("| tiny.nvinfer.dynamic.onnx | ONNX Runtime ")
    assert said[2].endswith("| 1 |")
    assert said[3].startswith("| tiny.frames.1.onnx | ONNX Runtime ")
    assert said[5].startswith("modes: trtexec 11 defaults; transfers none: host memory; ")
    assert said[5].endswith(" (tiny.nvinfer.dynamic.onnx, tiny.frames.1.onnx)")
    results = read_results(written)
    assert [model["name"] for model in results["models"]] == [
        "tiny.nvinfer.dynamic.onnx",
        "tiny.frames.1.onnx",
    ]
    (comparison,) = results["comparisons"]
    assert comparison["rounds"] >= 10
    row = comparison["rows"][1]
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]


@pytest.mark.slow
def test_a_checkpoint_beside_its_graph(tiny, graphs, capsys):
    arguments = [str(tiny), "--interface", "frames", "--network", "deployed", *HERE]
    assert main(["bench", *arguments, "--compare", str(graphs("frames"))]) == 0
    assert "eager, cpu, deployed network, FP32 |" in capsys.readouterr().out


@pytest.mark.slow
def test_models_that_differ(graphs, capsys):
    models = [str(graphs("frames")), "--compare", str(graphs("logits"))]
    assert main(["bench", *models, *HERE]) == 1
    assert "the models differ in what they answer (tiny.frames.1.onnx: labels," in capsys.readouterr().err
    assert main(["bench", *models, *HERE, "--allow-unlike"]) == 0
    assert "the models differ in what they answer" in capsys.readouterr().out


@pytest.mark.slow
def test_end_to_end(graphs, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "street.png"), scenes.make_scene(1, 64, 128).image)
    written = tmp_path / "results.json"
    model = str(graphs("frames"))
    assert main(["bench", model, "--end-to-end", str(tmp_path), *HERE, "--json", str(written)]) == 0
    said = capsys.readouterr().out
    assert "images of 64x128 from " in said
    for stage in (
        "decode",
        "resize",
        "normalise",
        "h2d",
        "infer",
        "d2h",
        "labels",
        "draw",
        "encode",
        "whole",
    ):
        assert f"│ {stage} " in said
    assert "% of the time is not the network; " in said
    waterfall = read_results(written)["waterfall"]
    assert 0 < waterfall["outside_network"] < 1


def test_ctrl_c_prints_what_was_measured(instead, tmp_path, capsys):
    written = tmp_path / "results.json"
    model = instead(HostSession(stop_at=40))
    assert main(["bench", model, "--duration", "60", "--warmup", "0", "--json", str(written)]) == 130
    said = capsys.readouterr()
    assert "│ images/s " in said.out
    assert "; stopped after 0.0 s of 60 s" in said.out
    assert said.err == "segdeploy: stopped; what was measured so far is above\n"
    (measurement,) = read_results(written)["measurements"]
    assert measurement["stopped"]
    assert measurement["timings"]["queries"] == 39


def test_ctrl_c_before_anything_was_measured(instead, capsys):
    session = HostSession(stop_at=2)
    assert main(["bench", instead(session), "--duration", "60"]) == 130
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "segdeploy: stopped\n")
    assert session.closed


def test_a_model_without_a_record_works_and_says_so(graphs, tmp_path, capsys):
    model = tmp_path / "bare.onnx"
    shutil.copy(graphs("frames"), model)
    assert main(["bench", str(model), *HERE]) == 0
    assert (
        "bare.onnx has no record: how well it agrees with its checkpoint is not known"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--batch", "2"], "a batch of 2 was asked for, and this model takes only 1;"),
        (["--streams", "2", "--compare", "x.onnx"], "--streams 2 is for measuring one model by itself; leave it out"),
        (["--trtexec-compat", "8.5"], "the defaults of trtexec 8.6 to 11 are known, not of 8.5;"),
        (["--export-times", "t.json", "--batch", "1,2"], "--export-times holds the queries of one model at one batch"),
        (["--end-to-end", "x", "--batch", "1"], "--end-to-end takes frames as the model does, so leave --batch out"),
        (["--size", "64x96"], "this graph has the one size 96x160, and 64x96 was asked for; "),
        (["--fp16"], "--fp16 is for checkpoints in PyTorch, and "),
        (["--reference", "gameboy"], "no device is called 'gameboy'; known: "),
        (["--compare", "nowhere.onnx"], "there is no file nowhere.onnx"),
        (["--end-to-end", "nowhere"], "there is no file or folder nowhere; expected images or a video"),
    ],
)  # fmt: skip
def test_bad_requests(graphs, flags, said, capsys):
    assert main(["bench", str(graphs("frames")), *flags]) == 1
    found = capsys.readouterr()
    assert found.err.startswith(f"segdeploy: {said}")
    assert found.err.count("\n") == 1
    assert found.out == ""


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        (
            "--batch",
            "1,x",
            "'x' is not a whole number, 1 to 1,024; expected some with commas between, as in 1,2,4,8",
        ),
        ("--threads", "0", "0 is outside 1 to 1,024"),
        ("--json", "out.txt", "out.txt is neither a .json file nor -; to print JSON, put --json last"),
        ("--size", "64", "'64' is not a size; expected HEIGHTxWIDTH, as in 512x1024"),
    ],
)
def test_values_that_no_flag_takes(flag, value, said, misused):
    assert misused("bench", "x.onnx", flag, value) == f"segdeploy bench: error: argument {flag}: {said}"


@pytest.mark.slow
def test_a_gpus_sensors_are_read_only_where_something_runs_on_it(instead, monkeypatch, capsys):
    class Gpu:
        source = "a fake"

        def name(self):
            return "NVIDIA A2"

        def driver(self):
            return "570"

        def memory_in_use(self):
            return 5 << 20

        def energy_joules(self):
            return None

        def read(self):
            return Reading(40.0, 1400, 1770, 60, ("power cap",))

    monkeypatch.setattr("segdeploy.assess.bench.nvml.open_gpu", Gpu)
    model = instead(DeviceSession())
    arguments = ["bench", model, "--duration", "0.1", "--reference"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "power, W" not in said
    assert "are not measured" not in said  # nor missed: nothing ran there
    assert (
        "nothing ran on a GPU here, and published numbers are of GPUs; name one: --reference DEVICE" in said
    )
    assert main([*arguments, "--provider", "cuda"]) == 0
    said = capsys.readouterr().out
    for row in ("power, W", "energy an image, mJ", "clock, MHz", "slowed by", "device memory added, MiB"):
        assert f"│ {row} " in said
    assert "1400–1400 of 1770" in said
    assert "A2: 230 FPS at batch 16" in said
    monkeypatch.setattr("segdeploy.assess.bench.nvml.open_gpu", lambda: None)
    assert main([*arguments[:-1], "--provider", "cuda"]) == 0
    said = capsys.readouterr().out
    assert "the GPU's power, clocks and memory are not measured: pip install 'segdeploy[cuda]'\n" in said


def test_compare_and_end_to_end_are_two_requests():
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "x.onnx", "--compare", "y.onnx", "--end-to-end", "z"])


# ---- results files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'{{"kind": "bench", "schema": {SCHEMA + 1}}}', f"has schema {SCHEMA + 1}, and this version of segdeploy"),
        ('{"kind": "bench"}', "has schema None, and this version of segdeploy"),
        ('{"schema": 1}', "holds no results of segdeploy bench"),
        ("[]", "holds no results of segdeploy bench"),
        ("{", "results.json is not JSON: Expecting property name"),
    ],
)  # fmt: skip
def test_a_results_file_that_cannot_be_read(tmp_path, text, said):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(RequestError) as caught:
        read_results(path)
    assert said in str(caught.value)
    with pytest.raises(RequestError, match="cannot be read"):
        read_results(tmp_path / "nowhere.json")
