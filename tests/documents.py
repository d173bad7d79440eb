"""The pages of the documentation: their blocks, which are run on one desk, and the anchors that their headings make."""

import contextlib
import io
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from segdeploy.cli import main, parser
from segdeploy.cli.settings import parse_words

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r'^( *)```(\w+)(?: title="([^"]*)")?\n(.*?)^\1```$', re.MULTILINE | re.DOTALL)
PRINTED = "printed"  # the title of a block that shows what the page's commands printed
NEEDS = "needs "  # how the title of a block begins that this machine cannot run


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    text: str

    @property
    def is_run(self) -> bool:
        return not self.title.startswith(NEEDS)

    @property
    def commands(self) -> list[str]:
        lines = re.sub(r"\s*\\\n\s*", " ", self.text).splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks_of(page: str) -> list[Block]:
    return [Block(language, title, textwrap.dedent(text)) for _, language, title, text in FENCE.findall(page)]


def all_pages() -> list[Path]:
    """README.md first, then docs/ in order."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors_of(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    prose = re.sub(r"^( *)```.*?^\1```$", "", page, flags=re.MULTILINE | re.DOTALL)
    seen: dict[str, int] = {}
    anchors = set()
    for heading in re.findall(r"^#+ +(.+?) *$", prose, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = seen.get(slug, 0)
        anchors.add(f"{slug}-{count}" if count else slug)
        seen[slug] = count + 1
    return anchors | set(re.findall(r'<a id="([^"]+)"', page))


@dataclass
class Desk:
    """A folder with what the pages name, and what their commands have made there. A command is run once."""

    folder: Path
    printed: dict[str, str] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)

    def run(self, command: str) -> str:
        """Run a command of a page, or take what it printed when another page had it."""
        if command not in self.printed:
            before = self._files()
            name, *arguments = shlex.split(command)
            assert name == "segdeploy", f"{command}: only segdeploy is run; give the block title='{NEEDS}…'"
            self.printed[command] = said(arguments, command)
            new = {path for path, time in self._files().items() if before.get(path) != time}
            self.made_by |= dict.fromkeys(new, command)
        return self.printed[command]

    def run_python(self, code: str) -> str:
        if code not in self.printed:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(code, {"__name__": "__main__"})
            self.printed[code] = out.getvalue()
        return self.printed[code]

    def demand_own_files(self, command: str, earlier: list[str]) -> None:
        """A page stands alone: what its commands read of what was made was made on it."""
        for word in shlex.split(command):
            maker = self.made_by.get(word)
            assert maker is None or maker == command or maker in earlier, (
                f"{command}: {word} is made by another page's command; put it on this page too: {maker}"
            )

    def _files(self) -> dict[str, float]:
        return dict(files_under(self.folder))


def files_under(folder: Path) -> Iterator[tuple[str, float]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.stat().st_mtime_ns


def said(arguments: list[str], command: str) -> str:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    assert status == 0, f"{command}\n{err.getvalue()}"
    return out.getvalue() + err.getvalue()


def demand_words_of_ours(command: str) -> None:
    """A command that cannot be run here is at least one that the command line takes, up to a pipe."""
    if command.startswith("segdeploy ") and "…" not in command:
        parse_words(parser(), shlex.split(command.partition(" | ")[0])[1:], {})


def lines_missing(shown: str, printed: list[str]) -> list[str]:
    """List what a page shows and its commands did not print; numbers and spaces may differ, … is anything."""
    said_here = [in_general(line) for text in printed for line in text.splitlines()]
    return [
        line for line in shown.splitlines() if line and not any(map(pattern_of(line).fullmatch, said_here))
    ]


def in_general(line: str) -> str:
    return " ".join(re.sub(r"[-+]?[0-9]+(?:[.,][0-9]+)*(?:e-?[0-9]+)?", "#", line).split())


def pattern_of(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, in_general(line).split("…"))))
