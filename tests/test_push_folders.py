"""What is published names no folder of the machine it was made on."""

import json

import pytest

from segdeploy.serve.hub.folders import (
    command_without_folders,
    published,
    text_without_folders,
    without_folders,
)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("/home/ann/my nets/b0.pth", "b0.pth"),
        ("~/nets/b0.pth", "b0.pth"),
        (r"C:\Users\ann\b0.pth", "b0.pth"),
        ("nvidia/segformer-b0", "nvidia/segformer-b0"),
        ("https://host/a/b.onnx", "https://host/a/b.onnx"),
        ("file:///home/ann/b0.pth", "file://b0.pth"),
        ("rtsp://host:8554/gate", "rtsp://host:8554/gate"),
        ("calibrated on /data/ann/city/train (24 images)", "calibrated on train (24 images)"),
        ("out/x.onnx and ./y.onnx and ../z.onnx", "out/x.onnx and ./y.onnx and ../z.onnx"),
        ("0.5/1.0 of the labels; 3 / 4", "0.5/1.0 of the labels; 3 / 4"),
        ("PyTorch FP32", "PyTorch FP32"),
        ("", ""),
        ("/", "/"),
    ],
)
def test_of_an_absolute_path_its_last_name_stays(text, short):
    assert text_without_folders(text) == short


@pytest.mark.parametrize(
    ("command", "short"),
    [
        ("segdeploy export '/home/ann/my nets/b0.pth' -o /tmp/out", "segdeploy export b0.pth -o out"),
        ("segdeploy quantize x.onnx --root=/data/city", "segdeploy quantize x.onnx --root=city"),
        ("segdeploy export acme/net --size 64x96,97x131", "segdeploy export acme/net --size 64x96,97x131"),
        ("segdeploy export 'it is open", "segdeploy export 'it is open"),
    ],
)
def test_commands_are_cut_word_by_word(command, short):
    assert command_without_folders(command) == short


def test_a_text_without_folders_stays_to_the_byte():
    kept = '{"command": "segdeploy export  acme/net", "n": [1.50, null]}'
    assert published(kept) == kept
    facts = {"a": [{"commands": ["segdeploy run /x/y.onnx"]}], "mean": [0.5], "at": "/home/ann/x"}
    assert without_folders(facts) == {"a": [{"commands": ["segdeploy run y.onnx"]}], "mean": [0.5], "at": "x"}
    assert "ann" not in published(json.dumps(facts))


def test_names_of_nodes_and_classes_and_coded_pictures_stay():
    """A graph of PyTorch's older exporter has nodes like `/head/MatMul`; base64 has slashes."""
    facts = {
        "classes": ["/other", "car /van/x"],
        "islands": ["/head/MatMul"],
        "calibration": {
            "keep": ["/head"],
            "methods": {"mse": ["/head/a"]},
            "dead": ["/head/b"],
            "sensitivities": [{"group": "/head/c"}],
        },
        "ledger": [{"worst_class": {"name": "/other"}}],
        "engine": {
            "bindings": [{"name": "/input"}],
            "metadata": {"segdeploy.labels": '["/other"]'},
            "golden": {"frame": "iVBOR+/ab/c=", "labels": "iVBOR+/ab/c=", "image": "x.png"},
        },
        "reported": {"classes": [{"name": "/other"}]},
        "classes_kept": ["/other"],
        "classes_drawn": ["/rest"],
    }
    assert without_folders(facts) == facts
