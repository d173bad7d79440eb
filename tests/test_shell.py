"""A name in a command that is shown is read back by a shell as that name, and nothing of it is run."""

import os
import subprocess
from pathlib import Path

import pytest

from segdeploy.model.names import CardName, name_for
from segdeploy.model.typed_json import WrongField, read_field
from segdeploy.shell import command_line, shell_word

NAMES = (
    "x.onnx", "my model.onnx", "x $(touch PWN).onnx", "a;touch${IFS}PWN2;", "it's.onnx", "`id`", '"', "\\", "*", "~",
    "!x", "a\nb", "a\tb", "\x1b]0;x\x07", "\u202egpj", "\udcff.onnx", "ä №", "\x7f", "a\\'\n", "\x011",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_reads_a_word_as_it_is(name, tmp_path):
    word = shell_word(name)
    assert word.isprintable()
    script = f"printf %s {word}; printf %s {command_line('', name)}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True, cwd=tmp_path)
    assert done.stdout == os.fsencode(name) * 2
    assert list(tmp_path.iterdir()) == []


def test_plain_words_stay_as_they_are():
    assert (
        command_line("segdeploy", "run", Path("out/x.onnx"), 5, "-o", "a b")
        == "segdeploy run out/x.onnx 5 -o 'a b'"
    )


def test_a_path_is_no_flag():
    assert shell_word(Path("-x.onnx")) == "./-x.onnx"
    assert shell_word(Path("-x y.onnx")) == "'./-x y.onnx'"
    assert shell_word("-x") == "-x"


def test_half_a_character_has_a_spelling():
    assert shell_word("\ud800") == r"$'\xed\xa0\x80'"


@pytest.mark.parametrize(
    ("text", "name"),
    [("B0 on Streets", "b0-on-streets"), ("../../x", "x"), ("..", "unnamed"), ("-rf", "rf"), (".x", "x"),
     ("Ü", "unnamed"), ("", "unnamed"), ("$(id)", "id-"), ("a" * 300, "a" * 100), ("a\nb", "a-b")],
)  # fmt: skip
def test_the_name_of_a_card_is_made_of_any_text(text, name):
    assert name_for(text) == name
    assert read_field(CardName, name_for(text), "card", {}) == name_for(text)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/x", "a/b", "a b", "a;b", "$x", "a\n", "ä", "a" * 251, "\x1b"]
)
def test_what_is_no_name_of_a_card_is_refused(name):
    with pytest.raises(WrongField, match="expected text that matches"):
        read_field(CardName, name, "card", {})
