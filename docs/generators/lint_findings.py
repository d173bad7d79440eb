"""Makes the table of the lint's findings from its rules: what each says, the remedy, and where the rule comes from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from segdeploy.serve.deepstream.findings import ADVICE

ROOT = Path(__file__).parents[2]
RULES = ROOT / "segdeploy/serve/deepstream"
TRAPS = ROOT / "tests/traps"
NVINFER = "nvinfer's public sources, 6.0 to 6.3, 9.0 and 9.1"
# Where the rules of a module come from, and what they look at.
SOURCES = {
    "lint.py": ("The file itself", f"{NVINFER}: GLib's and yaml-cpp's reading of it"),
    "lint_text.py": (
        "What nvinfer reads",
        f"{NVINFER}: gstnvinfer_property_parser and the YAML parser beside it",
    ),
    "lint_meaning.py": (
        "What nvinfer does with it",
        f"{NVINFER}: nvdsinfer_context_impl, nvdsinfer_model_builder; the files that lie there",
    ),
    "lint_output.py": (
        "Who makes a class map of the output",
        "NVIDIA's segmentation parsers (nvdsinfer_customparser, tao_apps' post_processor), and nvsegvisual",
    ),
    "lint_model.py": (
        "Whether it computes what was proven",
        "the graph at hand: its metadata, types and shapes, as `export` compared them",
    ),
    "lint_reports.py": (
        "What its TensorRT is reported to do wrongly",
        "public reports, listed in [known to be wrong](known-bad.md)",
    ),
    "lint_app.py": (
        "ds-tao-segmentation's file",
        "NVIDIA's tao_apps: ds-tao-segmentation and nvds_yml_parser",
    ),
    "app/lint.py": (
        "deepstream-app's file",
        "NVIDIA's public parsers of deepstream-app, 9.0 and 9.1: deepstream_config_file_parser",
    ),
    "app/lint_together.py": (
        "What the groups of that file need of each other",
        "NVIDIA's public sources of deepstream-app, 9.1: its bins of sources, muxer, sinks and segvisual",
    ),
    "app/lint_settings.py": (
        "The settings of segdeploy's own application",
        "the reader in `deepstream/app`, which reads them on the box, and the files that they name",
    ),
}

CHOSEN = {  # where a rule's code is in a variable
    "kind": ("unknown-key", "wrong-type", "out-of-range"),
    "code": ("labels-too-few", "labels-too-many"),
}
SAID = {  # where the whole message is made elsewhere
    "wrong-setting": "‹setting› is missing, unknown, of another type, or out of its range",
    "not-text": "it is not UTF-8 text, or too large to be a configuration",
    "graph-not-understood": "the graph cannot be read, or its inputs and outputs are not understood",
    "syntax": "a line is neither a group, nor a key with a value, nor a comment",
    "deprecated-key": "‹key› is deprecated, or is not read from a .yml",
    "other-version": "‹key› came with a later DeepStream, or does nothing in this one any more",
    "unknown-key": "‹key› is no key of its group: nvinfer prints a line and goes on",
    "wrong-type": "‹key› is ‹value›, which nvinfer refuses or misreads",
    "out-of-range": "‹key› is ‹value›, which nvinfer refuses or makes nonsense of",
}


class Rule(NamedTuple):
    code: str
    what: str
    remedy: str


def page() -> str:
    return "\n".join(sections())


def sections() -> Iterator[str]:
    for name, (title, source) in SOURCES.items():
        yield f"## {title}\n\nSource: {source}.\n"
        yield "| finding | what it says | remedy |\n|---|---|---|"
        for rule in rules_of(RULES / name):
            yield f"| {named(rule.code)} | {cell(rule.what)} | {cell(rule.remedy)} |"
        yield ""


def named(code: str) -> str:
    """Give the code, with its trap: a configuration that is good but for this."""
    traps = sorted(TRAPS.glob(f"{code}.*"))
    advice = " (`--strict`)" if code in ADVICE else ""
    return f"[`{code}`](../../tests/traps/{traps[0].name}){advice}" if traps else f"`{code}`{advice}"


def rules_of(path: Path) -> list[Rule]:
    """Read the findings that a module makes, one for each code, in its order."""
    found: dict[str, Rule] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
            for code in codes_of(node.args[0]):
                found.setdefault(code, Rule(code, SAID.get(code) or words(node.args[2]), words(node.args[3])))
    return list(found.values())


def codes_of(node: ast.expr) -> tuple[str, ...]:
    if isinstance(node, ast.Name):
        return CHOSEN[node.id]
    if isinstance(node, ast.IfExp):
        return (*codes_of(node.body), *codes_of(node.orelse))
    return (str(ast.literal_eval(node)),)


def words(node: ast.expr) -> str:
    """Spell a message; what it fills in stands in it by its name in the code."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else filled(part.value)  # type: ignore[attr-defined]
            for part in node.values
        )
    if isinstance(node, ast.IfExp):
        return f"{words(node.body)}; or: {words(node.orelse)}"
    if isinstance(node, ast.BinOp):
        return words(node.left)
    return filled(node)


def filled(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"‹{node.attr}›"
    if isinstance(node, ast.Name):
        return f"‹{node.id}›"
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        return f"‹{node.args[0].value!s}›"
    return "…"


def cell(text: str) -> str:
    return (
        text.replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("‹", "<var>")
        .replace("›", "</var>")
        .replace("*", "\\*")
        .replace("_", "\\_")
    )
