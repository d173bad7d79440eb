"""What a user installs: the wheel alone, in an empty environment."""

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from segdeploy import scenes
from segdeploy.demo import write_clip

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
    data = "segdeploy/shipped_data"
    assert {f"{data}/models/demo-b0/graphs.tar.xz", f"{data}/selftest/graphs.tar.xz"} <= set(names)
    assert "segdeploy/model/known-bad.yaml" in names
    assert not [name for name in names if name.endswith((".safetensors", "train.py"))]
    assert {"segdeploy/assess/report/page.css", "segdeploy/assess/report/page.js"} <= set(names)
    assert {f"segdeploy/serve/stream/page.{kind}" for kind in ("html", "css", "js")} <= set(names)


def test_it_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= 8_000_000


@pytest.mark.thorough
def test_it_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel]
    subprocess.run(install, check=True, capture_output=True)
    script = tmp_path / "venv" / "bin" / "segdeploy"
    listed = subprocess.run([script, "models"], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert "segformer-b0-demo" in listed.stdout
    (tmp_path / "x.pth").write_bytes(b"")
    refused = subprocess.run(
        [script, "export", "x.pth"], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert refused.returncode == 1
    assert refused.stderr == (
        "segdeploy: exporting needs torch, which is not installed: pip install 'segdeploy[export]'\n"
    )


@pytest.mark.thorough
def test_two_commands_segment_a_clip(wheel: Path, tmp_path: Path) -> None:
    """`pip install 'segdeploy[cpu]'` and `segdeploy run demo-b0 CLIP`: neither PyTorch nor a download."""
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / "bin"
    install = [scripts / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, f"{wheel}[cpu]"], check=True, capture_output=True)
    street = tmp_path / "street.mp4"
    write_clip(street, [scene.image for scene in scenes.make_clip(900_000_000, 3, 128, 256)])
    environment = {"PATH": str(scripts), "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    run: dict[str, Any] = {
        "env": environment,
        "cwd": tmp_path,
        "capture_output": True,
        "text": True,
        "check": True,
    }
    subprocess.run([scripts / "segdeploy", "run", "demo-b0", street, "-o", "seen.mp4"], **run)
    assert (tmp_path / "seen.mp4").stat().st_size > 1000
    told = subprocess.run([scripts / "segdeploy", "selftest", "--json"], **run).stdout
    outcomes = json.loads(told)["outcomes"]
    assert {(one["runtime"], one["result"]) for one in outcomes} == {("cpu", "agrees")}
    listed = subprocess.run([scripts / "python", "-m", "pip", "list", "--format=freeze"], **run).stdout
    assert "torch==" not in listed
