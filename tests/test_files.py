import os

import pytest

from segdeploy.errors import OutputError
from segdeploy.files import digest_of, make_folder, replacing, replacing_together, write_text


def test_a_file_appears_whole_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "x.txt"
    with replacing(path) as part:
        part.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(error, tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with pytest.raises(error), replacing(path) as part:
        part.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_is_an_output_error(tmp_path):
    with (
        pytest.raises(OutputError, match=r"x\.txt cannot be written: No space left"),
        replacing(tmp_path / "x.txt"),
    ):
        raise OSError(28, "No space left on device")


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "x.txt").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "x.txt", "")


def test_folders_that_cannot_be_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        make_folder(tmp_path / "file" / "below")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(OutputError, match="is not writable; name another one with -o"):
        make_folder(tmp_path)


def test_digest(tmp_path):
    write_text(tmp_path / "x", "abc")
    assert digest_of(tmp_path / "x").startswith("ba7816bf8f01cfea")


def test_files_that_belong_together_come_together(tmp_path):
    paths = [tmp_path / "x.onnx", tmp_path / "x.onnx.json"]
    for path in paths:
        path.write_text("old")
    with pytest.raises(RuntimeError), replacing_together(*paths) as parts:
        for part in parts:
            part.write_text("half")
        raise RuntimeError
    assert [path.read_text() for path in paths] == ["old", "old"]
    with replacing_together(*paths) as parts:
        for part in parts:
            part.write_text("new")
    assert [path.read_text() for path in paths] == ["new", "new"]
    assert sorted(tmp_path.iterdir()) == paths
