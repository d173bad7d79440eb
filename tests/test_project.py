"""What stands about the package: the front page, the project's files, and what they say of each other."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from PIL import Image

from segdeploy.cli import VERBS
from segdeploy.version import __version__

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROJECT = (ROOT / "pyproject.toml").read_text()
HOME = "https://github.com/segdeploy/segdeploy"


def links(text):
    return re.findall(r"(?:\]\(|^\[[^]]+\]: )(\S+?)\)?$", text, re.MULTILINE) + re.findall(
        r"\]\((\S+?)\)", text
    )


def test_the_readme_is_a_front_page():
    assert len(README.splitlines()) <= 120
    assert README.index("## What has not been run") < README.index("## What it takes and gives")


def test_the_readmes_links_can_be_followed_from_pypi():
    found = links(README)
    assert len(found) > 20
    for target in found:
        assert target.startswith("https://"), target
        for prefix in (
            f"{HOME}/blob/main/",
            HOME.replace("github.com", "raw.githubusercontent.com") + "/main/",
        ):
            if target.startswith(prefix):
                assert (ROOT / target.removeprefix(prefix)).exists(), target


def test_every_link_of_the_readme_that_is_named_is_there():
    named = {name for text, name in re.findall(r"\[([^]]+)\]\[([^]]+)\]", README)}
    assert named == set(re.findall(r"^\[([^]]+)\]: ", README, re.MULTILINE))


def test_the_picture_is_an_animation_that_loads_at_once():
    path = ROOT / "pictures/loop.webp"
    assert path.stat().st_size < 1.5e6
    with Image.open(path) as picture:
        assert picture.n_frames >= 40
        assert picture.info["loop"] == 0
        assert picture.width >= 720


def test_the_version_has_its_notes():
    notes = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## {re.escape(__version__)} — \d{{4}}-\d\d-\d\d$", notes, re.MULTILINE)


def test_pythons_are_the_same_everywhere():
    stated = re.findall(r"Programming Language :: Python :: (3\.\d+)", PROJECT)
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())["jobs"]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == stated
    assert f'requires-python = ">={stated[0]}"' in PROJECT
    commands = [step["run"] for step in jobs["tests"]["steps"] if "run" in step]
    assert commands[-2:] == [".ci/run", "make test-all"]
    assert jobs["tests"]["steps"][-1]["if"] == "github.event_name == 'schedule'"


def test_the_project_has_an_address():
    urls = re.search(r"^\[project\.urls\]\n(.*?)^$", PROJECT, re.MULTILINE | re.DOTALL).group(1)
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} == set(
        re.findall(r"^(\w+) =", urls, re.MULTILINE)
    )
    assert HOME in urls


def test_constraints_pin_what_is_required():
    pinned = {
        line.partition("==")[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    required = re.search(r"^dependencies = \[(.*?)^\]", PROJECT, re.MULTILINE | re.DOTALL).group(1)
    assert {re.match(r"[\w-]+", one).group() for one in re.findall(r'"(.+?)"', required)} <= pinned


@pytest.mark.parametrize("page", ["SKILL.md", "VERSIONING.md", "selftest/README.md", "README.md"])
def test_commands_of_the_pages_are_verbs_with_flags_that_exist(page):
    text = (ROOT / page).read_text()
    found = set(re.findall(r"segdeploy ((?:[a-z-]+)(?: [^`|\n]*)?)", re.sub(r"\]\(.*?\)", "", text)))
    commands = [words for one in found if (words := one.replace("…", "X").split())[0] in VERBS]
    for verb, *words in commands:
        modules = sorted((ROOT / "segdeploy/cli").glob(f"{verb.replace('-', '_')}*.py"))
        parser_text = "".join(module.read_text() for module in modules)
        for word in words:
            if word.startswith("--") and verb != "deepstream":
                flag = shlex.split(word)[0].rstrip(",.;:)")
                source = parser_text + (ROOT / "segdeploy/cli/arguments.py").read_text()
                source += (ROOT / "segdeploy/cli/model_argument.py").read_text()
                source += (ROOT / "segdeploy/cli/settings.py").read_text()
                source += (
                    (ROOT / "segdeploy/cli/calibration_arguments.py").read_text()
                    if (ROOT / "segdeploy/cli/calibration_arguments.py").exists()
                    else ""
                )
                assert f'"{flag}"' in source, (page, verb, flag)


def test_the_skill_is_one_page():
    text = (ROOT / "SKILL.md").read_text()
    facts = yaml.safe_load(text.split("---")[1])
    assert facts["name"] == "segdeploy"
    assert len(facts["description"]) < 1024
    assert len(text.splitlines()) <= 60
