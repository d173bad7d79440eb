"""PNGs with a palette, read back by Pillow: the ids are the values, the classes' colours what is seen."""

import io

import numpy as np
import pytest
from PIL import Image

from segdeploy.datasets.label_files import read_label_file
from segdeploy.errors import OutputError
from segdeploy.model.labels import generated_labels, read_labels
from segdeploy.picture.indexed_png import indexed_png


@pytest.mark.parametrize("name", ["cityscapes", "ade20k", "voc"])
def test_pillow_reads_ids_and_colours(name, tmp_path):
    classes = read_labels(name)
    labels = np.random.default_rng(0).integers(0, len(classes.names), (37, 53)).astype(np.uint16)
    data = indexed_png(labels, classes)
    image = Image.open(io.BytesIO(data))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.array(image), labels)
    np.testing.assert_array_equal(np.array(image.convert("RGB")), classes.palette()[labels])
    (tmp_path / "x.png").write_bytes(data)
    np.testing.assert_array_equal(read_label_file(tmp_path / "x.png"), labels)


def test_more_classes_than_a_palette_has_entries_are_refused():
    classes = generated_labels([f"class {number}" for number in range(256)])
    with pytest.raises(
        OutputError, match="a palette has 256 entries, and there are 256 classes; write grey PNGs"
    ):
        indexed_png(np.zeros((2, 2), np.uint8), classes)
