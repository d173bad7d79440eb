"""Facts of a record in words, for whatever command shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from segdeploy.model.engine import LayerCounts, Verified
    from segdeploy.model.record import Calibration, LedgerStep


TITLES = {"mse": "least squared error", "minmax": "the largest value"}


def probes_in_words(calibration: Calibration | None) -> str:
    from segdeploy.prove.ledger import where_judged

    if calibration is None:
        return ""
    where = where_judged(calibration.probes, calibration.held_out)
    return f"{where}; a mIoU here is over the classes that their labels show, in evaluate also over those predicted"


def methods_in_words(methods: Mapping[str, Sequence[str]]) -> str:
    """Name the groups of layers by the method that found their thresholds; of the most it says only how many."""
    *few, (most, groups) = sorted(methods.items(), key=lambda item: len(item[1]))
    named = [f"{TITLES.get(method, method)} in {', '.join(names)}" for method, names in few]
    rest = f"the other {len(groups)} groups of layers" if few else "every group of layers"
    return "; ".join([*named, f"{TITLES.get(most, most)} in {rest}"])


def step_in_words(step: LedgerStep) -> str:
    words = (
        step.agreement_in_words if step.pixel_agreement is not None else step.compared_with or "not compared"
    )
    if step.logits_error is not None:
        words += f", largest logits error {step.logits_error:.1e} of their range"
    if step.miou is not None and step.pixel_accuracy is not None:
        words += f", mIoU {100 * step.miou:.2f}, pixel accuracy {100 * step.pixel_accuracy:.2f}"
    if step.miou_interval is not None:
        words += f" ({step.miou_interval[0]:.2f} to {step.miou_interval[1]:.2f} with other images)"
    if step.drop_interval is not None:
        of = "labels changed" if step.miou is None else "mIoU lost"
        words += f", {of} {step.drop_interval[0]:.2f} to {step.drop_interval[1]:.2f} with other images"
    if step.worst_class is not None:
        words += f", worst {step.worst_class.name} {step.worst_class.delta_points:+.1f}"
    if step.macs:
        shares = [f"{share:.0%} in {precision.upper()}" for precision, share in step.macs.items()]
        words += f", multiplications {' and '.join(shares)}"
    return words


def layers_in_words(layers: LayerCounts) -> str:
    if layers.source == "unknown":
        return "precision not known: TensorRT chose it, and its inspector does not tell where sizes are open"
    shares = ", ".join(
        f"{count} {name} ({count / max(layers.total, 1):.0%})"
        for name, count in layers.by_precision.items()
        if count
    )
    said = {"inspector": "as TensorRT's inspector says", "network": "by the types of the network"}
    return f"{shares} of {layers.total}, {said[layers.source]}"


def verified_in_words(verified: Verified) -> str:
    if verified.disagrees:
        return f"the engine is wrong and is not run: {verified.why}"
    if verified.proof is None:
        return f"no ({verified.why})"
    proof = verified.proof
    batches = ", ".join(map(str, proof.batches))
    return f"{proof.pixel_agreement:.4%} of the pixels equal to {proof.compared_with}, at batch {batches}"
