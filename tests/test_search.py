"""The search, on damages that add up as it assumes and on some that do not."""

import numpy as np
import pytest

from segdeploy.convert.int8.search import groups_of, measure, names_in, search
from segdeploy.graph.layers import Layer
from segdeploy.model.record import Sensitivity
from segdeploy.prove.agreement import Agreement
from segdeploy.prove.judge import Verdict


def verdict(disagreement):
    return Verdict(Agreement(1, 10**9, round(10**9 * (1 - disagreement)), disagreement), kl=disagreement)


class Damage:
    """Disagreement by what is in INT8, and how often it was asked for."""

    def __init__(self, costs, together=0.0):
        self.costs, self.together, self.asked = costs, together, []

    def __call__(self, keep):
        self.asked.append(frozenset(keep))
        inside = [cost for group, cost in self.costs.items() if group not in keep]
        return verdict(sum(inside) + self.together * (len(inside) > 1))


def sensitivities(costs, macs):
    return [Sensitivity(group, cost, 1 - cost, 100 * cost, macs[group]) for group, cost in costs.items()]


def within(limit):
    return lambda verdict: (1 - verdict.agreement.pixel_agreement) / limit


COSTS = {"embed": 0.04, "query": 0.001, "shrink": 0.02, "head": 0.002, "classifier": 0.03}
MACS = {"embed": 10, "query": 100, "shrink": 300, "head": 500, "classifier": 20}


def test_everything_stays_in_where_that_costs_little():
    judged = Damage(COSTS)
    found = search(sensitivities(COSTS, MACS), judged, within(0.2))
    assert (found.keep, found.met) == ((), True)
    assert set(judged.asked) == {frozenset()}


def test_what_hurts_most_for_each_multiplication_goes_out_first():
    found = search(sensitivities(COSTS, MACS), Damage(COSTS), within(0.03))
    assert found.met
    assert set(found.keep) == {"embed", "classifier"}


@pytest.mark.parametrize("limit", [0.003, 0.0133])  # `shrink` alone is 6.7 and 1.5 times as much
def test_where_the_largest_group_must_go_too_the_order_is_by_damage_alone(limit):
    costs = {"embed": 0.04, "query": 0.001, "shrink": 0.02}
    macs = {"embed": 10, "query": 1, "shrink": 300}  # for each multiplication `shrink` does the least damage
    found = search(sensitivities(costs, macs), Damage(costs), within(limit))
    assert found.met
    assert set(found.keep) == {"embed", "shrink"}


def test_a_group_that_need_not_go_is_given_back():
    """`small` hurts most for each multiplication, and its damage would fit in beside the others'."""
    costs = {"small": 0.004, "embed": 0.04, "query": 0.001}
    macs = {"small": 1, "embed": 100, "query": 100}
    found = search(sensitivities(costs, macs), Damage(costs), within(0.006))
    assert found.met
    assert found.keep == ("embed",)


def test_of_groups_that_fit_one_at_a_time_the_largest_is_given_back():
    costs = {"tiny": 0.003, "small": 0.004, "embed": 0.04, "query": 0.001}
    macs = {"tiny": 1, "small": 5, "embed": 100, "query": 100}
    found = search(sensitivities(costs, macs), Damage(costs), within(0.006))
    assert found.met
    assert set(found.keep) == {"tiny", "embed"}


@pytest.mark.parametrize("seed", range(20))
def test_what_is_found_holds_and_none_of_the_largest_could_go_back(seed):
    rng = np.random.default_rng(seed)
    names = [f"group {place}" for place in range(12)]
    costs = dict(zip(names, rng.exponential(0.01, 12), strict=True))
    macs = dict(zip(names, rng.integers(1, 1000, 12).tolist(), strict=True))
    limit = sum(costs.values()) * rng.uniform(0.1, 0.9)
    judged = Damage(costs)
    found = search(sensitivities(costs, macs), judged, within(limit))
    assert found.met
    assert found.verdict.agreement.pixel_agreement >= 1 - limit
    (largest, *_) = sorted(found.keep, key=lambda name: -macs[name])
    assert judged([name for name in found.keep if name != largest]).agreement.pixel_agreement < 1 - limit
    assert len(judged.asked) < 2 * len(names)


def test_what_cannot_be_met_is_said_with_the_best_there_was():
    found = search(sensitivities(COSTS, MACS), Damage(COSTS, together=0), within(0.0001))
    assert not found.met
    assert len(found.keep) == len(COSTS) - 1  # one group stays in INT8: none at all would be no INT8


def test_damages_that_do_not_add_up_are_judged_together():
    found = search(sensitivities(COSTS, MACS), Damage(COSTS, together=0.5), within(0.1))
    assert found.met
    assert len(found.keep) == len(COSTS) - 1


def test_groups_and_the_measure_of_one():
    layers = [
        Layer(f"l{place}", group, "x", "x", "w", 0, 10 * place)
        for place, group in enumerate(["a", "b", "a", "c"])
    ]
    assert groups_of(layers) == {"a": 20, "b": 10, "c": 30}
    assert names_in(layers, ["a"]) == ["l1", "l3"]
    asked = []
    one = measure("b", groups_of(layers), verdict(0), lambda keep: asked.append(keep) or verdict(0.25))
    assert asked == [["a", "c"]]
    assert one == Sensitivity("b", 0.25, 0.75, 25.0, 10)
