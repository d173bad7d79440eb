"""Imports point down, and heavy packages are imported only by the files made for them."""

import ast
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "segdeploy"

# Lower first. A module may import modules of lower levels and of its own folder; no module may reach itself again.
LEVELS = [
    {"gpus", "printable", "shell", "shipped", "version"},
    {"errors"},
    {"special_files"},
    {"files", "size", "devices", "flavour", "releases", "untrusted", "machine"},
    {"given"},
    {"model", "scenes", "growing"},
    {"picture", "graph", "networks"},
    {"datasets"},
    {"run"},
    {"prove"},
    {"convert", "train", "assess", "serve"},
    {"api", "demo", "doctor", "ways"},
    {"selftest"},
    {"cli"},
    {"__main__"},
]
# Folders of one level that may import each other all the same, and why.
SIBLINGS: dict[tuple[str, str], str] = {
    ("train", "assess"): "what was trained is scored as `evaluate` scores it",
    ("serve", "convert"): "a folder for DeepStream holds a calibration cache, whose reader is that of INT8",
}


def name_of(path: Path, package: Path = PACKAGE) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def modules_of(package: Path) -> dict[str, Path]:
    return {name_of(path, package): path for path in sorted(package.rglob("*.py"))}


def top_of(name: str) -> str:
    return name.partition(".")[0]


def level_of(name: str) -> int:
    levels = [level for level, units in enumerate(LEVELS) if top_of(name) in units]
    assert levels, f"segdeploy.{name} has no level: add it to LEVELS"
    return levels[0]


@cache
def imported(text: str, modules: frozenset[str]) -> frozenset[str]:
    """Every segdeploy module that a module of this text imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner.partition(".")[2] in modules else node.module)
    return frozenset(name.partition(".")[2] or "__init__" for name in found if top_of(name) == "segdeploy")


def arrows_of(package: Path) -> dict[str, frozenset[str]]:
    """Module to the modules it imports. The front door names what is above it, and loads that on demand."""
    modules = modules_of(package)
    names = frozenset(modules)
    return {name: imported(path.read_text(), names) for name, path in modules.items() if name != "__init__"}


def upward(arrows: dict[str, frozenset[str]]) -> list[str]:
    found = []
    for name, others in arrows.items():
        for other in others - {"__init__"}:
            pair = top_of(name), top_of(other)
            if pair[0] != pair[1] and pair not in SIBLINGS and level_of(other) >= level_of(name):
                found.append(f"segdeploy.{name} imports segdeploy.{other}")
    return sorted(found)


def circles(arrows: dict[str, frozenset[str]]) -> list[str]:
    """The modules that reach themselves by their imports, inside a folder too."""
    reached = {name: set(others) for name, others in arrows.items()}
    for middle in arrows:
        for others in reached.values():
            if middle in others:
                others |= reached[middle]
    return sorted(name for name, others in reached.items() if name in others)


@pytest.mark.slow
def test_imports_point_down() -> None:
    assert upward(arrows_of(PACKAGE)) == []


def test_nothing_imports_the_front_door() -> None:
    assert [name for name, others in arrows_of(PACKAGE).items() if "__init__" in others] == []


def test_no_module_reaches_itself() -> None:
    assert circles(arrows_of(PACKAGE)) == []


@pytest.mark.parametrize(
    ("name", "planted", "upwards", "circled"),
    [
        ("size", "from segdeploy.cli import main", ["segdeploy.size imports segdeploy.cli"], ["cli", "size"]),
        ("run.ort", "from segdeploy.convert import export", ["segdeploy.run.ort imports segdeploy.convert.export"], []),
        ("run.io", "from segdeploy.run.session import Session", [], ["run.io", "run.session"]),
        ("serve.stream.live", "def later():\n    import segdeploy.assess.report.page",
         ["segdeploy.serve.stream.live imports segdeploy.assess.report.page"], []),
    ],
)  # fmt: skip
def test_a_planted_import_is_caught(name, planted, upwards, circled, tmp_path) -> None:
    package = tmp_path / "segdeploy"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.pyc", "shipped_data"))
    path = package.joinpath(*name.split(".")).with_suffix(".py")
    path.write_text(f"{path.read_text()}\n{planted}\n")
    arrows = arrows_of(package)
    assert upward(arrows) == upwards
    assert set(circled) <= set(circles(arrows))


HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "transformers",
    "tensorrt",
    "tensorrt_rtx",
    "cv2",
    "av",
    "rich",
)


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*(name for name in {HEAVY} if name in sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_importing_segdeploy_costs_numpy_only() -> None:
    assert loaded_by("import segdeploy") == set()


@pytest.mark.slow
def test_help_loads_nothing_heavy() -> None:
    statement = "import segdeploy.cli; segdeploy.cli.parser().format_help()"
    assert loaded_by(statement) == set()
