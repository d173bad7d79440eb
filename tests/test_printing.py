"""Names that somebody else has chosen are printed and not obeyed; a fault of ours ends in one line."""

import json
import re
import stat
import threading
from pathlib import Path

import pytest
from rich.table import Table

from segdeploy.cli import console, faults, main, report
from segdeploy.cli.printing import lines_in_columns, print_json, print_lines, print_message
from segdeploy.errors import GraphError, MissingExtra
from segdeploy.printable import in_brief, printable, printable_json

TITLE = "\x1b]0;x\x07"
FORGED = "a\n segdeploy: forged"
TURNED = "gepj.\u202eexe"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("Straße №5 – 4×4 …", "Straße №5 – 4×4 …"),
        (r"C:\new", r"C:\new"),
        (TITLE, r"\x1b]0;x\x07"),
        (FORGED, r"a\n segdeploy: forged"),
        (TURNED, r"gepj.\u202eexe"),
        ("\ud800 \udcff", r"\ud800 \udcff"),
        ("\x9b31m\x7f\r\t", r"\x9b31m\x7f\r\t"),
        ("a\u2028b\u2066c\u200fd", r"a\u2028b\u2066c\u200fd"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_every_character_comes_out_as_one_that_is_shown():
    for place in [*range(0x3000), *range(0xD700, 0xE100), *range(0xFE00, 0x10000), 0xE0041, 0x10FFFF]:
        said = printable(chr(place))
        assert said.isprintable()
        said.encode()


def test_a_long_text_keeps_its_beginning_and_its_end():
    assert in_brief("x" * 2000) == "x" * 2000
    said = in_brief(f"found {'x' * 200_000}; expected y")
    assert said.startswith("found xxx")
    assert said.endswith("xxx; expected y")
    assert " […198,218 characters…] " in said
    assert len(said) < 2000


def test_json_is_the_same_json():
    facts = {"a": [TITLE, FORGED, TURNED, "\ud800", "\x7f", "ä"], "b": 1.5}
    assert json.loads(printable_json(facts)) == facts
    assert re.fullmatch(r"[\n -~]+", printable_json(facts))
    assert "\n" not in printable_json(facts, None)


def test_an_error_is_safe_to_print_wherever_it_ends_up():
    error = GraphError(f"{TITLE}{FORGED} is no graph")
    assert str(error) == r"\x1b]0;x\x07a\n segdeploy: forged is no graph"
    assert str(GraphError(f"{error} either")) == f"{error} either"
    assert len(str(GraphError("x" * 200_000))) < 2000
    assert str(MissingExtra("a\x1b", "cpu", "it")).startswith(r"it needs a\x1b, which is not installed: ")


def test_lines_and_messages(capsys):
    print_lines(TITLE, "", 5)
    print_lines()
    print_message(FORGED)
    print_json({TITLE: 1})
    said = capsys.readouterr()
    assert said.out == '\\x1b]0;x\\x07\n\n5\n{\n "\\u001b]0;x\\u0007": 1\n}\n'
    assert said.err == "segdeploy: a\\n segdeploy: forged\n"
    assert lines_in_columns([("a", "bcd", ""), ("ef", "g", "h")]) == ["a   bcd", "ef  g    h"]


@pytest.mark.parametrize("terminal", [False, True])
def test_tables_take_every_word_for_what_it_is(terminal, capsys, monkeypatch):
    if terminal:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        monkeypatch.setenv("COLUMNS", "120")
    table = Table(title=f"{TITLE} of [red]x", title_justify="left")
    table.add_column("[bold]class")
    table.add_column(TURNED)
    table.add_row("[/x] :car:", FORGED)
    console.show_tables([table])
    said = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    for words in (
        r"\x1b]0;x\x07 of [red]x",
        "[bold]class",
        r"gepj.\u202eexe",
        "[/x] :car:",
        r"a\n segdeploy: forged",
    ):
        assert words in said
    assert said.replace("\n", "").isprintable()


def test_bars_take_every_word_for_what_it_is(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with console.steps() as progress:
        progress(f"[/x]{TITLE}")
    with console.counted(1, f"{{x}}[/x]{TITLE}") as advance:
        advance()
    with console.streaming() as screen:
        screen.expect(f"{{y}}[/y]{TITLE}", 3)
        screen.say(FORGED)
    said = capsys.readouterr().err
    assert r"{x}[/x]\x1b]0;x\x07" in said
    assert r"segdeploy: a\n segdeploy: forged" in said
    assert "\x1b]" not in said
    assert "\n segdeploy: forged" not in said


# ---- the command line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [[TITLE], ["models", FORGED], ["bench", "x", "--batch", TURNED], ["doctor", "--require", TITLE]]
)
def test_a_wrong_command_line_is_said_in_one_line(words, misused):
    said = misused(*words)
    assert said.startswith("segdeploy")
    assert said.isprintable()


def test_a_long_argument_is_not_said_whole(misused):
    assert len(misused("bench", "x", "--batch", "9," * 100_000)) < 2100
    assert len(misused("bench", "x", "--threads", "9" * 100_000)) < 2100
    assert len(misused("export", "x", "--size", f"{'9' * 5000}x64")) < 2100


@pytest.mark.parametrize(
    ("words", "place"),
    [(["build-engine", "x.onnx", "--target", ""], 4), (["build-engine", "x.onnx", "--target="], 3),
     (["quantize", "x.onnx", "--images", ""], 4), (["run", ""], 2), (["report", "x", "-o", ""], 4)],
)  # fmt: skip
def test_an_empty_argument_is_no_argument(words, place, misused):
    assert misused(*words) == (
        f"segdeploy: error: argument {place} is empty: {words[-1]!r}; give it a value, or leave it out"
    )


# ---- faults ------------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """`segdeploy report` with a fault in it; gives the folder for tracebacks."""
    folder = tmp_path / "kept"
    folder.mkdir()
    monkeypatch.setattr(faults.tempfile, "tempdir", str(folder))

    def execute(arguments):
        raise RuntimeError(f"no answer of rtsp://joe:s3cret@cam/x {TITLE}{FORGED}")

    monkeypatch.setattr(report, "execute", execute)
    return folder


def test_a_fault_is_one_line_and_a_traceback_in_a_private_file(broken, capsys):
    assert main(["report", "x"]) == faults.FAULT == 70
    said = capsys.readouterr()
    (kept,) = broken.iterdir()
    assert said.out == ""
    assert said.err == (
        "segdeploy: this is a fault in segdeploy, please report it: RuntimeError: no answer of rtsp://cam/x"
        rf" \x1b]0;x\x07a\n segdeploy: forged; the traceback is in {kept}" + "\n"
    )
    text = kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert text.startswith("Traceback (most recent call last):\n")
    assert "in execute\n" in text
    assert "RuntimeError: no answer of rtsp://cam/x" in text
    assert text.replace("\n", "").isprintable()


def test_a_fault_is_no_refusal(broken, refused):
    with pytest.raises(AssertionError, match="70"):
        refused("report", "x")


def test_a_traceback_that_cannot_be_kept(broken, capsys, monkeypatch):
    monkeypatch.setattr(faults.tempfile, "tempdir", str(broken / "gone"))
    assert main(["report", "x"]) == 70
    assert capsys.readouterr().err.endswith("; its traceback could not be kept (No such file or directory)\n")


@pytest.mark.parametrize(
    "verb", ["inspect", "export", "run", "quantize", "bench", "report", "verify", "build-engine"]
)
def test_a_name_that_no_file_can_have_is_refused(verb, tmp_path, capsys):
    long = tmp_path / f"{'x' * 300}.onnx"
    more = {"run": ["x.png"], "quantize": ["--images", str(tmp_path)]}.get(verb, [])
    assert main([verb, str(long), *more]) == 1
    said = capsys.readouterr().err
    assert said.startswith("segdeploy: ")
    assert said.count("\n") == 1
    assert "name too long" in said or "there is no file" in said


def test_what_may_not_be_looked_at_is_refused(monkeypatch, capsys):
    def execute(arguments):
        raise PermissionError(13, "Permission denied", "/root/x")

    monkeypatch.setattr(report, "execute", execute)
    assert main(["report", "x"]) == 1
    assert capsys.readouterr().err == (
        "segdeploy: /root/x cannot be used: Permission denied; name another file or folder\n"
    )


@pytest.mark.parametrize(
    "error", [OSError(13, "denied"), FileNotFoundError(2, "gone", "x"), ZeroDivisionError()]
)
def test_any_other_error_is_a_fault(error, monkeypatch, broken, capsys):
    def execute(arguments):
        raise error

    monkeypatch.setattr(report, "execute", execute)
    assert main(["report", "x"]) == 70
    assert capsys.readouterr().err.startswith(
        f"segdeploy: this is a fault in segdeploy, please report it: {type(error).__name__}: "
    )


def test_a_fault_in_a_thread_is_one_line_too(broken, capsys, monkeypatch):
    for name in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(faults.sys, name, getattr(faults.sys, name))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    faults.keep_tracebacks()
    for error in (RuntimeError("in a thread"), SystemExit()):

        def fail(error=error):
            raise error

        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    said = capsys.readouterr().err
    assert said.startswith(
        "segdeploy: this is a fault in segdeploy, please report it: RuntimeError: in a thread; "
    )
    assert said.count("\n") == 1


def test_no_verb_prints_by_itself():
    folder = Path(faults.__file__).parent
    found = {
        path.name
        for path in folder.glob("*.py")
        if re.search(r"(?<![\w.])print\(|std(out|err)\.write|console\.print", path.read_text())
    }
    assert found == {"printing.py", "console.py"}


def test_no_password_is_told_whoever_quotes_the_address(capsys):
    print_message("there is no file https://joe:s3cret@host/x; expected one")
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["models", "rtsp://joe:s3cret@cam/1"])
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "segdeploy: there is no file https://host/x; expected one"
    assert last == "segdeploy: error: unrecognized arguments: rtsp://cam/1"
