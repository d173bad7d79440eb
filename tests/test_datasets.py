"""Data sets of a few pixels in every layout: what is found, what values become, and what is refused in which words."""

import os
import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segdeploy import scenes
from segdeploy.cli import parser
from segdeploy.datasets.dataset import ranges
from segdeploy.datasets.known import DATASETS, KnownDataset, Layout, camvid_split
from segdeploy.datasets.label_files import read_label_file
from segdeploy.datasets.layouts import find_pictures_to_calibrate_on, open_dataset
from segdeploy.errors import EvaluationError, ImageError, RequestError
from segdeploy.model.labels import generated_labels, read_labels
from segdeploy.prove.material import images_in

CITYSCAPES = read_labels("cityscapes")
CAMVID = read_labels("camvid")


def save(path, pixels):
    """Grey, or RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.asarray(pixels)
    cv2.imwrite(str(path), stored[..., ::-1] if stored.ndim == 3 else stored)
    return path


def picture(path, height=4, width=6):
    return save(path, np.zeros((height, width, 3), np.uint8))


@pytest.fixture
def city(tmp_path):
    scenes.write_cityscapes(tmp_path, 3, seed=5, height=64, width=128)
    return tmp_path


@pytest.mark.slow
def test_cityscapes_label_ids_become_train_ids(city):
    dataset = open_dataset("cityscapes", city)
    assert (str(dataset), len(dataset), dataset.labels) == ("cityscapes val", 3, CITYSCAPES)
    assert [dataset.named(pair.image) for pair in dataset.pairs] == [
        f"leftImg8bit/val/madeup/madeup_{index:06d}_000019_leftImg8bit.png" for index in range(3)
    ]
    assert all(pair.truth.name.endswith("_gtFine_labelIds.png") for pair in dataset.pairs)
    for index, pair in enumerate(dataset.pairs):
        truth = dataset.read_truth(pair)
        assert truth.dtype == np.uint8
        assert np.array_equal(truth, scenes.make_scene(5 + index, 64, 128).labels)


def test_train_ids_are_read_where_there_are_no_label_ids(city):
    by_ids = open_dataset("cityscapes", city)
    digest, expected = by_ids.digest, [by_ids.read_truth(pair) for pair in by_ids.pairs]
    for path in city.rglob("*_labelIds.png"):
        path.unlink()
    dataset = open_dataset("cityscapes", city)
    assert all(pair.truth.name.endswith("_gtFine_labelTrainIds.png") for pair in dataset.pairs)
    for pair, truth in zip(dataset.pairs, expected, strict=True):
        assert np.array_equal(dataset.read_truth(pair), truth)
    assert dataset.digest != digest


def test_every_label_id_of_cityscapes_is_known_and_nothing_else(city):
    dataset = open_dataset("cityscapes", city)
    save(dataset.pairs[0].truth, np.uint8([[*range(34), 255]]))
    assert dataset.read_truth(dataset.pairs[0])[0].tolist() == [
        *CITYSCAPES.lookup_from_ids()[:34].tolist(),
        255,
    ]
    path = save(dataset.pairs[1].truth, np.uint8([[7, 34, 77]]))
    with pytest.raises(EvaluationError) as refused:
        dataset.read_truth(dataset.pairs[1])
    assert str(refused.value) == (
        f"{path} holds the id 34, which cityscapes does not know; ids are 0 to 33, 255"
    )


@pytest.mark.slow
def test_another_split(city):
    scenes.write_cityscapes(city, 1, seed=9, split="train", height=64, width=128)
    assert len(open_dataset("cityscapes", city, "train")) == 1
    with pytest.raises(EvaluationError) as refused:
        open_dataset("cityscapes", city, "testing")
    pictures, truths = f"{city}/leftImg8bit/testing", f"{city}/gtFine/testing"
    assert str(refused.value) == (
        f"no label files were found: expected {pictures}/*_leftImg8bit.png with {truths}/*_gtFine_labelIds.png, or "
        f"{pictures}/*_leftImg8bit.png with {truths}/*_gtFine_labelTrainIds.png; its splits are train, val, test"
    )


def test_kitti_has_cityscapes_ids(tmp_path):
    for stem in ("000000", "000001"):
        picture(tmp_path / f"training/image_2/{stem}_10.png", 1, 4)
        picture(tmp_path / f"training/image_2/{stem}_11.png", 1, 4)
        save(tmp_path / f"training/semantic/{stem}_10.png", np.uint8([[7, 8, 0, 33]]))
    dataset = open_dataset("kitti", tmp_path)
    assert (str(dataset), len(dataset), dataset.labels) == ("kitti training", 2, CITYSCAPES)
    assert dataset.read_truth(dataset.pairs[1]).tolist() == [[0, 1, 255, 18]]


def test_camvid_as_segnet_has_it(tmp_path):
    picture(tmp_path / "val/0016E5_07959.png", 1, 4)
    save(tmp_path / "valannot/0016E5_07959.png", np.uint8([[0, 10, 11, 3]]))
    dataset = open_dataset("camvid", tmp_path)
    assert (str(dataset), dataset.labels) == ("camvid val", CAMVID)
    assert dataset.read_truth(dataset.pairs[0]).tolist() == [[0, 10, 255, 3]]


COLOURED = [[(128, 128, 128), (192, 0, 192), (0, 0, 0), (128, 0, 192), (64, 0, 64)]]  # Sky … Tunnel


@pytest.mark.parametrize(
    ("images", "labels"),
    [("val", "val_labels"), ("701_StillsRaw_full", "LabeledApproved_full"), ("images", "labels")],
)
def test_camvid_in_its_original_colours(tmp_path, images, labels):
    picture(tmp_path / images / "0016E5_07959.png", 1, 5)
    save(tmp_path / labels / "0016E5_07959_L.png", np.uint8(COLOURED))
    if labels != "val_labels":
        picture(tmp_path / images / "Seq05VD_f00000.png", 1, 5)
        save(tmp_path / labels / "Seq05VD_f00000_L.png", np.uint8(COLOURED))
    dataset = open_dataset("camvid", tmp_path, "val")
    assert len(dataset) == 1
    assert dataset.read_truth(dataset.pairs[0]).tolist() == [[0, 10, 255, 3, 1]]
    path = save(dataset.pairs[0].truth, np.uint8([[(128, 128, 128), (1, 2, 3)]]))
    with pytest.raises(
        EvaluationError, match=re.escape(f"{path} holds the colour (1, 2, 3), which camvid does")
    ):
        dataset.read_truth(dataset.pairs[0])


def test_camvid_in_a_palette_is_read_by_its_colours(tmp_path):
    picture(tmp_path / "val/a.png", 1, 2)
    (tmp_path / "val_labels").mkdir()
    file = Image.fromarray(np.uint8([[1, 0]]), "P")
    file.putpalette([0, 0, 0, 64, 0, 128])
    file.save(tmp_path / "val_labels/a_L.png")
    dataset = open_dataset("camvid", tmp_path)
    assert dataset.read_truth(dataset.pairs[0]).tolist() == [[8, 255]]


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("0001TP_006690", "train"),
        ("0001TP_008520", "train"),
        ("0001TP_008550", "test"),
        ("0006R0_f03930", "train"),
        ("0016E5_07920", "train"),
        ("0016E5_07959", "val"),
        ("0016E5_08159", "val"),
        ("0016E5_08190", "train"),
        ("Seq05VD_f05100", "test"),
    ],
)
def test_camvids_splits_are_told_by_name(stem, split):
    assert camvid_split(stem) == split


def test_each_of_camvids_32_colours_is_said_once(tmp_path):
    picture(tmp_path / "val/a.png")
    save(tmp_path / "valannot/a.png", np.zeros((4, 6), np.uint8))
    dataset = open_dataset("camvid", tmp_path)
    assert len(dataset.colours) == 32
    assert sorted(set(dataset.colours.values())) == [*range(11), 255]
    for index, colour in enumerate(CAMVID.colours):
        assert dataset.colours[colour] == index


def test_cityscapes_classes_as_camvids():
    mapping = {
        CITYSCAPES.names[index]: CAMVID.names[target]
        for index, target in enumerate([3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10])
    }
    from segdeploy.model.labels import read_yaml
    from segdeploy.shipped import folder

    assert read_yaml(folder("models") / "labels/camvid.yaml")["from_cityscapes"] == mapping


MAPPING = """
ids: {0: ground, 1: ground, 7: vehicle, 300: vehicle, 9: ignore}
from: {road: ground, kerb: ground, car: vehicle, bus: vehicle, sky: none}
"""


def two_folders(root, mapping=MAPPING, split=None, truth=((0, 1, 7), (9, 0, 300))):
    picture(root / "images/a/x.jpg", 2, 3)
    save(root / "labels/a/x.png", np.uint16(truth))
    (root / "harbour.yaml").write_text(mapping)
    return open_dataset("folder", root, split, root / "harbour.yaml")


def test_two_folders_with_a_mapping(tmp_path):
    dataset = two_folders(tmp_path)
    assert (str(dataset), dataset.labels.names) == ("harbour", ("ground", "vehicle"))
    assert dataset.read_truth(dataset.pairs[0]).tolist() == [[0, 0, 1], [255, 0, 1]]
    table = dataset.lookup_from(generated_labels(["road", "kerb", "sky", "car", "bus"]))
    assert table[:6].tolist() == [0, 0, 255, 1, 1, 255]


def test_two_folders_with_splits_and_endings(tmp_path):
    picture(tmp_path / "frames/night/a_rgb.png", 1, 2)
    save(tmp_path / "frames/night/a_ids.png", np.uint8([[0, 1]]))
    (tmp_path / "m.yaml").write_text(
        "{images: 'frames/{split}', labels: 'frames/{split}', image_ending: _rgb.png, label_ending: _ids.png,"
        " ids: {0: sea, 1: quay}}"
    )
    dataset = open_dataset("folder", tmp_path, "night", tmp_path / "m.yaml")
    assert (str(dataset), len(dataset), dataset.labels.names) == ("m night", 1, ("sea", "quay"))
    with pytest.raises(
        RequestError, match=r"--split NAME and a folder with \{split\} in m\.yaml go together"
    ):
        open_dataset("folder", tmp_path, None, tmp_path / "m.yaml")


def test_known_classes_keep_their_order_and_colours(tmp_path):
    ids = ", ".join(f"{index}: {name}" for index, name in reversed(list(enumerate(CITYSCAPES.names))))
    dataset = two_folders(tmp_path, f"ids: {{{ids}}}")
    assert dataset.labels == CITYSCAPES
    assert dataset.ids == {index: index for index in range(19)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ids: {", "harbour.yaml is not YAML"),
        (
            "[1]",
            "harbour.yaml must have `ids`, and may have `from`, image_ending, images, label_ending, labels",
        ),
        ("{ids: {0: a}, clases: [a]}", "harbour.yaml must have `ids`"),
        ("ids: [a, b]", "`ids` maps 0 to 65535 to class names or ignore, as in {0: road}"),
        ("ids: {0: a, 65536: b}", "`ids` maps 0 to 65535"),
        ("ids: {0: a, true: b}", "`ids` maps 0 to 65535"),
        ("ids: {0: ignore}", "`ids` names no class"),
        ("{ids: {0: a}, from: [b]}", "`from` maps a model's class names to those of `ids`, or to none"),
        ("{ids: {0: a}, from: {b: c}}", "`from` counts 'b' as 'c'; known are none, a"),
        ("{ids: {0: a}, images: 3}", "folders and endings are text"),
        ("{ids: {0: a}, label_ending: _ids.JPG}", "JPEG does not keep ids"),
        ("{ids: {0: a}, images: gone, labels: gone}", "no label files were found: expected "),
    ],
)
def test_mappings_that_do_not_hold(tmp_path, text, message):
    with pytest.raises(EvaluationError) as refused:
        two_folders(tmp_path, text)
    assert message in str(refused.value)


def test_a_mapping_that_is_not_there(tmp_path):
    with pytest.raises(EvaluationError, match=r"gone\.yaml cannot be read: No such file"):
        open_dataset("folder", tmp_path, None, tmp_path / "gone.yaml")


def test_an_id_outside_a_users_mapping_is_named(tmp_path):
    dataset = two_folders(tmp_path, truth=((0, 1, 7), (2, 0, 0)))
    with pytest.raises(EvaluationError) as refused:
        dataset.read_truth(dataset.pairs[0])
    assert str(refused.value) == (
        f"{tmp_path}/labels/a/x.png holds the id 2, which harbour does not know; ids are 0 to 1, 7, 9, 300"
    )


def test_a_file_without_its_partner_is_named(city):
    gone = next(city.rglob("madeup_000001*_labelIds.png"))
    gone.unlink()
    with pytest.raises(EvaluationError) as refused:
        open_dataset("cityscapes", city)
    said = str(refused.value)
    assert said.startswith("1 of 3 files have no partner: ")
    assert "madeup_000001_000019_leftImg8bit.png has no labels; expected " in said
    assert said.endswith("madeup/madeup_000001_000019_gtFine_labelIds.png")
    next(city.rglob("madeup_000001*_leftImg8bit.png")).unlink()
    next(city.rglob("madeup_000002*_leftImg8bit.png")).unlink()
    with pytest.raises(EvaluationError, match=r"madeup_000002_000019_gtFine_labelIds\.png has no image"):
        open_dataset("cityscapes", city)


def test_two_images_of_one_name(tmp_path):
    picture(tmp_path / "images/a/x.png", 2, 3)
    with pytest.raises(EvaluationError, match=r"x\.jpg and .*x\.png are two images of one name"):
        two_folders(tmp_path)


@pytest.mark.parametrize(
    ("name", "looked_for"),
    [
        (
            "cityscapes",
            "{root}/leftImg8bit/val/*_leftImg8bit.png with {root}/gtFine/val/*_gtFine_labelIds.png, or ",
        ),
        ("kitti", "{root}/training/image_2/*_10.png with {root}/training/semantic/*_10.png"),
        (
            "camvid",
            "{root}/val/*.png with {root}/valannot/*.png, or {root}/val/*.png with {root}/val_labels/*_L.png",
        ),
    ],
)
def test_a_wrong_root_says_what_was_looked_for(name, looked_for, tmp_path):
    with pytest.raises(EvaluationError) as refused:
        open_dataset(name, tmp_path)
    assert str(refused.value).startswith(
        "no label files were found: expected " + looked_for.format(root=tmp_path)
    )
    with pytest.raises(EvaluationError, match="there is no folder "):
        open_dataset(name, tmp_path / "gone")


def test_requests_that_make_no_sense(tmp_path):
    with pytest.raises(RequestError) as refused:
        open_dataset("coco", tmp_path)
    assert str(refused.value) == (
        "no data set is called 'coco'; known: cityscapes, kitti, camvid, ade20k, bdd100k, mapillary, voc, coco-stuff,"
        " folder"
    )
    for name, mapping in (("folder", None), ("camvid", tmp_path / "m.yaml")):
        with pytest.raises(RequestError, match=r"--mapping FILE\.yaml and --dataset folder go together"):
            open_dataset(name, tmp_path, None, mapping)
    with pytest.raises(RequestError, match="a limit of 0 images leaves none"):
        two_folders(tmp_path).limited(0)


@pytest.mark.slow
def test_a_limit_is_spread_evenly(tmp_path):
    scenes.write_cityscapes(tmp_path, 7, seed=0, height=64, width=128)
    dataset = open_dataset("cityscapes", tmp_path)
    assert dataset.limited(None) is dataset.limited(9) is dataset
    assert dataset.limited(3).pairs == tuple(dataset.pairs[index] for index in (0, 2, 4))
    assert dataset.limited(3).digest != dataset.digest


def test_the_digest_is_of_names_sizes_and_meaning(tmp_path):
    first = two_folders(tmp_path).digest
    assert two_folders(tmp_path).digest == first
    assert two_folders(tmp_path, MAPPING.replace("7: vehicle", "7: ground")).digest != first
    (tmp_path / "labels/a/x.png").write_bytes((tmp_path / "labels/a/x.png").read_bytes() + b" ")
    assert open_dataset("folder", tmp_path, None, tmp_path / "harbour.yaml").digest != first


def numbered(count):
    return generated_labels([f"class {index}" for index in range(count)])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (CAMVID, [*range(11), 255]),
        (CITYSCAPES, [3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10, 255]),
        (numbered(19), [3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10, 255]),
        (numbered(11), [*range(11), 255]),
    ],
)
def test_what_a_models_classes_count_as(model, expected, tmp_path):
    picture(tmp_path / "val/a.png")
    save(tmp_path / "valannot/a.png", np.zeros((4, 6), np.uint8))
    table = open_dataset("camvid", tmp_path).lookup_from(model)
    assert table[: len(expected)].tolist() == expected
    assert (table[len(expected) :] == 255).all()


def test_a_model_of_other_classes_is_refused(city):
    dataset = open_dataset("cityscapes", city)
    with pytest.raises(EvaluationError) as refused:
        dataset.lookup_from(read_labels("ade20k"))
    assert str(refused.value) == (
        "the model's 150 classes (wall, building, sky, floor, tree, ceiling and 144 more) do not fit cityscapes: none "
        "counts as traffic sign, vegetation, terrain, rider, train, motorcycle. --dataset folder with a --mapping "
        "can say what each counts as, under `from`"
    )
    with pytest.raises(
        EvaluationError, match=r"the model's 12 classes \(class 0, .*\) do not fit cityscapes"
    ):
        dataset.lookup_from(numbered(12))


def grey_png(rows, bits):
    """A grey PNG of fewer than 8 bits a pixel, which Pillow and OpenCV do not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    lines = b""
    for row in rows:
        digits = "".join(f"{value:0{bits}b}" for value in row)
        digits += "0" * (-len(digits) % 8)
        lines += bytes([0, *(int(digits[at : at + 8], 2) for at in range(0, len(digits), 8))])
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    return bytes.fromhex("89504e470d0a1a0a") + b"".join(parts)


def test_ids_are_read_as_they_were_written(tmp_path):
    ids = np.uint8([[0, 1, 2], [3, 2, 1]])
    path = tmp_path / "ids.png"
    palette = Image.fromarray(ids, "P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    for image in (Image.fromarray(ids), palette, Image.fromarray(np.dstack([ids] * 3))):
        image.save(path)
        assert read_label_file(path).tolist() == ids.tolist()
    palette.save(path, bits=2)
    assert read_label_file(path).tolist() == ids.tolist()
    palette.save(path, transparency=0)
    assert read_label_file(path).tolist() == ids.tolist()
    for bits in (2, 4):
        path.write_bytes(grey_png(ids.tolist(), bits))
        assert read_label_file(path).tolist() == ids.tolist()
    Image.fromarray(ids % 2 == 1).save(path)  # one bit a pixel
    assert read_label_file(path).tolist() == (ids % 2).tolist()
    cv2.imwrite(str(path), np.uint16(ids) * 300)
    assert read_label_file(path).tolist() == (np.uint16(ids) * 300).tolist()


def test_label_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "ids.png"
    with pytest.raises(ImageError, match=r"ids\.png cannot be read: No such file"):
        read_label_file(path)
    for content in (b"", b"no image"):
        path.write_bytes(content)
        with pytest.raises(ImageError, match=r"ids\.png is not a label image that can be decoded"):
            read_label_file(path)
    save(path, np.uint8([[(1, 2, 3)]]))
    with pytest.raises(EvaluationError, match=r"ids\.png is coloured; expected ids in one grey channel"):
        read_label_file(path)
    twice = Image.fromarray(np.uint8([[0, 2]]), "P")
    twice.putpalette([0, 0, 0, 9, 9, 9, 9, 9, 9])
    twice.save(path)
    assert read_label_file(path).tolist() == [[0, 2]]


HARBOUR = KnownDataset(
    "camvid",
    ("day", "night"),
    scored_on="night",
    calibrated_on="day",
    layouts=(Layout("{split}/frames", "{split}/masks", "_rgb.png", "_ids.png", "places"),),
)


def test_a_data_set_that_is_added_to_the_table_is_known_everywhere(monkeypatch, tmp_path, capsys, misused):
    monkeypatch.setitem(DATASETS, "harbour", HARBOUR)
    picture(tmp_path / "night/frames/a_rgb.png", 1, 4)
    save(tmp_path / "night/masks/a_ids.png", np.uint8([[0, 10, 255, 3]]))
    dataset = open_dataset("harbour", tmp_path)
    assert (str(dataset), dataset.labels, len(dataset)) == ("harbour night", CAMVID, 1)
    assert dataset.read_truth(dataset.pairs[0]).tolist() == [[0, 10, 255, 3]]
    for verb, split in (("evaluate", "night"), ("quantize", "day"), ("build-engine", "day")):
        with pytest.raises(SystemExit):
            parser().parse_args([verb, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert (
            "--dataset {cityscapes,kitti,camvid,ade20k,bdd100k,mapillary,voc,coco-stuff,harbour,folder}"
            in said
        )
        assert f"; {split} of harbour" in said
    said = misused("evaluate", "m.onnx", "--dataset", "coco", "--root", ".")
    assert "argument --dataset: invalid choice: 'coco' (choose from " in said
    assert "harbour" in said
    picture(tmp_path / "day/frames/b_rgb.png", 1, 4)
    assert [path.name for path in find_pictures_to_calibrate_on(tmp_path)] == ["b_rgb.png"]


def test_every_row_of_the_table_holds():
    for known in DATASETS.values():
        assert {known.scored_on, known.calibrated_on} <= set(known.splits)
        assert read_labels(known.labels).names
        for layout in known.layouts:
            assert layout.has_splits or known.split_of


def palette_png(path, ids, entries=256):
    """Ids in a palette; as in Mapillary's files, all entries that no class has are black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = Image.fromarray(np.uint8(ids), "P")
    file.putpalette([min(place, 65) % 65 for place in range(entries) for _ in range(3)])
    file.save(path)


# name, split, image, label file, its ids, the classes that these are, a value that is in no label file of it
PUBLISHED = (
    ("ade20k", "validation", "images/validation/ADE_val_00000001.jpg", "annotations/validation/ADE_val_00000001.png",
     [0, 1, 2, 150], ["ignore", "wall", "building", "flag"], 151),
    ("bdd100k", "val", "images/10k/val/7d06.jpg", "labels/sem_seg/masks/val/7d06.png",
     [0, 18, 10, 255], ["road", "bicycle", "sky", "ignore"], 19),
    ("bdd100k", "val", "seg/images/val/7d06.jpg", "seg/labels/val/7d06_train_id.png",
     [0, 18, 10, 255], ["road", "bicycle", "sky", "ignore"], 19),
    ("mapillary", "validation", "validation/images/a-b_c.jpg", "validation/labels/a-b_c.png",
     [0, 13, 64, 65], ["Bird", "Road", "Ego Vehicle", "ignore"], 66),
    ("mapillary", "validation", "validation/images/a-b_c.jpg", "validation/v1.2/labels/a-b_c.png",
     [0, 13, 64, 65], ["Bird", "Road", "Ego Vehicle", "ignore"], 66),
    ("voc", "val", "JPEGImages/2007_000033.jpg", "SegmentationClass/2007_000033.png",
     [0, 1, 20, 255], ["background", "aeroplane", "tvmonitor", "ignore"], 21),
    ("voc", "val", "VOCdevkit/VOC2012/JPEGImages/2007_000033.jpg",
     "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png",
     [0, 1, 20, 255], ["background", "aeroplane", "tvmonitor", "ignore"], 21),
    ("coco-stuff", "val2017", "images/val2017/000000000139.jpg", "stuffthingmaps/val2017/000000000139.png",
     [0, 10, 12, 91, 181, 255], ["person", "fire hydrant", "stop sign", "banner", "wood", "ignore"], 11),
    ("coco-stuff", "val2017", "images/val2017/000000000139.jpg",
     "annotations/val2017/000000000139_labelTrainIds.png",
     [0, 11, 170, 255], ["person", "stop sign", "wood", "ignore"], 171),
)  # fmt: skip
LISTS = {"voc": "ImageSets/Segmentation/val.txt"}


@pytest.mark.parametrize(("name", "split", "image", "truth", "ids", "classes", "strange"), PUBLISHED)
@pytest.mark.parametrize("write", [palette_png, save])
def test_the_layouts_and_ids_that_were_published(
    write, name, split, image, truth, ids, classes, strange, tmp_path
):
    picture(tmp_path / image, 1, len(ids))
    write(tmp_path / truth, np.uint8([ids]))
    if name in LISTS:
        place = tmp_path / image.partition("JPEGImages")[0] / LISTS[name]
        place.parent.mkdir(parents=True)
        place.write_text("2007_000033\n")
        picture(tmp_path / image.replace("000033", "000027"))  # has no labels, and is in no list
        write(tmp_path / truth.replace("000033", "000039"), np.uint8([ids]))  # of another split
    dataset = open_dataset(name, tmp_path)
    assert (str(dataset), len(dataset)) == (f"{name} {split}", 1)
    found = dataset.read_truth(dataset.pairs[0])[0].tolist()
    names = {**dict(enumerate(dataset.labels.names)), dataset.labels.ignore: "ignore"}
    assert [names[one] for one in found] == classes
    write(tmp_path / truth, np.uint8([[strange]]))
    with pytest.raises(EvaluationError, match=f"holds the id {strange}, which {name} does not know"):
        dataset.read_truth(dataset.pairs[0])
    assert find_pictures_to_calibrate_on(tmp_path) == [tmp_path / image]


def test_a_list_that_is_not_there_is_named(tmp_path):
    picture(tmp_path / "JPEGImages/a.jpg")
    save(tmp_path / "SegmentationClass/a.png", np.uint8([[0]]))
    with pytest.raises(
        EvaluationError, match=r"no label files were found: .*ImageSets/Segmentation/val\.txt"
    ):
        open_dataset("voc", tmp_path)


def test_the_classes_of_coco_stuff_have_their_ids():
    labels = read_labels("coco-stuff")
    assert len(labels.ids) == len(set(labels.names)) == 171
    by_name = dict(zip(labels.names, labels.ids, strict=True))
    known = {
        "toothbrush": 89,
        "backpack": 26,
        "dining table": 66,
        "toilet": 69,
        "tv": 71,
        "book": 83,
        "sky-other": 156,
    }
    assert {name: by_name[name] for name in known} == known


@pytest.mark.slow
def test_calibration_takes_the_images_of_a_known_data_set_and_not_its_label_files(city, tmp_path):
    scenes.write_cityscapes(city, 2, seed=9, split="train", height=64, width=128)
    for path in city.rglob("gtFine"):
        path.rename(tmp_path / "elsewhere")  # images alone can be had too
    assert images_in(city) == sorted((city / "leftImg8bit/train/madeup").iterdir())
    root = tmp_path / "stills"
    for stem in ("0016E5_07959", "0016E5_07920"):
        picture(root / f"images/{stem}.png")
    assert len(images_in(root)) == 2  # this may be any folder
    for stem in ("0016E5_07959", "0016E5_07920"):
        save(root / f"labels/{stem}_L.png", np.zeros((4, 6), np.uint8))
    assert images_in(root) == [root / "images/0016E5_07920.png"]


def test_ranges():
    assert ranges([255, 2, 0, 1, 7]) == "0 to 2, 7, 255"


# ---- what is no file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["image", "truth"])
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            lambda path: path.symlink_to("/disk/x.png"),
            "No such file or directory, and it is a link to /disk/x.png",
        ),
        (
            lambda path: path.symlink_to(path.name),
            "Too many levels of symbolic links, and it is a link to {name}",
        ),
        (os.mkfifo, "it is a pipe, and no file"),
        (Path.mkdir, "it is a folder, and no file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_before_anything_is_scored(which, make, why, city):
    place = getattr(open_dataset("cityscapes", city).pairs[0], which)
    place.unlink()
    make(place)
    with pytest.raises(EvaluationError) as refusal:
        open_dataset("cityscapes", city)
    assert str(refusal.value) == f"{place} cannot be read: {why.format(name=place.name)}"
