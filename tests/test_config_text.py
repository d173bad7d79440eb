"""The configuration beside weights: values are read, code is refused, nothing is run."""

import pytest

from segdeploy.errors import CheckpointError
from segdeploy.networks.config_text import config_text, preprocessor_of


def read(text, key="config"):
    found = config_text({key: text}, "x.pth")
    assert found is not None
    return found


@pytest.mark.parametrize("key", ["config", "cfg"])
def test_values_are_read_as_python_has_them(key):
    text = (
        "norm = dict(type='SyncBN', requires_grad=True)\n"
        "a = b = [1, -2.5, (None, 'x')]\n"
        "model = dict(norm=norm, tables={'k-1': {3: False}}, several=a)\n"
    )
    found = read(text, key)
    assert found.value("b") == [1, -2.5, (None, "x")]
    assert found.dictionary("model") == {
        "norm": {"type": "SyncBN", "requires_grad": True},
        "tables": {"k-1": {3: False}},
        "several": [1, -2.5, (None, "x")],
    }
    assert found.value("absent") is None
    assert found.dictionary("absent") == {}


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("__import__('os').system('touch ran')", "code (a call of __import__('os').system)"),
        ("print", "the name 'print', which stands for no value"),
        ("dict([(1, 2)])", "code (a call of dict)"),
        ("dict(**a)", "code (an unpacked dictionary)"),
        ("{**a}", "code (an unpacked dictionary)"),
        ("[1] * 9", "code (BinOp)"),
        ("-'x'", "code (UnaryOp)"),
        ("not 1", "code (UnaryOp)"),
        ("lambda: 1", "code (Lambda)"),
        ("{(1,): 2}", "a key that is neither text nor a number"),
        ("f'{a}'", "code (JoinedStr)"),
    ],
)
def test_code_is_refused_where_a_fact_is_asked_of_it(value, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = read(f"a = dict(x=1)\nmodel = {value}\nother = 3\n")
    assert found.value("other") == 3
    with pytest.raises(CheckpointError) as caught:
        found.dictionary("model")
    assert str(caught.value) == (
        f"line 2 of the config text of x.pth has {what} in model; expected values alone, because nothing of a"
        " checkpoint is run"
    )
    assert list(tmp_path.iterdir()) == []


def test_texts_that_would_grow_without_end_are_refused():
    grown = "a0 = [1] \n" + "".join(f"a{i} = [{', '.join([f'a{i - 1}'] * 9)}]\n" for i in range(1, 40))
    with pytest.raises(CheckpointError, match=r"has the name 'a38', which stands for no value in a39"):
        read(grown).value("a39")
    with pytest.raises(CheckpointError, match=r"^line 6 .* has more than 65536 values in a5; expected"):
        read(grown).value("a5")
    assert len(read(grown).value("a4")) == 9
    for text in ("x = " + "(" * 5000, "x = " + "-" * 5000 + "1", "x = \0"):
        with pytest.raises(CheckpointError, match=r"^the config text of x\.pth cannot be read as Python \("):
            read(text)
    with pytest.raises(CheckpointError, match=r"has 1100000 characters; expected 1048576 at most$"):
        read("x = 1     \n" * 100000)


def test_no_text_and_a_text_that_builds_on_others_say_nothing():
    for meta in ({}, {"config": ""}, {"config": b"x = 1"}, {"cfg": "_base_ = ['a.py']\nmodel = dict()\n"}):
        assert config_text(meta, "x.pth") is None
    with pytest.raises(CheckpointError, match=r"has model = 3; expected a dictionary$"):
        read("model = 3").dictionary("model")


MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
NORM_0 = f"img_norm_cfg = dict(mean={MEAN}, std={STD}, to_rgb=True)\n"
NORM_1 = f"model = dict(data_preprocessor=dict(mean={MEAN}, std={STD}, bgr_to_rgb=True))\n"
KNOWN = {"image_mean": MEAN, "image_std": STD, "do_rescale": False, "resize": "linear"}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (NORM_0, None),
        (
            NORM_0 + "test_pipeline = [dict(type='A'), dict(img_scale=(2048, 1024), flip=False)]\n",
            (1024, 2048),
        ),
        (NORM_0 + "test_pipeline = [dict(img_scale=[(2049, 1025), (1, 2)])]\n", (1025, 2049)),
        (NORM_1 + "test_pipeline = [dict(type='Resize', scale=(1242, 375), keep_ratio=True)]\n", (375, 1242)),
        (
            NORM_0 + "model = dict(test_cfg=dict(mode='slide', crop_size=(769, 513), stride=(1, 1)))\n"
            "test_pipeline = [dict(img_scale=(2049, 1025))]\n",
            (769, 513),
        ),
        (NORM_0 + "model = dict(test_cfg=dict(mode='slide', crop_size=256, stride=170))\n", (256, 256)),
        (NORM_0 + "model = dict(test_cfg=dict(mode='whole'))\ntest_pipeline = [3, dict(scale='x')]\n", None),
    ],
)
def test_what_is_said_of_images(text, size):
    expected = KNOWN if size is None else KNOWN | {"size": {"height": size[0], "width": size[1]}}
    said = preprocessor_of(read(text))
    said.pop("window_stride", None)
    assert said == expected


@pytest.mark.parametrize(
    ("test", "stride"),
    [
        ("mode='slide', crop_size=256, stride=170", {"height": 170, "width": 170}),
        ("mode='slide', crop_size=(769, 513), stride=(513, 400)", {"height": 513, "width": 400}),
        ("mode='slide', crop_size=(64, 64), stride=(42, 42)", None),  # less than evaluate's --stride takes
        ("mode='slide', crop_size=256, stride=257", None),
        ("mode='slide', crop_size=256, stride='x'", None),
        ("mode='slide', crop_size=256", None),
        ("mode='whole', crop_size=256, stride=170", None),
    ],
)
def test_what_is_said_of_the_step_between_windows(test, stride):
    said = preprocessor_of(read(f"model = dict(test_cfg=dict({test}))\n"))
    assert said.get("window_stride") == stride


def test_half_a_normalisation_is_none():
    for text in ("", NORM_0.replace("std", "deviation")):
        assert preprocessor_of(read(text + "x = 1\n")) == {"resize": "linear"}


def test_networks_that_read_blue_first_are_refused():
    for text in (NORM_0.replace("True", "False"), NORM_1.replace("True", "False")):
        with pytest.raises(CheckpointError, match=r"reads blue before green and red \(\{'mean': \[123"):
            preprocessor_of(read(text))
