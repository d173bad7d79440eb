import os
import struct
from dataclasses import replace

import numpy as np
import pytest

from segdeploy.convert.int8.cache import (
    CalibrationCache,
    compare_caches,
    demand_version,
    hex_of,
    read_cache,
    scale_of,
    version_number,
    version_text,
    write_cache,
)
from segdeploy.errors import CalibrationError

# As TensorRT writes it: names of the graph and of the parser in no order, hex not padded.
TEXT = """\
TRT-100900-EntropyCalibration2
input: 3c010a14
/stage.0/Softmax_output_0: 3b000000
/stage.0/dead/Relu_output_0: 0
ONNXTRT_Broadcast_191_output: 3cb67d3d
(Unnamed Layer* 7) [Constant]_output: a3d70a4
a: name: with colons: 3b99745c
"""


def cache_of(tmp_path, text, name="x.cache"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_cache(tmp_path / name)


def test_what_tensorrt_writes_is_read_and_written_back(tmp_path):
    cache = cache_of(tmp_path, TEXT)
    assert (cache.tensorrt, cache.algorithm, cache.header) == (
        "10.9.0",
        "EntropyCalibration2",
        "TRT-100900-EntropyCalibration2",
    )
    assert cache.scales == {
        "input": np.float32(1.00024414) / np.float32(127),
        "/stage.0/Softmax_output_0": 2.0**-9,
        "/stage.0/dead/Relu_output_0": 0,
        "ONNXTRT_Broadcast_191_output": pytest.approx(8**0.5 * 2048.5 / 2048 / 127, rel=1e-7),
        "(Unnamed Layer* 7) [Constant]_output": struct.unpack("!f", bytes.fromhex("0a3d70a4"))[0],
        "a: name: with colons": pytest.approx(8**-0.25 * 2048.5 / 2048 / 127, rel=1e-7),
    }
    assert cache.dead == ("/stage.0/dead/Relu_output_0",)
    write_cache(tmp_path / "again.cache", cache)
    assert (tmp_path / "again.cache").read_bytes() == TEXT.encode()


def test_a_cache_for_another_tensorrt_differs_in_the_first_line(tmp_path):
    cache = cache_of(tmp_path, TEXT)
    write_cache(tmp_path / "old.cache", replace(cache, tensorrt="8.5.1"))
    first, rest = (tmp_path / "old.cache").read_text().split("\n", 1)
    assert first == "TRT-8501-EntropyCalibration2"
    assert rest == TEXT.split("\n", 1)[1]
    assert read_cache(tmp_path / "old.cache").tensorrt == "8.5.1"


def test_line_ends_blank_lines_and_upper_case(tmp_path):
    cache = cache_of(tmp_path, "TRT-8601-MinMaxCalibration\r\na: 3C010A14\r\n\r\nb\u2028c: 1\r\n\n")
    assert (cache.algorithm, cache.tensorrt) == ("MinMaxCalibration", "8.6.1")
    assert {name: hex_of(scale) for name, scale in cache.scales.items()} == {"a": "3c010a14", "b\u2028c": "1"}
    assert cache_of(tmp_path, "TRT-8601-MinMaxCalibration").scales == {}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("7103", "7.1.3"),
        ("8501", "8.5.1"),
        ("8510", "8.5.10"),
        ("8601", "8.6.1"),
        ("9300", "9.3.0"),
        ("100001", "10.0.1"),
        ("100900", "10.9.0"),
        ("101000", "10.10.0"),
        ("101303", "10.13.3"),
    ],
)
def test_versions(number, text):
    assert version_text(number) == text
    assert version_number(text) == int(number)


@pytest.mark.parametrize("number", ["0", "850", "0501", "10000", "200000", "1009000"])
def test_numbers_that_are_no_version(number):
    with pytest.raises(CalibrationError, match=f"version {number} is not understood; expected one like 8501"):
        version_text(number)


@pytest.mark.parametrize("text", ["10", "10.9", "10.9.0.34", "10.100.0", "v10.9.0", "", "010.9.0"])
def test_texts_that_are_no_version(text):
    with pytest.raises(CalibrationError, match="is not a TensorRT version; expected three numbers, as in 10"):
        version_number(text)


def test_versions_that_read_no_cache():
    for wrong in (lambda: version_number("11.1.0"), lambda: version_text("110100")):
        with pytest.raises(CalibrationError, match=r"^TensorRT 11\.1\.0 reads no calibration cache.*Q/DQ"):
            wrong()
    with pytest.raises(CalibrationError, match=r"no TensorRT 8\.10\.0"):
        version_number("8.10.0")


def test_hex_is_exact_for_every_kind_of_float32():
    rng = np.random.default_rng(0)
    bits = [0, 1, 0x007FFFFF, 0x00800000, 0x3C010A14, 0x7F7FFFFF, *rng.integers(1, 0x7F800000, 5000).tolist()]
    for value in bits:
        assert hex_of(scale_of(f"{value:x}")) == f"{value:x}"
        assert scale_of(f"{value:08x}") == scale_of(f"{value:x}")


def test_scales_are_rounded_to_float32_as_numpy_does():
    for value in np.random.default_rng(1).lognormal(-5, 3, 2000):
        assert scale_of(hex_of(value)) == np.float32(value)
    assert hex_of(-0.0) == "0"


@pytest.mark.parametrize(
    ("digits", "found"),
    [
        ("03c010a14", "'03c010a14', which has 9 digits"),
        ("0x3c010a14", "'0x3c010a14', which is not hexadecimal"),
        ("3c010a1g", "'3c010a1g', which is not hexadecimal"),
        ("", "'', which is not hexadecimal"),
        ("+3c", "'+3c', which is not hexadecimal"),
        ("0.00787594", "'0.00787594', a decimal number"),
        ("8e-3", "'8e-3', a decimal number"),
        ("nan", "'nan', a decimal number"),
        ("7fc00000", "7fc00000, which is nan"),
        ("7f800000", "7f800000, which is inf"),
        ("ff800000", "ff800000, which is -inf"),
        ("bc010a14", "bc010a14, which is -0.00787"),
        ("80000000", "80000000, which is -0.0"),
    ],
)
def test_scales_that_do_not_hold(digits, found, tmp_path):
    with pytest.raises(CalibrationError) as caught:
        cache_of(tmp_path, f"TRT-8501-EntropyCalibration2\na: 3c010a14\nb.c: {digits}\n")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'x.cache'}, line 3: the scale of 'b.c' is {found}")
    assert text.endswith(
        "; expected up to 8 hexadecimal digits, the bits of a positive float32: calibrate again"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            " is empty; a calibration cache begins with a line like TRT-100900-EntropyCalibration2: calibrate",
        ),
        (" \n\n", " is empty; "),
        (
            b"\x93\xff\x00ptrt",
            " is not text (byte 0); a calibration cache begins with a line like TRT-100900-",
        ),
        (
            "a: 3c010a14\n",
            ", line 1: found 'a: 3c010a14', expected a line like TRT-100900-EntropyCalibration2; c",
        ),
        ("\n" + TEXT, ", line 1: found '', expected a line like"),
        ("TRT-EntropyCalibration2\n", ", line 1: found 'TRT-EntropyCalibration2', expected a line like"),
        ("x" * 99, f", line 1: found '{'x' * 39}…', expected a line like"),
        (
            "TRT-8501-EntropyCalibration\n",
            ", line 1: the calibrator is EntropyCalibration, expected EntropyCalibration2 or MinMaxCalibration, w",
        ),
        (
            "TRT-85010-EntropyCalibration2\n",
            ", line 1: the TensorRT version 85010 is not understood; expected o",
        ),
        (
            "TRT-110000-EntropyCalibration2\n",
            ", line 1: TensorRT 11.0.0 reads no calibration cache: 11 removed",
        ),
        (
            TEXT + "input: 3c010a14\n",
            ", line 8: 'input' was named before, on line 2; a tensor has one scale: ",
        ),
        (
            TEXT + "input 3c010a14\n",
            ", line 8: found 'input 3c010a14', expected a tensor's name and its scale, ",
        ),
        (
            TEXT + "b:3c010a14\n",
            ", line 8: found 'b:3c010a14', expected a tensor's name and its scale, as in ",
        ),
        (
            TEXT + ": 3c010a14\n",
            ", line 8: found ': 3c010a14', expected a tensor's name and its scale, as in ",
        ),
    ],
)
def test_files_that_are_no_cache(text, message, tmp_path):
    with pytest.raises(CalibrationError) as caught:
        cache_of(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'x.cache'}{message}")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CalibrationError, match=r"x\.cache cannot be read: No such file"):
        read_cache(tmp_path / "x.cache")


@pytest.mark.parametrize(("target", "kind"), [("/dev/zero", "a device"), (None, "a pipe")])
def test_what_has_no_end_is_not_waited_for(tmp_path, target, kind):
    path = tmp_path / "x.cache"
    path.symlink_to(target) if target else os.mkfifo(path)
    with pytest.raises(CalibrationError) as caught:
        read_cache(path)
    assert str(caught.value) == f"{path} is {kind}, and no file; name a calibration cache"


@pytest.mark.parametrize(
    ("scale", "found"),
    [
        (float("nan"), "nan, not a finite number from 0 on"),
        (float("inf"), "inf, not a finite number from 0 on"),
        (-0.5, "-0.5, not a finite number from 0 on"),
        (1e39, r"1e\+39, too large for float32"),
        (1e-50, "1e-50, too small for float32"),
    ],
)
def test_scales_that_cannot_be_written(scale, found, tmp_path):
    cache = CalibrationCache("10.9.0", "EntropyCalibration2", {"a": 1.0, "b": scale})
    with pytest.raises(CalibrationError, match=f"^the scale of 'b' is {found}; calibrate it again"):
        write_cache(tmp_path / "x.cache", cache)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a\nb", "a\r"])
def test_names_that_cannot_be_written(name, tmp_path):
    cache = CalibrationCache("10.9.0", "EntropyCalibration2", {name: 1.0})
    with pytest.raises(CalibrationError, match="a cache cannot hold the tensor name"):
        write_cache(tmp_path / "x.cache", cache)


def test_a_calibrator_that_is_not_known(tmp_path):
    with pytest.raises(
        CalibrationError, match="'Entropy' in a cache; known: EntropyCalibration2, MinMaxCali"
    ):
        write_cache(tmp_path / "x.cache", CalibrationCache("10.9.0", "Entropy", {}))


def test_comparing():
    first = CalibrationCache(
        "8.5.1", "EntropyCalibration2", {"same": 2, "z": 3, "near": 1.0, "dead": 0, "both": 0, "far": 1}
    )
    second = CalibrationCache(
        "10.9.0",
        "MinMaxCalibration",
        {"far": 4, "dead": 1, "both": 0, "near": 0.9, "same": 2, "y": 1, "x": 0},
    )
    found = compare_caches(first, second)
    assert (found.only_first, found.only_second) == (("z",), ("y", "x"))
    assert list(found.differences.items()) == [
        ("dead", 1.0),
        ("far", 0.75),
        ("near", pytest.approx(0.1)),
        ("both", 0.0),
        ("same", 0.0),
    ]
    turned = compare_caches(second, first)
    assert turned.differences == found.differences
    assert (turned.only_first, turned.only_second) == (("y", "x"), ("z",))


def test_a_cache_of_another_tensorrt(tmp_path):
    path = tmp_path / "x.calib"
    cache = CalibrationCache("10.9.0", "EntropyCalibration2", {"input": 1.0})
    demand_version(path, cache, "10.9.0")
    demand_version(path, cache, "10.9.0.34")
    with pytest.raises(CalibrationError) as refused:
        demand_version(path, cache, "8.6.1")
    assert str(refused.value) == (
        f"{path} is of TensorRT 10.9.0, asked for is 8.6.1, and NVIDIA does not promise that a cache holds across"
        " releases; calibrate again with --cache-for 8.6.1, or take the old scales as they are with:"
        f" segdeploy cache convert {path} --for 8.6.1 -o OUT"
    )
    with pytest.raises(CalibrationError, match=r"TensorRT 11.0.0 reads no calibration cache: 11 removed it"):
        demand_version(path, cache, "11.0.0.10")
    with pytest.raises(CalibrationError, match="'10' is not a TensorRT version"):
        demand_version(path, cache, "10")
