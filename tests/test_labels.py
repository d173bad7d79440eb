"""Classes, colours and ids: the shipped ones by value, generated ones by what they must be."""

import numpy as np
import pytest

from segdeploy.errors import CardError
from segdeploy.model.labels import generated_labels, known_labels, labels_of, read_labels

CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


@pytest.mark.parametrize("name", known_labels())
def test_shipped_labels_are_whole(name):
    labels = read_labels(name)
    assert labels.name == name
    assert len(labels.names) == len(labels.colours) == len(set(labels.names))
    assert all(text == text.strip() for text in labels.names)


def test_the_shipped_labels():
    assert known_labels() == ["ade20k", "camvid", "cityscapes", "coco-stuff", "mapillary-vistas", "voc"]
    cityscapes, ade20k = read_labels("cityscapes"), read_labels("ade20k")
    assert (len(cityscapes.names), len(ade20k.names)) == (19, 150)
    assert (cityscapes.names[0], cityscapes.names[-1]) == ("road", "bicycle")
    assert cityscapes.ids == CITYSCAPES_IDS
    at = {index: (ade20k.names[index], ade20k.colours[index]) for index in (0, 2, 7, 75, 127, 149)}
    assert at == {
        0: ("wall", (120, 120, 120)),
        2: ("sky", (6, 230, 230)),
        7: ("bed", (204, 5, 255)),
        75: ("swivel chair", (10, 0, 255)),
        127: ("bicycle", (255, 245, 0)),
        149: ("flag", (92, 0, 255)),
    }
    assert len(set(ade20k.colours)) == 149  # road and skyscraper share a grey in the public palette
    assert ade20k.colours[6] == ade20k.colours[48] == (140, 140, 140)


def test_the_palette_is_black_where_there_is_no_class():
    palette = read_labels("cityscapes").palette()
    assert (palette.shape, palette.dtype) == ((256, 3), np.uint8)
    assert palette[:3].tolist() == [[128, 64, 128], [244, 35, 232], [70, 70, 70]]
    assert not palette[19:].any()


def test_ids_of_label_files_become_classes():
    table = read_labels("cityscapes").lookup_from_ids()
    assert table.dtype == np.uint8
    assert table[list(CITYSCAPES_IDS)].tolist() == list(range(19))
    assert (np.delete(table, CITYSCAPES_IDS) == 255).all()


def test_the_zero_of_ade20k_is_no_class():
    table = read_labels("ade20k").lookup_from_ids()
    assert table[:3].tolist() == [255, 0, 1]
    assert table[149:152].tolist() == [148, 149, 255]
    assert (table[151:] == 255).all()


def test_without_ids_a_class_is_its_index():
    table = generated_labels(["a", "b"]).lookup_from_ids()
    assert table[:3].tolist() == [0, 1, 255]


def test_generated_colours_are_distinct_and_the_same_every_time():
    labels = generated_labels([f"class {index}" for index in range(150)], "many")
    assert (labels.name, labels.ids) == ("many", None)
    assert len(set(labels.colours)) == 150
    assert all(0 <= channel <= 255 for colour in labels.colours for channel in colour)
    assert generated_labels(labels.names).colours == labels.colours


def placeholders(count):
    return [f"LABEL_{index}" for index in range(count)]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (read_labels("cityscapes").names, "cityscapes"),
        (read_labels("ade20k").names, "ade20k"),
        (placeholders(19), "cityscapes"),
        (placeholders(150), "ade20k"),
        (placeholders(20), "mine"),
        (["LABEL_1", "LABEL_0", *placeholders(19)[2:]], "mine"),
        ([name.lower() for name in placeholders(19)], "mine"),
        ([*placeholders(18), "bicycle"], "mine"),
        ([*read_labels("cityscapes").names, "kerb"], "mine"),
        (read_labels("cityscapes").names[::-1], "mine"),
    ],
)
def test_labels_are_found_by_their_names(names, found):
    labels = labels_of(names, "mine")
    assert labels.name == found
    if found == "mine":
        assert labels.names == tuple(names)


def test_unknown_labels_are_named():
    with pytest.raises(CardError) as refused:
        read_labels("kitti")
    assert (
        str(refused.value)
        == "no labels are called 'kitti'; known: ade20k, camvid, cityscapes, coco-stuff, mapillary-vistas, voc, or a"
        " .yaml file"
    )


def test_labels_of_the_users_own(tmp_path):
    (tmp_path / "harbour.yaml").write_text(
        "classes: [{name: quay, colour: [1, 2, 3]}, {name: Wärter, colour: [4, 5, 6]}]", encoding="utf-8"
    )
    labels = read_labels("harbour.yaml", tmp_path)
    assert (labels.name, labels.names, labels.ids) == ("harbour", ("quay", "Wärter"), None)
    assert labels.colours == ((1, 2, 3), (4, 5, 6))


ONE = "{name: quay, colour: [1, 2, 3], id: 4}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no list `classes` of 1 to 65535 classes"),
        ("classes: []", "has no list `classes` of 1 to 65535 classes"),
        ("classes: [quay]", "class 0 is 'quay'; expected {name: road, colour: [128, 64, 128]}"),
        (f"classes: [{ONE}, {{name: sea}}]", "class 1 is {'name': 'sea'}"),
        ("classes: [{name: no, colour: [1, 2, 3]}]", "class 0 is {'name': False"),
        ("classes: [{name: a, colour: [1, 2]}]", "class 0 is"),
        ("classes: [{name: a, colour: [1, 2, 256]}]", "class 0 is"),
        ("classes: [{name: a, colour: [1, 2, 3], id: -1}]", "class 0 is"),
        ("classes: [{name: a, color: [1, 2, 3]}]", "class 0 is"),
        (f"classes: [{ONE}, {ONE}]", "ids are for all classes or for none, and no two are the same"),
        (f"classes: [{ONE}, {{name: a, colour: [1, 2, 3]}}]", "ids are for all classes or for none"),
        ("classes: [", "is not YAML in line 1"),
    ],
)
def test_labels_that_do_not_hold_are_refused(tmp_path, text, message):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(CardError) as refused:
        read_labels("own.yaml", tmp_path)
    assert str(refused.value).startswith("own.yaml")
    assert message in str(refused.value)


def test_labels_that_are_not_there_are_named(tmp_path):
    with pytest.raises(CardError, match=r"own\.yaml cannot be read: No such file or directory"):
        read_labels("own.yaml", tmp_path)
