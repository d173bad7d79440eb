"""Finds what is wrong with a configuration before a device sees it: each finding with its line and its remedy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from segdeploy.errors import DeepStreamError, GraphError
from segdeploy.graph.load import Graph, read_graph
from segdeploy.releases import rendered_release, rendered_versions
from segdeploy.serve.deepstream import (
    lint_app,
    lint_meaning,
    lint_model,
    lint_output,
    lint_reports,
    lint_text,
)
from segdeploy.serve.deepstream.app import lint as lint_deepstream_app
from segdeploy.serve.deepstream.app import lint_settings
from segdeploy.serve.deepstream.config import NvinferConfig, form_of, read_text
from segdeploy.serve.deepstream.document import Document, read_document
from segdeploy.serve.deepstream.findings import Case, Finding
from segdeploy.special_files import is_file


def lint(
    path: Path, model: Path | None = None, version: str | None = None, *, strict: bool = False
) -> list[Finding]:
    """List findings in the order of their lines. `version` None: the one the file says it is for, else the newest.

    `model` None: the configuration's own onnx-file. Advice is left out unless `strict` asks for it.
    """
    return [one for one in all_findings(path, model, version) if strict or not one.is_advice]


def all_findings(path: Path, model: Path | None, version: str | None) -> list[Finding]:
    if version is not None:
        rendered_release(version)
    try:
        text = read_text(path)
    except DeepStreamError as error:
        if not is_file(path):
            raise
        return [Finding("not-text", 1, str(error), "write it as UTF-8 text")]
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        return [
            Finding("nul-byte", line, "it holds a NUL byte, where nvinfer stops reading", "remove the byte")
        ]
    if path.suffix == ".json":
        return in_order(lint_settings.check(path))
    return lint_document(path, read_document(text, form_of(path)), model, version)


def lint_document(path: Path, document: Document, model: Path | None, version: str | None) -> list[Finding]:
    config = NvinferConfig(path, document)
    version = version or config.made_for or rendered_versions()[-1]
    groups = {name for name, _ in document.groups}
    if lint_deepstream_app.is_for_deepstream_app(groups):
        return in_order(lint_deepstream_app.check(config, version))
    if "primary-gie" in groups and "property" not in groups and document.form == "yml":
        return in_order(lint_app.check(config, version))
    found = list(lint_text.check(config, version))
    if document.problems or "property" not in groups:
        return in_order(found)  # nvinfer reads no further either
    graph = None
    try:
        graph = graph_named(config, model)
    except GraphError as error:
        remedy = "give a graph of segdeploy's: segdeploy export CHECKPOINT"
        found.append(Finding("graph-not-understood", config.line("onnx-file"), f"onnx-file: {error}", remedy))
    case = Case(config, version)
    found += lint_meaning.check(case)
    found += lint_output.check(case)
    if graph:
        found += lint_model.check(case, graph)
        found += lint_reports.check(case, graph)
    return in_order(found)


def graph_named(config: NvinferConfig, model: Path | None) -> Graph | None:
    if model is not None:
        return read_graph(model, weights=False)
    own = config.file("onnx-file")
    return read_graph(own, weights=False) if own and is_file(own) else None


def in_order(found: Iterable[Finding]) -> list[Finding]:
    return sorted(found, key=lambda finding: finding.line)
