"""Imports point down, and heavy packages are imported only by the files made for them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "segdeploy"

# Lower first. A module may import modules of lower levels, and of its own package.
LEVELS = [
    {"errors", "shipped", "__init__"},
    {"files", "size", "flavour"},
    {"labels", "tensorrt_log"},
    {"card", "image", "agreement", "scenes"},
    {"segmentation", "signature", "video"},
    {"record"},
    {"families", "graph", "sessions", "evaluate.confusion"},
    {"proof", "probing"},
    {"export", "stream", "evaluate", "calibrate", "deepstream"},
    {"quantize", "half", "engine", "doctor", "sessions.eager"},
    {"deploy", "bench"},
    {"demo"},
    {"report"},
    {"cli"},
    {"__main__"},
]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def level_of(name: str) -> int:
    known = [(len(unit), level) for level, units in enumerate(LEVELS) for unit in units if covers(unit, name)]
    assert known, f"segdeploy.{name} has no level: add it to LEVELS"
    return max(known)[1]


def covers(unit: str, name: str) -> bool:
    return name == unit or name.startswith(unit + ".")


def top_of(name: str) -> str:
    return name.partition(".")[0]


def imported(path: Path) -> set[str]:
    """Every segdeploy module that `path` imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = PACKAGE.parent.joinpath(*node.module.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                found.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return {name.partition(".")[2] or "__init__" for name in found if name.split(".")[0] == "segdeploy"}


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    name = name_of(path)
    if name == "__init__":  # the front door: it names what is above it, and loads that on demand
        return
    for other in imported(path):
        if top_of(other) != top_of(name):
            assert level_of(other) < level_of(name), f"segdeploy.{name} imports segdeploy.{other}"


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


def test_help_loads_nothing_heavy() -> None:
    statement = "import segdeploy.cli; segdeploy.cli.parser().format_help()"
    assert loaded_by(statement) == set()


def test_a_planted_upward_import_is_caught(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(
        "from segdeploy import export\nfrom segdeploy.cli import main\nimport segdeploy.size\n"
    )
    assert imported(planted) == {"export", "cli", "size"}
    assert level_of("cli") > level_of("export") > level_of("size")
