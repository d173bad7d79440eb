import re

from segdeploy.cli.console import show_columns, steps


def seen(capsys):
    """What was written for the eye, without the codes that move a cursor."""
    said = capsys.readouterr()
    assert said.out == ""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.err)


def test_steps_are_silent_where_nobody_looks(capsys):
    with steps() as progress:
        progress("reading the graph")
        progress("building: Timing tactics 1/2", 0.5)
    assert seen(capsys) == ""


def test_steps_are_told_with_a_bar_as_far_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with steps() as progress:
        for share in (0.25, 1):
            progress("building: [Timing] tactics", share)
            line = last_line(progress)
            assert (line.percentage, line.description) == (100 * share, "building: [Timing] tactics")
        progress("looking into the engine")
        assert (last_line(progress).total, last_line(progress).completed) == (None, 0)
    assert "0:00:00 starting" in seen(capsys)


def last_line(progress):
    (bar,) = [cell.cell_contents for cell in progress.__closure__ if hasattr(cell.cell_contents, "tasks")]
    return bar.tasks[0]


def test_a_step_is_a_line_where_that_is_asked_for(capsys):
    with steps(also_unseen=True) as progress:
        progress("reading the graph")
        progress("building: [tactics]", 0.25)
        progress("building: [tactics]", 0.5)
    assert capsys.readouterr().err == "segdeploy: reading the graph\nsegdeploy: building: [tactics]\n"


ROWS = [
    ("ok     ", "disk", "69.4 GiB free here"),
    ("problem", "[GPU]", "a long tale of a driver that is not there"),
]


def test_columns_are_plain_lines_where_nobody_looks(capsys):
    show_columns(ROWS, {"ok": "green"})
    assert capsys.readouterr().out.splitlines() == [
        "ok       disk   69.4 GiB free here",
        "problem  [GPU]  a long tale of a driver that is not there",
    ]


def test_a_terminal_folds_columns_and_colours_their_first_cell(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "40")
    show_columns(ROWS, {"ok": "green", "problem": "bold red"})
    said = capsys.readouterr().out
    assert "\x1b[32mok" in said and "\x1b[1;31mproblem" in said
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said).splitlines()
    assert [line.rstrip() for line in lines] == [
        "ok       disk   69.4 GiB free here",
        "problem  [GPU]  a long tale of a driver",
        "                that is not there",
    ]
    monkeypatch.setenv("NO_COLOR", "1")
    show_columns(ROWS, {"ok": "green"})
    assert "\x1b" not in capsys.readouterr().out
