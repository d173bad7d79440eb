"""Makes one HTML file from segdeploy's files in a folder; it loads nothing, so it can be opened or sent anywhere."""

from __future__ import annotations

from pathlib import Path

from segdeploy.assess.report.findings import Findings, look_into
from segdeploy.assess.report.page import page_of, readable
from segdeploy.files import write_text


def write_report(folder: Path, output: Path) -> Path:
    return write_page(readable(look_into(folder)), output)


def write_page(findings: Findings, output: Path) -> Path:
    write_text(output, page_of(findings))
    return output
