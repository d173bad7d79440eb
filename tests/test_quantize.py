"""The whole way to an INT8 graph on made scenes, what it says of itself, and everything it refuses."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
import yaml

from segdeploy import scenes
from segdeploy.cli import main
from segdeploy.convert.int8 import collect as collecting
from segdeploy.convert.int8.attention import MEASURED_ON
from segdeploy.convert.int8.cache import hex_of, read_cache
from segdeploy.convert.int8.quantize import Request, quantize
from segdeploy.convert.int8.recipe import Recipe, read_recipe
from segdeploy.convert.int8.write import constant_scale
from segdeploy.datasets.layouts import open_dataset
from segdeploy.errors import CalibrationError, GraphError, QuantisationCosts, RequestError
from segdeploy.graph.attention import outputs_of_softmax, stored_scales
from segdeploy.graph.equalise import norms_to_equalise
from segdeploy.graph.layers import layers_of, logits_of, results_of_layers
from segdeploy.graph.view import View
from segdeploy.model.card import read_card
from segdeploy.model.record import read_record
from segdeploy.run.session import open_session, segment
from segdeploy.serve.deepstream.plan import cache_beside


@pytest.fixture(scope="module")
def demo(bundled):
    return bundled("frames", "64x128")


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    root = tmp_path_factory.mktemp("city")
    scenes.write_cityscapes(root, 12, seed=500, split="train", height=64, width=128)
    return root


@pytest.fixture(scope="module")
def images(city):
    return city / "leftImg8bit" / "train"


def request(city, **changes):
    return Request(
        **{
            "dataset": open_dataset("cityscapes", city, "train"),
            "probes": 6,
            "equalise": "off",
            "method": "entropy",
        }
        | changes
    )


@pytest.fixture(scope="module")
def done(demo, city, tmp_path_factory):
    out = tmp_path_factory.mktemp("int8")
    return quantize(demo, request(city, max_drop=2.0, cache_for="10.9.0"), output=out)


@pytest.mark.slow
def test_the_graph_is_int8_and_answers_as_the_other_one(demo, done):
    model = onnx.load(done.path)
    onnx.checker.check_model(model, full_check=True)
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    assert {item.key: item.value for item in model.metadata_props}["segdeploy.precision"] == "int8"
    frame = scenes.make_scene(900_000_007, 64, 128).image
    with open_session(demo) as first, open_session(done.path) as second:
        assert np.mean(segment(first, frame).labels == segment(second, frame).labels) > 0.95
    assert done.path.stat().st_size < demo.stat().st_size / 2


def test_the_ledger_says_what_each_step_cost(done):
    record = read_record(done.path)
    assert record is not None
    assert record.precision == "int8"
    fp32, int8 = record.ledger
    assert (fp32.name, fp32.compared_with) == ("fp32", "PyTorch FP32")
    assert fp32.pixel_agreement >= 0.9999
    assert fp32.macs == {"fp32": 1}
    assert fp32.miou - int8.miou <= 0.02
    assert (int8.name, int8.compared_with) == ("int8", "the FP32 graph")
    covered = record.calibration.int8_share
    assert 0.5 < int8.macs["int8"] < covered <= 1  # the products of attention have no weights
    assert sum(int8.macs.values()) == pytest.approx(1)
    assert int8.worst_class.name in read_card("segformer-b0-demo").labels.names
    everything = int8.macs["int8"]
    assert done.record.verdict.startswith(
        f"INT8 covers {covered:.0%} of the multiplications with weights, {everything:.0%} of all, and costs"
    )
    assert (
        "with other images) on 6 images that calibration saw" in done.record.verdict
    )  # 12 are too few to keep some
    assert (record.calibration.probes, record.calibration.held_out) == (6, False)
    assert record.calibration.images == 12
    assert record.calibration.pixels_seen["road"] > 1000


def test_scales_recipe_and_cache_lie_beside_it(demo, done):
    stem = demo.name.removesuffix(".onnx")
    scales = json.loads((done.path.parent / f"{stem}.int8.scales.json").read_text())
    roots = {layer.root for layer in layers_of(onnx.load(demo))}
    made = results_of_layers(onnx.load(demo))
    assert set(scales["tensors"]) == roots | {names[-1] for names in made.values()}
    assert scales["key"] == read_record(done.path).calibration.key
    assert all(0 <= one["clipped"] < 0.2 for one in scales["tensors"].values())
    recipe = yaml.safe_load((done.path.parent / f"{stem}.int8.recipe.yaml").read_text())
    assert (recipe["method"], recipe["dataset"], recipe["count"]) == ("entropy", "cityscapes", 12)
    cache = read_cache(done.path.parent / f"{stem}.int8.calib")
    assert cache.tensorrt == "10.9.0"
    assert cache_beside(done.path) == done.path.with_suffix(".calib")  # where DeepStream's folder looks
    assert cache_beside(done.path.with_name(demo.name)) == done.path.with_suffix(".calib")
    for name in roots:
        assert cache.scales[name] == pytest.approx(scales["tensors"][name]["scale"])
    keep = read_record(done.path).calibration.keep
    for layer in layers_of(onnx.load(demo)):
        both = [layer.activation, *made[layer.name]]
        assert layer.group in keep or all(cache.scales[name] > 0 for name in both)
        assert len({cache.scales[name] for name in made[layer.name]} if layer.group not in keep else {0}) == 1


@pytest.mark.slow
def test_a_cache_costs_nothing_where_it_is_not_asked_for(demo, city, tmp_path):
    plain = quantize(demo, request(city, max_drop=2.0), output=tmp_path)
    scales = json.loads(plain.path.with_suffix(".scales.json").read_text())
    assert set(scales["tensors"]) == {layer.root for layer in layers_of(onnx.load(demo))}
    assert not list(tmp_path.glob("*.calib"))


def test_a_constant_has_the_scale_that_tensorrt_gives_it():
    for value, digits in (
        (1.0, "3c010a14"),
        (8**0.5, "3cb67d3d"),
        (8**-0.5, "3b367d3d"),
        (8**-0.25, "3b99745c"),
    ):
        assert hex_of(constant_scale(np.array([value / 2, -value], np.float32))) == digits


@pytest.mark.slow
def test_scales_of_another_graph_or_preprocessing_are_refused_with_both_keys(demo, images, done, tmp_path):
    given = done.path.with_suffix(".scales.json")
    for name in ("graph", "preprocessing"):
        facts = json.loads(given.read_text())
        facts["key"][name] = "f" * 64
        (tmp_path / "theirs.json").write_text(json.dumps(facts))
        asked = Request(images=images, probes=2, max_drop=50, scales=tmp_path / "theirs.json")
        with pytest.raises(
            CalibrationError, match=rf"was collected for .*{name} ffffffffffff.*; asked for now is graph"
        ):
            quantize(demo, asked, output=tmp_path / "out")


@pytest.mark.slow
def test_a_recipe_is_replayed_to_the_same_graph(demo, city, done, tmp_path, capsys):
    recipe = next(done.path.parent.glob("*.recipe.yaml"))
    arguments = [
        "quantize",
        str(demo),
        "--dataset",
        "cityscapes",
        "--root",
        str(city),
        "--cache-for",
        "10.9.0",
    ]
    arguments += ["--recipe", str(recipe), "--probes", "6", "--max-drop", "5"]
    assert main([*arguments, "-o", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert (tmp_path / done.path.name).read_bytes() == done.path.read_bytes()
    assert "INT8 covers" in said
    assert "kept out of INT8:" in said


@pytest.mark.slow
def test_a_recipe_names_its_images(demo, city, tmp_path, capsys):
    (tmp_path / "nine.yaml").write_text("{method: entropy, dataset: cityscapes, split: train, count: 9}")
    arguments = ["quantize", str(demo), "--root", str(city), "--probes", "4", "--equalise", "off"]
    arguments += ["--max-drop", "5", "-o", str(tmp_path), "--recipe"]
    assert main([*arguments, str(tmp_path / "nine.yaml")]) == 0
    said = capsys.readouterr().out
    assert "pixels seen in 9 images: road" in said
    assert main([*arguments, "cityscapes"]) == 1
    assert "500 images were asked for, cityscapes train has 12" in capsys.readouterr().err


@pytest.mark.slow
def test_scales_from_a_calibration_cache(demo, images, done, tmp_path, capsys):
    (cache,) = done.path.parent.glob("*.calib")
    arguments = ["quantize", str(demo), "--images", str(images), "--probes", "2", "--max-drop", "50"]
    arguments += ["--cache-for", "10.9.0", "-o", str(tmp_path)]
    for scales in (cache, done.path.with_suffix(".scales.json")):
        assert main([*arguments, "--scales", str(scales)]) == 0
        made, known = onnx.load(tmp_path / done.path.name), onnx.load(done.path)
        if scales == cache:  # which has nothing of attention
            del made.metadata_props[:], known.metadata_props[:]
        assert made == known
        (again,) = tmp_path.glob("*.calib")
        assert read_cache(again).scales == read_cache(cache).scales
        assert not list(tmp_path.glob("*.recipe.yaml"))
        record = read_record(tmp_path / done.path.name)
        assert (record.calibration.images, record.calibration.pixels_seen) == (None, None)
        theirs = None if scales == cache else read_record(done.path).calibration.key
        assert record.calibration.key == theirs
        assert "on 2 images;" in record.verdict + ";"
    arguments += ["--scales", str(cache)]
    capsys.readouterr()
    assert main([*arguments, "--cache-for", "8.6.1"]) == 1
    assert "is of TensorRT 10.9.0, asked for is 8.6.1" in capsys.readouterr().err
    lines = cache.read_text().splitlines()
    cache_of_another = tmp_path / "other.calib"
    cache_of_another.write_text("\n".join([lines[0], "other: 3c010a14"]))
    arguments[arguments.index(str(cache))] = str(cache_of_another)
    assert main(arguments) == 1
    assert "it was made for another graph, so calibrate this one" in capsys.readouterr().err


def test_labels_of_another_size_than_their_image(demo, city, tmp_path, capsys):
    root = tmp_path / "city"
    shutil.copytree(city, root)
    label = sorted(root.rglob("*_labelIds.png"))[0]
    cv2.imwrite(str(label), np.zeros((32, 32), np.uint8))
    arguments = [
        "quantize",
        str(demo),
        "--dataset",
        "cityscapes",
        "--root",
        str(root),
        "-o",
        str(tmp_path / "o"),
    ]
    assert main(arguments) == 1
    assert "labels are never resized, so both must have one size" in capsys.readouterr().err


@pytest.mark.slow
def test_without_labels_it_is_the_labels_that_changed(demo, images, tmp_path, capsys):
    arguments = ["quantize", str(demo), "--images", str(images), "--probes", "4", "--equalise", "on"]
    assert main([*arguments, "--max-drop", "20", "-o", str(tmp_path)]) == 0
    assert "% of the labels" in capsys.readouterr().out
    recipe = yaml.safe_load(next(tmp_path.glob("*.recipe.yaml")).read_text())
    assert recipe["equalise"] is True
    assert main(["inspect", str(next(tmp_path.glob("*.int8.onnx")))]) == 0
    said = capsys.readouterr().out
    assert "INT8 covers" in said
    assert "    judged  on 4 images that calibration saw; a mIoU here is over the classes" in said


@pytest.mark.slow
@pytest.mark.thorough
def test_images_are_kept_to_judge_on_and_the_recipe_says_so(demo, images, tmp_path):
    plain = ["quantize", str(demo), "--images", str(images), "--equalise", "off", "--max-drop", "50"]
    assert main([*plain, "--probes", "2", "-o", str(tmp_path / "first")]) == 0
    (recipe,) = (tmp_path / "first").glob("*.recipe.yaml")
    facts = yaml.safe_load(recipe.read_text())
    assert (facts["count"], facts["aside"]) == (10, 2)
    again = ["--recipe", str(recipe), "--probes", "48", "-o", str(tmp_path / "again")]
    assert main([*plain, *again]) == 0
    first, second = (next((tmp_path / name).glob("*.int8.onnx")) for name in ("first", "again"))
    assert first.read_bytes() == second.read_bytes()
    assert "on 2 images that calibration did not see" in read_record(first).verdict


@pytest.mark.slow
@pytest.mark.thorough
def test_a_card_given_for_a_foreign_graph_names_what_stays_fp32(demo, images, tmp_path):
    card = replace(read_card("segformer-b0-demo"), name="mine", keep_fp32=("*stages.0*",))
    asked = Request(images=images, probes=2, equalise="off", max_drop=50, fp16=True, card=card)
    done = quantize(demo, asked, output=tmp_path)
    assert any("stages.0" in name for name in done.record.islands)


@pytest.mark.slow
@pytest.mark.thorough
def test_fp16_where_int8_is_not(demo, city, done, tmp_path):
    mixed = quantize(demo, request(city, max_drop=2.0, fp16=True), output=tmp_path)
    model = onnx.load(mixed.path)
    onnx.checker.check_model(model, full_check=True)
    assert mixed.path.name == "segformer-b0-demo.64x128.frames.int8.fp16.onnx"
    assert mixed.record.precision == "int8+fp16"
    assert mixed.record.opset == 19
    stored = {item.name: item.data_type for item in model.graph.initializer}
    assert stored["network.head.classifier.bias"] == onnx.TensorProto.FLOAT16
    assert stored["network.head.classifier.weight.q"] == onnx.TensorProto.INT8
    assert mixed.path.stat().st_size < done.path.stat().st_size
    fp32, fp16, both = mixed.record.ledger
    assert [one.name for one in mixed.record.ledger] == ["fp32", "fp16", "int8+fp16"]
    assert fp16.macs == {"fp16": 1}
    assert set(both.macs) == {"int8", "fp16"}
    assert 0.99 < fp16.pixel_agreement < 1
    assert abs(fp16.miou - fp32.miou) < 0.01
    assert both.logits_error > fp16.logits_error > 0


@pytest.mark.slow
def test_the_search_keeps_out_what_hurts_most(demo, city, tmp_path):
    strict = quantize(demo, request(city, max_drop=0.02), output=tmp_path)
    assert strict.calibration.sensitivities
    assert 0 < len(strict.record.calibration.keep) < len(strict.calibration.sensitivities)
    assert strict.record.calibration.int8_share < 1
    fp32, int8 = strict.record.ledger
    assert strict.record.calibration.sensitivities[0].group == "stages.0.embed"
    assert 100 * (fp32.miou - int8.miou) <= 0.02


@pytest.mark.slow
@pytest.mark.thorough
def test_sensitivities_are_measured_where_they_are_asked_for(demo, city, tmp_path):
    asked = quantize(demo, request(city, max_drop=5.0, sensitivity=True), output=tmp_path)
    groups = {layer.group for layer in layers_of(onnx.load(demo))}
    stored = asked.record.calibration.sensitivities
    assert {one.group for one in stored} == groups
    assert asked.record.calibration.keep == ()
    assert max(stored, key=lambda one: one.kl).drop != 0
    assert sum(one.macs for one in stored) == sum(layer.macs for layer in layers_of(onnx.load(demo)))


@pytest.mark.slow
@pytest.mark.thorough
def test_widened_groups_have_thresholds_of_least_squared_error(demo, city, done, tmp_path):
    mse = quantize(
        demo, request(city, max_drop=50, method="mse", cache_for="10.9.0"), output=tmp_path / "mse"
    )
    group = "stages.3.ffn.shrink"
    mixed = request(city, max_drop=50, cache_for="10.9.0", recipe=Recipe(keep=(), widened=(group,)))
    wide = quantize(demo, mixed, output=tmp_path / "wide")
    read = [
        json.loads(one.path.with_suffix(".scales.json").read_text())["tensors"] for one in (done, mse, wide)
    ]
    roots = {layer.root for layer in layers_of(onnx.load(demo)) if layer.group == group}
    for name, squared in read[1].items():
        expected = squared if name in roots else read[0][name]
        assert read[2][name]["scale"] == expected["scale"]
    methods = wide.record.calibration.methods
    assert methods["mse"] == (group,)
    assert {*methods["entropy"], group} == {layer.group for layer in layers_of(onnx.load(demo))}
    for wrong in (Recipe(keep=(), widened=("stages.9",)), Recipe(keep=("stages.9",))):
        with pytest.raises(CalibrationError, match=r"the recipe (widens|keeps) stages.9, which this graph"):
            quantize(demo, request(city, recipe=wrong), output=tmp_path / "wrong")
    with pytest.raises(
        RequestError, match=r"^--method auto chooses by itself the groups that a recipe widens;"
    ):
        quantize(demo, replace(mixed, method="auto"), output=tmp_path / "wrong")


@pytest.mark.slow
@pytest.mark.thorough
def test_auto_and_its_recipe_make_the_same_graph(demo, images, tmp_path):
    auto = Request(images=images, probes=3, equalise="off", max_drop=100)
    assert auto.method == "auto"
    first = quantize(demo, auto, output=tmp_path / "auto")
    assert first.record.calibration.method == "auto"
    assert set(first.record.calibration.methods) <= {"entropy", "mse"}
    recipe = read_recipe(str(next((tmp_path / "auto").glob("*.recipe.yaml"))))
    assert recipe.method in ("entropy", "mse")
    again = replace(auto, method=recipe.method, recipe=recipe, count=recipe.count, aside=recipe.aside)
    second = quantize(demo, again, output=tmp_path / "again")
    assert second.record.calibration.methods == first.record.calibration.methods
    assert second.graph.digest == first.graph.digest


@pytest.mark.slow
@pytest.mark.thorough
def test_equalisation_is_taken_where_it_does_less_damage(demo, images, tmp_path):
    """One channel in a LayerNorm made much too large, exactly made up for in the weights that read it."""
    model = onnx.load(demo)
    stored = {item.name: item for item in model.graph.initializer}
    for tensor, reading in norms_to_equalise(model).items():
        node = next(node for node in model.graph.node if node.output[0] == tensor)
        for name in node.input[1:]:
            values = onnx.numpy_helper.to_array(stored[name]).copy()
            values[0] *= 40
            stored[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
        for name, axis in reading:
            values = onnx.numpy_helper.to_array(stored[name]).copy()
            values[(slice(None),) * axis + (0,)] /= 40
            stored[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, tmp_path / "uneven.onnx")
    kl = {}
    for how in ("off", "on", "auto"):
        asked = Request(images=images, probes=3, method="minmax", max_drop=100, equalise=how)
        found = quantize(tmp_path / "uneven.onnx", asked, output=tmp_path / how)
        kl[how] = found.record.ledger[-1].kl
    assert kl["on"] < kl["off"] / 2
    assert kl["auto"] == kl["on"]


@pytest.mark.slow
@pytest.mark.thorough
def test_a_drop_that_cannot_be_met_leaves_no_graph(demo, images, tmp_path):
    impossible = Request(
        images=images, probes=4, equalise="off", max_drop=0.0, method="percentile", percentile=0.5
    )
    with pytest.raises(
        QuantisationCosts,
        match=r"INT8 costs .* % of the labels even at its best, .* No graph was written",
    ) as refusal:
        quantize(demo, impossible, output=tmp_path)
    assert not list(tmp_path.glob("*.int8*"))
    (tmp_path / "best.yaml").write_text(str(refusal.value).partition("The best recipe: ")[2])
    best = read_recipe(str(tmp_path / "best.yaml"))
    assert (best.method, best.percentile, best.count) == ("percentile", 0.5, 12)
    assert len(best.keep) > 8


@pytest.mark.slow
@pytest.mark.thorough
def test_a_calibration_goes_on_where_it_was_stopped(demo, images, tmp_path, monkeypatch):
    keep, ran = collecting.keep, []
    monkeypatch.setattr(collecting, "KEPT_EVERY", 4)

    def stopping(path, key, tally):
        keep(path, key, tally)
        if tally.done == 8:
            raise KeyboardInterrupt

    plain = Request(images=images, count=12, probes=2, equalise="off", max_drop=50)
    monkeypatch.setattr(collecting, "keep", stopping)
    with pytest.raises(KeyboardInterrupt):
        quantize(demo, plain, output=tmp_path)
    monkeypatch.setattr(collecting, "keep", keep)
    to_input = collecting.to_input
    monkeypatch.setattr(collecting, "to_input", lambda *given: ran.append(1) or to_input(*given))
    resumed = quantize(demo, plain, output=tmp_path)
    assert len(ran) == 4 + MEASURED_ON  # those for attention's scales are not kept
    straight = quantize(demo, plain, output=tmp_path / "straight")
    assert resumed.path.read_bytes() == straight.path.read_bytes()


@pytest.mark.slow
@pytest.mark.thorough
def test_a_calibration_of_something_else_is_refused_with_both_keys(demo, images, tmp_path):
    quantize(demo, Request(images=images, probes=2, equalise="off", max_drop=50), output=tmp_path)
    fewer = Request(images=images, count=9, probes=2, equalise="off", max_drop=50)
    with pytest.raises(CalibrationError, match=r"was collected for graph \w{12}, .*; asked for now is graph"):
        quantize(demo, fewer, output=tmp_path)
    (state,) = tmp_path.glob("*.calibration.npz")
    state.write_bytes(b"PK nonsense")
    with pytest.raises(CalibrationError, match=r"is not a calibration that can be read .* delete it"):
        quantize(demo, fewer, output=tmp_path)


@pytest.mark.slow
def test_too_few_images(demo, images, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(images.rglob("*.png"))[:7]:
        shutil.copy(path, few)
    with pytest.raises(CalibrationError, match="7 images are too few to calibrate on; give 8 or more"):
        quantize(demo, Request(images=few), output=tmp_path)
    with pytest.raises(RequestError, match=r"900 images were asked for, .* has 12; give --count 12 or less"):
        quantize(demo, Request(images=images, count=900), output=tmp_path)


def test_an_int8_graph_is_not_quantised_again(done, images, tmp_path):
    with pytest.raises(GraphError, match="is quantised already"):
        quantize(done.path, Request(images=images), output=tmp_path)


@pytest.mark.slow
def test_a_nan_is_named(demo, images, tmp_path):
    model = onnx.load(demo)
    (weight,) = [item for item in model.graph.initializer if item.name == "network.stages.0.embed.weight"]
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "nan.onnx")
    with pytest.raises(
        CalibrationError,
        match=r"the tensor network\.\S+ holds NaN or infinity on the calibration image \S+madeup_000000\S+png",
    ):
        quantize(tmp_path / "nan.onnx", Request(images=images, equalise="off"), output=tmp_path / "out")


@pytest.mark.slow
def test_dead_layers_stay_as_they_are(demo, images, tmp_path):
    model = onnx.load(demo)
    block = "network.stages.3.blocks.1.ffn"
    for item in model.graph.initializer:
        if item.name in (f"{block}.depthwise.weight", f"{block}.depthwise.bias"):
            item.CopyFrom(onnx.numpy_helper.from_array(np.zeros(item.dims, np.float32), item.name))
    onnx.save(model, tmp_path / "dead.onnx")
    request = Request(images=images, probes=2, equalise="off", max_drop=100)
    done = quantize(tmp_path / "dead.onnx", request, output=tmp_path / "out")
    graph = onnx.load(done.path).graph
    nodes = {node.name: node for node in graph.node}
    assert nodes[f"{block}.shrink/Conv"].input[1] == f"{block}.shrink.weight"
    assert nodes[f"{block}.expand/Conv"].input[1] == f"{block}.expand.weight.int8"
    assert done.record.calibration.int8_share < 1
    assert done.record.calibration.dead == (f"{block}.shrink/Conv",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interface", "batch"),
    [
        pytest.param("nvinfer", 4, marks=pytest.mark.thorough),
        pytest.param("frames", None, marks=pytest.mark.thorough),
    ],
)
def test_batches_keep_their_batch(interface, batch, bundled, images, tmp_path):
    source = bundled(interface, "97x131", batch)
    done = quantize(source, Request(images=images, probes=3, max_drop=30, equalise="off"), output=tmp_path)
    with open_session(source) as first, open_session(done.path) as second:
        assert second.signature.batch == batch
        assert second.signature.input == first.signature.input
        frame = scenes.make_scene(900_000_007, 97, 131).image
        assert np.mean(segment(first, frame).labels == segment(second, frame).labels) > 0.9


@pytest.mark.slow
@pytest.mark.thorough
def test_a_cityscapes_root_gives_its_training_images(demo, city, tmp_path):
    done = quantize(demo, Request(images=city, probes=2, equalise="off", max_drop=50), output=tmp_path)
    assert done.record.calibration.images == 10  # of 12 training images, two are kept to judge on


def foreign(path, tail, opset=17, kind=onnx.TensorProto.INT64):
    """Somebody's labels: unnamed nodes, a MatMul with a weight of rank 3, and an arg-max with a tail of its own."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((6, 3, 4, 4)), "m": rng.standard_normal((1, 6, 4))}
    arrays = {name: value.astype(np.float32) for name, value in weights.items()}
    arrays |= {"tokens": np.array([1, 6, -1]), "maps": np.array([1, 4, 16, 24]), "one": np.array([1])}
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "w"], ["a"], strides=[4, 4]),
        make("Relu", ["a"], ["b"]),
        make("Reshape", ["b", "tokens"], ["c"]),
        make("Transpose", ["c"], ["d"], perm=[0, 2, 1]),
        make("MatMul", ["d", "m"], ["e"]),
        make("Transpose", ["e"], ["f"], perm=[0, 2, 1]),
        make("Reshape", ["f", "maps"], ["scores"]),
        make("Resize", ["scores", "", "up"], ["raised"], mode="linear"),
        *tail(make),
    ]
    arrays["up"] = np.array([1, 1, 4, 4], np.float32)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("x", onnx.TensorProto.FLOAT, (1, 3, 64, 96))],
        [value("y", kind, (1, 1, 64, 96))],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8), path
    )
    return path


def unsqueezed(make):
    yield make("ArgMax", ["raised"], ["k"], axis=1, keepdims=0)
    yield make("Cast", ["k"], ["i"], to=onnx.TensorProto.INT32)
    yield make("Unsqueeze", ["i", "one"], ["y"])


@pytest.mark.slow
def test_a_foreign_graph_is_judged_by_its_scores(images, tmp_path):
    path = foreign(tmp_path / "theirs.onnx", unsqueezed, kind=onnx.TensorProto.INT32)
    assert logits_of(onnx.load(path)) == "scores"
    awful = Request(images=images, probes=2, equalise="off", max_drop=0, method="percentile", percentile=1.0)
    with pytest.raises(QuantisationCosts, match="of the labels even at its best"):
        quantize(path, awful, output=tmp_path / "out")
    done = quantize(path, Request(images=images, probes=2, max_drop=20), output=tmp_path / "out2")
    assert done.record.calibration.int8_share > 0
    assert done.record.source.checkpoint == "unknown"


@pytest.mark.slow
def test_foreign_graphs_that_cannot_be_judged_or_written(images, tmp_path):
    sigmoid = foreign(tmp_path / "mask.onnx", lambda make: [make("ReduceMax", ["raised"], ["m1"], axes=[1]),
                                                            make("Cast", ["m1"], ["y"], to=7)])  # fmt: skip
    with pytest.raises(GraphError, match="no class scores were found in the graph"):
        quantize(sigmoid, Request(images=images, probes=1), output=tmp_path / "out")
    old = foreign(tmp_path / "old.onnx", unsqueezed, opset=11, kind=onnx.TensorProto.INT32)
    with pytest.raises(GraphError):
        quantize(old, Request(images=images, probes=1), output=tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "give either --images DIR, or a labelled data set"),
        (["--images", "IMAGES", "--recipe", "nothing"], "there is no recipe nothing"),
        (["--images", "IMAGES", "--cache-for", "10.9.0", "--equalise", "on"], "leave out --equalise"),
        (["--dataset", "camvid"], "the data set camvid needs --root DIR"),
        (["--recipe", "cityscapes"], "the data set cityscapes needs --root DIR"),
        (["--images", "IMAGES", "--cache-for", "11.0.0"], "11"),
    ],
)
def test_requests_that_make_no_sense(flags, words, demo, images, tmp_path, capsys):
    flags = [str(images) if flag == "IMAGES" else flag for flag in flags]
    assert main(["quantize", str(demo), *flags, "--probes", "1", "-o", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("*.int8*"))


@pytest.mark.parametrize(("flag", "value"), [("--method", "kl"), ("--equalise", "perhaps")])
def test_choices_that_do_not_exist(flag, value, demo, images, misused):
    said = misused("quantize", demo, "--images", images, flag, value)
    assert f"argument {flag}: invalid choice: '{value}' (choose from" in said


@pytest.mark.slow
def test_scales_of_attention_are_kept_for_a_cpu_that_multiplies_bytes(done):
    model = onnx.load(done.path)
    scales = stored_scales(model, done.path.name)
    kept = json.loads(done.path.with_suffix(".scales.json").read_text())
    assert kept["attention"] == scales
    shares = outputs_of_softmax(View(model))
    assert {name for name in scales if name in shares} == shares
    assert all(scales[name] <= 1 / 255 for name in shares)
