"""Says how far a graph or an engine may differ from its source, and refuses one that differs more."""

from __future__ import annotations

from dataclasses import dataclass

from segdeploy.errors import ExportDisagrees, SegdeployError
from segdeploy.model.card import ModelCard
from segdeploy.prove.agreement import Agreement

# FP16 against FP32: 10 times the largest seen in a trained network (a Mask2Former: 5e-4). Its largest single error was
# 3e-2, with all labels equal: rounding can flip one place of a query's mask, so all places are judged, not the worst.
MAX_LOGITS_RMS_FP16 = 5e-3
# Share of equal pixels demanded of engines. FP32 engines compute convolutions in TF32, whose products have 11 bits.
OF_ENGINES, OF_ENGINES_OF_FEWER_BITS = 0.999, 0.99


@dataclass(frozen=True)
class Bounds:
    """Holds the least share of equal pixels and the largest logits errors, as shares of their range; None: any."""

    pixel_agreement: float
    logits_error: float | None = None
    logits_rms: float | None = None

    def allow(self, seen: Agreement) -> bool:
        """Tell whether `seen` keeps the bounds; an error that is bounded must have been measured."""
        errors = (seen.logits_error, self.logits_error), (seen.logits_rms, self.logits_rms)
        return seen.pixel_agreement >= self.pixel_agreement and all(
            bound is None or (error is not None and error <= bound) for error, bound in errors
        )

    def __str__(self) -> str:
        words = f"{self.pixel_agreement:.2%} of the pixels"
        if self.logits_error is not None:
            words += f" and {self.logits_error:.0e} as the largest logits error"
        if self.logits_rms is not None:
            words += f" and {self.logits_rms:.0e} as the logits' root mean square error"
        return words


def bounds_of_graph(precision: str, card: ModelCard | None) -> Bounds:
    """Give the card's bounds for a graph in ONNX Runtime.

    Where a graph has INT8 only labels are bounded: FP16's rounding moves values over the edges of INT8's steps.
    """
    own = card or ModelCard  # a card's defaults
    if precision == "fp32":
        return Bounds(own.min_pixel_agreement, logits_error=own.max_logits_error)
    return Bounds(
        own.min_pixel_agreement_fp16, logits_rms=MAX_LOGITS_RMS_FP16 if precision == "fp16" else None
    )


def bounds_of_engine(precision: str, card: ModelCard | None) -> Bounds:
    """Give the bound for an engine: the card's, unless it is the default, which is for graphs, which round less."""
    key = {"fp32": "min_pixel_agreement", "fp16": "min_pixel_agreement_fp16"}.get(precision, "")
    usual = OF_ENGINES if precision == "fp32" else OF_ENGINES_OF_FEWER_BITS
    own = getattr(card, key, None)
    return Bounds(usual if own is None or own == getattr(ModelCard, key) else own)


def demand_agreement(
    seen: Agreement, bounds: Bounds, what: str, remedy: str, error: type[SegdeployError] = ExportDisagrees
) -> None:
    """Raise `error` where `seen` breaks `bounds`; `what` says which two things differ, `remedy` what to do."""
    if bounds.allow(seen):
        return
    rms = ""
    if bounds.logits_rms is not None and seen.logits_rms is not None:
        rms = f" ({seen.logits_rms:.1e} root mean square)"
    raise error(f"{what}: {seen}{rms}; demanded are {bounds}. {remedy}")
