"""Packs the bundled checkpoint's graphs, so that they can be run, quantised and shown without PyTorch.

    python models/demo-b0/pack.py

Both are exported and compared with PyTorch; then their weights are rounded to FP16's bits, which halves the pack, and
each is compared again, within the bounds of an FP16 graph. What a record in the pack says is of the rounded graph.
"""

from __future__ import annotations

import io
import lzma
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from segdeploy import networks
from segdeploy.convert.bundled import INTERFACES, PACK
from segdeploy.convert.export import REFERENCE, export_onnx
from segdeploy.files import digest_of
from segdeploy.graph.load import read_graph
from segdeploy.graph.precision import shares_of
from segdeploy.model.card import read_card
from segdeploy.model.record import record_path
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.prove.against_pytorch import compare_with_pytorch, make_references
from segdeploy.prove.bounds import bounds_of_graph, demand_agreement
from segdeploy.prove.ledger import compared_step

HERE = Path(__file__).parent
CARD = "segformer-b0-demo"
SIGNIFICANT = 11  # bits of a weight, as FP16 has them
SMALL = 1000  # weights of a tensor that is left as it is
# Every weight is four bytes, the last of which rounding has emptied.
FILTERS = [
    {
        "id": lzma.FILTER_LZMA2,
        "preset": 9 | lzma.PRESET_EXTREME,
        "dict_size": 1 << 26,
        "lc": 1,
        "lp": 2,
        "pb": 2,
    }
]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graphs = [proven(interface, folder) for interface in INTERFACES]
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for path in [file for graph in graphs for file in (record_path(graph), graph)]:
                entry = tarfile.TarInfo(path.name)
                entry.size = path.stat().st_size
                with path.open("rb") as file:
                    archive.addfile(entry, file)
        PACK_PATH.write_bytes(lzma.compress(whole.getvalue(), filters=FILTERS))
    print(f"{PACK_PATH}: {PACK_PATH.stat().st_size:,} bytes")


PACK_PATH = HERE / PACK


def proven(interface: str, folder: Path) -> Path:
    source = "models/demo-b0"
    command = f"segdeploy export {source} --interface {interface} -o ."
    done = export_onnx(HERE, card=CARD, interface=interface, output=folder, command=command)
    model = onnx.load(done.path)
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype == np.float32 and weights.size >= SMALL:
            tensor.CopyFrom(numpy_helper.from_array(rounded(weights), tensor.name))
    done.path.write_bytes(model.SerializeToString())
    card = read_card(CARD)
    references = make_references(
        networks.build(read_checkpoint(HERE)).plain, card, read_graph(done.path, weights=False).signature
    )
    seen = compare_with_pytorch(model, done.path, references)
    demand_agreement(seen, bounds_of_graph("fp16", card), done.path.name, "Give it more bits")
    step = compared_step("fp32", seen, REFERENCE, shares_of(model))
    record = replace(
        done.record,
        digest=digest_of(done.path),
        ledger=(step,),
        source=replace(done.record.source, checkpoint=source),
        verdict=f"Weights are rounded to FP16's {SIGNIFICANT} bits and computed with in FP32; compared after that.",
    )
    record.write(folder)
    print(f"{interface}: {seen}")
    return done.path


def rounded(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    part, exponent = np.frexp(weights)
    return np.asarray(np.ldexp(np.round(part * 2**SIGNIFICANT) / 2**SIGNIFICANT, exponent), np.float32)


if __name__ == "__main__":
    main()
