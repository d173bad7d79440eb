"""Records as the first versions of segdeploy wrote them, which called some fields otherwise or had them elsewhere."""

from __future__ import annotations

from typing import Any

RENAMED: dict[str, dict[str, str | None]] = {  # for each dataclass; None: the field is gone
    "ArtifactRecord": {"agreement": None},
    "LedgerStep": {"step": "name", "with": None, "samples": None, "int8_share": None},
    "Calibration": {"int8_share_of_all": None},
    "EngineFacts": {"commands": None},
    "EngineProof": {"with": "compared_with", "done": None},
    "GoldenFrame": {"of": "image"},
    "Sampling": {"as": "form"},
}


def in_todays_places(facts: dict[str, Any]) -> dict[str, Any]:
    """Move what stood elsewhere; whatever is not as a record has it is left for the reader to refuse."""
    engine, calibration = (facts.get(name) or None for name in ("engine", "calibration"))  # {}: there is none
    if isinstance(engine, dict) and isinstance(engine.get("verified"), dict):
        engine = engine | {"verified": proof_inside(engine["verified"])}
    if isinstance(calibration, dict) and "widened" in calibration:
        calibration = by_method(calibration)
    moved = facts | {"schema": 2, "engine": engine, "calibration": calibration}
    if isinstance(facts.get("agreement"), dict) and isinstance(facts.get("ledger", []), list):
        moved["ledger"] = with_agreement(facts.get("ledger", []), facts["agreement"], facts.get("precision"))
    return moved


def by_method(calibration: dict[str, Any]) -> dict[str, Any]:
    """Put the groups that had thresholds of least squared error below that method; of the others there was no list."""
    widened = calibration["widened"]
    known = {name: value for name, value in calibration.items() if name != "widened"}
    return known | ({"methods": {"mse": widened}} if widened else {})


def proof_inside(verified: dict[str, Any]) -> dict[str, Any]:
    if verified.get("done"):
        return {"proof": verified}
    return {name: value for name, value in verified.items() if name != "done"}


def with_agreement(ledger: list[Any], seen: dict[str, Any], precision: object) -> list[Any]:
    """Say how well the artifact agrees in its own step, which the first exports did not write."""
    known = {name: value for name, value in seen.items() if name not in ("samples", "with")}
    known |= {"compared_with": seen["with"]} if "with" in seen else {}
    places = [
        place for place, one in enumerate(ledger) if isinstance(one, dict) and one.get("step") == precision
    ]
    if not known or not (places or not ledger):
        return ledger
    if not places:
        return [{"step": precision} | known]
    place = places[-1]
    return [*ledger[:place], ledger[place] | known, *ledger[place + 1 :]]
