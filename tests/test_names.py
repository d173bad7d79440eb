"""Names and sizes: a name stands in one module, a file says what is in it, and a docstring is a sentence."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "segdeploy"

# Functions that several modules must have, because a table calls them by that name.
CONTRACTS = {
    "describe": "a verb's arguments: one function in the module of each verb",
    "execute": "a verb's work: one function in the module of each verb",
    "check": "a rule of the lint: one function in each of its modules",
    "evaluate": "the front door's function, and the one that does it",
    "open_session": "the front door's function, which proves and takes what was tuned, and the one that opens",
    "measure": "the front door's function, and the one that does it",
    "quantize": "the front door's function, and the one that does it",
    "finetune": "the front door's function, and the one that does it",
    "distil": "the front door's function, and the one that does it",
    "read": "a family's reading of a checkpoint: one function in each family's folder",
    "build": "a family's published network: one function in each family's folder",
    "deploy": "a family's network for devices: one function in each family's folder",
    "main": "where a program starts: the command line, and the two scripts that run in processes of their own",
    "show": "a verb's printing of what was done: one function in the module of each verb that has it",
}
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "core", "misc"}
MOST_LINES = 400
# Docstrings that begin so are fragments.
FRAGMENT = re.compile(r"(What|Of|Whether|How|As|Where|Which|Those)\b")


def modules(package: Path) -> dict[str, ast.Module]:
    paths = sorted(package.rglob("*.py"))
    return {path.relative_to(package).as_posix(): ast.parse(path.read_text()) for path in paths}


def names_in_many(package: Path) -> dict[str, set[str]]:
    """Functions and classes that more than one module defines at its top level, with those modules."""
    homes = defaultdict(set)
    for path, tree in modules(package).items():
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                homes[node.name].add(path)
    return {name: paths for name, paths in homes.items() if len(paths) > 1}


def fragments(package: Path) -> list[str]:
    found = []
    for path, tree in modules(package).items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                text = ast.get_docstring(node) or ""
                if FRAGMENT.match(text):
                    found.append(f"{path}: {text.splitlines()[0]}")
    return found


@pytest.mark.slow
def test_a_top_level_name_stands_in_one_module():
    found = names_in_many(PACKAGE)
    assert {name: sorted(paths) for name, paths in found.items() if name not in CONTRACTS} == {}
    assert set(found) >= set(CONTRACTS), "a contract that is kept in one place only needs no line here"


def test_no_file_is_called_by_what_it_is_not():
    names = {path for path in PACKAGE.rglob("*") if path.stem.strip("_") in NO_NAMES}
    assert names == set()


def test_no_module_is_long():
    lines = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert {path: n for path, n in lines.items() if n > MOST_LINES} == {}


@pytest.mark.slow
def test_a_docstring_is_a_sentence():
    assert fragments(PACKAGE) == []


@pytest.mark.parametrize(
    ("text", "names", "begun"),
    [
        ("def one(): ...\nclass Two: ...", {}, 0),
        ("def one(): ...\ndef other(): ...", {"other": {"a.py", "b.py"}}, 0),
        ("class C:\n    def other(self): ...", {}, 0),
        (
            '"""Which it is."""\ndef f():\n    """Of those."""\n    def g():\n        """Ofttimes true."""',
            {},
            2,
        ),
    ],
)
def test_what_is_planted_is_found(text, names, begun, tmp_path):
    (tmp_path / "a.py").write_text("def other(): ...\n")
    (tmp_path / "b.py").write_text(text)
    assert names_in_many(tmp_path) == names
    assert len(fragments(tmp_path)) == begun
