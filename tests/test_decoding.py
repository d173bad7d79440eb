"""Image files that say they are larger than memory, and how large each kind says it is."""

import io
import os
import random
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from segdeploy.datasets.label_files import read_label_file
from segdeploy.errors import ImageError
from segdeploy.picture.decoding import MOST_PIXELS, read_image_file, sides_in_header
from segdeploy.picture.image import IMAGE_SUFFIXES, read_frame

KINDS = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {}),
    ".jpeg": (
        "JPEG",
        {"progressive": True, "exif": b"Exif\0\0" + b"\xff" * 99, "comment": b"\xff\xc0\xff\xda"},
    ),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {"big_tiff": True, "compression": "tiff_lzw"}),
    ".webp": ("WEBP", {}),
    ".lossless.webp": ("WEBP", {"lossless": True}),
    ".alpha.webp": ("WEBP", {"mode": "RGBA"}),
    ".ppm": ("PPM", {}),
}


def picture(ending, height=37, width=53):
    name, how = KINDS[ending]
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    made, image = io.BytesIO(), Image.fromarray(pixels).convert(how.get("mode", "RGB"))
    image.save(made, name, **{key: value for key, value in how.items() if key != "mode"})
    return made.getvalue()


def png(height, width, rows=b""):
    """A PNG of `rows`, which need not be as many as its header says."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_every_kind_that_is_read_is_tried():
    assert {f".{ending.rpartition('.')[2]}" for ending in KINDS} == set(IMAGE_SUFFIXES)


@pytest.mark.parametrize("ending", KINDS)
def test_a_header_says_what_opencv_decodes(ending):
    for height, width in ((37, 53), (1, 900), (300, 1)):
        data = picture(ending, height, width)
        assert (
            sides_in_header(data)
            == (height, width)
            == cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape[:2]
        )


@pytest.mark.slow
@pytest.mark.parametrize("ending", KINDS)
def test_a_damaged_file_is_named_whatever_it_says(tmp_path, ending):
    data, dice = picture(ending), random.Random(3)
    path = tmp_path / f"a{ending}"
    for turn in range(300):
        damaged = bytearray(data[: dice.randrange(len(data))] if turn % 2 else data)
        for _ in range(dice.randrange(4)):
            if damaged:
                damaged[dice.randrange(min(len(damaged), 64))] = dice.randrange(256)
        path.write_bytes(damaged)
        for read in (read_frame, read_label_file):
            try:
                assert read(path).size
            except Exception as error:  # noqa: BLE001
                assert type(error).__module__ == "segdeploy.errors"
                assert str(path) in str(error)


def test_fifty_bytes_that_say_40000x40000(tmp_path):
    (tmp_path / "b.png").write_bytes(png(40_000, 40_000))
    for read in (read_frame, read_label_file):
        with pytest.raises(ImageError) as caught:
            read(tmp_path / "b.png")
        assert str(caught.value) == (
            f"{tmp_path}/b.png is 40000x40000, 1,600,000,000 pixels; at most 100,000,000 are read, or as many as"
            " --max-pixels of `run` says"
        )


def test_a_limit_is_what_was_asked_for(tmp_path):
    (tmp_path / "a.png").write_bytes(png(40, 50, b"".join(b"\0" + bytes(50) for _ in range(40))))
    assert read_frame(tmp_path / "a.png", 2000).shape == (40, 50, 3)
    with pytest.raises(ImageError, match="is 40x50, 2,000 pixels; at most 1,999 are read"):
        read_frame(tmp_path / "a.png", 1999)
    assert MOST_PIXELS == 100_000_000


def test_what_opencv_itself_refuses_is_named(tmp_path):
    """Beyond its own limit it raises, where it gives nothing for other files."""
    (tmp_path / "b.png").write_bytes(png(40_000, 40_000))
    with pytest.raises(ImageError, match=r"b\.png cannot be decoded: .*CV_IO_MAX_IMAGE_PIXELS"):
        read_frame(tmp_path / "b.png", 10**12)


def test_an_image_that_takes_more_memory_than_there_is(tmp_path, monkeypatch):
    def short(*given):
        raise MemoryError

    monkeypatch.setattr(cv2, "imdecode", short)
    (tmp_path / "a.png").write_bytes(picture(".png"))
    with pytest.raises(ImageError, match=r"a\.png cannot be decoded: no memory"):
        read_frame(tmp_path / "a.png")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png cannot be read: it is a pipe, and no file"):
        read_frame(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"gone\.png cannot be read: No such file"):
        read_frame(tmp_path / "gone.png")
    for content in (b"", b"text", b"GIF89a" + bytes(99)):
        (tmp_path / "x.png").write_bytes(content)
        assert read_image_file(tmp_path / "x.png", 1)[0] is None


def test_a_damaged_png_is_named_before_a_library_says_a_word(tmp_path, capfd):
    """libpng prints its errors, and OpenCV gives half of the picture for some, as its version has it."""
    data, path = picture(".png"), tmp_path / "a.png"
    for damaged in (data[:-1], data[: len(data) // 2], data[:40], data[:60] + b"\xff" + data[61:]):
        assert damaged != data
        path.write_bytes(damaged)
        with pytest.raises(ImageError) as refused:
            read_frame(path)
        expected = (
            f"{path} is a damaged PNG, from byte {{}} of {len(damaged)} on; copy it again, or write it again"
        )
        at = 33 if damaged is not data[:-1] and len(damaged) != len(data) - 1 else len(data) - 12
        assert str(refused.value) == expected.format(at)
    assert capfd.readouterr() == ("", "")


def test_a_png_is_whole_whatever_stands_behind_it_or_in_a_note(tmp_path):
    data, path = picture(".png"), tmp_path / "a.png"
    path.write_bytes(data)
    expected = read_frame(path)
    note = struct.pack(">I", 3) + b"tEXt" + b"a\0b" + b"none"  # its checksum is wrong, and nobody needs it
    path.write_bytes(data[:33] + note + data[33:] + b"more")
    assert np.array_equal(read_frame(path), expected)


@pytest.mark.parametrize(
    "facts",
    [(9, 0, 8, 2), (0, 9, 8, 2), (9, 9, 13, 2), (9, 9, 8, 5), (9, 9, 4, 6), (9, 9, 8, 3)],
    ids=["no height", "no width", "13 bits", "kind 5", "4 bits with alpha", "no palette"],
)
def test_a_png_whose_header_does_not_hold(tmp_path, capfd, facts):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *facts, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with pytest.raises(
        ImageError, match=r"a\.png is a damaged PNG, from byte (8|33) of 57 on; copy it again"
    ):
        read_frame(path)
    assert capfd.readouterr() == ("", "")
