"""Facts of a record in words, for whatever command shows them."""

from __future__ import annotations

from typing import Any


def probes_in_words(calibration: dict[str, Any] | None) -> str:
    from segdeploy.prove.ledger import judged_on

    if not calibration or "held_out" not in calibration:
        return ""
    where = judged_on(calibration["probes"], calibration["held_out"])
    return f"{where}; a mIoU here is over the classes that their labels show, in evaluate also over those predicted"


def step_in_words(step: dict[str, Any]) -> str:
    words = "not compared with a network"
    if step["compared_with"]:
        words = f"{step['pixel_agreement']:.4%} of the pixels equal to {step['compared_with']}"
    if step.get("logits_error") is not None:
        words += f", largest logits error {step['logits_error']:.1e} of their range"
    if step.get("miou") is not None:
        words += f", mIoU {100 * step['miou']:.2f}, pixel accuracy {100 * step['pixel_accuracy']:.2f}"
    if step.get("worst_class"):
        worst = step["worst_class"]
        words += f", worst {worst['name']} {worst['delta_points']:+.1f}"
    if "macs" in step:
        shares = [f"{share:.0%} in {precision.upper()}" for precision, share in step["macs"].items()]
        words += f", multiplications {' and '.join(shares)}"
    return words
