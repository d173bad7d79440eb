"""The verb `cache`: caches and scales.json shown, compared and converted, and what is refused."""

import json
import random

import pytest

from segdeploy.cli import main
from segdeploy.convert.int8.cache import CalibrationCache, read_cache, write_cache
from segdeploy.convert.int8.scale_files import key_in, read_scale_file
from segdeploy.errors import SegdeployError

SCALES = {"input": 0.0078740157186985016, "/block/Gelu": 0.5, "/dead": 0.0}


@pytest.fixture
def calib(tmp_path):
    write_cache(tmp_path / "x.calib", CalibrationCache("10.9.0", "EntropyCalibration2", SCALES))
    return tmp_path / "x.calib"


@pytest.fixture
def ours(tmp_path):
    tensors = {name: {"scale": scale, "largest": 1.0, "clipped": 0.0} for name, scale in SCALES.items()}
    tensors["input"]["scale"] = 1 / 127  # not a float32
    path = tmp_path / "x.scales.json"
    path.write_text(json.dumps({"schema": 1, "method": "entropy", "key": {}, "tensors": tensors}))
    return path


def run(*arguments):
    return main(["cache", *map(str, arguments)])


def test_show(calib, ours, capsys):
    assert run("show", calib) == 0
    assert capsys.readouterr().out == (
        f"{calib}: EntropyCalibration2 of TensorRT 10.9.0, 3 tensors, 1 of them dead\n"
        "input        0.00787402  ±1\n"
        "/block/Gelu  0.5  ±63.5\n"
        "/dead        0  dead: never anything but zero\n"
    )
    assert run("show", ours) == 0
    assert capsys.readouterr().out.startswith(f"{ours}: scales.json by entropy, 3 tensors, 1 of them dead\n")


def test_show_as_json(calib, ours, capsys):
    assert run("show", "--json", calib) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": str(calib),
        "header": "TRT-100900-EntropyCalibration2",
        "tensorrt": "10.9.0",
        "algorithm": "EntropyCalibration2",
        "dead": ["/dead"],
        "scales": SCALES,
    }
    assert run("show", ours, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["header"], facts["tensorrt"], facts["algorithm"]) == (None, None, "entropy")
    assert facts["scales"] == SCALES


def test_show_for_a_tensorrt(calib, ours, capsys):
    assert run("show", calib, "--for", "10.9.0") == 0
    capsys.readouterr()
    assert run("show", calib, "--for", "10.8.0") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "x.calib is of TensorRT 10.9.0, asked for is 10.8.0" in said.err
    assert run("show", ours, "--for", "10.8.0") == 1
    assert "x.scales.json is of no TensorRT" in capsys.readouterr().err


def test_comparing_what_is_the_same(calib, ours, tmp_path, capsys):
    write_cache(tmp_path / "y.calib", CalibrationCache("8.5.1", "MinMaxCalibration", SCALES))
    for other in (calib, tmp_path / "y.calib", ours):
        assert run("compare", calib, other) == 0
        assert capsys.readouterr().out.endswith("3 tensors in both, 0 differ by more than 0 %\n")


def test_comparing_what_is_not(calib, tmp_path, capsys):
    other = tmp_path / "y.calib"
    scales = {"input": 0.0078740157186985016, "/block/Gelu": 0.4, "/dead": 1.0, "/new": 1.0}
    write_cache(other, CalibrationCache("8.5.1", "EntropyCalibration2", scales))
    assert run("compare", calib, other) == 1
    assert capsys.readouterr().out == (
        f"A  {calib}: EntropyCalibration2 of TensorRT 10.9.0, 3 tensors\n"
        f"B  {other}: EntropyCalibration2 of TensorRT 8.5.1, 4 tensors\n"
        "only in B: /new\n"
        "3 tensors in both, 2 differ by more than 0 %\n"
        "/dead        0  1  100 %\n"
        "/block/Gelu  0.5  0.4  20 %\n"
    )
    assert run("compare", calib, other, "--json") == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["same"], facts["only_first"], facts["only_second"]) == (False, [], ["/new"])
    assert [(one["tensor"], one["share"]) for one in facts["differences"]] == [
        ("/dead", 1.0),
        ("/block/Gelu", pytest.approx(0.2)),
    ]


@pytest.mark.parametrize(("within", "status"), [(19, 1), (21, 0)])
def test_comparing_within(within, status, calib, tmp_path):
    write_cache(
        tmp_path / "y.calib",
        CalibrationCache("10.9.0", "EntropyCalibration2", SCALES | {"/block/Gelu": 0.4}),
    )
    assert run("compare", calib, tmp_path / "y.calib", "--within", within) == status


def test_many_differences_are_cut(tmp_path, capsys):
    for name, factor in (("a", 1.0), ("b", 2.0)):
        scales = {f"{name if index > 30 else 't'}{index}": factor for index in range(60)}
        write_cache(tmp_path / name, CalibrationCache("10.9.0", "EntropyCalibration2", scales))
    assert run("compare", tmp_path / "a", tmp_path / "b") == 1
    said = capsys.readouterr().out
    assert said.count("50 %") == 20
    assert said.endswith("and 11 more\n")
    assert "a50 and 9 more\n" in said


def test_converting_between_versions(calib, tmp_path, capsys):
    out = tmp_path / "out" / "y.calib"
    assert run("convert", calib, "--for", "8.5.1", "-o", out) == 0
    assert out.read_text().splitlines() == [
        "TRT-8501-EntropyCalibration2",
        *calib.read_text().splitlines()[1:],
    ]
    said = capsys.readouterr().out
    assert "names and scales are those of TensorRT 10.9.0, only the header is new" in said
    assert "NVIDIA does not promise that a cache holds across releases" in said


def test_converting_to_scales_and_back(calib, tmp_path, capsys):
    scales, again = tmp_path / "y.json", tmp_path / "z.calib"
    assert run("convert", calib, "-o", scales) == 0
    assert json.loads(scales.read_text()) == {
        "schema": 1,
        "method": "EntropyCalibration2 of TensorRT 10.9.0",
        "key": None,
        "tensors": {name: {"scale": scale} for name, scale in SCALES.items()},
    }
    assert "of which graph and images it does not say" in capsys.readouterr().out
    assert run("convert", scales, "--for", "10.9.0", "-o", again) == 0
    assert again.read_bytes() == calib.read_bytes()
    assert (
        "also where the search kept it out; segdeploy quantize --cache-for leaves" in capsys.readouterr().out
    )
    assert read_scale_file(scales).scales == read_cache(again).scales


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("-o", "y.calib"), "say of which TensorRT with --for, as in --for 10.9.0"),
        (("-o", "y.json", "--for", "8.5.1"), "y.json is a scales.json, so leave it out"),
        (("-o", "x.calib", "--for", "8.5.1"), "is the file that is converted; name another one"),
        (("-o", "y.calib", "--for", "11.0.0"), "TensorRT 11.0.0 reads no calibration cache"),
        (("-o", "y.calib", "--for", "8.5"), "'8.5' is not a TensorRT version; expected three numbers"),
    ],
)
def test_conversions_that_make_no_sense(flags, words, calib, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = calib.read_bytes()
    assert run("convert", calib, *flags) == 1
    said = capsys.readouterr()
    assert words in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["x.calib"]
    assert calib.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.calib", "TRT-100900-EntropyCalibration2\na: 0\nb: 3c010a143", "which has 9 digits"),
        ("x.calib", "TRT-100900-EntropyCalibration2\na: 7fc00000", "which is nan"),
        ("x.calib", "TRT-100900-EntropyCalibration2\na: 0.5", "a decimal number"),
        ("x.calib", "a: 3c010a14", "expected a line like TRT-100900-EntropyCalibration2"),
        ("x.calib", "", "is empty"),
        ("gone.calib", None, "cannot be read: No such file"),
        ("gone.json", None, "cannot be read: No such file"),
        ("x.json", "nothing", "x.json is not JSON"),
        ("x.json", "[]", "holds no tensors; expected the scales.json that quantize writes"),
        ("x.json", '{"schema": 2, "tensors": {}}', "has schema 2, this version of segdeploy reads 1"),
        ("x.json", '{"schema": 1, "tensors": {"a": 1}}', "the scale of 'a' is None, not a number"),
        ("x.json", '{"schema": 1, "tensors": {"a": {"scale": true}}}', "the scale of 'a' is True, not a number"),
        ("x.json", '{"schema": 1, "tensors": {"a": {"scale": -1}}}', "is -1, not a finite number from 0 on"),
        ("x.json", '{"schema": 1, "tensors": {"a": {"scale": NaN}}}', "is nan, not a finite number from 0 on"),
        ("x.json", '{"schema": 1, "tensors": {"a": {"scale": 1e-60}}}', "is 1e-60, too small for float32"),
        ("x.json", '{"schema": 1, "equalised": true, "tensors": {}}', "quantize again with --equalise off"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", ["show", "compare", "convert"])
def test_files_that_are_none(step, name, content, words, tmp_path, capsys):
    path, out = tmp_path / name, tmp_path / "out.calib"
    if content is not None:
        path.write_text(content)
    more = {"show": (), "compare": (path,), "convert": ("--for", "8.5.1", "-o", out)}[step]
    assert run(step, path, *more) == 1
    said = capsys.readouterr()
    assert words in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert not out.exists()


ODD = (
    "1" * 400,
    "1e999",
    "-0",
    "NaN",
    "null",
    "[]",
    '"\\ud800"',
    "1" * 5000,
    "1e-400",
    "[" * 2000,
    "\x00",
    "ffffffff",
    "é",
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["calib", "ours"])
def test_nothing_but_our_errors_comes_out_of_damaged_scales(kind, request, tmp_path):
    path = request.getfixturevalue(kind)
    whole, chance, refused = path.read_text(), random.Random(kind), 0
    for _ in range(500):
        start, end = sorted(chance.randrange(len(whole)) for _ in range(2))
        end = min(end, start + chance.choice((0, 1, 5, 20)))
        path.write_text(whole[:start] + chance.choice((*ODD, "", whole[start : end + 9])) + whole[end:])
        try:
            scales = read_scale_file(path)
            key_in(path)
        except SegdeployError as error:
            refused += 1
            assert str(error).isprintable()
        else:
            assert all(0 <= one < float("inf") for one in scales.scales.values())
            write_cache(tmp_path / "again", CalibrationCache("10.9.0", "EntropyCalibration2", scales.scales))
    assert refused > 100
