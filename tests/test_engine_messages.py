# ruff: noqa: E501 - messages are quoted as they are
"""Real messages, of TensorRT-RTX here and of TensorRT in public issues, to what they mean."""

import pytest

from segdeploy.convert.engine.messages import Tried, advice, explain, in_words, room
from segdeploy.flavour import Flavour, Version
from segdeploy.model.engine import Profile
from segdeploy.size import Size

HERE = Flavour("tensorrt", None, Version(10, 3, 0))
SMALL = Tried("x.onnx", Profile(1, 1, 1), Size(64, 64))
NO_DRIVER = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at"
    " /_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient for CUDA runtime version))"
)
REAL = [
    ("Assertion failed: shiftIsAllZeros(zeroPoint): Non-zero zero point is not supported.", "asymmetrically"),
    (
        "ITensor::getDimensions: Error Code 4: API Usage Error (bias_dq: input has type Int32 but must have type FP8, FP4,"
        " Int4, Int8, or UInt8. In checkType at /_src/optimizer/common/nodeBase.cpp:456)",
        "stored as int32",
    ),
    (
        "API Usage Error (add: ElementWiseOperation SUM must have same input types. But they are of types Half and Float."
        " In validateTypes at /_src/optimizer/common/nodes/elementWiseNode.cpp:40)",
        "two types of numbers meet",
    ),
    ('creator && "Plugin not found, are the plugin name, version, and namespace correct?"', "no plugin for"),
    (
        "UNSUPPORTED_NODE: Assertion failed: creator && getPluginCreatorVersion(creator) == CreatorVersion::kV3ONE:"
        " NonZero plugin creator version 1 was not found in plugin registry.",
        "operator that this TensorRT knows no plugin for",
    ),
    ("Assertion failed: model->ParseFromCodedStream(&codedInput): Failed to parse the ONNX model.", "not an ONNX graph"),
    (
        "Cannot compile for target(s) sm86, because the model contains HW-specific datatypes: fp8_e4m3",
        "one of the targets",
    ),
    ("[virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (no further information)", "out of memory"),
    (
        "Requested amount of GPU memory (17179869184 bytes) could not be allocated. There may not be enough free memory"
        " for allocation to succeed.",
        "out of memory",
    ),
    ("[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)", "out of memory"),
    (
        "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for node"
        " {ForeignNode[/1/Constant_36_output_0.../1/Slice_4]}.)",
        "no kernel",
    ),
    ("mha_fusion.cpp:344: DCHECK(fc1_ && fc2_ && softmax_) failed.", "compiler failed"),
    (
        "The engine plan file is generated on an incompatible device, expecting compute 8.6 got compute 7.5, please"
        " rebuild.",
        "another compute capability",
    ),
    (
        "Serialization (Serialization assertion stdVersionRead == serializationVersion failed.Version tag does not match."
        " Note: Current Version: 213, Serialized Engine Version: 232)",
        "another version of TensorRT",
    ),
    (
        "The engine plan file is not compatible with this version of TensorRT, expecting library version 8.0.0 got 8.0.1,"
        " please rebuild.",
        "another version of TensorRT",
    ),
    ("Detected invalid timing cache, setup a local cache instead", "timing cache is of another"),
    ("setDefaultDeviceType was called but no layer in the network can run on DLA.", "runs on the DLA"),
    (
        "DLA only supports FP16 and Int8 precision type. Switching (Unnamed Layer* 95) [Shape] device type to GPU.",
        "FP16 and INT8 only",
    ),
    (
        "API Usage Error (Network has dynamic or shape inputs, but no optimization profile has been defined. In validate"
        " at /_src/optimizer/api/network.cpp:4023)",
        "leaves a size open",
    ),
    (
        "Input tensor frames has static dimensions that don't match kOPT dimensions in profile index 0. Input dimensions"
        " are [1,96,160,3] but profile dimensions are [4,96,160,3].",
        "batch asked for",
    ),
    ("IBuilder::buildSerializedNetwork: Error Code 7: BuildCanceled (Build canceled by user In next)", "stopped"),
    ("write: No space left on device", "disk is full"),
    (NO_DRIVER, "no GPU here"),
    ("Unable to initialize: CUDA initialization failure with error: 35", "no GPU here"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "cause"), REAL)
def test_a_message_and_its_cause(message, cause):
    found, remedy = explain([message], Tried("x.onnx", Profile(1, 1, 1), Size(512, 1024)))
    assert cause in found
    assert remedy
    assert "{" not in remedy


def test_the_driver_is_blamed_last():
    parser = REAL[1][0]
    said = in_words([NO_DRIVER, f"{parser}\n{parser}"], [], SMALL, HERE)
    assert "no GPU" not in said
    assert REAL[0][0] not in said


def test_out_of_memory_names_what_takes_less():
    said = in_words([REAL[7][0]], [], Tried("x.onnx", Profile(1, 4, 8), Size(1024, 2048), 8.0), HERE)
    assert said.startswith(
        "the GPU ran out of memory while kernels were tried; try --workspace 4, then --batch 1:4:4"
    )
    assert "--size 512x1024" in said
    assert "TensorRT 10.3.0 says: [virtualMemoryBuffer.cpp" in said
    assert room(SMALL).startswith("try --workspace 2, then a graph smaller")


def test_an_unknown_message_is_told_as_it_is():
    said = in_words(["never\n heard of"], [], SMALL, HERE)
    assert said == "TensorRT 10.3.0 says: never heard of"
    assert in_words([], [], SMALL, HERE).endswith("it gave no reason")


@pytest.mark.parametrize(
    ("errors", "warnings", "said"),
    [
        (3, 0, "error 0; error 1; error 2"),
        (3, 9, "error 0; error 1; error 2"),
        (1, 9, "error 0; warning 0; warning 1"),
        (4, 0, "error 0; error 1; error 2; and 1 more error"),
        (6, 1, "error 0; error 1; error 2; and 3 more errors"),
    ],
)
def test_errors_that_are_not_shown_are_counted(errors, warnings, said):
    told = in_words(
        [NO_DRIVER, *(f"error {index}" for index in range(errors))],
        [f"warning {index}" for index in range(warnings)],
        SMALL,
        HERE,
    )
    assert told == f"TensorRT 10.3.0 says: {said}"


def test_a_fixed_batch_is_changed_at_export():
    said = room(Tried("x.onnx", Profile(8, 8, 8), Size(512, 512), fixed=True))
    assert said.startswith(
        "try --workspace 2, then a graph of a smaller batch, as in --batch 4 at export, then"
    )
    assert "--batch 4:4:4" not in said


def test_errors_are_explained_before_warnings():
    """The catalogue's order is among errors: what was only warned of comes after all of them."""
    error = "Could not find any implementation for node {ForeignNode[a...b]}."
    said = in_words([error], ["Detected invalid timing cache, setup a local cache instead"], SMALL, HERE)
    assert said.startswith("TensorRT found no kernel that runs this part")
    said = in_words(
        ["never heard of"], ["Detected invalid timing cache, setup a local cache instead"], SMALL, HERE
    )
    assert said.startswith("the timing cache is of another")


def test_warnings_worth_telling():
    overflow = (
        "Detected layernorm nodes in FP16: /norm/ReduceMean. Running layernorm after self-attention in FP16 may cause"
        " overflow."
    )
    (note,) = advice([overflow, "Using PyTorch"])
    assert "LayerNorm in FP16" in note
    assert advice(["quiet"]) == []


def test_noise_is_told_where_there_is_nothing_else():
    noise = "catchCudaError: 35"
    assert noise in in_words([noise], [], SMALL, HERE)
    assert noise not in in_words([noise, "the cause"], [], SMALL, HERE)
