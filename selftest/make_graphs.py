"""Makes graphs.tar.xz: small networks of every family with random weights, as graphs, and what each must answer.

    python selftest/make_graphs.py

Each graph is compared with PyTorch by `export`, and each INT8 one judged by `quantize`; then weights are rounded, to
pack well. The labels that a device must give are those of ONNX Runtime on the CPU, which reads the file as it is.
"""

from __future__ import annotations

import io
import json
import lzma
import sys
import tarfile
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import conftest  # noqa: E402
import fan_checkpoint  # noqa: E402
import hub_checkpoints  # noqa: E402
import mask2former_checkpoint  # noqa: E402
import mmseg_checkpoint  # noqa: E402

from segdeploy import scenes  # noqa: E402
from segdeploy.convert.export import export_onnx  # noqa: E402
from segdeploy.convert.int8.quantize import Request, quantize  # noqa: E402
from segdeploy.files import digest_of  # noqa: E402
from segdeploy.model.record import record_path  # noqa: E402
from segdeploy.picture.image import Frame, LabelMap  # noqa: E402
from segdeploy.run.ort import OrtSession  # noqa: E402
from segdeploy.run.session import segment  # noqa: E402
from segdeploy.selftest.pack import CASES, PACK, Trial  # noqa: E402
from segdeploy.size import Size  # noqa: E402

SIZE = Size(64, 96)
SEED = 900_000_003
SIGNIFICANT = 2  # bits of a weight
LARGE = 4096  # values, from which on a tensor's weights have one size, and only their signs


@dataclass(frozen=True)
class Wanted:
    family: str
    make: Callable[[Path], Path]  # the checkpoint
    size: Size = SIZE
    interface: str = "nvinfer"
    precision: str = "fp32"
    batch: int | None = 1

    @property
    def name(self) -> str:
        batch = "" if self.batch == 1 else f".batch-{self.batch or 'open'}"
        return f"{self.family}.{self.interface}.{self.precision}{batch}"


FILTERS = [
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 1, "lp": 2, "pb": 2}
]  # of four-byte weights


def segformer(folder: Path) -> Path:
    return conftest.write_checkpoint(folder / "segformer", size=(SIZE.height, SIZE.width))


def mask2former(folder: Path) -> Path:
    return mask2former_checkpoint.write(folder / "mask2former", size=(SIZE.height, SIZE.width))


def eomt(folder: Path) -> Path:
    return hub_checkpoints.write(folder / "eomt", hub_checkpoints.eomt("eomt"), {"height": 64, "width": 64})


def fan(folder: Path) -> Path:
    return fan_checkpoint.write(folder / "fan.pth", "nvlabs")


def mmseg(folder: Path) -> Path:
    return mmseg_checkpoint.write(folder / "pspnet.pth", "pspnet_r18-d8")


WANTED = (
    *(Wanted("segformer", segformer, interface=one) for one in ("nvinfer", "frames", "logits")),
    Wanted("segformer", segformer, batch=None),
    Wanted("segformer", segformer, precision="fp16"),
    Wanted("segformer", segformer, precision="int8"),
    Wanted("mask2former", mask2former),
    Wanted("eomt", eomt, Size(64, 64)),
    Wanted("fan", fan),
    Wanted("mmseg", mmseg),
)


@dataclass(frozen=True)
class Made:
    trial: Trial
    graph: bytes
    labels: LabelMap


def main() -> None:
    families = list(dict.fromkeys(one.family for one in WANTED))
    with ProcessPoolExecutor(len(families)) as pool:
        made = [one for family in pool.map(graphs_of_family, families) for one in family]
    frames = {str(one.size): frame_of(one.size) for one in WANTED}
    labels = {one.trial.name: one.labels for one in made}
    files = {CASES: json.dumps([asdict(one.trial) for one in made], indent=1).encode()}
    files |= {f"{one.trial.name}.onnx": one.graph for one in made}
    for stem, arrays in (("frames", frames), ("labels", labels)):
        held = io.BytesIO()
        np.savez(held, **arrays)
        files[f"{stem}.npz"] = held.getvalue()
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file, content in files.items():
            entry = tarfile.TarInfo(file)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    target = Path(__file__).parent / PACK
    target.write_bytes(lzma.compress(whole.getvalue(), filters=FILTERS))
    print(f"{target}: {target.stat().st_size:,} bytes, {sum(map(len, files.values())):,} unpacked")


def frame_of(size: Size) -> Frame:
    return scenes.make_scene(SEED, size.height, size.width).image


def graphs_of_family(family: str) -> list[Made]:
    made = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes.write_cityscapes(folder / "city", 12, seed=700, height=SIZE.height, width=SIZE.width)
        wanted = [one for one in WANTED if one.family == family]
        checkpoint = wanted[0].make(folder)
        for one in wanted:
            path = coarse(graph_of(one, checkpoint, folder))
            trial = Trial(
                one.name, family, one.interface, one.precision, str(one.size), one.batch, digest_of(path)
            )
            with OrtSession(path) as session:
                labels = segment(session, frame_of(one.size), kernel="linear").labels
            made.append(Made(trial, path.read_bytes(), labels))
            seen = len(np.unique(labels))
            print(f"{one.name}: {path.stat().st_size:,} bytes, {seen} classes seen", flush=True)
    return made


def coarse(path: Path) -> Path:
    """Round the weights to SIGNIFICANT bits: they are random, so that fewer bits are as good and pack smaller.

    Those of a LARGE tensor become their root mean square's power of two, with their signs.
    """
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        weights = onnx.numpy_helper.to_array(tensor)
        if weights.dtype in (np.float32, np.float16) and weights.size >= 64:
            exact = weights.astype(np.float32)
            part, exponent = np.frexp(exact)
            rounded = np.ldexp(np.round(part * 2**SIGNIFICANT) / 2**SIGNIFICANT, exponent)
            if weights.size >= LARGE:
                _, exponent = np.frexp(np.sqrt(np.mean(exact**2)))
                rounded = np.sign(exact) * np.ldexp(0.5, exponent)
            tensor.CopyFrom(onnx.numpy_helper.from_array(rounded.astype(weights.dtype), tensor.name))
    path.write_bytes(model.SerializeToString())
    record_path(path).unlink()
    return path


def graph_of(wanted: Wanted, checkpoint: Path, folder: Path) -> Path:
    place = folder / wanted.name
    exported = export_onnx(
        checkpoint, size=wanted.size, interface=wanted.interface, batch=wanted.batch,
        fp16=wanted.precision == "fp16", output=place,
    )  # fmt: skip
    if wanted.precision != "int8":
        return exported.path
    request = Request(
        images=folder / "city/leftImg8bit",
        count=8,
        probes=2,
        method="minmax",
        equalise="off",
        max_drop=100.0,
    )
    return quantize(exported.path, request, output=place).path


if __name__ == "__main__":
    main()
