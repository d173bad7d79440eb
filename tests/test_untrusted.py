"""Whatever a file holds, reading it gives a plain value or `Unreadable`, soon and in little memory."""

import io
import json
import os
import random
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from segdeploy import untrusted
from segdeploy.untrusted import Unreadable, load_yaml, parse_json, read_arrays, read_json


def refusal(read, *given):
    with pytest.raises(Unreadable) as raised:
        read(*given)
    return str(raised.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x"


# Who reads such files without this module, and whose they are.
OTHERS = {
    "segdeploy/untrusted.py": "this module",
    "segdeploy/devices.py": "devices.yaml is shipped",
    "segdeploy/assess/bench/reference.py": "the published numbers are shipped",
    "segdeploy/convert/engine/layers.py": "TensorRT's inspector answers in the same process",
    "segdeploy/doctor/machine.py": "a Python of ours answers",
    "segdeploy/picture/video_publishing.py": "a Python of ours asks",
    "segdeploy/graph/load.py": "ONNX has its one reader there",
    "segdeploy/convert/adopt/fixed.py": "our own folding has written it",
    "segdeploy/convert/own_module.py": "PyTorch's exporter has written it",
    "segdeploy/run/crew.py": "a Python of ours answers",
    "segdeploy/run/crew_process.py": "a Python of ours asks",
    "segdeploy/run/triton/http_wire.py": "what was read as JSON becomes objects",
    "segdeploy/selftest/pack.py": "the pack is shipped",
    "segdeploy/serve/triton/python_models.py": "Triton asks, in the server",
    "segdeploy/run/cpu_graph.py": "what cannot be read is left to the runtime to refuse",
}


def test_each_format_is_read_in_one_place():
    readers = re.compile(
        r"json\.loads?\(|yaml\.\w*load\w*\(|np\.(load|fromfile)\(|onnx\.load|load_from_string|ParseFromString|pickle\.load"
    )
    root = Path(untrusted.__file__).parent.parent
    found = {
        path.relative_to(root).as_posix()
        for path in Path(untrusted.__file__).parent.rglob("*.py")
        if readers.search(path.read_text())
    }
    assert found <= OTHERS.keys()


# ---- any file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_json, load_yaml, lambda path: read_arrays(path, {"a": "f"})])
def test_what_is_no_file_is_not_waited_for(read, path):
    os.mkfifo(path)
    assert refusal(read, path) == "is a pipe, and no file"
    assert refusal(read, path.parent) == "is a folder, and no file"


@pytest.mark.parametrize("read", [read_json, load_yaml])
def test_a_file_that_is_not_there_or_too_large(read, path, monkeypatch):
    assert refusal(read, path) == "cannot be read: No such file or directory"
    assert refusal(read, path.parent / ("x" * 300)) == "cannot be read: File name too long"
    monkeypatch.setattr(untrusted, "MOST_JSON", 1000)
    monkeypatch.setattr(untrusted, "MOST_YAML", 1000)
    path.write_text("1" + " " * 999)
    assert read(path) == 1
    path.write_text("1" + " " * 1000)
    assert refusal(read, path) == "is larger than 1,000 bytes"


# ---- JSON --------------------------------------------------------------------------------------------------------


def test_json_as_others_read_it(path):
    facts = {"a": [1, 2.5, None, True, "ä"], "b": {"c": [[]]}, "": -(2**63), "d": 2**64 - 1}
    path.write_text(json.dumps(facts))
    assert read_json(path) == parse_json(json.dumps(facts).encode("utf-16")) == facts


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"\xff", "is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        ("[" * 100_000, "is nested too deeply"),
        ("[" * 65 + "]" * 65, "is nested too deeply"),
        ('{"a": ' * 65 + "1" + "}" * 65, "is nested too deeply"),
        ("[18446744073709551616]", "holds a number of more than 64 bits"),
        ("-9223372036854775809", "holds a number of more than 64 bits"),
    ],
)
def test_json_that_is_refused(text, why):
    assert refusal(parse_json, text) == why


def test_a_number_of_many_digits_is_refused():
    assert refusal(parse_json, "1" * 5000).startswith("is not JSON: Exceeds the limit (4300 digits)")
    assert len(parse_json("[" * 64 + "]" * 64)) == 1


# ---- YAML --------------------------------------------------------------------------------------------------------


def test_yaml_of_plain_values(path):
    path.write_text("a: [1, 2.5, null, true, ä]\nb: {c: [[]]}\n'2024-01-02': .inf\n")
    assert load_yaml(path) == {"a": [1, 2.5, None, True, "ä"], "b": {"c": [[]]}, "2024-01-02": float("inf")}
    path.write_text("# nothing\n")
    assert load_yaml(path) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"\xff", "is not UTF-8 text (invalid start byte at byte 0)"),
        ("a: b: c", "is not YAML in line 1: mapping values are not allowed here"),
        ("{[1]: 2}", "is not YAML in line 1: found unhashable key"),
        ("--- 1\n--- 2", "is not YAML in line 2: but found another document"),
        ("a: \x00", "is not YAML: unacceptable character #x0000: special characters are not allowed"),
        ("!!int ''", "is not YAML: string index out of range"),
        ("!!float x", "is not YAML: could not convert string to float: 'x'"),
        ("\na: 2024-13-45", "has a timestamp in line 2; put it in quotes, if it is text"),
        ("!!timestamp x", "has a timestamp in line 1; put it in quotes, if it is text"),
        ("!!python/name:os.system x", "has a python/name:os.system in line 1; put it in quotes, if it is text"),
        ("!!binary aaaa", "has a binary in line 1; put it in quotes, if it is text"),
        ("!!set {a}", "has a set in line 1; put it in quotes, if it is text"),
        ("<<: {a: 1}", "has a merge in line 1; put it in quotes, if it is text"),
        ("a: &b [1]\nc: *b", "uses an alias in line 1 (&, *); write the value out"),
        ("&a [*a]", "uses an alias in line 1 (&, *); write the value out"),
        ("[" * 64 + "1" + "]" * 64, "is nested too deeply"),
        ("- " * 300 + "1", "is nested too deeply"),
        ("[" * 5000, "is nested too deeply"),
        ("18446744073709551616", "holds a number of more than 64 bits"),
        ("{18446744073709551616: 1}", "holds a number of more than 64 bits"),
        ("[1" + ":30" * 3000 + "]", "holds a number of more than 64 bits"),
    ],
)  # fmt: skip
def test_yaml_that_is_refused(text, why, path):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert refusal(load_yaml, path) == why


def test_lines_of_aliases_do_not_fill_the_memory(path):
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))]
    path.write_text("\n".join(lines))
    assert "uses an alias" in refusal(load_yaml, path)


# ---- NumPy -------------------------------------------------------------------------------------------------------


KINDS = {"name": "U", "counts": "iu"}


def written(path, **arrays):
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def test_arrays_as_they_were_written(path):
    counts = np.arange(12, dtype=np.int64).reshape(3, 4)
    written(path, name="ä", counts=np.asfortranarray(counts), more=[1])
    found = read_arrays(path, KINDS)
    assert list(found) == ["name", "counts"]
    assert str(found["name"]) == "ä"
    assert (found["counts"] == counts).all()


@pytest.mark.parametrize(
    "counts", [np.array([{}]), np.zeros(2, "f8"), np.zeros(2, [("a", "i4")]), np.array(["x"])]
)
def test_arrays_of_another_kind_are_refused(counts, path):
    written(path, name="x", counts=counts)
    said = refusal(read_arrays, path, KINDS)
    assert said == f"holds {counts.dtype} in counts.npy"


@pytest.mark.parametrize("wide", [np.longdouble, np.complex128])
def test_numbers_that_are_wider_than_ours_are_refused(wide, path):
    written(path, a=np.zeros(2, wide))
    assert refusal(read_arrays, path, {"a": "fc"}) == f"holds {np.dtype(wide)} in a.npy"


def test_what_is_not_there_is_not_waited_for(path, monkeypatch):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (2**40,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("counts.npy", header.getvalue() + bytes(80))
    assert refusal(read_arrays, path, {"counts": "i"}) == (
        "promises 1099511627776 values of int64 in counts.npy, and does not hold them"
    )
    monkeypatch.setattr(untrusted, "MOST_ARRAYS", 1 << 20)
    written(path, counts=np.zeros(1 << 20, np.int64))
    assert path.stat().st_size < 20_000
    assert refusal(read_arrays, path, {"counts": "i"}).startswith("promises 1048576 values")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04N.", b"\x93NUMPY\x01\x00", bytes(1000)])
def test_what_is_no_npz(content, path):
    path.write_bytes(content)
    assert refusal(read_arrays, path, KINDS) == "is no .npz with name and counts, or is damaged"


@pytest.mark.slow
def test_nothing_else_comes_out_of_damaged_arrays(path):
    whole = written(path, name="x", counts=np.arange(300)).read_bytes()
    chance, refused = random.Random(3), 0
    for turn in range(400):
        data = bytearray(whole[: chance.randrange(len(whole))] if turn % 5 == 0 else whole)
        for _ in range(chance.choice((1, 4, 40))):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            read_arrays(path, KINDS)
        except Unreadable as error:
            refused += 1
            assert "pickle" not in str(error)
    assert refused > 300
