"""The documentation's commands run, and its links exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import clips
import cv2
import onnx
import pytest
import torch
from test_adopt import logits

from segdeploy import scenes
from segdeploy.cli import main, parser

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path for path in ROOT.glob("**/*.md") if not {".venv", "demo-out"} & set(path.relative_to(ROOT).parts)
)
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with what the README's commands name."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "models").symlink_to(ROOT / "models")
    (folder / "images").mkdir()
    for seed, name in enumerate(("street.jpg", *(f"images/{letter}.png" for letter in "abcdefgh"))):
        cv2.imwrite(str(folder / name), scenes.make_scene(seed, 128, 256).image)
    for name in ("street.mp4", "night.mp4"):
        clips.write_clip(folder / name, clips.every_40_ms(5))
    scenes.write_cityscapes(folder / "cityscapes", 2, seed=900_000_000)
    onnx.save(logits().raised().model(), folder / "theirs.onnx")
    (folder / "network.py").write_text("import torch\ndef make(): return torch.nn.Conv2d(3, 5, 4, 4)\n")
    torch.save(torch.nn.Conv2d(3, 5, 4, 4).state_dict(), folder / "best.pth")
    (folder / "classes.txt").write_text("road\nkerb\nsky\ncar\nbus\n")
    return folder


@pytest.mark.slow
def test_the_commands_run(desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    commands = [line for block in blocks("console") for line in block.splitlines()]
    assert len(commands) >= 4
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "segdeploy"
        parser().parse_args(arguments)
        if "nvidia/" in command or "segformer-b0-cityscapes." in command:  # needs a download
            continue
        assert main(arguments) == 0, capsys.readouterr().err
    assert (desk / "out/a.overlay.png").is_file()
    done = subprocess.run(
        [sys.executable, "-c", *blocks("python")], cwd=desk, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(128, 256) {'")


def test_the_python_way_is_four_lines():
    (code,) = blocks("python")
    assert len(code.splitlines()) == 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_exist(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_map_has_every_folder_of_the_package():
    folders = {path.parent.name for path in (ROOT / "segdeploy").glob("*/__init__.py")}
    assert (
        set(re.findall(r"^\| `(\w+)/` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)) == folders
    )


def test_every_folder_says_what_it_is():
    for folder in ("models", "calibration", "deepstream", "benchmarks", "docker", "tests"):
        lines = (ROOT / folder / "README.md").read_text().splitlines()
        assert 3 <= len(lines) <= 60
