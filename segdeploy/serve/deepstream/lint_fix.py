"""Writes into a configuration what its findings know for certain; what is a choice stays with its reader."""

from __future__ import annotations

from pathlib import Path

from segdeploy import files
from segdeploy.serve.deepstream.config import form_of, read_text
from segdeploy.serve.deepstream.document import read_document
from segdeploy.serve.deepstream.findings import Finding
from segdeploy.serve.deepstream.lint import lint

MOST_TURNS = 5  # a value that is corrected may show another


def fix(
    path: Path, model: Path | None = None, version: str | None = None, *, strict: bool = False
) -> tuple[list[Finding], list[Finding]]:
    """Correct `path` in its place; give what was corrected, and what is still found."""
    corrected: list[Finding] = []
    found = lint(path, model, version, strict=strict)
    for _ in range(MOST_TURNS):
        certain = [one for one in found if one.fix]
        if not certain:
            break
        document = read_document(read_text(path), form_of(path))
        for key, value in {key: value for one in certain for key, value in one.fix}.items():
            document = document.with_value("property", key, value)
        with files.replacing(path) as part:
            part.write_bytes(document.text.encode())
        corrected += certain
        found = lint(path, model, version, strict=strict)
    return corrected, found
