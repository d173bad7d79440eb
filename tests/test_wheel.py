"""What a user installs: the wheel alone, in an empty environment."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "build",
        "--outdir",
        str(out),
        str(ROOT),
    ]  # the sdist, and the wheel from it
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(out.glob("*.whl"))


def test_only_segdeploy_is_installed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"segdeploy"}
    shipped = "segdeploy/shipped_data/benchmarks"
    for name in (f"{shipped}/devices.yaml", f"{shipped}/reference/ngc-segformer-cityscapes.yaml"):
        assert name in names
    assert {"segdeploy/assess/report/page.css", "segdeploy/assess/report/page.js"} <= set(names)
    assert {f"segdeploy/serve/stream/page.{kind}" for kind in ("html", "css", "js")} <= set(names)


def test_it_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel]
    subprocess.run(install, check=True, capture_output=True)
    script = tmp_path / "venv" / "bin" / "segdeploy"
    listed = subprocess.run([script, "models"], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert "segformer-b0-demo" in listed.stdout
    code = "from segdeploy.shipped import folder; print((folder('models') / 'demo-b0/model.safetensors').is_file())"
    found = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout.strip() == "True"
    refused = subprocess.run(
        [script, "export", "x.pth"], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert refused.returncode == 1
    assert refused.stderr == (
        "segdeploy: exporting needs onnxscript, which is not installed: pip install 'segdeploy[export]'\n"
    )
