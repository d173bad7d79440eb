"""Every module imports where only the base packages are there, or says which extra brings what it lacks."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "segdeploy"
MODULES = sorted(
    ".".join(("segdeploy", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.name != "__main__.py"
)

# Stands for a machine without the extras: importing one of these packages fails as if it were not installed.
BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""
EXTRAS = {
    "torch",
    "safetensors",
    "huggingface_hub",
    "onnxscript",
    "onnxruntime",
    "transformers",
    "tensorrt_rtx",
    "openvino",
    "grpc",
    "tritonclient",
}

# Layers and weights: loaded by modules that have asked for PyTorch. The rest of `networks` is what `--help` is made of.
BEHIND_A_GUARD = {
    name
    for name in MODULES
    if name.startswith("segdeploy.networks.")
    and name.removeprefix("segdeploy.networks.")
    not in {"checkpoints", "config_keys", "family", "weight_names", "segformer", "mask2former"}
} | {
    f"segdeploy.train.{name}"
    for name in ("hub_folder", "loop", "loss", "network", "processes", "scoring", "state", "transfer")
}


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=EXTRAS) + code],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_every_module_imports_or_names_its_extra() -> None:
    code = f"""
import importlib
from segdeploy.errors import MissingExtra
for name in {MODULES}:
    try:
        importlib.import_module(name)
    except MissingExtra as error:
        print(name, "|", error)
    except ModuleNotFoundError as error:
        if name not in {BEHIND_A_GUARD} or error.name not in {EXTRAS}:
            raise
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    lacking = dict(line.split(" | ") for line in done.stdout.splitlines())
    assert set(lacking) == {
        "segdeploy.convert.adopt.adopt",
        "segdeploy.convert.adopt.fixed",
        "segdeploy.convert.build_engine",
        "segdeploy.convert.export",
        "segdeploy.convert.fp16",
        "segdeploy.convert.other_sizes",
        "segdeploy.convert.int8.attention",
        "segdeploy.convert.int8.by_group",
        "segdeploy.convert.int8.collect",
        "segdeploy.convert.int8.job",
        "segdeploy.convert.int8.layer_choice",
        "segdeploy.convert.int8.quantize",
        "segdeploy.convert.int8.request",
        "segdeploy.convert.int8.scales",
        "segdeploy.convert.int8.search",
        "segdeploy.convert.int8.spread",
        "segdeploy.convert.int8.write",
        "segdeploy.convert.own_module",
        "segdeploy.convert.tracing",
        "segdeploy.demo",
        "segdeploy.demo.sheet",
        "segdeploy.assess.bench.pytorch",
        "segdeploy.networks.checkpoints",
        "segdeploy.prove.against_graph",
        "segdeploy.ways.accuracy",
        "segdeploy.ways.choice",
        "segdeploy.ways.forms",
        "segdeploy.ways.request",
        "segdeploy.ways.tune",
        "segdeploy.prove.against_pytorch",
        "segdeploy.prove.judge",
        "segdeploy.prove.material",
        "segdeploy.prove.ranges",
        "segdeploy.run.inner_tensors",
        "segdeploy.run.openvino",
        "segdeploy.run.triton.grpc_wire",
        "segdeploy.run.ort",
        "segdeploy.run.ort_gpu",
        "segdeploy.serve.deepstream.reference",
        "segdeploy.train.distil",
        "segdeploy.train.finetune",
        "segdeploy.train.folds",
    }
    assert lacking["segdeploy.run.ort"] == (
        "running an .onnx needs onnxruntime, which is not installed: pip install 'segdeploy[cpu]'"
    )
    assert all("pip install 'segdeploy[" in message for message in lacking.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["export", "x.pth"], "export"),
        (["demo"], "cpu"),
        (["run", "x.onnx", "x.png"], "cpu"),
        (["bench", "x.onnx"], "cpu"),
        (["bench", "x.pth"], "export"),
        (["quantize", "x.onnx", "--images", "."], "cpu"),
    ],
)
def test_a_verb_without_its_extra_says_what_to_install(
    arguments: list[str], extra: str, graphs, tmp_path: Path
) -> None:
    (tmp_path / "x.onnx").write_bytes(graphs("frames").read_bytes())
    for name in ("x.png", "x.pth"):
        (tmp_path / name).write_bytes(b"")
    code = (
        f"import os; os.chdir({str(tmp_path)!r}); from segdeploy.cli import main; sys.exit(main({arguments}))"
    )
    done = run(code)
    assert done.returncode == 1
    assert f"pip install 'segdeploy[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
