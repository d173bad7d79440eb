"""What every verb takes and says: --config and variables, -q and -v, --json, and what to type next."""

import argparse
import ast
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from segdeploy import cli
from segdeploy.cli import VERBS, main, parser
from segdeploy.cli.arguments import parse_json_file
from segdeploy.cli.printing import MANNER
from segdeploy.cli.settings import (
    FILE,
    is_settable,
    keys_for,
    leaves,
    parse_words,
    take_manner,
    tell_of_misspelt,
    typed_value,
    variable,
)
from segdeploy.errors import RequestError

LEAVES = {leaf.prog: leaf for leaf in leaves(parser())}
# Verbs without --json, and why.
NO_FACTS = {
    "segdeploy report": "it makes a page",
    "segdeploy cache convert": "it makes a file",
    "segdeploy completion": "it prints a script",
    "segdeploy deepstream run": "it becomes another program",
    "segdeploy demo": "it shows what others report",
}
# Values that a flag's type takes, where the text of its metavar does not tell.
VALUES = {
    "--batch": "2",
    "--size": "64x96",
    "--json": "facts.json",
    "--require": "run",
    "--shard": "1/2",
    "--triton": "triton://here:1/m",
}


@pytest.fixture(autouse=True)
def _manner(monkeypatch):
    monkeypatch.delenv("SEGDEPLOY_LOG", raising=False)
    yield
    take_manner(None, {})


def parsed(*words, **environment):
    return parse_words(parser(), [*map(str, words)], environment)


@pytest.mark.parametrize("prog", LEAVES)
def test_every_verb_has_the_same_manners(prog):
    flags = LEAVES[prog]._option_string_actions
    assert flags["--quiet"] is flags["-q"]
    assert flags["--verbose"] is flags["-v"]
    own = prog in ("segdeploy deepstream replay", "segdeploy deepstream run")
    assert (flags["--config"].dest == FILE) == (not own)
    assert ("--json" in flags) == (prog not in NO_FACTS)
    if "--json" in flags and prog != "segdeploy run":
        assert flags["--json"].type is parse_json_file
        assert (flags["--json"].nargs, flags["--json"].const) == ("?", "-")


def test_no_flag_is_called_as_what_is_put_beside_the_flags():
    taken = {"verb", "command", "filled", "whole_parser"}
    assert {action.dest for leaf in LEAVES.values() for action in leaf._actions} & taken == set()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_what_to_type_next(verb):
    module = VERBS[verb][0]
    source = Path(module.__file__).read_text()
    called = {
        node.func.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called & {"print_next", "trained_and_shown"} or verb == "demo", "demo ends with a list of its own"


def settable(leaf):
    return [action for action in leaf._actions if is_settable(action)]


def value_for(action):
    """A value that this flag takes, as it would be typed."""
    flag = action.option_strings[-1] if action.option_strings else ""
    if action.nargs == 0:
        return "true"
    if action.choices:
        return str(next(one for one in action.choices if one != action.default))
    for text in (VALUES.get(flag), "1", "3", "1,2", "64x96", "cpu.json", "1,2,3", "run"):
        try:
            if text and (action.type or str)(text) != action.default:
                return text
        except (argparse.ArgumentTypeError, ValueError):
            continue
    raise AssertionError(flag)


@pytest.mark.parametrize(
    "prog", [prog for prog in LEAVES if "--config" in LEAVES[prog]._option_string_actions]
)
def test_a_file_may_have_every_flag(prog, tmp_path):
    """Each flag and argument of a verb, as text in a file, is what it is on the command line."""
    if prog in ("segdeploy deepstream replay", "segdeploy deepstream run"):
        return
    leaf, verb = LEAVES[prog], prog.split()[1:]
    rivals = [one for group in leaf._mutually_exclusive_groups for one in group._group_actions[1:]]
    asked = [action for action in settable(leaf) if action not in rivals]
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({keys_for(action)[-1]: value_for(action) for action in asked}))
    from_file = vars(parsed(*verb, "--config", path))
    typed = vars(parsed(*shlex.split(from_file["command"])[1:]))
    of_both = {FILE: None, "filled": {}}
    assert from_file | of_both == typed | of_both
    assert [action.dest for action in asked if from_file[action.dest] == action.default] == []


def test_every_flag_that_may_be_left_out_has_a_variable():
    for prog, leaf in LEAVES.items():
        for action in settable(leaf):
            if not action.option_strings or action.required:
                continue
            name, value = variable(action), value_for(action)
            assert re.fullmatch(r"SEGDEPLOY_[A-Z0-9_]+", name)
            assert name != "SEGDEPLOY_LOG"
            typed, _ = typed_value(name, action, value)
            assert typed != action.default, (prog, name)


def test_the_command_line_wins_over_the_file_and_that_over_the_environment(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("alpha: 0.2\nthreads: 3\nno-legend: true\n")
    given = {"SEGDEPLOY_ALPHA": "0.1", "SEGDEPLOY_THREADS": "2", "SEGDEPLOY_PROVIDER": "cpu"}
    found = parsed("run", "m.onnx", "a.png", "--config", path, "--alpha", "0.3", **given)
    assert (found.alpha, found.threads, found.provider, found.no_legend) == (0.3, 3, "cpu", True)
    assert found.command == "segdeploy run --provider=cpu --no-legend --threads=3 m.onnx a.png --alpha 0.3"
    assert found.filled == {
        "SEGDEPLOY_PROVIDER": ["--provider=cpu"],
        f"{path}: --threads": ["--threads=3"],
        f"{path}: --no-legend": ["--no-legend"],
    }
    path.write_text("no-legend: false\n")
    found = parsed("run", "m.onnx", "a.png", SEGDEPLOY_CONFIG=str(path), SEGDEPLOY_NO_LEGEND="1")
    assert found.no_legend is False


def test_arguments_of_the_command_line_stand_for_all_of_the_files(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("model: a.onnx\nsource: [b.png, c.png]\n")
    found = parsed("run", "--config", path)
    assert (found.model.name, found.source) == ("a.onnx", ["b.png", "c.png"])
    found = parsed("run", f"--config={path}", "d.onnx", "e.png")
    assert (found.model.name, found.source) == ("d.onnx", ["e.png"])
    assert found.command == "segdeploy run d.onnx e.png"


def test_what_excludes_a_flag_on_the_command_line_drops_it(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("compare: [b.onnx, c.onnx]\n")
    assert parsed("bench", "a.onnx", "--config", path).compare == ["b.onnx", "c.onnx"]
    found = parsed("bench", "a.onnx", "--end-to-end", "frames", "--config", path)
    assert (found.compare, found.end_to_end.name) == (None, "frames")
    path.write_text("source: [rtsp://a, rtsp://b]\noutput: out\n")
    found = parsed("deepstream", "app", "m.onnx", "--config", path)
    assert found.source == ["rtsp://a", "rtsp://b"]
    found = parsed("deepstream", "app", "m.onnx", "--config", path, "--source", "rtsp://c")
    assert found.source == ["rtsp://c"]


def test_a_value_is_the_text_that_stands_there(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("batch: 1:2:4\nimages: off\nint8: on\nmax_drop: 1e0\n")
    found = parsed("build-engine", "m.onnx", "--config", path)
    assert (found.batch, str(found.images), found.int8, found.max_drop) == ("1:2:4", "off", True, 1.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("providr: cpu", "segdeploy run has no flag 'providr'; near it: provider"),
        ("qqqq: 1", "segdeploy run has no flag 'qqqq'; its --help lists them"),
        ("config: x.yaml", "segdeploy run has no flag 'config'"),
        ("provider: cuba", "argument --provider: invalid choice: 'cuba'"),
        ("alpha: 7", "argument --alpha: 7 is outside 0 to 1"),
        ("alpha:", "--alpha takes a value, or a list of values, and not ''"),
        ("alpha: {a: 1}", "--alpha takes a value, or a list of values, and not {'a': '1'}"),
        ("no-legend: perhaps", "--no-legend is 'perhaps'; expected true or false"),
        ("max-pixels: 1\nmax_pixels: 2", "says max_pixels twice"),
        ("- provider", "must have flags by name, as in `provider: cuda`"),
        ("a: &x [1]\nb: *x", "uses an alias"),
        ("", "must have flags by name"),
    ],
)
def test_a_file_that_is_wrong_is_refused(text, said, refused, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert f"--config {path}" in (found := refused("run", "m.onnx", "a.png", "--config", path))
    assert said in found


def test_two_flags_of_a_file_that_exclude_each_other(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("compare: b.onnx\nend-to-end: frames\n")
    with pytest.raises(RequestError, match="--compare and --end-to-end exclude each other"):
        parsed("bench", "m.onnx", "--config", path)


def test_a_variable_that_is_wrong_is_refused_by_its_name(refused, monkeypatch):
    monkeypatch.setenv("SEGDEPLOY_ALPHA", "7")
    assert "SEGDEPLOY_ALPHA: argument --alpha: 7 is outside 0 to 1" in refused("run", "m.onnx", "a.png")
    monkeypatch.setenv("SEGDEPLOY_ALPHA", "")
    assert "there is no file" in refused("run", "m.onnx", "a.png")
    monkeypatch.setenv("SEGDEPLOY_LOG", "loud")
    assert "SEGDEPLOY_LOG is 'loud'; expected info or error" in refused("run", "m.onnx", "a.png")


def test_help_is_of_the_verb_and_not_of_the_file(tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["run", "--config", str(tmp_path / "gone"), "--help"])
    assert "-o OUT" in capsys.readouterr().out


def test_a_misspelt_variable_is_named(capsys):
    tell_of_misspelt(parser(), {"SEGDEPLOY_PROVIDR": "cpu", "SEGDEPLOY_GPU": "1", "SEGDEPLOY_HOME": "/opt"})
    assert capsys.readouterr().err == (
        "segdeploy: SEGDEPLOY_PROVIDR is no flag of any verb; did you mean SEGDEPLOY_PROVIDER?\n"
    )


STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d segdeploy: "


@pytest.mark.parametrize(
    ("flags", "level", "lines"),
    [
        ([], None, [r"segdeploy: next: segdeploy export .*"]),
        (["-q"], None, []),
        ([], "error", []),
        (
            ["-v"],
            None,
            [
                STAMP + r"segdeploy [\d.]+: segdeploy models -v",
                STAMP + "next: segdeploy export .*",
                STAMP + r"ended with exit status 0 after \d+\.\d s",
            ],
        ),
        (["--quiet"], "info", []),
    ],
)
def test_talk_goes_to_standard_error_as_it_was_asked_for(flags, level, lines, capsys, monkeypatch):
    if level:
        monkeypatch.setenv("SEGDEPLOY_LOG", level)
    assert main(["models", *flags]) == 0
    said = capsys.readouterr()
    assert "next:" not in said.out
    found = said.err.splitlines()
    assert len(found) == len(lines)
    assert all(re.fullmatch(one, line) for one, line in zip(lines, found, strict=True)), found


def test_a_log_says_what_a_file_and_variables_gave(tmp_path, capsys, monkeypatch):
    path = tmp_path / "c.yaml"
    path.write_text("json: true\n")
    monkeypatch.setenv("SEGDEPLOY_LOG", "info")
    assert main(["models", "--config", str(path)]) == 0
    said = capsys.readouterr()
    assert f"from {path}: --json: --json" in said.err
    assert ": segdeploy models --json" in said.err
    json.loads(said.out)


def test_an_error_is_said_however_quiet(capsys):
    assert main(["inspect", "gone.onnx", "-q"]) == 1
    assert capsys.readouterr().err.startswith("segdeploy: there is no file gone.onnx")
    assert MANNER.quiet


def test_json_is_printed_or_written_beside_the_text(tmp_path, capsys):
    path = tmp_path / "facts.json"
    assert main(["models", "--json"]) == 0
    printed = capsys.readouterr().out
    assert main(["models", "--json", str(path)]) == 0
    assert "mIoU as published in:" in capsys.readouterr().out
    assert json.loads(path.read_text()) == json.loads(printed)


def test_json_before_a_file_of_another_kind_is_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.onnx").touch()
    Path("old.json").touch()
    for words, place in (
        (["inspect", "--json", "x.onnx"], "-"),
        (["inspect", "x.onnx", "--json", "old.json"], "old.json"),
        (["inspect", "x.onnx", "--json"], "-"),
        (["inspect", "--json", "-", "x.onnx"], "-"),
        (["run", "x.onnx", "a.png", "--json", "x.onnx"], "x.onnx"),
    ):
        assert parsed(*words).json == place


@pytest.mark.parametrize("name", ["x.onnx.json", "x.engine.json"])
def test_json_is_not_written_over_a_record(name, misused):
    assert f"{name} is the record of {name[:-5]}; name another file" in misused("models", "--json", name)


def test_the_package_is_what_is_tested():
    assert Path(cli.__file__).parent == Path(__file__).parent.parent / "segdeploy/cli"
