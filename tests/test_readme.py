"""The documentation's commands run, and its links exist."""

import json
import re
from pathlib import Path

import clips
import cv2
import mmseg_checkpoint
import onnx
import pytest
import torch
from documents import (
    PRINTED,
    Desk,
    all_pages,
    anchors_of,
    blocks_of,
    demand_words_of_ours,
    lines_missing,
)
from generated import generated
from test_adopt import logits

from segdeploy import scenes

ROOT = Path(__file__).parent.parent
MADE = {".venv", ".venv-triton", "demo-out"}
PAGES = sorted(path for path in ROOT.glob("**/*.md") if not MADE & set(path.relative_to(ROOT).parts))
README = (ROOT / "README.md").read_text()

FIVE = """images: leftImg8bit/{split}
labels: gtFine/{split}
image_ending: _leftImg8bit.png
label_ending: _gtFine_labelIds.png
ids: {7: ground, 8: ground, 11: building, 12: building, 13: building, 17: building, 19: building, 20: building,
  21: plants, 22: plants, 23: sky, 24: traffic, 25: traffic, 26: traffic, 27: traffic, 28: traffic, 31: traffic,
  32: traffic, 33: traffic,
  0: ignore, 255: ignore}
"""


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with what the pages' commands name."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "models").symlink_to(ROOT / "models")
    (folder / "images").mkdir()
    for seed, name in enumerate(("street.jpg", *(f"images/{letter}.png" for letter in "abcdefgh"))):
        cv2.imwrite(str(folder / name), scenes.make_scene(seed, 256, 512).image)
    for name in ("street.mp4", "night.mp4"):
        clips.write_clip(folder / name, clips.every_40_ms(5))
    scenes.write_cityscapes(folder / "cityscapes", 2, seed=900_000_000)
    onnx.save(logits().raised().model(), folder / "theirs.onnx")
    (folder / "network.py").write_text("import torch\ndef make(): return torch.nn.Conv2d(3, 5, 4, 4)\n")
    torch.save(torch.nn.Conv2d(3, 5, 4, 4).state_dict(), folder / "best.pth")
    (folder / "classes.txt").write_text("road\nkerb\nsky\ncar\nbus\n")
    mmseg_checkpoint.write(folder / "mine.pth", "pspnet_r18-d8")
    scenes.write_cityscapes(folder / "cityscapes", 16, 950_000_000, "train", 256, 512)
    for split, seed, count in (("train", 300, 12), ("val", 800, 4)):
        scenes.write_cityscapes(folder / "harbour", count, seed, split, 128, 256)
    (folder / "harbour/five.yaml").write_text(FIVE)
    return Desk(folder)


# Whose commands other tests run too, one by one; they take half of the pages' time.
LONG = {
    f"docs/{page}.md"
    for page in (
        "how-to/accuracy",
        "how-to/archives",
        "how-to/engines",
        "how-to/tune",
        "how-to/deepstream",
        "how-to/formats",
        "how-to/int8",
        "tutorials/int8",
        "how-to/watch",
        "tutorials/own-classes",
        "tutorials/four-cameras",
    )
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.thorough] if name_of(page) in LONG else [])
        for page in all_pages()
    ],
    ids=name_of,
)
def test_the_blocks_run(page, desk, monkeypatch):
    """Each console and Python block, in order; one whose title says what it needs is held against the parser."""
    monkeypatch.chdir(desk.folder)
    earlier = []
    for block in blocks_of(page.read_text()):
        if block.language == "console":
            for command in block.commands:
                demand_words_of_ours(command)
                if block.is_run and not needs_a_download(command):
                    desk.run(command)
                    desk.demand_own_files(command, earlier)
                    earlier.append(command)
        elif block.language == "python":
            compile(block.text, page.name, "exec")
            if block.is_run:
                desk.run_python(block.text)
        elif block.title.endswith(".yaml"):
            (desk.folder / block.title).write_text(block.text)
        elif block.title == PRINTED:
            missing = lines_missing(block.text, [desk.printed[command] for command in earlier])
            assert not missing, f"{page.name} shows what is not printed: {missing}"


@pytest.mark.slow
@pytest.mark.thorough  # tests/test_api.py runs its programs
def test_the_notebook_runs(desk, monkeypatch, capsys):
    """Its cells, one after the other, as a kernel would have them; the file holds no output of somebody's machine."""
    monkeypatch.chdir(desk.folder)
    notebook = json.loads((ROOT / "docs/tutorials/first-look.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 4
    names = {"__name__": "__main__"}
    for cell in cells:
        assert cell["outputs"] == []
        exec("".join(cell["source"]), names)
    assert "of the pixels have the same class in INT8" in capsys.readouterr().out
    assert names["agreement"] > 0.95
    assert (desk.folder / "first-look/first-look.png").is_file()


def needs_a_download(command):
    return "nvidia/" in command or "segformer-b0-cityscapes." in command


def test_the_readme_runs_something():
    blocks = blocks_of(README)
    commands = [line for block in blocks if block.language == "console" for line in block.commands]
    assert len([one for one in commands if not needs_a_download(one)]) >= 2


def test_a_block_that_is_not_run_says_what_it_needs():
    """Any other title is a caption, and a fence that nobody would run says so by its language."""
    for page in all_pages():
        text = page.read_text()
        fences = re.findall(r"^ *```(\S.*)$", text, re.MULTILINE)
        languages = {fence.split()[0] for fence in fences}
        assert languages <= {"console", "python", "text", "yaml", "json", "ini", "bash", "sh"}, page
        assert len(blocks_of(text)) == len(fences), f"{page.name} has a fence that cannot be read"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    """Relative links, and the headings that they name; addresses elsewhere are not asked for."""
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        named = page.parent / path if path else page
        assert named.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors_of(generated(named.read_text())), (
                f"{page.name} links to {target}, which has no such heading"
            )


def test_the_map_has_every_folder_of_the_package():
    folders = {path.parent.name for path in (ROOT / "segdeploy").glob("*/__init__.py")}
    assert (
        set(re.findall(r"^\| `(\w+)/` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)) == folders
    )


def test_every_folder_says_what_it_is():
    for folder in ("models", "calibration", "deepstream", "benchmarks", "docker", "tests"):
        lines = (ROOT / folder / "README.md").read_text().splitlines()
        assert 3 <= len(lines) <= 60
