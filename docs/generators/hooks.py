"""Fills the pages of the site when mkdocs builds it: reference from the code, and the repository's own pages.

What a page links to outside docs/ is taken into the site below repository/, with what that links to.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads a hook as a lone file

from generated import generated
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TAKEN_IN = "repository"  # where the site has what lies outside docs/
LINK = re.compile(r"(\]\(|src=\")([^)\s\"#]+)")


def links_of(text: str) -> list[str]:
    targets = [target for _, target in LINK.findall(text)]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def file_behind(page: Path, target: str) -> Path:
    """Find the file that a link of `page` names; a folder is its README."""
    path = Path(os.path.normpath(page.parent / target))
    return path / "README.md" if path.is_dir() else path


def outside_files(in_menu: Iterable[str] = ()) -> list[Path]:
    """List what the menu names and the pages link to outside docs/, and what those files link to in turn."""
    found = [ROOT / Path(page).relative_to(TAKEN_IN) for page in in_menu]
    waiting = [*sorted(DOCS.rglob("*.md")), *found]
    while waiting:
        page = waiting.pop()
        for target in links_of(generated(page.read_text(encoding="utf-8"))):
            path = file_behind(page, target)
            if not path.is_relative_to(DOCS) and path not in found and path.is_file():
                found.append(path)
                waiting += [path] if path.suffix == ".md" else []
    return sorted(found)


def outside_in(menu: Any) -> list[str]:
    """List the pages below TAKEN_IN that the menu of mkdocs.yml names."""
    if isinstance(menu, str):
        return [menu] if menu.startswith(f"{TAKEN_IN}/") else []
    return [page for part in (menu.values() if isinstance(menu, dict) else menu) for page in outside_in(part)]


def place_in_site(path: Path) -> Path:
    return path.relative_to(DOCS) if path.is_relative_to(DOCS) else TAKEN_IN / path.relative_to(ROOT)


def relinked(text: str, page: Path) -> str:
    """Lead the links of the file `page` to where the site has what they name."""
    here = place_in_site(page).parent

    def lead(found: re.Match[str]) -> str:
        before, target = found.groups()
        if re.match(r"[a-z]+:", target):
            return found[0]
        path = file_behind(page, target)
        return before + os.path.relpath(place_in_site(path), here) if path.is_file() else found[0]

    return LINK.sub(lead, text)


# ---- what mkdocs calls -----------------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Put a page that the menu does not name at the end of its folder's part."""
    named = str(config["nav"])
    for path in sorted(DOCS.rglob("*.md")):
        place = path.relative_to(DOCS).as_posix()
        if f"'{place}'" in named:
            continue
        for pages in (pages for part in config["nav"] for pages in part.values()):
            if any(isinstance(page, str) and Path(page).parent == Path(place).parent for page in pages):
                pages.append(place)
                break
    return config


def on_files(files: Files, config: Any) -> Files:
    for path in outside_files(outside_in(config["nav"])):
        files.append(File.generated(config, place_in_site(path).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    path = Path(page.file.abs_src_path)
    return relinked(generated(markdown), path)
