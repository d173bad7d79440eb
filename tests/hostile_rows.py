"""Reads the table of hostile command lines, data/hostile/*.txt, runs its rows and says which promises one has broken.

A line of the table is `STATUS | COMMAND | WORDS`, and stands for as many rows as its braces say:

    1 | inspect in/junk/{empty,blank}.onnx | has no input or no output

* STATUS is the exit status, and 1 has three kinds: `1` refuses and writes nothing, `1 some` does the rest and says what
  failed, `1 found` answers with what was looked for (lint, cache compare). `any` ends in any way that is documented.
* COMMAND is written as for a shell that expands `{a,b}`, `9**5000` (that many nines), `<dash.png>` (the good file under
  the hostile name of that kind, see NAMES in hostile_files.py) and Python's escapes (`\x1b`) in words with a backslash;
  `< FILE` is its standard input, `> FILE` its standard output. Its folder has `in`, which hostile_files.py makes, and
  `out` may be made there.
* WORDS stand in what is said. Behind a further `|` stands why the row fails today.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from hostile_files import snapshot
from hostile_server import HANGS_S, MOST_MIB, Ended, Server
from hostile_texts import NAMES

TABLE = Path(__file__).parent / "data/hostile"
DOCUMENTED = (0, 1, 2)
LONGEST = 2800  # characters of a message
# What a terminal obeys or turns around; a line break and a tab are layout.
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
ESCAPED = Path("/tmp/ESCAPED")  # where files whose names lead out of everything want to be


@dataclass(frozen=True)
class Row:
    status: str
    command: str
    words: str
    fails: str = ""  # why, today
    place: int = 0  # among the rows of its line
    line: int = 0  # among those of its file

    @property
    def exit_statuses(self) -> tuple[int, ...]:
        return DOCUMENTED if self.status == "any" else (int(self.status.split()[0]),)


def read_rows() -> list[Row]:
    return [
        row
        for path in sorted(TABLE.glob("*.txt"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines())
        if line and not line.startswith("#")
        for row in rows_of(line, number)
    ]


def rows_of(line: str, number: int) -> Iterator[Row]:
    status, command, words, *fails = (cell.strip() for cell in line.split("|"))
    for place, one in enumerate(expanded(command)):
        yield Row(status, one, words, "".join(fails), place, number)


def expanded(command: str) -> list[str]:
    """Expand the braces that have a comma in them, as a shell does."""
    parts = re.split(r"\{([^{}]*,[^{}]*)\}", command)
    choices = [part.split(",") if place % 2 else [part] for place, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*choices)]


def words_of(command: str) -> tuple[list[str], str, str | None]:
    """The words of a command, its standard input, and its standard output where that is named."""
    words = [hostile_word(word) for word in shlex.split(command)]
    places = {"<": "/dev/null", ">": ""}
    for sign in places:
        if sign in words:
            at = words.index(sign)
            places[sign] = words[at + 1]
            del words[at : at + 2]
    return words, places["<"], places[">"] or None


def hostile_word(word: str) -> str:
    if "\\" in word:
        word = word.encode("latin-1", "backslashreplace").decode("unicode_escape")
    word = re.sub(r"(.)\*\*(\d+)", lambda found: found[1] * int(found[2]), word)
    return re.sub(
        r"<([a-z-]+)\.(\w+)>", lambda found: f"in/names/{found[1]}/{NAMES[found[1]]}.{found[2]}", word
    )


class Field:
    """The folder in which rows are run, one after the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.server = Server(root.parent / "server")
        self.server.run(["--version"], root)
        self.around = [path for name in ("home", "tmp") for path in [root.parent / "server" / name]]
        self.there = {
            path for place in self.around for path in place.rglob("*")
        }  # made by libraries as they are imported
        self.before = snapshot(root / "in")

    def run(self, row: Row) -> tuple[Ended, list[str]]:
        words, standard, output = words_of(row.command)
        ended = self.server.run(words, self.root, standard, output)
        broken = [*self.told_wrongly(row, ended), *self.touched(row)]
        shutil.rmtree(self.root / "out", ignore_errors=True)
        (self.root / "out").unlink(missing_ok=True)
        return ended, broken

    def told_wrongly(self, row: Row, ended: Ended) -> Iterator[str]:
        said = ended.output + ended.error
        if ended.hung:
            yield f"it hangs for {HANGS_S:g} s"
        elif ended.status not in row.exit_statuses:
            yield f"it ends with {ended.status}, not {row.exit_statuses[0]}"
        if ended.memory_mib > MOST_MIB:
            yield f"it takes {ended.memory_mib:.0f} MiB"
        if "Traceback" in said or "fault in segdeploy" in said:
            yield "it shows a fault of ours"
        if found := RAW.search(said):
            yield f"{found[0]!r} comes through raw"
        if "s3cret" in said:
            yield "it tells a secret"
        if len(ended.error) > LONGEST:
            yield f"it says {len(ended.error)} characters"
        if row.words not in said:
            yield f"it does not say {row.words!r}"
        if row.status in ("1", "1 some"):
            lines = ended.error.splitlines()
            if not lines or (len(lines) > 2 and row.status == "1"):
                yield f"it says {len(lines)} lines"
            if not all(line.startswith("segdeploy: ") for line in lines):
                yield "it does not say who speaks"
        if row.status == "1" and ended.output:
            yield "it prints an answer"
        if row.status == "2" and not re.search(
            r"^segdeploy[\w -]*: error: .*\Z", ended.error.rstrip("\n"), re.MULTILINE
        ):
            yield "its last line is no error of usage"

    def touched(self, row: Row) -> Iterator[str]:
        after = snapshot(self.root / "in")
        if after != self.before:
            changed = {
                path for path in after.keys() | self.before.keys() if after.get(path) != self.before.get(path)
            }
            yield f"it changes {sorted(changed)[:3]}"
            self.before = after
        made = [path for path in self.root.iterdir() if path.name not in ("in", "out")]
        made += [path for place in self.around for path in place.rglob("*") if path not in self.there]
        made += [path for path in (ESCAPED,) if path.exists()]
        made = [path for path in made if not path.name.startswith("torchinductor")]  # PyTorch's own
        if made:
            yield f"it makes {made[:3]}"
        for path in made:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        out = self.root / "out"
        left = [path for path in out.rglob("*") if not path.is_dir()] if out.is_dir() else []
        left += [out] if out.is_file() else []
        if row.status in ("1", "2") and left:
            yield f"it leaves {left[:3]}"
        if hidden := [path for path in left if re.fullmatch(r"\..*\.(part|old|lock)", path.name)]:
            yield f"it leaves {hidden[:3]} behind"

    def close(self) -> None:
        self.server.close()
