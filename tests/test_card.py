"""Cards: the shipped ones by value, the user's own, those made from a checkpoint, and every way one can be wrong."""

import json
from dataclasses import replace

import pytest
import yaml

from segdeploy.errors import CardError
from segdeploy.model.card import (
    KERNELS,
    ModelCard,
    as_card,
    card_for_checkpoint,
    card_from_config,
    is_shipped,
    known_cards,
    read_card,
)
from segdeploy.model.labels import read_labels
from segdeploy.picture import image
from segdeploy.shipped import folder
from segdeploy.size import Size

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
PIXELS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CITYSCAPES, ADE20K = (read_labels(name).names for name in ("cityscapes", "ade20k"))
B0_CITYSCAPES = "nvidia/segformer-b0-finetuned-cityscapes-1024-1024"


def config_of(names, **more):
    return {"model_type": "segformer", "id2label": {str(i): name for i, name in enumerate(names)}, **more}


def sized(height, width):
    return {**PIXELS, "size": {"height": height, "width": width}}


def pixels_of(card):
    """The preprocessor's facts of a checkpoint that is normalised as its card says."""
    return {**PIXELS, "do_rescale": False, "image_mean": list(card.mean), "image_std": list(card.std)}


# ---- shipped ---------------------------------------------------------------------------------------------------


def test_the_shipped_cards():
    cityscapes = [f"segformer-b{size}-cityscapes" for size in range(6)]
    smaller = [f"segformer-b0-cityscapes-{side}" for side in ("512x1024", "640x1280", "768x768")]
    ade = [f"segformer-b{size}-ade" for size in range(6)]
    swin = ("tiny", "small", "base-in21k", "large")
    mask2former = [f"mask2former-swin-{size}-{data}" for size in swin for data in ("cityscapes", "ade")]
    zoo = [f"segformer-mmseg-b{size}-cityscapes" for size in range(6)]
    zoo += [
        f"mmseg-{net}-r{depth}-cityscapes" for net in ("pspnet", "deeplabv3plus") for depth in (18, 50, 101)
    ]
    convnext = ("tiny", "small", "base", "large", "xlarge")
    zoo += [f"mmseg-upernet-convnext-{size}-ade" for size in convnext] + [
        "mmseg-upernet-convnext-base-ade-640"
    ]
    zoo += [f"mmseg-upernet-swin-{size}-ade" for size in ("tiny", "small", "base")] + [
        "mmseg-unet-cityscapes"
    ]
    hub = [f"mmseg-hub-upernet-convnext-{size}-ade" for size in ("tiny", "small")]
    hub += ["eomt-large-ade", "eomt-large-cityscapes"]
    tao = ["citysemsegformer-1024x1024", "citysemsegformer-1024x1820"]
    tao += ["fan-base-citysemsegformer", "segformer-b5-citysemsegformer"]
    assert known_cards() == sorted(
        [*cityscapes, *smaller, *ade, *mask2former, *zoo, *hub, *tao, "segformer-b0-demo"]
    )


@pytest.mark.parametrize("name", known_cards())
def test_a_shipped_card_agrees_with_its_name(name):
    card = read_card(name)
    of_tao = "citysemsegformer" in name
    family = "" if name.startswith("citysemsegformer") else name.partition("-")[0]
    assert (card.name, card.family, card.mean) == (name, family, MEAN)
    assert card.std == ((57.63,) * 3 if not family else STD)  # nvinfer has one scale
    assert (card.published_miou is None) == (card.miou_source == "")
    data = (
        "cityscapes" if of_tao else next((one for one in ("ade", "cityscapes") if one in name.split("-")), "")
    )
    assert card.labels.name == {"ade": "ade20k", "cityscapes": "cityscapes", "": "cityscapes"}[data]
    if of_tao:
        assert card.checkpoint.startswith("nvidia/tao/citysemsegformer:")
        assert card.published_miou is None
    elif card.family == "mask2former":
        size = name.removeprefix("mask2former-swin-").rsplit("-", 1)[0]
        assert card.checkpoint.lower() == f"facebook/mask2former-swin-{size}-{data}-semantic"
        assert card.published_miou is not None
        assert "CC BY-NC 4.0" in card.licence
    elif card.family == "eomt" or "-hub-" in name:
        assert card.resize == "pillow"
        assert card.checkpoint.startswith(("tue-mps/", "openmmlab/upernet-convnext-"))
        assert {"ade": "512x512", "cityscapes": "1024x1024"}[data] == str(card.size)
        assert card.licence.startswith(("unverified; ", "MIT by its page"))
    elif "mmseg" in name:
        net = next(
            word
            for word in ("pspnet", "deeplabv3plus", "unet", "convnext", "swin", "mit")
            if word in card.checkpoint
        )
        size = "" if net == "unet" else name.split("-")[-2 if not name.endswith("-640") else -3]
        assert card.checkpoint.endswith(".pth")
        assert size in card.checkpoint
        assert data in card.checkpoint
        assert card.miou_source.startswith("mmsegmentation, configs/")
        assert card.miou_source.split("/")[1] in ("segformer" if net == "mit" else net)
        assert card.licence.startswith("Apache-2.0 by mmsegmentation's metafile")
        assert ("non-commercial" in card.licence) is (net == "mit")
        assert (card.window_stride is None) is ("whole" in card.miou_source)
    elif name != "segformer-b0-demo":
        variant = name.split("-")[1]
        height, width = str(card.size).split("x")
        assert card.checkpoint == f"nvidia/segformer-{variant}-finetuned-{data}-{height}-{width}"
        assert card.resize == "pillow"
        assert "non-commercial" in card.licence


@pytest.mark.parametrize(
    ("name", "size", "miou"),
    [
        ("segformer-b0-cityscapes", Size(1024, 1024), 76.2),
        ("segformer-b5-cityscapes", Size(1024, 1024), 82.4),
        ("segformer-b0-cityscapes-512x1024", Size(512, 1024), 71.9),
        ("segformer-b0-cityscapes-640x1280", Size(640, 1280), 73.7),
        ("segformer-b0-cityscapes-768x768", Size(768, 768), 75.3),
        ("segformer-b0-ade", Size(512, 512), 37.4),
        ("segformer-b4-ade", Size(512, 512), 50.3),
        ("segformer-b5-ade", Size(640, 640), 51.0),
        ("segformer-b0-demo", Size(256, 512), None),
        ("segformer-mmseg-b2-cityscapes", Size(1024, 1024), 81.08),
        ("mmseg-deeplabv3plus-r18-cityscapes", Size(1024, 2048), 76.89),
        ("mmseg-upernet-convnext-xlarge-ade", Size(640, 640), 53.58),
        ("mmseg-upernet-swin-base-ade", Size(512, 512), 50.13),
        ("citysemsegformer-1024x1820", Size(1024, 1820), None),
    ],
)
def test_facts_of_shipped_cards(name, size, miou):
    card = read_card(name)
    assert (card.size, card.published_miou) == (size, miou)


def test_one_card_in_full():
    assert read_card("segformer-b2-ade") == ModelCard(
        "segformer-b2-ade",
        "segformer",
        "nvidia/segformer-b2-finetuned-ade-512-512",
        Size(512, 512),
        MEAN,
        STD,
        read_labels("ade20k"),
        "pillow",
        "NVIDIA Source Code License for SegFormer (non-commercial, research or evaluation only)",
        46.5,
        "SegFormer paper (arXiv:2105.15203), Table 1a, single scale, whole images, short side 512",
        0.9999,
        1e-3,
        (),
    )


def test_a_card_and_an_image_know_the_same_kernels():
    assert KERNELS == image.KERNELS


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("pspnet-r50-cityscapes", "near it: mmseg-pspnet-r50-cityscapes; segdeploy"),
        ("../models/segformer-b0-demo", "near it: segformer-b0-demo, segformer-b0-ade, "),
        ("", "segdeploy models lists all, or give a .yaml file"),
    ],
)
def test_an_unknown_card_is_named(name, near):
    with pytest.raises(CardError) as refused:
        read_card(name)
    message = str(refused.value)
    assert message.startswith(f"no card is called {name!r}; {near}")
    assert message.endswith("segdeploy models lists all, or give a .yaml file")


# ---- the user's own --------------------------------------------------------------------------------------------

OWN = {
    "checkpoint": "harbour",
    "size": "512x1024",
    "mean": list(MEAN),
    "std": list(STD),
    "labels": "cityscapes",
    "resize": "linear",
    "licence": "Apache-2.0",
}


def written(path, facts):
    path.write_text(yaml.safe_dump(facts, allow_unicode=True), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("suffix", ["yaml", "yml"])
def test_a_card_of_the_users_own(tmp_path, suffix):
    more = {
        "published_miou": 71,
        "miou_source": "Häfen 2024",
        "keep_fp32": ["head"],
        "max_logits_error": 0.01,
    }
    card = read_card(written(tmp_path / f"My harbour.{suffix}", OWN | more))
    assert (card.name, card.size, card.labels.name) == ("my-harbour", Size(512, 1024), "cityscapes")
    assert (card.published_miou, card.miou_source, card.keep_fp32) == (71, "Häfen 2024", ("head",))
    assert (card.max_logits_error, card.min_pixel_agreement) == (0.01, 0.9999)


def test_an_old_card_that_says_what_is_so_anyway_is_read(tmp_path):
    assert read_card(written(tmp_path / "own.yaml", OWN | {"reduce_labels": False})).name == "own"


def test_a_card_without_a_family_is_for_a_graph_from_elsewhere(tmp_path):
    assert read_card(written(tmp_path / "own.yaml", OWN)).family == ""
    assert read_card(written(tmp_path / "own.yaml", OWN | {"family": "segformer"})).family == "segformer"


def test_a_card_of_the_users_own_may_bring_its_labels(tmp_path):
    classes = [{"name": "quay", "colour": [1, 2, 3]}, {"name": "water", "colour": [4, 5, 6]}]
    written(tmp_path / "harbour-labels.yaml", {"classes": classes})
    card = read_card(written(tmp_path / "harbour.yaml", OWN | {"labels": "harbour-labels.yaml"}))
    assert card.labels.names == ("quay", "water")


def test_the_example_of_the_readme_is_a_card(tmp_path):
    text = (folder("models") / "README.md").read_text(encoding="utf-8")
    card, labels = (part.partition("```")[0] for part in text.split("```yaml\n")[1:3])
    (tmp_path / "my-model.yaml").write_text(card, encoding="utf-8")
    (tmp_path / "harbour.yaml").write_text(labels, encoding="utf-8")
    assert read_card(str(tmp_path / "my-model.yaml")).labels.names == ("quay", "water")


def test_a_card_file_that_is_not_there(tmp_path):
    path = tmp_path / "absent.yaml"
    with pytest.raises(CardError) as refused:
        read_card(str(path))
    assert str(refused.value) == (
        f"there is no card file {path}; give the path of one, or the name of a shipped card, without a suffix"
    )


@pytest.mark.parametrize("key", list(OWN))
def test_a_missing_key_is_named(tmp_path, key):
    path = written(tmp_path / "own.yaml", {name: value for name, value in OWN.items() if name != key})
    with pytest.raises(CardError) as refused:
        read_card(path)
    assert str(refused.value) == f"own.yaml lacks {key}"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("licenses", "MIT", "'licenses' is not a key of a card; known: checkpoint, size, mean, "),
        (1, 2, "1 is not a key of a card"),
        ("family", "", "family is ''; expected text"),
        ("checkpoint", 5, "checkpoint is 5; expected text"),
        ("licence", None, "licence is None; expected text"),
        ("size", 512, "size is 512; expected text"),
        ("size", "512", "'512' is not a size; expected HEIGHTxWIDTH"),
        ("size", "0x512", "the size 0x512 has a side of 0"),
        ("mean", 0.5, "mean is 0.5; expected a list"),
        ("mean", [1, 2], "mean is [1, 2]; expected three numbers: red, green, blue"),
        ("mean", [1, 2, "3"], "mean is [1, 2, '3']; expected three numbers"),
        ("mean", [True, 2, 3], "mean is [True, 2, 3]; expected three numbers"),
        ("mean", [1, 2, float("nan")], "mean is [1, 2, nan]; expected three numbers"),
        ("mean", [1, 2, 10**19], "mean is [1, 2, 10000000000000000000]; expected three numbers"),
        ("mean", [1, 2, 256], "mean is [1, 2, 256]; expected 0 to 255"),
        ("std", [0, 1, 1], "std is [0, 1, 1]; expected more than 0.5, for pixels of 0 to 255"),
        ("std", [-1, 1, 1], "std is [-1, 1, 1]; expected more than 0.5"),
        ("std", [0.229, 0.224, 0.225], "for pixels of 0 to 255 (0.225 of 0 to 1 is 57.375)"),
        (
            "labels",
            "kitti",
            "no labels are called 'kitti'; known: ade20k, camvid, cityscapes, coco-stuff, mapillary-vistas, voc",
        ),
        ("labels", "absent.yaml", "absent.yaml cannot be read"),
        (
            "reduce_labels",
            True,
            "reduce_labels is True, which a card no longer says: the ids of its labels say which value of a label file"
            " is which class; delete the line",
        ),
        ("reduce_labels", 0, "reduce_labels is 0, which a card no longer says"),
        ("resize", "nearest", "resize is 'nearest'; known: linear, pillow"),
        ("published_miou", "76", "published_miou is '76'; expected a number"),
        ("published_miou", True, "published_miou is True; expected a number"),
        ("published_miou", 101, "published_miou is 101; expected per cent, 0 to 100"),
        ("published_miou", -1, "published_miou is -1; expected per cent"),
        ("published_miou", float("inf"), "published_miou is inf; expected a number"),
        ("miou_source", 5, "miou_source is 5; expected text"),
        ("min_pixel_agreement", 0, "min_pixel_agreement is 0; expected a share, as in 0.9999"),
        ("min_pixel_agreement", 99.9, "min_pixel_agreement is 99.9; expected a share"),
        ("max_logits_error", 0, "max_logits_error is 0; expected more than 0"),
        ("max_logits_error", "1e-3", "max_logits_error is '1e-3'; expected a number, as in 0.001"),
        ("keep_fp32", "head", "keep_fp32 is 'head'; expected a list"),
        ("keep_fp32", ["head", 1], "keep_fp32 is ['head', 1]; expected a list of node names"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, key, value, message):
    path = written(tmp_path / "own.yaml", OWN | {key: value})
    with pytest.raises(CardError) as refused:
        read_card(path)
    assert str(refused.value).startswith("own.yaml: ")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "own.yaml holds no keys; a card starts with family, checkpoint, size"),
        (b"- family\n", "own.yaml holds no keys"),
        (b"family: segformer\nsize: [1\n", "own.yaml is not YAML in line 3: expected ',' or ']'"),
        (b"family: a: b\n", "own.yaml is not YAML in line 1: mapping values are not allowed here"),
        (
            b"family: !!python/name:os.system\n",
            "own.yaml has a python/name:os.system in line 1; put it in quotes",
        ),
        (b"family: 2024-13-01\n", "own.yaml has a timestamp in line 1; put it in quotes, if it is text"),
        (b"family: !!timestamp x\n", "own.yaml has a timestamp in line 1"),
        (b"family: !!int ''\n", "own.yaml is not YAML: "),
        (b"family: " + b"1:30:" * 1000 + b"0\n", "own.yaml holds a number of more than 64 bits"),
        (
            b"size: &a [1]\nmean: *a\n",
            "own.yaml uses an alias in line 1 (&, *); write the value out",
        ),
        (b"[" * 1000, "own.yaml is nested too deeply"),
        (b"- " * 200 + b"1", "own.yaml is nested too deeply"),
        (b"#" * 600_000, "own.yaml is larger than 524,288 bytes"),
        (b"mean: [1, 2, " + b"9" * 400 + b"]\n", "own.yaml holds a number of more than 64 bits"),
        (b"family: \x00\n", "own.yaml is not YAML: "),
        (b"family: \xff\n", "own.yaml is not UTF-8 text (invalid start byte at byte 8)"),
    ],
)
def test_a_file_that_is_no_card_is_refused(tmp_path, content, message):
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    with pytest.raises(CardError) as refused:
        read_card(str(path))
    assert str(refused.value).startswith(message)


# ---- the card of a checkpoint ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", known_cards())
@pytest.mark.parametrize(
    "where", ["{checkpoint}", "/data/{last}", "{last}/", "../{last}.safetensors", "copy/{last}.pth"]
)
def test_a_public_checkpoint_has_its_shipped_card(name, where):
    card = read_card(name)
    last = card.checkpoint.rpartition("/")[2].removesuffix(".pth")
    source = where.format(checkpoint=card.checkpoint, last=last)
    assert card_for_checkpoint(source, card.family, config_of(card.labels.names), pixels_of(card)) == card


@pytest.mark.parametrize("names", [CITYSCAPES, [f"LABEL_{index}" for index in range(19)]])
def test_a_file_without_preprocessor_or_names_has_its_shipped_card_too(names):
    source = f"{B0_CITYSCAPES.rpartition('/')[2]}.pth"
    assert card_for_checkpoint(source, "segformer", config_of(names), None).name == "segformer-b0-cityscapes"


def test_a_normalisation_in_float32_is_the_same():
    single = {
        "image_mean": [0.48500001430511475, 0.4560000002384186, 0.4059999883174896],
        "image_std": [0.2290000021457672, 0.2240000069141388, 0.22499999403953552],
        "size": {"height": 384, "width": 384},
    }
    source = "facebook/mask2former-swin-large-cityscapes-semantic"
    card = card_for_checkpoint(source, "mask2former", config_of(CITYSCAPES), single)
    assert (card.name, card.size) == ("mask2former-swin-large-cityscapes", Size(1024, 2048))


def test_the_names_of_ade20k_are_compared_without_their_stray_blank():
    names = [{"bed": "bed "}.get(name, name) for name in ADE20K]
    card = card_for_checkpoint(
        "nvidia/segformer-b3-finetuned-ade-512-512", "segformer", config_of(names), sized(512, 512)
    )
    assert card == read_card("segformer-b3-ade")


def test_a_file_that_is_called_as_a_shipped_card_is_not_it():
    card = read_card("segformer-b3-ade")
    assert is_shipped(card)
    made = card_for_checkpoint("segformer-b3-ade", "segformer", config_of(ADE20K), sized(512, 512))
    assert made.name == card.name
    assert not is_shipped(made)
    assert not is_shipped(replace(made, name="another"))


def test_the_id_that_config_json_notes_is_enough():
    config = config_of(CITYSCAPES, _name_or_path=B0_CITYSCAPES)
    assert (
        card_for_checkpoint("/data/copy", "segformer", config, sized(1024, 1024)).name
        == "segformer-b0-cityscapes"
    )


@pytest.mark.parametrize(
    ("names", "preprocessor"),
    [
        (("road", "kerb", "sky"), sized(1024, 1024)),  # fine-tuned for other classes
        (CITYSCAPES, sized(512, 512)),  # fine-tuned at another size
        (CITYSCAPES, sized(1024, 1024) | {"image_std": [0.5, 0.5, 0.5]}),
    ],
)
def test_what_was_fine_tuned_from_a_public_checkpoint_has_its_own_card(names, preprocessor):
    config = config_of(names, _name_or_path=B0_CITYSCAPES)
    card = card_for_checkpoint("/data/mine", "segformer", config, preprocessor)
    assert (card.name, card.labels.names, card.published_miou) == ("mine", tuple(names), None)


def test_a_public_name_on_other_classes_has_its_own_card():
    card = card_for_checkpoint(
        f"/data/{B0_CITYSCAPES}", "segformer", config_of(("road", "kerb", "sky")), PIXELS
    )
    assert (card.name, card.labels.names) == (
        "segformer-b0-finetuned-cityscapes-1024-1024",
        ("road", "kerb", "sky"),
    )


def test_the_demo_checkpoint_has_the_demo_card():
    where = folder("models") / "demo-b0"
    config, preprocessor = (
        json.loads((where / file).read_text()) for file in ("config.json", "preprocessor_config.json")
    )
    assert card_for_checkpoint(str(where), "segformer", config, preprocessor) == read_card(
        "segformer-b0-demo"
    )


def test_a_made_card_in_full():
    card = card_from_config("me/Harbour_B1", "segformer", config_of(("quay", "water")), sized(480, 640))
    assert (card.name, card.family, card.checkpoint) == ("harbour_b1", "segformer", "me/Harbour_B1")
    assert (card.size, card.mean, card.std) == (Size(480, 640), MEAN, STD)
    assert (card.labels.name, card.labels.names, card.labels.ids) == ("harbour_b1", ("quay", "water"), None)
    assert (card.resize, card.licence) == ("pillow", "as its checkpoint's")
    assert (
        card_from_config("x", "segformer", config_of(("quay", "water")), {"licence": "MIT"}).licence == "MIT"
    )
    with pytest.raises(CardError, match="licence is 3; expected text"):
        card_from_config("x", "segformer", config_of(("quay", "water")), {"licence": 3})


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("segformer.b0.1024x1024.city.160k.pth", "segformer.b0.1024x1024.city.160k"),
        ("runs/segformer.b0.512x512", "segformer.b0.512x512"),
        ("me/model-v1.5", "model-v1.5"),
        ("My Model (2).PTH", "my-model--2-"),
        ("häfen/", "h-fen"),
        ("/", "unnamed"),
    ],
)
def test_a_made_card_is_named_after_its_source(source, name):
    assert card_from_config(source, "segformer", config_of(("a", "b")), None).name == name


@pytest.mark.parametrize("source", [".", "sub/..", ""])
def test_a_made_card_of_this_folder_is_named_after_it(tmp_path, monkeypatch, source):
    (tmp_path / "harbour" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "harbour")
    assert card_from_config(source, "segformer", config_of(("a", "b")), None).name == "harbour"


@pytest.mark.parametrize(
    ("facts", "size"),
    [
        ({}, Size(512, 512)),
        ({"size": 640}, Size(640, 640)),
        ({"size": {"height": 512, "width": 1024}}, Size(512, 1024)),
        ({"size": {"shortest_edge": 768}}, Size(768, 768)),
    ],
)
def test_the_size_of_a_made_card(facts, size):
    assert card_from_config("x", "segformer", config_of(("a", "b")), facts).size == size


@pytest.mark.parametrize(
    ("facts", "mean", "std"),
    [
        ({}, MEAN, STD),
        ({"rescale_factor": 0.00392156862745098}, MEAN, STD),
        ({"image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}, (127.5,) * 3, (255,) * 3),
        ({"do_normalize": False}, (0, 0, 0), (255, 255, 255)),
        ({"do_rescale": False, "image_mean": list(MEAN), "image_std": list(STD)}, MEAN, STD),
        ({"do_rescale": False, "do_normalize": False}, (0, 0, 0), (1, 1, 1)),
    ],
)
def test_the_normalisation_of_a_made_card(facts, mean, std):
    card = card_from_config("x", "segformer", config_of(("a", "b")), facts)
    assert (card.mean, card.std) == (mean, std)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"image_mean": [0.5]}, "image_mean is [0.5]; expected three numbers: red, green, blue"),
        ({"image_mean": 0.5}, "image_mean is 0.5; expected three numbers"),
        ({"image_mean": [0.5, 0.5, None]}, "image_mean is [0.5, 0.5, None]; expected three numbers"),
        ({"image_mean": [124, 116, 104]}, "mean is [31620.0, 29580.0, 26520.0]; expected 0 to 255"),
        ({"image_std": [0, 0.2, 0.2]}, "std is [0.0, 51.0, 51.0]; expected more than 0.5"),
        ({"image_std": [0.2, 0.2, float("nan")]}, "image_std is [0.2, 0.2, nan]; expected three numbers"),
        (
            {"do_rescale": False},
            "std is [0.229, 0.224, 0.225]; expected more than 0.5, for pixels of 0 to 255",
        ),
        ({"rescale_factor": 0}, "rescale_factor is 0; expected a number above 0, as in 0.003922"),
        ({"size": "512"}, 'size is \'512\'; expected {"height": 512, "width": 1024}'),
        ({"size": [512, 512]}, "size is [512, 512]; expected"),
        ({"size": {"longest_edge": 512}}, "size is {'longest_edge': 512}; expected"),
        ({"size": {"height": 512.5, "width": 512}}, "size is {'height': 512.5, 'width': 512}; expected"),
        ({"size": -512}, "'-512x-512' is not a size"),
        ({"size": 32}, "the size 32x32 has a side of 32; a side is 64 to 16384 pixels"),
    ],
)
def test_a_preprocessor_that_makes_no_sense_is_refused(facts, message):
    with pytest.raises(CardError) as refused:
        card_from_config("me/x", "segformer", config_of(("a", "b")), facts)
    text = str(refused.value)
    assert text.startswith(f"the preprocessor_config.json of me/x cannot be used: {message}")
    assert text.endswith(". Correct it, or give a card: --card NAME")


def test_a_card_is_given_itself_by_name_or_by_file(tmp_path):
    name = known_cards()[0]
    shipped = read_card(name)
    assert as_card(shipped) is shipped
    assert as_card(name) == shipped
    assert as_card(None) is None
    own = tmp_path / "own.yaml"
    own.write_text((folder("models") / f"{name}.yaml").read_text())
    assert as_card(own).labels == as_card(str(own)).labels == shipped.labels
    with pytest.raises(CardError, match=r"card is 3, a int; expected a card's name, a \.yaml file"):
        as_card(3)
