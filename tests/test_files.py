import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segdeploy import files
from segdeploy.errors import OutputError
from segdeploy.files import digest_of, locked, make_folder, replacing, replacing_together, write_text


@pytest.fixture(autouse=True)
def each_folder_anew():
    files.clear_leftovers.cache_clear()


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


# ---- what is no file, and what leads to one --------------------------------------------------------------------------


def test_a_link_stays_and_what_it_points_at_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "x.onnx", tmp_path / "x.onnx"
    link.symlink_to(target)
    for text in ("made", "replaced"):  # the first time it leads nowhere
        write_text(link, text)
        assert (link.is_symlink(), target.is_symlink(), target.read_text()) == (True, False, text)
    with pytest.raises(ZeroDivisionError), replacing(link) as part:
        part.write_text("half")
        assert part.parent == target.parent  # or it could not be moved there at once
        raise ZeroDivisionError
    assert target.read_text() == "replaced"
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "far", target, link]


def test_a_link_that_leads_to_itself(tmp_path):
    link = tmp_path / "x.onnx"
    link.symlink_to(link)
    with pytest.raises(OutputError, match=r"x\.onnx cannot be written: Too many levels of symbolic links"):
        write_text(link, "")
    assert link.is_symlink()


def special(folder):
    """A pipe, a device and links to them; only root may make a device."""
    os.mkfifo(folder / "pipe")
    made = {folder / "pipe": "a pipe"}
    try:
        os.mknod(folder / "null", 0o666 | 0o020000, os.makedev(1, 3))
        made[folder / "null"] = "a device"
    except PermissionError:
        pass
    for place, kind in list(made.items()):
        link = folder / f"link to {place.name}"
        link.symlink_to(place)
        made[link] = kind
    return made


def identity(place):
    """Return all that a change of `place` would change; when it was last read does not count."""
    found = place.lstat()
    return (
        found.st_ino,
        found.st_mode,
        found.st_rdev,
        found.st_nlink,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def test_what_is_no_file_is_never_replaced(tmp_path):
    for place, kind in special(tmp_path).items():
        before = identity(place)
        for writer in (replacing(place), replacing_together(tmp_path / "x.json", place)):
            with (
                pytest.raises(
                    OutputError, match=f"cannot be written: it is {kind}, and a file is to be there"
                ),
                writer,
            ):
                pytest.fail("the work began all the same")
        assert identity(place) == before
    assert not (tmp_path / "x.json").exists()


def test_text_goes_through_a_device(tmp_path):
    for place, kind in special(tmp_path).items():
        before = place.lstat()
        if kind == "a pipe":
            reader = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
            write_text(place, "through")
            assert os.read(reader, 99) == b"through"
            os.close(reader)
        else:
            write_text(place, "away")
        assert (place.lstat().st_ino, place.lstat().st_mode) == (before.st_ino, before.st_mode)


# ---- hidden files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["x", "ß", "漢", "\udcff"])
def test_a_name_as_long_as_a_name_may_be(letter, tmp_path):
    bytes_each = len(os.fsencode(letter))
    name = letter * ((255 - len(".json")) // bytes_each) + ".json"
    assert 250 < len(os.fsencode(name)) <= 255
    with locked(tmp_path / name), replacing_together(tmp_path / name, tmp_path / "x.onnx") as parts:
        for part in parts:
            part.write_text("whole")
    for path in (tmp_path / name, tmp_path / "x.onnx"):
        assert path.read_text() == "whole"
    with pytest.raises(OutputError, match=r"\.json cannot be written: File name too long"):
        write_text(tmp_path / (letter + name), "")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_hidden_name_cannot_be_foreseen_and_a_link_there_is_not_followed(tmp_path, monkeypatch):
    path, prey = tmp_path / "x.txt", tmp_path / "prey"
    prey.write_text("kept")
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        (tmp_path / first.name.replace("x.txt", "y.txt")).symlink_to(prey)
        monkeypatch.setattr(secrets, "token_hex", lambda count: first.name.split("-")[1].split(".")[0])
        with pytest.raises(OutputError, match=r"y\.txt cannot be written: File exists"):
            write_text(tmp_path / "y.txt", "followed")
    (tmp_path / ".z.txt.lock").symlink_to(prey)
    with pytest.raises(OutputError, match="cannot be written: Too many levels"), locked(tmp_path / "z.txt"):
        pass
    assert prey.read_text() == "kept"


WRITER = """
import sys, time
from pathlib import Path
from segdeploy.files import replacing
with replacing(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def writing(path):
    running = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "writing\n"
    return running


def test_what_killed_writers_left_is_cleared_and_what_others_write_is_not(tmp_path):
    killed, alive = writing(tmp_path / "a.txt"), writing(tmp_path / "b.txt")
    killed.kill()
    killed.communicate()
    ours = [
        tmp_path / ".notes.part",
        tmp_path / ".a.txt.1234.part",
        tmp_path / "x.segdeploy-0123456789abcdef.part",
    ]
    for path in ours:
        path.write_text("not of segdeploy")
    assert len(list(tmp_path.glob(".a.txt.segdeploy-*.part"))) == 1
    write_text(tmp_path / "c.txt", "whole")
    left = sorted(path.name.partition(".segdeploy")[0] for path in tmp_path.glob(".*.segdeploy-*.part"))
    assert left == [".b.txt"]
    alive.send_signal(signal.SIGINT)
    alive.communicate()
    assert sorted(tmp_path.iterdir()) == sorted([*ours, tmp_path / "c.txt"])


def test_a_file_that_stood_aside_when_its_writer_was_killed_is_put_back(tmp_path):
    token = "0123456789abcdef"
    for name in ("lost", "there"):
        (tmp_path / f".{name}.json.segdeploy-{token}.old").write_text("old")
    (tmp_path / "there.json").write_text("new")
    write_text(tmp_path / "c.txt", "")
    assert (tmp_path / "lost.json").read_text() == "old"
    assert (tmp_path / "there.json").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 3


def test_files_are_on_the_disk_before_they_are_moved(tmp_path, monkeypatch):
    done = []
    synced, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append("disk"), synced(descriptor)))
    monkeypatch.setattr(
        Path, "replace", lambda self, target: (done.append(target.name), replace(self, target))
    )
    with replacing_together(tmp_path / "a", tmp_path / "b") as parts:
        for part in parts:
            part.write_text("x")
    assert done == ["disk", "disk", "a", "b"]


def test_an_address_is_no_folder(tmp_path, monkeypatch):
    """Its password would be the name of one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="is an address, and a file or a folder is to be written"):
        make_folder(Path("http://joe:pw@host/x"))
    assert list(tmp_path.iterdir()) == []
    Path("odd:/x").mkdir(parents=True)
    make_folder(Path("odd:/x"))
