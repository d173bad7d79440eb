"""Each data set that is known by name, from its published folders to a score, beside the same score counted by hand."""

import json

import cv2
import numpy as np
import onnx
import pytest
import yaml
from conftest import write_checkpoint
from plain_graph import write_graph

from segdeploy.cli import main
from segdeploy.model.card import read_card
from segdeploy.model.labels import read_labels
from segdeploy.picture.image import read_frame
from segdeploy.run.session import open_session, segment

# The names of objectInfo150.csv, which sceneparsing's development kit gives in the order of the ids 1 to 150.
SCENE_PARSING = """wall building sky floor tree ceiling road bed windowpane grass cabinet sidewalk person earth door
table mountain plant curtain chair car water painting sofa shelf house sea mirror rug field armchair seat fence desk
rock wardrobe lamp bathtub railing cushion base box column signboard chest_of_drawers counter sand sink skyscraper
fireplace refrigerator grandstand path stairs runway case pool_table pillow screen_door stairway river bridge bookcase
blind coffee_table toilet flower book hill bench countertop stove palm kitchen_island computer swivel_chair boat bar
arcade_machine hovel bus towel light truck tower chandelier awning streetlight booth television_receiver airplane
dirt_track apparel pole land bannister escalator ottoman bottle buffet poster stage van ship fountain conveyer_belt
canopy washer plaything swimming_pool stool barrel basket waterfall tent bag minibike cradle oven ball food step tank
trade_name microwave pot animal bicycle lake dishwasher screen blanket sculpture hood sconce vase traffic_light tray
ashcan fan pier crt_screen plate monitor bulletin_board shower radiator glass clock flag"""
NOT_IN_COCO_STUFF = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}  # of its pixel maps' 0 to 181

# data set, image, label file, the value of each class in it, values that are not scored, classes' names
KNOWN = (
    ("bdd100k", "images/10k/val/{}.jpg", "labels/sem_seg/masks/val/{}.png", range(19), [255], "cityscapes"),
    (
        "mapillary",
        "validation/images/{}.jpg",
        "validation/labels/{}.png",
        range(65),
        [65],
        "mapillary-vistas",
    ),
    ("voc", "JPEGImages/{}.jpg", "SegmentationClass/{}.png", range(21), [255], "voc"),
    (
        "coco-stuff",
        "images/val2017/{}.jpg",
        "stuffthingmaps/val2017/{}.png",
        [value for value in range(182) if value not in NOT_IN_COCO_STUFF],
        [255],
        "coco-stuff",
    ),
)
ADE20K = ("ade20k", "images/validation/{}.jpg", "annotations/validation/{}.png", range(1, 151), [0, 255], "")


def score(graph, row, root, capsys, *flags):
    """Make the data set's folders of pictures that `graph` answers half rightly; score it by the verb and by hand."""
    name, image, truth, values, not_scored, _ = row
    labels_of_files = made(graph, root, image, truth, np.array(values), not_scored, *flags[1:])
    assert main(["evaluate", str(graph), "--dataset", name, "--root", str(root), "--json", "-", *flags]) == 0
    said = json.loads(capsys.readouterr().out)
    scores, by_hand = said["models"][0]["scores"], counted_by_hand(labels_of_files, values)
    assert said["dataset"]["images"] == len(labels_of_files)
    assert 0.1 < by_hand[0] < 0.9
    assert (scores["miou"], scores["pixel_accuracy"]) == pytest.approx(by_hand, abs=1e-9)
    return said


def made(graph, root, image, truth, values, not_scored, card=None):
    """Give the values of each label file with the labels that the graph answers on its image."""
    pairs, chance = [], np.random.default_rng(5)
    with open_session(graph, card=read_card(card) if card else None) as session:
        for index in range(3):
            places = [root / place.format(f"made_{index}") for place in (image, truth)]
            for path in places:
                path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(places[0]), chance.integers(0, 256, (5, 7, 3)).repeat(16, 0).repeat(16, 1))
            labels = segment(session, read_frame(places[0])).labels
            ids = values[labels]
            ids[:20] = chance.choice(np.unique(ids), (20, 112))
            ids[20:40, :40] = chance.choice(not_scored, (20, 40))
            ids[40:42, ::9] = values[-1]  # is answered nowhere
            cv2.imwrite(str(places[1]), ids.astype(np.uint8))
            pairs.append((ids, labels))
    listed = root / "ImageSets/Segmentation/val.txt"  # as Pascal VOC has it; nobody else reads it
    listed.parent.mkdir(parents=True)
    listed.write_text("".join(f"made_{index}\n" for index in range(3)))
    return pairs


def counted_by_hand(pairs, values):
    """mIoU over the classes that are there or answered, and the share of right pixels; other values do not count."""
    ids, labels = (np.concatenate([side.ravel() for side in sides]) for sides in zip(*pairs, strict=True))
    labels = labels[np.isin(ids, list(values))]
    ids = ids[np.isin(ids, list(values))]
    ious = []
    for place, value in enumerate(values):
        either = np.count_nonzero((ids == value) | (labels == place))
        if either:
            ious.append(np.count_nonzero((ids == value) & (labels == place)) / either)
    return np.mean(ious), np.mean(np.array(values)[labels] == ids)


@pytest.mark.slow
def test_a_card_of_ade20k_is_scored_from_checkpoint_to_miou(tmp_path, capsys):
    checkpoint = write_checkpoint(tmp_path / "net", classes=read_labels("ade20k").names)
    wanted = ("--card", "segformer-b0-ade", "--size", "64x96", "--interface", "frames")
    assert main(["export", str(checkpoint), *wanted, "-o", str(tmp_path)]) == 0
    capsys.readouterr()
    said = score(next(tmp_path.glob("*.onnx")), ADE20K, tmp_path, capsys)
    assert said["models"][0]["card"] == "segformer-b0-ade"
    assert said["dataset"]["classes"] == [name.replace("_", " ") for name in SCENE_PARSING.split()]


@pytest.mark.slow
@pytest.mark.parametrize("row", KNOWN, ids=[row[0] for row in KNOWN])
def test_a_graph_with_a_card_is_scored_on_each_data_set(row, tmp_path, capsys):
    graph = write_graph(tmp_path / "own.onnx", len(row[3]), "logits")
    model = onnx.load(graph)
    del model.metadata_props[:]
    onnx.save(model, graph)
    card = tmp_path / "own.yaml"
    facts = {"checkpoint": "own", "size": "64x96", "mean": [0, 0, 0], "std": [255, 255, 255]}
    card.write_text(yaml.safe_dump(facts | {"labels": row[5], "resize": "linear", "licence": "mine"}))
    said = score(graph, row, tmp_path, capsys, "--card", str(card))
    assert said["dataset"]["classes"] == list(read_labels(row[5]).names)
