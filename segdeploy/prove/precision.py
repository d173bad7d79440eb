"""Compares a session in bfloat16 or INT8 with its graph before it is used, and keeps the proof in the user's cache.

A kernel of fewer bits is another program than the graph: it depends on the CPU, on the runtime and on their versions.
So it is compared where it runs, on made scenes, with the file itself in ONNX Runtime, INT8 as the graph's own nodes
say. What it costs on the user's frames is another question, which `tune` answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from segdeploy import files
from segdeploy.errors import ExportDisagrees, OutputError
from segdeploy.graph.attention import ALL, LESS_AND_LESS, NONE, SCORES
from segdeploy.graph.load import Graph, read_graph
from segdeploy.machine import adds_bytes_in_16_bits, cpu_model, kind_of_cpu, versions_of
from segdeploy.model.card import ModelCard
from segdeploy.model.typed_json import from_json
from segdeploy.prove.agreement import Agreement, compare_labels, total
from segdeploy.prove.bounds import Bounds, demand_agreement
from segdeploy.prove.golden import as_rounded, labels_from_output
from segdeploy.prove.probes import probe_frames
from segdeploy.run.io import to_input
from segdeploy.run.runtimes import Runtime
from segdeploy.run.session import Session
from segdeploy.untrusted import read_json

PROVEN = ("bf16", "int8")  # f32 is what the graph itself is proven in
FRAMES = 3
# Of the labels on made scenes, which a network trained on streets does not know: with its tensors rounded to bfloat16
# a SegFormer-B0 keeps 99.1 % or more of them, and 99.9 % on street images. In INT8 with attention in bytes too it keeps
# 98.1 %, and 98.8 %. A kernel that is wrong loses far more: one whose sums saturated kept 88.7 %.
OF_ATTENTION = {ALL: "", SCORES: ", of attention only the scores", NONE: ", attention in floats"}
BOUNDS = {"bf16": Bounds(0.98), "int8": Bounds(0.97)}


@dataclass(frozen=True)
class PrecisionProof:
    """Says how well a session of fewer bits agreed with its graph, on which machine and with which versions."""

    graph: str  # its digest
    provider: str
    precision: str
    cpu: str
    versions: dict[str, str]
    samples: int
    pixels: int
    equal_pixels: int
    attention: str = ALL  # its products in bytes, where the graph has scales for them

    @property
    def agreement(self) -> Agreement:
        return Agreement(self.samples, self.pixels, self.equal_pixels, None)

    def words(self, runtime: Runtime) -> str:
        return runtime.words + OF_ATTENTION[self.attention]


@dataclass(frozen=True)
class ToProve:
    """Is a graph that is to run in fewer bits; its session is proven, or refused."""

    path: Path
    runtime: Runtime
    precision: str
    card: ModelCard | None = None

    @cached_property
    def graph(self) -> Graph:
        return read_graph(self.path, self.card)

    def proven(self, opened: Callable[[str], Session]) -> tuple[Session, PrecisionProof]:
        """Open a session with as many products of attention in bytes as are within the bounds."""
        known = [products for products in LESS_AND_LESS if self.kept(products) is not None]
        products = known[0] if known else ALL
        while True:
            session = opened(products)
            has_any = getattr(session, "has_attention_in_bytes", False)
            if products == SCORES and not has_any:
                products = NONE
            try:
                return session, self.demand_proven(session, products)
            except BaseException as error:
                session.close()
                if not (has_any and isinstance(error, ExportDisagrees)):
                    raise
            products = LESS_AND_LESS[LESS_AND_LESS.index(products) + 1]

    def demand_proven(self, session: Session, attention: str = ALL) -> PrecisionProof:
        """Give the proof of a session, out of the cache or made now; refuses a session that is beyond the bounds."""
        kept = self.kept(attention)
        if kept is not None:
            return kept
        seen = compare_with_graph(session, self.graph)
        demand_agreement(
            seen,
            BOUNDS[self.precision],
            f"{self.graph.name} in {self.precision} ({self.runtime.words}) disagrees with the graph itself",
            f"It is not used{why_wrong_here(self.runtime, self.precision)}: leave --precision out",
            ExportDisagrees,
        )
        proof = PrecisionProof(
            self.graph.digest, str(self.runtime.provider), self.precision, cpu_model(), self.versions,
            seen.samples, seen.pixels, seen.equal_pixels, attention,
        )  # fmt: skip
        place = self.place(attention)
        with suppress(OutputError):  # where it cannot be kept it is made each time
            files.make_folder(place.parent)
            files.write_text(place, json.dumps(asdict(proof), indent=1) + "\n")
        return proof

    @property
    def versions(self) -> dict[str, str]:
        return versions_of((*self.runtime.packages, "onnxruntime"))

    def place(self, attention: str) -> Path:
        key = [
            self.graph.digest,
            self.runtime.provider,
            self.precision,
            kind_of_cpu(),
            self.versions,
            attention,
        ]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
        return files.user_cache("precisions") / f"{name}.json"

    def kept(self, attention: str) -> PrecisionProof | None:
        return kept_proof(self.place(attention), self.graph.digest, self.precision)


def why_wrong_here(runtime: Runtime, precision: str) -> str:
    """Name the known reason; ONNX Runtime is told to be exact."""
    if (runtime.provider, precision) == ("openvino", "int8") and adds_bytes_in_16_bits():
        return " (this CPU has no VNNI, and its sums of products of bytes can saturate)"
    return ""


def kept_proof(place: Path, digest: str, precision: str) -> PrecisionProof | None:
    """Read a proof; None where there is none that holds for this graph."""
    try:
        kept = from_json(PrecisionProof, read_json(place))
    except ValueError:  # also where there is none
        return None
    holds = (kept.graph, kept.precision) == (digest, precision) and 0 < kept.equal_pixels <= kept.pixels
    holds = holds and kept.attention in LESS_AND_LESS
    return kept if holds and BOUNDS[precision].allow(kept.agreement) else None


def compare_with_graph(session: Session, graph: Graph) -> Agreement:
    """Compare a session's labels with those of the file in ONNX Runtime, on made scenes."""
    from segdeploy.run.ort import run_exactly  # here: another session needs no ONNX Runtime

    signature, slots = graph.signature, graph.signature.batch or 1
    frames = np.stack(probe_frames(FRAMES + 1, signature.size)[:-1])  # the last one is noise
    model = as_rounded(graph.model).SerializeToString()
    seen = []
    for places in batches_of(len(frames), slots):
        inputs = to_input(signature, frames[places])
        known = labels_from_output(signature, run_exactly(model, inputs, signature.output.name))
        seen.append(compare_labels(known, labels_from_output(signature, session.run(inputs))))
    return total(seen)


def batches_of(count: int, slots: int) -> Sequence[list[int]]:
    """List the places of `count` frames in batches of `slots`; the last one is filled up from the beginning."""
    return [[(first + slot) % count for slot in range(slots)] for first in range(0, count, slots)]
