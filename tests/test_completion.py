"""The completion of each shell: bash's is run, by bash."""

import shutil
import subprocess
import sys

import pytest

from segdeploy.cli import VERBS, main
from segdeploy.cli.completion import PLACES

pytest.importorskip("shtab", reason="pip install -e '.[dev]'")


def test_each_shell_has_its_script(capsys):
    for shell in PLACES:
        assert main(["completion", shell]) == 0
        said = capsys.readouterr()
        assert all(verb in said.out for verb in VERBS)
        assert said.err.startswith(f"segdeploy: next: segdeploy completion {shell} > ")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["segdeploy", "deep"], {"deepstream"}),
        (["segdeploy", "deepstream", "l"], {"lint"}),
        (["segdeploy", "run", "--prov"], {"--provider"}),
        (["segdeploy", "run", "--fit", "s"], {"stretch"}),
        (["segdeploy", "export", "--conf"], {"--config"}),
        (["segdeploy", "inspect", "stre"], {"street.onnx"}),
        (["segdeploy", "evaluate", "m.onnx", "--root", "str"], {"streets"}),
    ],
)
def test_bash_completes(typed, expected, capsys, tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash is installed")
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "street.onnx").touch()
    (tmp_path / "streets").mkdir()
    words = 'COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))'
    ask = f"source ./script; {words}; _shtab_segdeploy; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(
        [bash, "-c", ask, "bash", *typed], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert expected <= set(done.stdout.split()), done.stderr


def test_without_shtab_its_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert "pip install 'segdeploy[completion]'" in capsys.readouterr().err
