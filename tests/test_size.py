"""Height before width, and only sides that a network can take."""

import pytest

from segdeploy.errors import RequestError
from segdeploy.size import Size


@pytest.mark.parametrize(
    ("text", "height", "width"),
    [("512x1024", 512, 1024), ("1024X512", 1024, 512), ("64x64", 64, 64), ("16384x16384", 16384, 16384)],
)
def test_height_comes_first(text, height, width):
    assert Size.parse(text) == Size(height, width)


def test_a_size_is_written_as_it_is_read():
    assert str(Size(512, 1024)) == "512x1024"
    assert Size.parse(str(Size(512, 1024))) == Size(512, 1024)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "512",
        "512x",
        "x512",
        "axb",
        "-512x512",
        "512x-512",
        "512.0x512",
        "64x64x64",
        "512×512",
        "9" * 10 + "x64",
    ],
)
def test_what_is_not_a_size_is_refused(text):
    with pytest.raises(RequestError) as refused:
        Size.parse(text)
    assert str(refused.value) == f"{text!r} is not a size; expected HEIGHTxWIDTH, as in 512x1024"


@pytest.mark.parametrize(
    ("text", "side"),
    [("0x0", 0), ("63x64", 63), ("64x63", 63), ("70000x70000", 70000), ("64x16385", 16385)],
)
def test_a_side_out_of_range_is_named(text, side):
    with pytest.raises(RequestError) as refused:
        Size.parse(text)
    assert str(refused.value) == f"the size {text} has a side of {side}; a side is 64 to 16384 pixels"


def test_a_number_of_5000_digits_is_no_side():
    with pytest.raises(RequestError, match=r"is not a size; expected HEIGHTxWIDTH, as in 512x1024$"):
        Size.parse("64x" + "9" * 5000)
