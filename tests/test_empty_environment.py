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
}


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=EXTRAS) + code],
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_module_imports_or_names_its_extra() -> None:
    code = f"""
import importlib
from segdeploy.errors import MissingExtra
for name in {MODULES}:
    try:
        importlib.import_module(name)
    except MissingExtra as error:
        print(name, "|", error)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    lacking = dict(line.split(" | ") for line in done.stdout.splitlines())
    assert set(lacking) == {
        "segdeploy.calibrate.collect",
        "segdeploy.calibrate.judge",
        "segdeploy.calibrate.ledger",
        "segdeploy.calibrate.material",
        "segdeploy.calibrate.search",
        "segdeploy.deepstream.reference",
        "segdeploy.demo",
        "segdeploy.deploy",
        "segdeploy.engine.build",
        "segdeploy.engine.golden",
        "segdeploy.engine.job",
        "segdeploy.engine.verify",
        "segdeploy.export",
        "segdeploy.families",
        "segdeploy.families.checkpoints",
        "segdeploy.families.deformable",
        "segdeploy.families.key_names",
        "segdeploy.families.mask2former",
        "segdeploy.families.mask2former_deployed",
        "segdeploy.families.mask2former_names",
        "segdeploy.families.pieces",
        "segdeploy.families.resnet",
        "segdeploy.families.segformer",
        "segdeploy.families.swin",
        "segdeploy.families.weight_files",
        "segdeploy.half",
        "segdeploy.probing",
        "segdeploy.proof",
        "segdeploy.quantize",
        "segdeploy.quantize.cover",
        "segdeploy.quantize.job",
        "segdeploy.quantize.scales",
        "segdeploy.quantize.written",
        "segdeploy.sessions.eager",
        "segdeploy.sessions.openvino",
        "segdeploy.sessions.ort",
        "segdeploy.sessions.ort_device",
        "segdeploy.sessions.taps",
    }
    assert lacking["segdeploy.sessions.ort"] == (
        "running an .onnx needs onnxruntime, which is not installed: pip install 'segdeploy[cpu]'"
    )
    assert all("pip install 'segdeploy[" in message for message in lacking.values())


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["export", "x.pth"], "export"),
        (["demo"], "export"),
        (["run", "x.onnx", "x.png"], "cpu"),
        (["bench", "x.onnx"], "cpu"),
        (["bench", "x.pth"], "export"),
        (["quantize", "x.onnx", "--images", "."], "cpu"),
        (["evaluate", "x.onnx", "--dataset", "camvid", "--root", "."], "cpu"),
    ],
)
def test_a_verb_without_its_extra_says_what_to_install(
    arguments: list[str], extra: str, tmp_path: Path
) -> None:
    (tmp_path / "x.onnx").write_bytes(b"")
    (tmp_path / "x.png").write_bytes(b"")
    for name in ("val", "valannot"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"")
    code = (
        f"import os; os.chdir({str(tmp_path)!r}); from segdeploy.cli import main; sys.exit(main({arguments}))"
    )
    done = run(code)
    assert done.returncode == 1
    assert f"pip install 'segdeploy[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
