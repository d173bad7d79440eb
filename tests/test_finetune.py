"""Fine-tuning: what is learnt from, what is kept of a start, how it goes on after a stop, and what comes out."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import mmseg_checkpoint
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import segdeploy
from segdeploy import networks, scenes, shipped
from segdeploy.api import TrainingWords
from segdeploy.cli import main
from segdeploy.convert.export import export_onnx
from segdeploy.datasets import made_scenes
from segdeploy.datasets.dataset import Pair
from segdeploy.datasets.layouts import open_dataset
from segdeploy.errors import CheckpointError, OutputError, RequestError, TrainingError
from segdeploy.model.card import UNKNOWN_LICENCE
from segdeploy.model.licence import licence_on_the_hub
from segdeploy.model.training import training_steps
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.interface import card_of
from segdeploy.size import Size
from segdeploy.train import finetune as finetuning
from segdeploy.train.crops import Crops, warped
from segdeploy.train.finetune import TrainingRequest, finetune, split_off
from segdeploy.train.loss import balanced, log_probabilities, pixel_loss
from segdeploy.train.material import learnt_and_reported
from segdeploy.train.network import Learning, SharedBatchNorm, parameter_groups
from segdeploy.train.recipe import WORDS, TrainingRecipe
from segdeploy.train.recipe_file import read_training_recipe
from segdeploy.train.schedule import rate_at
from segdeploy.train.state import STATE, TrainingState, read_state
from segdeploy.train.transfer import transferred

SIZE = (64, 96)
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
RECIPE = TrainingRecipe(steps=4, batch=2, crop="64x96", rate=1e-3)
MAPPING = """images: leftImg8bit/{split}
labels: gtFine/{split}
image_ending: _leftImg8bit.png
label_ending: _gtFine_labelIds.png
ids: {7: road, 8: road, 11: house, 12: house, 13: house, 17: house, 19: house, 20: house, 21: green, 22: green,
  23: sky, 24: car, 25: car, 26: car, 27: car, 28: car, 31: car, 32: car, 33: car, 255: ignore, 0: ignore}
"""


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """Scenes whose labels count as five classes: road, car and sky as the tiny network names them, and two others."""
    root = tmp_path_factory.mktemp("city")
    for split, seed, count in (("train", 300, 6), ("val", 800, 3)):
        scenes.write_cityscapes(root, count, seed, split, *SIZE)
    (root / "five.yaml").write_text(MAPPING)
    return root


@pytest.fixture
def request_of(city):
    def make(recipe=RECIPE, **more):
        learnt, reported = (
            open_dataset("folder", city, split, city / "five.yaml") for split in ("train", "val")
        )
        return TrainingRequest(learnt, reported, recipe, watch_every=2, device="cpu", **more)

    return make


def words(city, start, *more):
    return [
        "finetune", str(start), "--dataset", "folder", "--root", str(city), "--mapping", str(city / "five.yaml"),
        "--split", "train", "--report-split", "val", "--crop", "64x96", "--steps", "3", "--batch", "2", "--device",
        "cpu", "--rate", "1e-3", *map(str, more),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny, city, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "mine"
    assert main([*words(city, tiny), "-o", str(folder)]) == 0
    return folder


# ---- what comes out --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_folder_in_the_hubs_layout(trained):
    assert sorted(path.name for path in trained.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json", "segdeploy.training.json",
        "segdeploy.training.jsonl",
    ]  # fmt: skip


@pytest.mark.slow
def test_what_transformers_loads(trained):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.SegformerForSemanticSegmentation.from_pretrained(trained).eval()
    ours = networks.build(read_checkpoint(trained)).plain
    pixels = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.allclose(theirs(pixels).logits, ours(pixels), atol=1e-5)


def test_the_card_and_the_record_say_what_was_done(trained, tiny):
    record = json.loads((trained / "segdeploy.training.json").read_text())
    assert (record["classes_kept"], record["classes_drawn"]) == (["road", "sky", "car"], ["house", "green"])
    assert (record["images"], record["watched_images"], record["reported"]["images"]) == (5, 1, 3)
    assert [event["step"] for event in record["history"]] == [0, 1, 2, 3]
    assert record["best_miou"] == max(event["miou"] for event in record["history"][1:])
    assert record["recipe"]["crop"] == "64x96"
    card = (trained / "README.md").read_text()
    assert card.startswith("---\nlicense: other\nlicense_name: as its checkpoint's\nbase_model: tiny\n")
    assert f"value: {round(100 * record['reported']['miou'], 2)}\n" in card
    assert "forbidden here too" in card
    assert [
        json.loads(line)["step"] for line in (trained / "segdeploy.training.jsonl").read_text().splitlines()
    ] == [
        1,
        2,
        3,
    ]


def test_a_licence_is_carried_from_training_to_training(trained):
    """Words that the Hub has no name for stay words, and the next training finds them in the folder."""
    facts = json.loads((trained / "preprocessor_config.json").read_text())
    (trained / "preprocessor_config.json").write_text(json.dumps({**facts, "licence": "research only"}))
    assert card_of(read_checkpoint(trained), None).licence == "research only"
    (trained / "preprocessor_config.json").write_text(json.dumps(facts))
    assert facts["licence"] == UNKNOWN_LICENCE
    assert licence_on_the_hub("Apache-2.0") == {"license": "apache-2.0"}
    assert licence_on_the_hub("research only") == {"license": "other", "license_name": "research only"}


@pytest.mark.slow
def test_the_ledger_begins_where_the_weights_were_made(trained, request_of, tmp_path, capsys):
    again = finetune(trained, request_of(replace(RECIPE, steps=1)), output=tmp_path / "again")
    exported = export_onnx(again.folder, output=tmp_path)
    assert exported.record.classes == ("road", "house", "green", "sky", "car")
    assert exported.record.size == "96x160"  # the start's
    assert exported.agreement.pixel_agreement == 1
    first, second = exported.record.source.steps
    record = json.loads((trained / "segdeploy.training.json").read_text())
    assert (first.name, first.compared_with, first.miou) == (
        "fine-tuned", "the truth of five val", record["reported"]["miou"],
    )  # fmt: skip
    assert second.miou == again.training.reported.miou
    assert second.miou_interval == (100 * again.training.reported.low, 100 * again.training.reported.high)
    assert main(["inspect", str(exported.path)]) == 0
    said = capsys.readouterr().out
    assert said.count("fine-tuned  the truth of five val, mIoU ") == 2
    assert f"({second.miou_interval[0]:.2f} to {second.miou_interval[1]:.2f} with other images)" in said


def test_a_record_of_other_weights_proves_nothing(trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    weights = load_file(copy / "model.safetensors")
    weights["decode_head.classifier.bias"] += 1
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"segdeploy\.training\.json is of other weights than model\.safetensors beside it",
    ):
        export_onnx(copy, output=tmp_path)
    (copy / "segdeploy.training.json").write_text('{"weights": 3}')
    with pytest.raises(CheckpointError, match="is not a record of a training"):
        export_onnx(copy, output=tmp_path)
    (copy / "segdeploy.training.json").unlink()
    assert training_steps(copy) == ()


@pytest.mark.slow
def test_a_network_without_a_layout_on_the_hub(city, tmp_path, request_of):
    start = mmseg_checkpoint.write(tmp_path / "psp.pth", "pspnet_r18-d8")
    done = finetune(start, request_of(replace(RECIPE, steps=2, auxiliary=0.4)), output=tmp_path / "out")
    again = read_checkpoint(done.folder)
    assert (again.family.name, again.layout) == ("mmseg", "segdeploy")
    weights = load_file(done.folder / "model.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in again.weights.items())
    assert export_onnx(done.folder, size="64x96", output=tmp_path).agreement.pixel_agreement == 1
    config = json.loads((done.folder / "config.json").read_text())
    for changed in (
        {"family": "yolo"},
        {"network": 3},
        {"network": {**config["network"], "decode_head": None}},
    ):
        (done.folder / "config.json").write_text(json.dumps({**config, **changed}))
        with pytest.raises(CheckpointError, match=r"does not describe"):
            read_checkpoint(done.folder)


def every_family(folder):
    """A small checkpoint of each kind, and the crop that it takes."""
    import fan_checkpoint
    import hub_checkpoints
    import mask2former_checkpoint

    def on_the_hub(network, height, width):
        size = {"height": height, "width": width}
        return hub_checkpoints.write(folder / "hub", network, size), f"{height}x{width}"

    return {
        "mask2former": lambda: (mask2former_checkpoint.write(folder / "m2f"), "64x96"),
        "eomt": lambda: on_the_hub(hub_checkpoints.eomt(), 64, 64),
        "eomt_dinov3": lambda: on_the_hub(hub_checkpoints.eomt("eomt_dinov3"), 64, 64),
        "upernet": lambda: on_the_hub(hub_checkpoints.upernet("convnext"), 64, 96),
        "fan": lambda: (fan_checkpoint.write(folder / "fan.pth", "nvlabs"), "64x96"),
        "unet": lambda: (mmseg_checkpoint.write(folder / "unet.pth", "unet"), "64x96"),
        "segformer_swin": lambda: (mmseg_checkpoint.write(folder / "swin.pth", "segformer_swin"), "64x96"),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mask2former", "eomt", "eomt_dinov3", "upernet", "fan", "unet", "segformer_swin"]
)
def test_every_family_learns_and_is_read_again(name, request_of, tmp_path):
    start, crop = every_family(tmp_path)[name]()
    recipe = replace(RECIPE, steps=1, crop=crop, rate=1e-4)
    done = finetune(start, request_of(recipe, size=Size.parse(crop)), output=tmp_path / "out")
    again = read_checkpoint(done.folder)
    assert list(again.config["id2label"].values()) == ["road", "house", "green", "sky", "car"]
    before, after = read_checkpoint(start).weights, again.weights
    moved = [
        key
        for key in before
        if before[key].shape == after[key].shape and not torch.equal(before[key], after[key])
    ]
    assert len(moved) > len(before) / 3
    plain = networks.build(again).plain
    with torch.inference_mode():
        answer = plain(torch.zeros(1, 3, *map(int, crop.split("x"))))
    assert (answer.shape[1], bool(answer.isfinite().all())) == (5, True)


def test_no_object_stays_behind_the_classes(tmp_path):
    checkpoint = read_checkpoint(every_family(tmp_path)["eomt"]()[0])
    made = transferred(checkpoint, ["sky", "lawn"], seed=0)
    for name in ("class_predictor.weight", "class_predictor.bias"):
        before, after = checkpoint.weights[name], made.checkpoint.weights[name]
        assert len(after) == 3
        assert torch.equal(after[[0, 2]], before[[2, 5]])


@pytest.mark.slow
def test_an_auxiliary_head_needs_maps(request_of, tmp_path):
    start, crop = every_family(tmp_path)["eomt"]()
    recipe = replace(RECIPE, steps=1, crop=crop, auxiliary=0.4)
    with pytest.raises(
        RequestError, match="shows no maps of several stages to learn from: leave out --auxiliary"
    ):
        finetune(start, request_of(recipe, size=Size.parse(crop)), output=tmp_path / "out")


# ---- a start and its classes -----------------------------------------------------------------------------------


def test_rows_of_the_same_name_are_kept(tiny):
    checkpoint = read_checkpoint(tiny)
    made = transferred(checkpoint, ["sky", "lawn", "road"], seed=0)
    assert made.of_classes == {"decode_head.classifier.weight", "decode_head.classifier.bias"}
    assert (made.kept, made.drawn) == (("sky", "road"), ("lawn",))
    for name in made.of_classes:
        before, after = checkpoint.weights[name], made.checkpoint.weights[name]
        assert torch.equal(after[[0, 2]], before[[2, 0]])
        assert after[1].abs().max() < 0.1
    rest = set(checkpoint.weights) - made.of_classes
    assert all(made.checkpoint.weights[name] is checkpoint.weights[name] for name in rest)


@pytest.mark.slow
def test_every_axis_of_classes_is_found(tmp_path):
    """CV-3315's decoder goes from classes to classes."""
    checkpoint = read_checkpoint(mmseg_checkpoint.write(tmp_path / "x.pth", "basicnet"))
    names = [checkpoint.config["id2label"][str(place)] for place in range(5)]
    made = transferred(checkpoint, [names[3], "new", names[0]], seed=0)
    name = next(name for name in made.of_classes if "upsample_cov1" in name)
    before, after = checkpoint.weights[name], made.checkpoint.weights[name]
    assert after.shape[:2] == (3, 3)
    assert torch.equal(after[[0, 2]][:, [0, 2]], before[[3, 0]][:, [3, 0]])
    assert not torch.equal(after[1], before[1])


# ---- what is drawn ---------------------------------------------------------------------------------------------


def crops_of(request, **more):
    return Crops(request.dataset, replace(request.recipe, **more), (1.0, 2.0, 3.0))


def test_a_slot_is_always_the_same_crop(request_of):
    crops, others = crops_of(request_of()), crops_of(request_of())
    for slot in (0, 5, 6, 17):
        for one, other in zip(crops.drawn(slot), others.drawn(slot), strict=True):
            assert np.array_equal(one, other)
    assert not np.array_equal(crops.drawn(0)[0], crops.drawn(6)[0])


def test_every_image_once_before_one_comes_again(request_of):
    crops = crops_of(request_of())
    for turn in range(3):
        chosen = [
            crops.chosen(slot, np.random.default_rng(slot))[0] for slot in range(6 * turn, 6 * turn + 6)
        ]
        assert sorted(chosen) == list(range(6))


@pytest.mark.slow
def test_rare_classes_are_drawn_more_often(request_of):
    crops = crops_of(request_of(), rare=True)
    rarest = int(np.argmin(crops.shares))
    drawn = [crops.drawn(slot)[1] for slot in range(40)]
    often = [crops_of(request_of()).drawn(slot)[1] for slot in range(40)]
    assert np.mean([(one == rarest).mean() for one in drawn]) > np.mean(
        [(one == rarest).mean() for one in often]
    )


def test_a_crop_at_its_own_scale_is_the_image():
    rng = np.random.default_rng(0)
    frame, truth = rng.integers(0, 256, (20, 30, 3), np.uint8), rng.integers(0, 5, (20, 30), np.uint8)
    pixels, labels = warped(frame, truth, (3, 5), 1.0, (8, 10), (0, 0, 0), 255)
    assert np.array_equal(pixels, frame[3:11, 5:15])
    assert np.array_equal(labels, truth[3:11, 5:15])
    pixels, labels = warped(frame, truth, (0, 0), 1.0, (40, 30), (7, 8, 9), 255)
    assert (pixels[20:] == [7, 8, 9]).all()
    assert (labels[20:] == 255).all()


def test_halves_and_doubles_lie_where_the_labels_do():
    frame = np.zeros((40, 40, 3), np.uint8)
    truth = np.zeros((40, 40), np.uint8)
    frame[10:30, 20:], truth[10:30, 20:] = 200, 1
    for side, size in ((0.5, (80, 80)), (2.0, (20, 20))):
        pixels, labels = warped(frame, truth, (0, 0), side, size, (0, 0, 0), 255)
        assert ((pixels[..., 0] > 100) == (labels == 1)).mean() > 0.97
        assert labels.mean() == pytest.approx(0.25, abs=0.02)


# ---- losses and rates ------------------------------------------------------------------------------------------


def answer_and_truth():
    generator = torch.Generator().manual_seed(3)
    truth = torch.randint(0, 5, (2, 16, 24), generator=generator)
    truth[0, :4] = 255
    return torch.randn(2, 5, 4, 6, generator=generator), truth


def test_the_loss_is_pytorchs_cross_entropy():
    answer, truth = answer_and_truth()
    raised = torch.nn.functional.interpolate(answer, (16, 24), mode="bilinear", align_corners=False)
    weights = torch.tensor([1.0, 2, 3, 0.5, 1])
    for weight in (None, weights):
        expected = torch.nn.functional.cross_entropy(raised, truth, weight, ignore_index=255)
        logs = log_probabilities(answer, truth.shape[1:], False, are_scores=False)
        total, counted = pixel_loss(logs, truth, 255, weight, TrainingRecipe())
        assert total / counted == pytest.approx(float(expected), rel=1e-6)


def test_scores_of_masks_are_shares():
    answer, _ = answer_and_truth()
    logs = log_probabilities(answer.softmax(1) * 7, torch.Size((4, 6)), False, are_scores=True)
    assert torch.allclose(logs, answer.log_softmax(1), atol=1e-5)


def test_only_hard_pixels_count_and_some_always_do():
    logs = torch.tensor([0.9, 0.6, 0.1]).log()[None, :, None].expand(1, 3, 1).permute(0, 2, 1)[:, :, None]
    both = torch.cat([logs, torch.zeros_like(logs)], 1)
    truth = torch.zeros(1, 1, 3, dtype=torch.int64)
    total, counted = pixel_loss(both, truth, 255, None, TrainingRecipe(ohem=0.7, ohem_least=0.01))
    assert (float(counted), float(total)) == (2, pytest.approx(-np.log(0.6) - np.log(0.1), rel=1e-5))
    total, counted = pixel_loss(both, truth, 255, None, TrainingRecipe(ohem=0.05, ohem_least=0.34))
    assert (float(counted), float(total)) == (1, pytest.approx(-np.log(0.1), rel=1e-5))


def test_a_pixel_weighs_one_in_the_mean():
    weights = balanced([0.81, 0.18, 0.01, 0.0])
    assert float((weights * torch.tensor([0.81, 0.18, 0.01, 0.0])).sum()) == pytest.approx(1)
    assert float(weights[2] / weights[0]) == pytest.approx(9)
    assert weights[3] == 0


def test_the_rate_rises_falls_and_starts_again():
    recipe = TrainingRecipe(steps=100, warm_up=0.1, power=1.0)
    rates = [rate_at(step, recipe) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10] == 1 == max(rates)
    assert rates[55] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    again = [rate_at(step, replace(recipe, restarts=1)) for step in range(100)]
    assert again[54] < 0.05 < 0.9 < again[55]


@pytest.mark.slow
def test_an_average_follows_the_weights(tiny, request_of, tmp_path):
    """After one step it is a quarter of what the network began with, and three of what it has become."""
    one = replace(RECIPE, steps=1)
    plain = finetune(tiny, request_of(one), output=tmp_path / "plain")
    mean = finetune(tiny, request_of(replace(one, average=0.25)), output=tmp_path / "mean")
    before, after, seen = read_checkpoint(tiny).weights, weights_in(plain.folder), weights_in(mean.folder)
    name = "segformer.encoder.block.1.0.mlp.dense1.weight"
    assert not torch.equal(before[name], after[name])
    assert torch.allclose(seen[name], before[name].lerp(after[name], 0.75), atol=1e-7)


@pytest.mark.slow
def test_looking_changes_nothing(tiny, request_of, tmp_path, monkeypatch):
    """The average is scored in the network's place, which then goes on with its own weights."""
    kept, write = [], finetuning.write_state

    def keeping(folder, state):
        kept.append(
            {name: value.clone() for name, value in state.learning.items()}
        )  # before the best is loaded
        write(folder, state)

    monkeypatch.setattr(finetuning, "write_state", keeping)
    for every in (1, 4):
        request = request_of(replace(RECIPE, average=0.5))
        finetune(tiny, replace(request, watch_every=every), output=tmp_path / str(every))
    assert len(kept) == 5
    often, once = kept[3], kept[4]
    assert all(torch.equal(often[name], once[name]) for name in once)


def test_crops_are_drawn_a_little_ahead(request_of):
    asked = []

    def slots():
        for slot in range(1000):
            asked.append(slot)
            yield [slot]

    batches = crops_of(request_of()).batches(slots(), threads=1)
    assert next(batches)[0].shape == (1, *SIZE, 3)
    assert len(asked) <= 4


def test_the_trunk_learns_slower_and_norms_do_not_decay(tiny):
    checkpoint = read_checkpoint(tiny)
    learning = Learning(networks.build(checkpoint).plain, checkpoint.family, 5, frozenset(), RECIPE)
    of = {
        id(one): group
        for group in parameter_groups(learning, checkpoint.family, RECIPE)
        for one in group["params"]
    }
    for name, rate, decay in (
        ("segformer.encoder.block.0.0.mlp.dense1.weight", 1e-3, 0.01),
        ("segformer.encoder.block.0.0.mlp.dense1.bias", 1e-3, 0),
        ("segformer.encoder.layer_norm.0.weight", 1e-3, 0),
        ("decode_head.classifier.weight", 1e-2, 0.01),
        ("decode_head.batch_norm.bias", 1e-2, 0),
    ):
        group = of[id(learning.plain.get_parameter(name))]
        assert (group["lr"], group["full"], group["weight_decay"]) == (
            pytest.approx(rate),
            pytest.approx(rate),
            decay,
        )
    assert len(of) == len(list(learning.parameters()))


# ---- stops and processes ---------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def weights_in(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.slow
def test_a_stop_changes_nothing(tiny, request_of, tmp_path):
    recipe = replace(RECIPE, average=0.9, accumulate=2, rare=True, ohem=0.7, auxiliary=0.4)
    request = request_of(recipe)
    finetune(tiny, request, output=tmp_path / "whole")

    def killed(event):
        raise Killed

    with pytest.raises(Killed):
        finetune(tiny, request, output=tmp_path / "stopped", tell=killed)
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    done = finetune(tiny, request, output=tmp_path / "stopped")
    whole, again = weights_in(tmp_path / "whole"), weights_in(done.folder)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert [event["step"] for event in done.training.history] == [0, 2, 4]


@pytest.mark.thorough
def test_kill_9_changes_nothing(tiny, city, tmp_path):
    command = [
        sys.executable,
        "-m",
        "segdeploy",
        *words(city, tiny),
        "--steps",
        "60",
        "--watch-every",
        "20",
        "-o",
    ]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    subprocess.run([*command, str(whole)], check=True)
    with subprocess.Popen([*command, str(stopped)]) as running:
        while not (stopped / STATE).is_file():
            assert running.poll() is None
            time.sleep(0.005)
        running.kill()
    assert running.returncode == -signal.SIGKILL
    assert not (stopped / "model.safetensors").exists()
    subprocess.run([*command, str(stopped)], check=True)
    assert [path.name for path in sorted(stopped.iterdir())] == [
        path.name for path in sorted(whole.iterdir())
    ]
    one, other = (folder / "model.safetensors" for folder in (whole, stopped))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_another_training_does_not_go_on_with_it(tiny, request_of, tmp_path):
    def killed(event):
        raise Killed

    with pytest.raises(Killed):
        finetune(tiny, request_of(), output=tmp_path, tell=killed)
    with pytest.raises(
        TrainingError, match="of a training with other data, another recipe or another checkpoint"
    ):
        finetune(tiny, request_of(replace(RECIPE, seed=1)), output=tmp_path)
    (tmp_path / STATE).write_bytes((tmp_path / STATE).read_bytes()[:5000])
    with pytest.raises(TrainingError, match=r"cannot be read .*; remove it to begin again"):
        finetune(tiny, request_of(), output=tmp_path)


def test_a_state_that_holds_code_is_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"key": "k", "step": Code()}, tmp_path / STATE)
    with pytest.raises(TrainingError, match="cannot be read"):
        read_state(tmp_path, "k")
    assert not (tmp_path / "ran").exists()


# What a batch norm or a soft-max behind it takes out again: its gradient is rounding, whose sign AdamW follows.
WITHOUT_EFFECT = (".proj.bias", "key.bias", "encoder.layer_norm.3.bias", "running_mean")


@pytest.mark.slow
@pytest.mark.thorough
def test_two_processes_learn_as_one_does_with_twice_the_batch(tiny, city, tmp_path):
    """With statistics of batch norms over both; dropout is drawn in each process by itself, so it is left out."""
    both = [*words(city, tiny), "--steps", "10", "--dropout", "0", "--watch-every", "10", "--rate", "6e-5"]
    alone = [*both, "-o", str(tmp_path / "one"), "--batch", "4"]
    assert main(alone) == 0
    command = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29617",
        "-m",
        "segdeploy",
    ]
    two = subprocess.run(
        [sys.executable, *command, *both, "-o", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert two.returncode == 0, two.stderr[-2000:]
    one, other = weights_in(tmp_path / "one"), weights_in(tmp_path / "two")
    worst = {name: float((one[name] - other[name]).abs().max()) for name in one}
    assert max(error for name, error in worst.items() if not name.endswith(WITHOUT_EFFECT)) <= 1e-5
    first, second = (
        networks.build(read_checkpoint(tmp_path / name)).plain.train() for name in ("one", "two")
    )
    pixels = torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(first(pixels), second(pixels), atol=1e-4)


def test_a_shared_norm_alone_is_pytorchs(monkeypatch):
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    monkeypatch.setattr("segdeploy.train.network.all_reduce", lambda sums: sums)
    maps = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0)) + 2
    plain, shared = torch.nn.BatchNorm2d(4), SharedBatchNorm(4)
    assert torch.allclose(plain(maps), shared(maps), atol=1e-5)
    assert torch.allclose(plain.running_mean, shared.running_mean, atol=1e-6)
    assert torch.allclose(plain.running_var, shared.running_var, atol=1e-5)
    assert torch.allclose(plain.eval()(maps), shared.eval()(maps), atol=1e-5)


# ---- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_loss_that_is_no_number_leaves_the_last_good_weights(tiny, request_of, tmp_path):
    def poisoned(event):
        with torch.no_grad():
            for one in state.learning.values():
                if one.is_floating_point():
                    one.fill_(float("nan"))

    state = TrainingState("")
    original = finetuning.write_state

    def write(folder, found):
        nonlocal state
        original(folder, found)
        state = found

    finetuning.write_state = write
    try:
        with pytest.raises(
            TrainingError, match=r"the loss is nan in step 3\. .*, of step 2, are in .*last-good$"
        ):
            finetune(tiny, request_of(), output=tmp_path, tell=poisoned)
    finally:
        finetuning.write_state = original
    assert {path.name for path in tmp_path.iterdir()} == {"last-good", "segdeploy.training.jsonl"}
    assert all(one.isfinite().all() for one in read_checkpoint(tmp_path / "last-good").weights.values())
    assert json.loads((tmp_path / "last-good/segdeploy.training.json").read_text())["best_step"] == 2


@pytest.mark.slow
def test_a_gradient_that_is_no_number_changes_no_weight(tiny, request_of, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", lambda *given: torch.tensor(float("nan")))
    with pytest.raises(
        TrainingError, match=r"the gradient is nan in step 1\. A lower rate helps \(--rate 0\.0003\)"
    ):
        finetune(tiny, request_of(), output=tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_kept(tiny, request_of, tmp_path, monkeypatch):
    real, calls = Path.write_bytes, []

    def full(place, data):
        if STATE in place.name:
            calls.append(place)
            if len(calls) == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(place, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"training\.state cannot be written: No space left on device"):
        finetune(tiny, request_of(), output=tmp_path)
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 2


def test_what_is_reported_on_is_not_learnt_from(tiny, city, refused):
    said = refused(*words(city, tiny), "--report-split", "train")
    assert "6 images are both learnt from and reported on" in said
    assert "--report-split NAME, or --folds K" in said


@pytest.mark.slow
def test_a_class_that_no_image_shows(tiny, city, refused, tmp_path):
    mapping = tmp_path / "six.yaml"
    mapping.write_text(MAPPING.replace("255: ignore", "30: caravan, 255: ignore"))
    said = refused(*words(city, tiny), "--mapping", mapping)
    assert (
        "shows caravan, so that cannot be learnt; take these classes out of the mapping, or add images"
        in said
    )


@pytest.mark.slow
@pytest.mark.parametrize("place", ["train", "val"])
def test_a_cut_image_is_named_before_the_first_step(tiny, city, tmp_path, refused, place):
    """Those that are reported on are read after the last step, which may be hours later."""
    copy = tmp_path / "city"
    shutil.copytree(city, copy)
    cut = sorted((copy / "leftImg8bit" / place).rglob("*.png"))[-1]
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    assert cut.name in refused(*words(copy, tiny))


@pytest.mark.slow
def test_blank_labels_to_report_on_are_named_before_the_first_step(tiny, city, tmp_path, refused):
    copy = tmp_path / "city"
    shutil.copytree(city, copy)
    for path in (copy / "gtFine" / "val").rglob("*_labelIds.png"):
        path.write_bytes(cv2.imencode(".png", np.zeros(SIZE, np.uint8))[1].tobytes())
    assert "no pixel of the 3 label files of five val is of a class" in refused(*words(copy, tiny))


@pytest.mark.slow
def test_fp16_on_a_processor_scales_its_loss(tiny, request_of, tmp_path):
    """It warns of nothing (a warning fails a test), and small gradients are not lost."""
    done = finetune(tiny, request_of(replace(RECIPE, steps=1, precision="fp16")), output=tmp_path / "out")
    assert done.training.recipe.precision == "fp16"


@pytest.mark.slow
def test_scenes_are_made_where_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(made_scenes, "SPLITS", {"train": (2, 0), "val": (1, 9)})
    root = tmp_path / "new" / "scenes"
    learnt, reported = learnt_and_reported("scenes", root, None, None, None)
    assert (len(learnt), len(reported), len(learnt.labels.names)) == (2, 1, 19)
    written = {path: path.stat().st_mtime_ns for path in root.rglob("*.png")}
    (tmp_path / "five.yaml").write_text(MAPPING)
    learnt, reported = learnt_and_reported("scenes", root, tmp_path / "five.yaml", None, None)
    assert (len(learnt), len(reported), len(learnt.labels.names)) == (2, 1, 5)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.png")} == written
    whole, again = learnt_and_reported("scenes", root, None, None, None, folded=True)
    assert whole == again
    assert [path.name for path in root.parent.iterdir()] == ["scenes"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(OutputError, match="mine holds other files than made scenes"):
        learnt_and_reported("scenes", tmp_path / "mine", None, None, None)


@pytest.mark.slow
@pytest.mark.thorough
def test_the_bundled_network_learns_other_classes(tmp_path, monkeypatch):
    """A minute of one processor: what 40 scenes are enough for, on scenes that it never saw."""
    monkeypatch.setattr(made_scenes, "SPLITS", {"train": (40, 0), "val": (8, 500_000)})
    recipe, mapping = (BENCHMARKS / f"twelve_{name}.yaml" for name in ("recipe", "classes"))
    given = ["--dataset", "scenes", "--root", tmp_path / "scenes", "--mapping", mapping, "--recipe", recipe]
    more = ["--watch-every", 1000, "--device", "cpu", "-o", tmp_path / "mine"]
    assert main(["finetune", str(shipped.folder("models") / "demo-b0"), *map(str, [*given, *more])]) == 0
    record = json.loads((tmp_path / "mine/segdeploy.training.json").read_text())
    assert record["classes_kept"] == ["road", "building", "pole", "sky"]
    assert (record["images"], record["reported"]["images"]) == (36, 8)
    assert record["before"] < 0.3
    assert record["reported"]["miou"] >= 0.8
    ious = {one["name"]: one["iou"] for one in record["reported"]["classes"]}
    assert len(ious) == 12
    assert ious["own car"] > 0.8  # the new one


@pytest.mark.slow
def test_a_training_is_shown_to_tensorboard_where_it_is_installed(tiny, request_of, tmp_path, monkeypatch):
    seen = []

    class SummaryWriter:
        def __init__(self, folder):
            seen.append(folder)

        def __enter__(self):
            return self

        def __exit__(self, *raised):
            seen.append("closed")

        def add_scalar(self, name, value, step):
            seen.append((name, value, step))

        def flush(self):
            pass

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    output = tmp_path / "out"
    finetune(tiny, request_of(replace(RECIPE, steps=2)), output=output)
    (event,) = map(json.loads, (output / "segdeploy.training.jsonl").read_text().splitlines())
    assert seen == [
        str(output / "tensorboard"), *((name, event[name], 2) for name in ("loss", "miou", "rate")), "closed",
    ]  # fmt: skip


def test_one_image_is_too_few(request_of):
    dataset = request_of().dataset
    many = replace(
        dataset, pairs=tuple(Pair(Path(f"{one}.png"), Path(f"{one}.ids.png")) for one in range(25))
    )
    kept, watched = split_off(many)
    assert [pair.image.name for pair in watched.pairs] == ["5.png", "15.png"]
    assert len(kept) == 23
    with pytest.raises(TrainingError, match="has 1 image with labels; at least 2 are needed"):
        split_off(replace(dataset, pairs=dataset.pairs[:1]))


def test_one_class_is_too_few(tiny, city, tmp_path, refused):
    mapping = tmp_path / "one.yaml"
    paths, ids = MAPPING.split("ids:")
    mapping.write_text(paths + "ids:" + re.sub("house|green|sky|car", "road", ids))
    said = refused(*words(city, tiny), "--mapping", mapping)
    assert "one train has one class, road: a network that always answers it is never wrong" in said


def test_a_finished_folder_is_not_written_over(trained, tiny, city, capsys):
    assert main([*words(city, tiny), "-o", str(trained)]) == 1
    assert "holds a training that is finished; name another folder with -o" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rates: 1\n", "has 'rates'; a recipe has steps, batch"),
        ("rate: fast\n", "rate is 'fast'; expected a finite number"),
        ("rate: 7\n", "rate is 7"),
        ("ohem: 1.5\n", "ohem is 1.5; expected 0 to 1"),
        ("steps: 0\n", "steps is 0; expected 1 to 1e+07"),
        ("precision: int4\n", "precision is 'int4'; expected fp32 or bf16 or fp16"),
        ("[1]\n", "has "),
    ],
)
def test_recipes_that_are_none(text, said, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(TrainingError) as refusal:
        read_training_recipe(path, {})
    assert said in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_a_flag_is_stronger_than_the_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("steps: 7\nflip: false\n")
    recipe = read_training_recipe(path, {"steps": 9})
    assert (recipe.steps, recipe.flip, recipe.batch) == (9, False, 4)


def test_scales_the_wrong_way_round():
    with pytest.raises(RequestError, match="scaled by 2 to 1: the least is above the greatest"):
        TrainingRecipe(least_scale=2, most_scale=1)


@pytest.mark.slow
def test_a_crop_that_the_network_cannot_take(city, tmp_path, request_of):
    start = mmseg_checkpoint.write(tmp_path / "unet.pth", "unet")
    with pytest.raises(RequestError, match="multiples of 16"):
        finetune(start, request_of(replace(RECIPE, crop="70x96"), size=None), output=tmp_path / "out")


def test_two_folders_need_images_to_report_on(city, tiny, refused):
    given = [word for word in words(city, tiny) if word not in ("--report-split", "val")]
    assert "images to report on are missing: --report-root DIR" in refused(*given)
    assert Path(city).is_dir()


# ---- folds -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_image_is_reported_on_once(tiny, city, tmp_path, capsys):
    given = [word for word in words(city, tiny) if word not in ("--report-split", "val")]
    assert main([*given, "--steps", "1", "--folds", "2", "-o", str(tmp_path / "out")]) == 0
    assert "over 2 folds" in capsys.readouterr().out
    records = [
        json.loads((tmp_path / f"out/fold-{one}/segdeploy.training.json").read_text()) for one in (1, 2)
    ]
    assert [(one["images"], one["watched_images"], one["reported"]["images"]) for one in records] == [
        (2, 1, 3)
    ] * 2
    whole = json.loads((tmp_path / "out/folds.json").read_text())
    assert whole["images"] == 6
    assert whole["low"] <= whole["miou"] <= whole["high"]
    done = (tmp_path / "out/fold-1/model.safetensors").stat().st_mtime_ns
    assert (
        main([*given, "--steps", "1", "--folds", "2", "-o", str(tmp_path / "out")]) == 0
    )  # nothing is left to do
    assert (tmp_path / "out/fold-1/model.safetensors").stat().st_mtime_ns == done


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--folds", "2", "--split", "val"],
            "five val has too few images with labels for --folds: 3; at least 4",
        ),
        (["--folds", "7"], "7 folds of 6 images cannot be; expected 2 to 6, 5 as a rule"),
        (
            ["--folds", "2", "--report-split", "val"],
            "--folds reports on every image in turn; leave out --report-split",
        ),
    ],
)
def test_folds_that_cannot_be(tiny, city, refused, more, said):
    given = [word for word in words(city, tiny) if word not in ("--report-split", "val")]
    assert said in refused(*given, *more)


def test_the_hardest_share_stays_however_easy_it_is():
    """A hundred pixels, all sure: with a share of a fifth, the twenty least sure ones are learnt from."""
    sure = torch.linspace(0.90, 0.999, 100)
    both = torch.stack([sure, 1 - sure]).log().reshape(1, 2, 10, 10)
    truth = torch.zeros(1, 10, 10, dtype=torch.int64)
    total, counted = pixel_loss(both, truth, 255, None, TrainingRecipe(ohem=0.5, ohem_least=0.2))
    assert float(counted) == 20
    assert float(total) == pytest.approx(-float(sure[:20].log().sum()), rel=1e-4)


# ---- as functions ----------------------------------------------------------------------------------------------


def test_a_recipes_parts_are_arguments():
    assert set(WORDS) <= set(TrainingWords.__annotations__)


@pytest.mark.slow
def test_a_notebooks_training(tiny, city, tmp_path):
    told = {"dataset": "folder", "root": str(city), "mapping": city / "five.yaml", "split": "train"}
    told |= {"report_split": "val", "crop": "64x96", "steps": 1, "batch": 2, "device": "cpu", "size": "64x96"}
    done = segdeploy.finetune(tiny, output=tmp_path / "mine", **told)
    assert str(done).startswith(f"{tmp_path / 'mine'}: mIoU ")
    again = segdeploy.distil(tmp_path / "mine", tiny, output=str(tmp_path / "small"), temperature=2.0, **told)
    assert again.training.teacher == str(tmp_path / "mine")
    assert [step.name for step in again.training.ledger] == ["distilled"]
    with pytest.raises(RequestError, match="'stepps' is no argument of a training; known: mapping, split"):
        segdeploy.finetune(tiny, output=tmp_path / "x", stepps=3, **told)
    with pytest.raises(TrainingError, match=r"the recipe: steps is 'three'; expected a whole number"):
        segdeploy.finetune(tiny, output=tmp_path / "x", **{**told, "steps": "three"})
