"""Every key of the reference's configurations is read, built for one value only, or without a say: by the classes."""

import hub_checkpoints
import mask2former_checkpoint as checkpoints
import pytest
import torch
import transformers
from conftest import CLASSES, TINY, randomise

from segdeploy.errors import CheckpointError
from segdeploy.networks.backbones.hub_keys import BACKBONE_KEYS
from segdeploy.networks.config_keys import ConfigKeys
from segdeploy.networks.eomt.key_names import CONFIG_KEYS as EOMT
from segdeploy.networks.mask2former.key_names import CONFIG_KEYS as MASK2FORMER
from segdeploy.networks.mask2former.key_names import complete_mask2former
from segdeploy.networks.mmseg.hub import CONFIG_KEYS as UPERNET
from segdeploy.networks.segformer.key_names import CONFIG_KEYS as SEGFORMER
from segdeploy.networks.segformer.key_names import complete_segformer

REFERENCES = [
    (transformers.SegformerConfig, SEGFORMER),
    (transformers.Mask2FormerConfig, MASK2FORMER),
    (transformers.SwinConfig, BACKBONE_KEYS["swin"]),
    (transformers.ResNetConfig, BACKBONE_KEYS["resnet"]),
    (transformers.ConvNextConfig, BACKBONE_KEYS["convnext"]),
    (transformers.UperNetConfig, UPERNET),
    (transformers.EomtConfig, EOMT["eomt"]),
    (transformers.EomtDinov3Config, EOMT["eomt_dinov3"]),
]
NAMES = [reference.__name__ for reference, _ in REFERENCES]
# What every configuration of transformers has: names, labels, and what else to return.
EVERYWHERE = set(transformers.PreTrainedConfig().to_dict())
# Of a backbone these say which maps it gives: the default is the last alone, and a Mask2Former reads four.
CHOSEN = {"out_features", "out_indices"}
LOOKED_AT = {"rope_parameters"}  # of no one kind: its reader has the default


# Of another configuration, computed of other keys, and what transformers cannot do without its loss.
NOT_CHANGED = {"backbone_config", "hidden_size", "use_auxiliary_loss", "output_auxiliary_logits"}


def unhandled(reference, keys):
    """The keys of the class that stand in none of the tables, or in more than one."""
    own = set(reference().to_dict()) - EVERYWHERE
    tables = (keys.read, keys.fixed, keys.unread)
    return sorted(key for key in own if sum(key in table for table in tables) != 1)


def plain(value):
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(("reference", "keys"), REFERENCES, ids=NAMES)
def test_every_key_of_the_reference_is_in_one_table(reference, keys):
    assert unhandled(reference, keys) == []
    assert keys.aliases == reference.attribute_map
    stated = reference().to_dict()
    assert {*keys.read, *keys.fixed, *keys.unread} <= set(stated)
    for key, value in {**keys.read, **keys.fixed}.items():
        assert plain(stated[key]) == value or key in CHOSEN | LOOKED_AT, key


def test_a_key_that_the_reference_gains_is_found():
    class Grown(transformers.SegformerConfig):
        def to_dict(self):
            return super().to_dict() | {"window_shift": 3}

    assert unhandled(Grown, SEGFORMER) == ["window_shift"]


def unusual(value):
    """Another value of its kind."""
    if isinstance(value, bool) or value is None:
        return not value
    return value + 0.05 if isinstance(value, float) else value + 7


def answer_of(network):
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        found = network.eval()(pixel_values=pixels)
    logits = getattr(found, "logits", None)
    return (
        logits
        if logits is not None
        else torch.cat([found.class_queries_logits.flatten(), found.masks_queries_logits.flatten()])
    )


def segformer(**changes):
    labels = dict(enumerate(CLASSES))
    stated = {key: value for key, value in TINY.items() if key not in ("model_type", "architectures")}
    config = transformers.SegformerConfig(id2label=labels, **{**stated, **changes})
    return randomise(transformers.SegformerForSemanticSegmentation(config))


def mask2former(backbone=None, **changes):
    from transformers.models.mask2former import modeling_mask2former

    modeling_mask2former.requires_backends = lambda *_: None
    inner = transformers.SwinConfig(
        **{**checkpoints.BACKBONES["swin"], **(backbone or {})},
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=inner, id2label=dict(enumerate(CLASSES)), **{**checkpoints.SMALL, **changes}
    )
    return randomise(transformers.Mask2FormerForUniversalSegmentation(config))


@pytest.mark.slow
def test_what_is_not_read_changes_nothing_in_the_reference():
    before = answer_of(segformer())
    stated = transformers.SegformerConfig().to_dict()
    for key in SEGFORMER.unread:
        assert torch.equal(answer_of(segformer(**{key: unusual(stated[key])})), before), key
    assert not torch.equal(answer_of(segformer(hidden_act="relu")), before)


@pytest.mark.slow
def test_what_is_not_read_of_a_mask2former_changes_nothing_in_the_reference():
    before = answer_of(mask2former())
    stated = transformers.Mask2FormerConfig().to_dict()
    changed = {key: unusual(stated[key]) for key in MASK2FORMER.unread if key not in NOT_CHANGED}
    assert torch.equal(answer_of(mask2former(**changed)), before)
    stated = transformers.SwinConfig().to_dict()
    changed = {key: unusual(stated[key]) for key in BACKBONE_KEYS["swin"].unread if key not in NOT_CHANGED}
    assert torch.equal(answer_of(mask2former(changed)), before)
    assert not torch.equal(answer_of(mask2former({"hidden_act": "relu"})), before)


# Whether there is a scale.
SAID_BY_WEIGHTS = {"layer_scale_init_value"}


@pytest.mark.slow
def test_what_is_not_read_of_a_upernet_changes_nothing_in_the_reference():
    before = hub_checkpoints.upernet("convnext")
    stated = transformers.UperNetConfig().to_dict()
    changed = {key: unusual(stated[key]) for key in UPERNET.unread if key not in NOT_CHANGED}
    changed |= {"auxiliary_in_channels": 24, "use_auxiliary_head": True}
    other = hub_checkpoints.upernet("convnext", **changed)
    own = {
        name: value for name, value in before.state_dict().items() if not name.startswith("auxiliary_head.")
    }
    other.load_state_dict(own, strict=False)
    assert torch.equal(answer_of(other), answer_of(before))
    stated = transformers.ConvNextConfig().to_dict()
    keys = BACKBONE_KEYS["convnext"].unread
    changed = {key: unusual(stated[key]) for key in keys if key not in SAID_BY_WEIGHTS}
    assert torch.equal(answer_of(hub_checkpoints.upernet("convnext", changed)), answer_of(before))
    other = hub_checkpoints.upernet("convnext", {"hidden_act": "relu"})
    assert not torch.equal(answer_of(other), answer_of(before))


@pytest.mark.parametrize("kind", EOMT)
def test_what_is_not_read_of_an_eomt_changes_nothing_in_the_reference(kind):
    before = answer_of(hub_checkpoints.eomt(kind))
    stated = transformers.AutoConfig.for_model(kind).to_dict()
    changed = {key: 0.5 if stated[key] is None else unusual(stated[key]) for key in EOMT[kind].unread}
    assert torch.equal(answer_of(hub_checkpoints.eomt(kind, **changed)), before)
    assert not torch.equal(answer_of(hub_checkpoints.eomt(kind, hidden_act="relu")), before)


# ---- what is said of a wrong one -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_act": "relu"}, "has hidden_act 'relu'; only 'gelu' is supported"),
        ({"hidden_act": "gelu_new"}, "has hidden_act 'gelu_new'; only 'gelu' is supported"),
        ({"hidden_act": None}, "has hidden_act None; only 'gelu' is supported"),
        ({"reshape_last_stage": False}, "has reshape_last_stage False; only True is supported"),
        ({"num_channels": 4}, "has num_channels 4; only 3 is supported"),
        ({"num_encoder_blocks": 3}, "has depths [1, 2, 1, 1]; expected 3 numbers, one per stage"),
        ({"num_hidden_layers": 3}, "has num_encoder_blocks 4 and num_hidden_layers 3, which are two names"),
        ({"strides": [4, 2, 2, 0]}, "has strides [4, 2, 2, 0]; expected a list of whole numbers above 0"),
        ({"mlp_ratios": [4, "4", 4, 4]}, "has mlp_ratios [4, '4', 4, 4]; expected a list of numbers above 0"),
        (
            {"num_attention_heads": [1, 2, 5, 4]},
            "has hidden_sizes [8, 16, 24, 32] and attention heads [1, 2, 5, 4];",
        ),
        ({"mlp_ratios": 4}, "has mlp_ratios 4; expected a list of numbers above 0"),
        ({"mlp_ratios": []}, "has mlp_ratios []; expected a list of numbers above 0"),
        ({"decoder_hidden_size": True}, "has decoder_hidden_size True; expected a whole number above 0"),
    ],
)
def test_a_segformer_that_would_be_another_network_is_refused(changes, says):
    with pytest.raises(CheckpointError) as caught:
        complete_segformer({**TINY, **changes}, "x")
    assert str(caught.value).startswith(f"the config.json of x {says}")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_act": "relu"}, "has hidden_act 'relu'; only 'gelu' is supported"),
        ({"patch_size": 2}, "has patch_size 2; only 4 is supported"),
        ({"qkv_bias": 1}, "has qkv_bias 1; expected true or false"),
        ({"depths": [2, 2]}, "has depths [2, 2]; expected 4 whole numbers"),
        (
            {"num_heads": [3, 2, 4, 8]},
            "has embed_dim [16, 32, 64, 128] and attention heads [3, 2, 4, 8]; expected",
        ),
        ({"out_indices": [4]}, "has out_indices [4]; only [1, 2, 3, 4] is supported"),
        (
            {"num_attention_heads": [1, 1, 1, 1]},
            "has num_heads [1, 2, 4, 8] and num_attention_heads [1, 1, 1, 1]",
        ),
    ],
)
def test_a_backbone_that_would_be_another_is_refused(changes, says):
    backbone = {"model_type": "swin", **checkpoints.BACKBONES["swin"], **changes}
    with pytest.raises(CheckpointError) as caught:
        complete_mask2former({**checkpoints.SMALL, "backbone_config": backbone}, "x")
    assert str(caught.value).startswith(f"the config.json of x {says}")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"feature_size": 36}, "has feature_size 36; expected a multiple of 32 and of its 4 heads"),
        ({"hidden_dim": 34}, "has hidden_dim 34; expected a multiple of 4 and of its 4 heads"),
        ({"num_attention_heads": 5}, "has hidden_dim 32; expected a multiple of 4 and of its 5 heads"),
    ],
)
def test_a_mask2former_that_cannot_be_built_is_refused(changes, says):
    backbone = {"model_type": "swin", **checkpoints.BACKBONES["swin"]}
    with pytest.raises(CheckpointError) as caught:
        complete_mask2former({**checkpoints.SMALL, "backbone_config": backbone, **changes}, "x")
    assert str(caught.value) == f"the config.json of x {says}"


def test_an_alias_that_stands_alone_is_read():
    keys = ConfigKeys(read={"size": 4}, fixed={}, unread=(), aliases={"hidden_size": "size"})
    assert keys.complete({"hidden_size": 6}, "x")["size"] == 6
    assert keys.complete({}, "x") == {"size": 4}


def test_what_config_json_leaves_out_is_as_the_reference_takes_it():
    completed = complete_segformer({}, "x")
    stated = transformers.SegformerConfig().to_dict()
    assert {key: plain(stated[key]) for key in SEGFORMER.read} == {
        key: completed[key] for key in SEGFORMER.read
    }
