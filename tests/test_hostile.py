"""Hostile command lines: each is refused in one line that says why, or does what its row says, and nothing else."""

import pytest
from hostile_files import make_files
from hostile_rows import Field, expanded, read_rows, words_of

pytestmark = pytest.mark.slow
ROWS = read_rows()
EVERY = 2  # second line of the table: its first row; the others are for `make test-all`


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile") / "field"
    root.mkdir()
    make_files(root)
    made = Field(root)
    yield made
    made.close()


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row,
            id=row.command[:90],
            marks=[
                *([pytest.mark.xfail(reason=row.fails, strict=True)] if row.fails else []),
                *([pytest.mark.thorough] if row.place or row.line % EVERY else []),
            ],
        )
        for row in ROWS
    ],
)
def test_what_is_promised_of_any_command_line(field, row):
    ended, broken = field.run(row)
    assert broken == [], ended.error[-1000:]


def test_there_are_enough_of_them():
    assert len(ROWS) >= 1800
    assert len({row.command for row in ROWS}) == len(ROWS)


def test_a_row_is_written_as_for_a_shell():
    assert expanded("run {a,b} {name} {c,}") == [
        "run a {name} c",
        "run a {name} ",
        "run b {name} c",
        "run b {name} ",
    ]
    assert words_of(r"run 'a b' 9**3 '\x1b' <dash.png> < /dev/null > /dev/full") == (
        ["run", "a b", "999", "\x1b", "in/names/dash/-rf.png"],
        "/dev/null",
        "/dev/full",
    )
