from dataclasses import replace

import pytest

from segdeploy.errors import EngineDisagrees, ExportDisagrees
from segdeploy.model.card import read_card
from segdeploy.prove.agreement import Agreement
from segdeploy.prove.bounds import (
    MAX_LOGITS_RMS_FP16,
    Bounds,
    bounds_of_engine,
    bounds_of_graph,
    demand_agreement,
)

CARD = read_card("segformer-b0-demo")
ALL = Bounds(0.99, logits_error=1e-3, logits_rms=1e-4)


@pytest.mark.parametrize(
    ("equal", "error", "rms", "allowed"),
    [
        (990, 1e-3, 1e-4, True),
        (989, 1e-3, 1e-4, False),
        (1000, 1.01e-3, 0.0, False),
        (1000, 0.0, 1.01e-4, False),
        (1000, float("inf"), 0.0, False),
        (1000, float("nan"), 0.0, False),
        (1000, None, 0.0, False),  # nobody has looked
        (1000, 0.0, None, False),
    ],
)
def test_each_bound_holds_by_itself(equal, error, rms, allowed):
    assert ALL.allow(Agreement(1, 1000, equal, error, rms)) is allowed


def test_what_has_no_bound_is_not_looked_at():
    assert Bounds(0.99).allow(Agreement(1, 1000, 990, None))
    assert Bounds(0.99).allow(Agreement(1, 1000, 990, float("inf"), float("inf")))
    assert not Bounds(0.99).allow(Agreement(1, 1000, 989, 0.0, 0.0))


def test_the_bounds_of_graphs_are_the_cards():
    card = replace(CARD, min_pixel_agreement=0.9, max_logits_error=0.2, min_pixel_agreement_fp16=0.8)
    assert bounds_of_graph("fp32", card) == Bounds(0.9, logits_error=0.2)
    assert bounds_of_graph("fp16", card) == Bounds(0.8, logits_rms=0.005)
    assert bounds_of_graph("int8+fp16", card) == Bounds(0.8)  # over the edges of INT8's steps
    assert bounds_of_graph("fp32", None) == Bounds(0.9999, logits_error=1e-3)
    assert bounds_of_graph("fp16", None) == Bounds(0.995, logits_rms=MAX_LOGITS_RMS_FP16)


def test_the_bounds_of_engines_are_wider_where_a_card_does_not_set_them():
    card = replace(CARD, min_pixel_agreement=0.9, min_pixel_agreement_fp16=0.8)
    for precision, usual, own in (
        ("fp32", 0.999, 0.9), ("fp16", 0.99, 0.8), ("int8", 0.99, 0.99), ("int8+fp16", 0.99, 0.99),
    ):  # fmt: skip
        assert bounds_of_engine(precision, None) == Bounds(usual)
        assert bounds_of_engine(precision, replace(CARD, min_pixel_agreement=0.9999)) == Bounds(usual)
        assert bounds_of_engine(precision, card) == Bounds(own)


def test_a_refusal_says_what_was_seen_and_what_is_demanded():
    seen = Agreement(2, 1000, 985, 2e-3, 3e-4)
    with pytest.raises(ExportDisagrees) as raised:
        demand_agreement(seen, ALL, "x.onnx disagrees with PyTorch", "Mend it")
    assert str(raised.value) == (
        "x.onnx disagrees with PyTorch: 98.5000% of 1,000 pixels equal over 2 inputs, largest logits error 2.0e-03 of"
        " their range (3.0e-04 root mean square); demanded are 99.00% of the pixels and 1e-03 as the largest logits"
        " error and 1e-04 as the logits' root mean square error. Mend it"
    )
    with pytest.raises(
        EngineDisagrees, match=r"in FP32: 98\.5000% .* of their range; demanded are 99\.90% of the p"
    ):
        demand_agreement(
            seen, Bounds(0.999), "y disagrees with itself in FP32", "Rebuild it", EngineDisagrees
        )
    demand_agreement(seen, Bounds(0.985), "x", "y")
