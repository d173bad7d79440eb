"""One HTML file of what segdeploy left in a folder, to be opened from a disk and handed on: nothing is loaded."""

from __future__ import annotations

from pathlib import Path

from segdeploy.files import write_text
from segdeploy.measure.report.findings import look_into
from segdeploy.measure.report.page import page_of


def write_report(folder: Path, output: Path) -> Path:
    write_text(output, page_of(look_into(folder)))
    return output
