"""The C++ output parser, compiled as its Makefile does but against our own header, and run under the address sanitizer.

The sanitizer has to be loaded before Python, so the calls are made by a process of their own, through ctypes, with the
arguments that nvinfer gives. PyTorch says what the answers should be.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segdeploy.shipped import folder

SOURCES = folder("deepstream") / "parser"
COMPILER = shutil.which("g++")
pytestmark = pytest.mark.skipif(
    not COMPILER or not shutil.which("make"),
    reason="there is no g++ and make here to compile the parser with",
)
CALL = """
import sys
import numpy as np
from pathlib import Path
from segdeploy.serve.deepstream.library import ParserLibrary
from segdeploy.errors import DeepStreamError
from segdeploy.size import Size
library = ParserLibrary(Path(sys.argv[1]), "NvDsInferParseSegdeploy")
height, width, classes, threshold = map(float, sys.argv[3:7])
try:
    size = Size(int(height), int(width))
    answer, beyond, refused = library.parse("output", np.load(sys.argv[2]), size, int(classes), threshold)
    np.save(sys.argv[2], answer)
    if refused:
        assert (answer == -1).all(), answer
        print(refused)
except DeepStreamError as error:
    print(error)
"""


def make(target, *flags):
    subprocess.run(
        ["make", "-s", "-C", str(SOURCES), "INCLUDES=-Iabi", "ON=cpu", f"LIBRARY={target}", *flags],
        check=True,
        capture_output=True,
        text=True,
    )
    return target


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The Makefile's own warnings are errors: -Wall -Wextra -Werror."""
    target = tmp_path_factory.mktemp("parser") / "libsegdeploy_parser.so"
    sanitized = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-sanitize=vptr"
    return make(target, f"CXXFLAGS=-O1 -g {sanitized} -fno-omit-frame-pointer")


EMULATED = Path(__file__).parent / "native" / "emulated_cuda.h"


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """The kernel's own source, run thread by thread on the CPU, with the sanitizers' eyes on its memory."""
    target = tmp_path_factory.mktemp("emulated") / "libsegdeploy_parser.so"
    flags = [
        "-std=c++14",
        "-O1",
        "-g",
        "-fPIC",
        "-shared",
        "-ffp-contract=off",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]
    sanitized = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-sanitize=vptr"]
    source = [
        "-x",
        "c++",
        "-include",
        str(EMULATED),
        f"-I{SOURCES / 'abi'}",
        str(SOURCES / "segdeploy_parser.cu"),
    ]
    subprocess.run([COMPILER, *flags, *sanitized, *source, "-o", str(target)], check=True)
    return target


@pytest.fixture(scope="module")
def sanitizer():
    asked = subprocess.run(
        [COMPILER, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    path = Path(asked.stdout.strip()).resolve()
    if not path.is_file():
        pytest.skip("this g++ has no address sanitizer")
    return {"LD_PRELOAD": str(path), "ASAN_OPTIONS": "detect_leaks=0"}


@pytest.fixture
def parse(library, sanitizer, tmp_path):
    """The class map, or the words of a refusal."""

    def call(output, size, classes, threshold=0.0, expect=0):
        path = tmp_path / "output.npy"
        np.save(path, output)
        words = [str(value) for value in (path, *size, classes, threshold)]
        done = subprocess.run(
            [sys.executable, "-c", CALL, str(library), *words],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | sanitizer | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        assert done.returncode == expect, done.stderr
        return done.stdout + done.stderr if done.stdout or expect else np.load(path)

    return call


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("shape", [(1, 9, 13), (9, 13), (9, 13, 1)])
def test_labels(dtype, shape, parse):
    labels = np.random.default_rng(0).integers(0, 7, shape).astype(dtype)
    labels.flat[3] = 7  # no class
    expected = labels.reshape(9, 13).astype(np.int32)
    expected[expected == 7] = -1
    assert np.array_equal(parse(labels, (9, 13), 7), expected)


@pytest.mark.slow
def test_ids_far_outside_are_no_class(parse):
    labels = np.array([[[-1, 0, 2**40, -(2**63), 4, 5]]], np.int64)
    assert parse(labels, (1, 6), 5).tolist() == [[-1, 0, -1, -1, 4, -1]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((5, 6, 10), (24, 40)),
        ((19, 7, 5), (25, 19)),
        ((3, 1, 1), (4, 6)),
        ((2, 9, 9), (9, 9)),
        ((4, 12, 16), (5, 7)),
    ],
)
def test_logits_are_raised_as_pytorch_raises_them(shape, size, parse):
    logits = (
        np.random.default_rng(1).standard_normal(shape).astype(np.float32) - 5
    )  # all negative is no obstacle
    raised = F.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear", align_corners=False)[0]
    best = raised.argmax(0).numpy()
    answer = parse(logits, size, shape[0])
    equal = answer == best
    ties = (
        raised.max(0).values - raised.gather(0, torch.from_numpy(answer.astype(np.int64))[None])[0]
    ).numpy()
    assert (ties[~equal] < 1e-5).all()
    assert equal.mean() > 0.99


@pytest.mark.slow
def test_a_threshold_is_a_probability(parse):
    logits = np.random.default_rng(2).standard_normal((6, 8, 8)).astype(np.float32) * 2
    raised = F.interpolate(torch.from_numpy(logits)[None], (32, 32), mode="bilinear", align_corners=False)[0]
    best = raised.softmax(0).max(0)
    answer = parse(logits, (32, 32), 6, 0.5)
    sure, unsure = best.values.numpy() > 0.5 + 1e-4, best.values.numpy() < 0.5 - 1e-4
    assert sure.sum() > 100 < unsure.sum()
    assert (answer[unsure] == -1).all()
    assert np.array_equal(answer[sure], best.indices.numpy()[sure])


MANY = """
import sys
import numpy as np
from pathlib import Path
from segdeploy.serve.deepstream.library import ParserLibrary
from segdeploy.size import Size
libraries = [ParserLibrary(Path(one), "NvDsInferParseSegdeploy") for one in sys.argv[1:]]
draw = np.random.default_rng(5)
for classes, height, width, above, beside in (
    (19, 16, 32, 64, 128), (150, 5, 9, 17, 31), (2, 9, 9, 9, 9), (4, 12, 16, 5, 7), (1, 1, 1, 3, 2), (5, 3, 1, 33, 65)
):
    for kind in ("plain", "ties", "nan", "minus", "plus", "nothing", "huge"):
        logits = draw.standard_normal((classes, height, width)).astype(np.float32)
        if kind == "ties":
            logits = np.round(logits)
        if kind == "nan":
            logits[draw.random(logits.shape) < 0.05] = np.nan
        if kind == "minus":
            logits[draw.random(logits.shape) < 0.3] = -np.inf
        if kind == "plus":
            logits[draw.random(logits.shape) < 0.02] = np.inf
        if kind == "nothing":
            logits[:] = -np.inf
        if kind == "huge":
            logits = np.sign(logits) * np.float32(3e38)
        for threshold in (0.0, 0.4):
            cpu, gpu = (one.parse("logits", logits, Size(above, beside), classes, threshold) for one in libraries)
            assert cpu[2] == gpu[2] == ""
            assert np.array_equal(cpu[0], gpu[0]), (classes, kind, threshold)
            assert cpu[0].max() < classes and cpu[0].min() >= -1
            if kind == "nothing":
                assert (cpu[0] == -1).all()
            if (kind, height, width) == ("nan", above, beside):
                assert np.array_equal(cpu[0] == -1, np.isnan(logits).any(0)) or threshold
print("equal")
"""


def sanitized(code, sanitizer, *words, **variables):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | sanitizer | {"PYTHONPATH": str(Path(__file__).parent.parent), **variables},
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_kernel_gives_what_the_cpu_gives(library, emulated, sanitizer):
    """Ties, NaN, infinities, odd sizes, one class and 150: pixel for pixel, without a word of a sanitizer."""
    assert sanitized(MANY, sanitizer, library, emulated) == "equal\n"


FULL = """
import sys
import numpy as np
from pathlib import Path
from segdeploy.serve.deepstream.library import ParserLibrary
from segdeploy.size import Size
library = ParserLibrary(Path(sys.argv[1]), "NvDsInferParseSegdeploy")
answer, _, refused = library.parse("logits", np.ones((3, 4, 4), np.float32), Size(8, 8), 3, 0.0)
print(np.unique(answer).tolist(), bool(refused))
"""


@pytest.mark.slow
def test_a_gpu_without_memory_refuses_the_frame(emulated, sanitizer):
    assert sanitized(FULL, sanitizer, emulated).endswith("[0] False\n")
    said = sanitized(FULL, sanitizer, emulated, EMULATED_CUDA_IS_FULL="1")
    assert "[-1] True" in said
    assert "cannot be raised on the GPU: it has no memory or no stream left" in said


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_what_is_no_number_is_no_class(value, parse):
    """Also with a threshold, and not only where all classes are: what made one NaN has made the others."""
    logits = np.zeros((3, 4, 6), np.float32)
    logits[:, 1, 1] = value
    logits[1, 2, 2] = value
    for threshold in (0.0, 0.3):
        answer = parse(logits, (4, 6), 3, threshold)
        assert (answer[1, 1], answer[2, 2]) == (-1, -1 if np.isnan(value) else 0)
        assert np.count_nonzero(answer) == (2 if np.isnan(value) else 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "classes", "words"),
    [
        (np.zeros((1, 4, 6), np.int64), 3, "another resolution"),
        (np.zeros((6, 8), np.int32), 3, "another resolution"),  # turned by a quarter
        (np.zeros((3, 4, 6), np.float32), 4, "another number of channels"),
        (np.zeros((4, 6), np.float32), 3, "not logits"),
        (np.zeros((3, 4, 6), np.float16), 3, "neither int64"),
        (np.zeros((1, 8, 6), np.int64), 0, "num-detected-classes is 0"),
    ],
)
def test_what_it_refuses(output, classes, words, parse):
    said = parse(output, (8, 6), classes)
    assert "refused the output 'output'" in said
    assert words in said


@pytest.mark.slow
def test_the_sanitizer_sees_what_is_planted(library, parse, monkeypatch):
    """A class map that is a row short has to be reported, or the tests above show nothing."""
    code = CALL.replace("size = Size(int(height), int(width))", "size = Size(int(height) - 1, int(width))")
    code = code.replace(
        "answer, beyond, refused = library.parse(",
        "import segdeploy.serve.deepstream.library as l;"
        " real = l.Network; l.Network = lambda w, h, c: real(w, h + 1, c); answer, beyond, refused = library.parse(",
    )
    monkeypatch.setitem(parse.__globals__, "CALL", code)
    said = parse(np.zeros((1, 200, 300), np.int64), (200, 300), 5, expect=1)
    assert "heap-buffer-overflow" in said


def test_our_header_is_laid_out_as_ctypes_has_it(tmp_path):
    from segdeploy.serve.deepstream import library

    (tmp_path / "layout.cpp").write_text(
        '#include <cstddef>\n#include <cstdio>\n#include "nvdsinfer_custom_impl.h"\nint main() { std::printf('
        '"%zu %zu %zu %zu %zu %zu %zu", sizeof(NvDsInferLayerInfo), offsetof(NvDsInferLayerInfo, inferDims),'
        " offsetof(NvDsInferLayerInfo, bindingIndex), offsetof(NvDsInferLayerInfo, layerName),"
        " offsetof(NvDsInferLayerInfo, buffer), offsetof(NvDsInferLayerInfo, isInput),"
        " sizeof(std::vector<NvDsInferLayerInfo>)); }\n"
    )
    program = tmp_path / "layout"
    subprocess.run(
        [COMPILER, f"-I{SOURCES / 'abi'}", "-o", str(program), str(tmp_path / "layout.cpp")], check=True
    )
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    layer = library.ParserLayer
    fields = (layer.dims, layer.binding, layer.name, layer.buffer, layer.is_input)
    assert [int(word) for word in said.split()] == [72, *(field.offset for field in fields), 24]
    import ctypes

    assert (ctypes.sizeof(layer), ctypes.sizeof(library.Vector)) == (72, 24)


@pytest.mark.slow
def test_it_is_built_without_a_makefile_too(tmp_path):
    from segdeploy.serve.deepstream.library import ParserLibrary, build_own_parser
    from segdeploy.size import Size

    build_own_parser(tmp_path / "own.so")
    answer = ParserLibrary(tmp_path / "own.so", "NvDsInferParseSegdeploy").parse(
        "labels", np.full((4, 6), 2, np.uint8), Size(4, 6), 3, 0.0
    )
    assert (answer[0] == 2).all()
    assert answer[1:] == (0, "")


@pytest.mark.slow
def test_libraries_that_are_none(tmp_path, library):
    from segdeploy.errors import DeepStreamError
    from segdeploy.serve.deepstream.library import ParserLibrary

    (tmp_path / "x.so").write_bytes(b"\x7fELF")
    with pytest.raises(DeepStreamError, match="cannot be loaded on this machine"):
        ParserLibrary(tmp_path / "x.so", "f")
    plain = make(tmp_path / "plain.so", "CXXFLAGS=-O1")
    with pytest.raises(DeepStreamError, match="holds no function NvDsInferParseCustomUnet"):
        ParserLibrary(plain, "NvDsInferParseCustomUnet")
