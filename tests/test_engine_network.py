"""What a strongly typed network is said to compute in, layer by layer."""

from types import SimpleNamespace

import pytest

from segdeploy.convert.engine.network import ParsedNetwork, add_profiles, report_of
from segdeploy.model.engine import Profile
from segdeploy.size import Size


def layer(kind, name, inputs, dtype):
    """`inputs` are tensors; the layer's one output is called as the layer is."""
    output = SimpleNamespace(name=name, dtype=f"DataType.{dtype}")
    return SimpleNamespace(
        type=f"LayerType.{kind}", name=name, num_inputs=len(inputs), get_input=inputs.__getitem__, num_outputs=1,
        get_output=lambda slot: output, output=output,
    )  # fmt: skip


def precisions(*layers):
    definition = SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)
    network = ParsedNetwork(None, None, None, definition, None, True)
    return {found.name: found.precision for found in report_of(network).layers}


def pair(name, kind="INT8"):
    whole = SimpleNamespace(name=f"{name}.whole", dtype=f"DataType.{kind}")
    return layer("DEQUANTIZE", name, [whole], "FLOAT")


IMAGE = SimpleNamespace(name="image", dtype="DataType.FLOAT")


@pytest.mark.parametrize(
    ("kind", "factors", "precision"),
    [
        ("CONVOLUTION", [pair("a"), pair("w")], "INT8"),
        ("MATRIX_MULTIPLY", [pair("a"), pair("w")], "INT8"),
        ("CONVOLUTION", [None, pair("w")], "FP32"),  # a weight alone is stored in INT8, and not computed with
        ("CONVOLUTION", [pair("a"), None], "FP32"),
        ("CONVOLUTION", [pair("a"), pair("w", "FP8")], "FP32"),
        ("ELEMENTWISE", [pair("a"), pair("w")], "FP32"),
    ],
)
def test_int8_takes_both_factors_of_a_product(kind, factors, precision):
    made = [one for one in factors if one]
    product = layer(kind, "product", [one.output if one else IMAGE for one in factors], "FLOAT")
    assert precisions(*made, product) == {"product": precision}


def test_a_pair_is_seen_through_what_only_moves():
    first, second = pair("a"), pair("w")
    turned = layer("SHUFFLE", "turned", [first.output], "FLOAT")
    scaled = layer("ELEMENTWISE", "scaled", [first.output], "FLOAT")
    moved = layer("CONVOLUTION", "moved", [turned.output, second.output], "FLOAT")
    changed = layer("CONVOLUTION", "changed", [scaled.output, second.output], "HALF")
    assert precisions(first, second, turned, scaled, moved, changed) == {
        "scaled": "FP32", "moved": "INT8", "changed": "FP16",
    }  # fmt: skip


def test_shapes_and_labels_are_no_layers_with_a_precision():
    labels = layer("TOPK", "labels", [IMAGE], "INT64")
    relu = layer("ACTIVATION", "relu", [IMAGE], "HALF")
    assert precisions(layer("CONSTANT", "c", [], "FLOAT"), labels, relu) == {"relu": "FP16"}


def test_an_open_channel_axis_is_that_of_red_green_and_blue():
    """Optimum's default export is ?×?×?×?."""
    seen = []
    ours = SimpleNamespace(set_shape=lambda name, *shapes: seen.append((name, shapes)))
    network = SimpleNamespace(
        flavour="TensorRT",
        definition=SimpleNamespace(get_input=lambda place: SimpleNamespace(name="x", shape=(-1, -1, -1, -1))),
        builder=SimpleNamespace(create_optimization_profile=lambda: ours),
    )
    config = SimpleNamespace(add_optimization_profile=lambda profile: 0)
    each = [SimpleNamespace(size=Size(64, 96))]
    signature = SimpleNamespace(channels_last=False, each=each)
    add_profiles(network, config, signature, Profile(1, 2, 4), calibrated=False)
    assert seen == [("x", ((1, 3, 64, 96), (2, 3, 64, 96), (4, 3, 64, 96)))]
    each.append(SimpleNamespace(size=Size(128, 128)))
    add_profiles(network, config, signature, Profile(1, 1, 1), calibrated=False)
    assert [shapes[2] for _, shapes in seen[1:]] == [(1, 3, 64, 96), (1, 3, 128, 128)]
