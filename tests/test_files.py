import os
from pathlib import Path

import pytest

from segdeploy.errors import OutputError
from segdeploy.files import digest_of, locked, make_folder, replacing, replacing_together, write_text


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


def test_files_land_together_or_not_at_all(tmp_path, monkeypatch):
    paths = tmp_path / "x.engine", tmp_path / "x.engine.json"
    for turn in ("old", "new"):
        with replacing_together(*paths) as parts:
            for part in parts:
                part.write_text(turn)
    assert [path.read_text() for path in paths] == ["new", "new"]

    whole = Path.replace

    def second_fails(self, target):
        if target == paths[1] and self.name.endswith(".part"):
            raise OSError(5, "Input/output error")
        return whole(self, target)

    monkeypatch.setattr(Path, "replace", second_fails)
    with (
        pytest.raises(OutputError, match=r"x\.engine\.json cannot be written"),
        replacing_together(*paths) as parts,
    ):
        for part in parts:
            part.write_text("newer")
    assert [path.read_text() for path in paths] == ["new", "new"]
    for path in paths:
        path.unlink()
    with pytest.raises(OutputError), replacing_together(*paths) as parts:
        for part in parts:
            part.write_text("first")
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_is_refused(tmp_path):
    path = tmp_path / "x.engine"
    with locked(path):
        with (
            pytest.raises(OutputError, match=r"x\.engine is being written by another segdeploy"),
            locked(path),
        ):
            pass
        with locked(tmp_path / "y.engine"):
            pass
    with locked(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_a_dead_writer_left_is_taken(tmp_path):
    (tmp_path / ".x.engine.lock").write_text("")
    with locked(tmp_path / "x.engine"):
        pass
    assert list(tmp_path.iterdir()) == []
