"""Entropy or least squared error for each group of layers: chosen by the labels that change."""

from types import SimpleNamespace

import pytest

from segdeploy.convert.int8 import by_group as module
from segdeploy.convert.int8.by_group import by_group, sharing
from segdeploy.convert.int8.job import Calibrated

GROUPS = {
    "embed": ("pixels",),
    "query": ("normed",),
    "key": ("normed", "reduced"),
    "value": ("reduced",),
    "shrink": ("gelu",),
}
ENTROPY = {"pixels": 1.0, "normed": 0.9, "reduced": 0.8, "gelu": 0.2}


def layer(group, root):
    known = {"name": f"{group}/{root}", "group": group, "root": root, "macs": 1}
    return SimpleNamespace(**known)


LAYERS = [layer(group, root) for group, roots in GROUPS.items() for root in roots]


PROBES, PIXELS = 8, 1_000_000


@pytest.fixture
def choose(monkeypatch):
    """`choose(damage)`: `by_group` where `damage(scales)` is the share of the labels that change, on each probe."""
    monkeypatch.setattr(module, "scales_of", lambda model, histograms, method: {"entropy": ENTROPY}[method])
    monkeypatch.setattr(Calibrated, "as_computed", lambda self, keep: self)

    def chosen(damage):
        tried = []

        def changes(calibrated):
            tried.append(calibrated.widened)
            for _ in range(PROBES):
                yield round(PIXELS * damage(calibrated.scales))

        job = SimpleNamespace(
            few=SimpleNamespace(changes=changes),
            judge="all",
            on_few=lambda verdict: [verdict] * PROBES,
            progress=lambda step: None,
        )
        monkeypatch.setattr(
            Calibrated, "verdict", lambda self, judge, keep: round(PIXELS * damage(self.scales))
        )
        squared = dict.fromkeys(ENTROPY, 1.0)
        return by_group(job, Calibrated(None, LAYERS, {}, squared, method="mse")), tried

    return chosen


def test_groups_that_read_a_common_tensor_are_chosen_together():
    assert dict(sharing(LAYERS)) == {
        frozenset({"embed"}): frozenset({"pixels"}),
        frozenset({"query", "key", "value"}): frozenset({"normed", "reduced"}),
        frozenset({"shrink"}): frozenset({"gelu"}),
    }


def test_least_squared_error_stays_where_entropy_is_no_better(choose):
    made, tried = choose(lambda scales: 0.01)
    assert (made.method, made.widened) == ("mse", ())
    assert made.scales == dict.fromkeys(ENTROPY, 1.0)
    assert made.methods(()) == {"mse": tuple(GROUPS)}
    # all by entropy, and the two sets whose thresholds differ, the ones furthest apart first
    assert tried == [(), ("embed", "query", "key", "value"), ("embed", "shrink")]


def test_a_group_is_left_to_entropy_where_that_changes_fewer_labels(choose):
    made, _ = choose(lambda scales: 0.01 if scales["gelu"] == 0.2 and scales["normed"] == 1 else 0.02)
    assert (made.method, made.widened) == ("entropy", ("embed", "query", "key", "value"))
    assert made.scales == {"pixels": 1.0, "normed": 1.0, "reduced": 1.0, "gelu": 0.2}
    assert made.methods(()) == {"entropy": ("shrink",), "mse": ("embed", "query", "key", "value")}
    assert made.methods(("shrink",)) == {"mse": ("embed", "query", "key", "value")}


def test_what_could_be_chance_is_not_taken(choose):
    made, _ = choose(lambda scales: 0.017 if scales["gelu"] == 0.2 else 0.02)
    assert made.method == "mse"


def test_it_starts_from_entropy_where_that_is_the_better_whole(choose):
    def damage(scales):
        return 0.01 + 0.05 * (scales["normed"] == 1) - 0.005 * (scales["gelu"] == 1)

    made, tried = choose(damage)
    assert tried[0] == ()
    assert made.methods(()) == {"entropy": ("embed", "query", "key", "value"), "mse": ("shrink",)}


def test_at_most_eight_sets_are_tried(choose, monkeypatch):
    many = [layer(f"g{place}", f"t{place}") for place in range(20)]
    entropy = {f"t{place}": 1 - 0.01 * place for place in range(20)}
    squared = Calibrated(None, many, {}, entropy)
    sets = module.furthest_apart(squared, dict.fromkeys(entropy, 1.0))
    assert sets == [frozenset({f"g{place}"}) for place in range(19, 11, -1)]
