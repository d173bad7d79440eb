"""Every verb that writes files, with each call that changes one failing once; run by test_write_faults.py.

    LD_PRELOAD=faults.so python write_faults.py FOLDER [--few] [VERB…]

What each attempt led to is printed as JSON.
"""

import contextlib
import ctypes
import errno
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import clips
import conftest
import cv2
import numpy as np
import onnx
import plain_graph
from onnx import ModelProto

from segdeploy import files
from segdeploy.cli import main
from segdeploy.convert import export
from segdeploy.graph.view import copy_of
from segdeploy.model.labels import read_labels
from segdeploy.model.signature import Signature
from segdeploy.scenes import write_cityscapes
from segdeploy.serve.deepstream import library, parse_output

Facts = dict[str, Any]
FAULTS = ctypes.CDLL(None)
MOST_CALLS = 5  # of a few
ERRORS = (errno.ENOSPC, errno.EIO, errno.EINTR, errno.EDQUOT)


def materials(place: Path) -> dict[str, Path]:
    given = place / "given"
    given.mkdir()
    checkpoint = conftest.write_checkpoint(given / "tiny", classes=read_labels("cityscapes").names)
    made = {
        kind: export.export_onnx(checkpoint, interface=kind, output=given / f"{kind}.onnx").path
        for kind in ("nvinfer", "frames")
    }
    write_cityscapes(given / "city", 4, seed=7, height=96, width=160)
    pictures = given / "pictures"
    pictures.mkdir()
    for number, path in enumerate(sorted((given / "city" / "leftImg8bit").rglob("*.png"))[:2]):
        shutil.copy(path, pictures / f"{number}.png")
    images = given / "images"
    images.mkdir()
    random = np.random.default_rng(3)
    for number in range(9):
        cv2.imwrite(str(images / f"{number}.png"), random.integers(0, 256, (64, 96, 3), np.uint8))
    plain = plain_graph.write_graph(given / "frames.plain.onnx", 19, "frames")
    foreign = onnx.load(plain_graph.write_graph(given / "foreign.onnx", 19, "logits"))
    del foreign.metadata_props[:]
    onnx.save(foreign, given / "foreign.onnx")
    (given / "x.calib").write_text("TRT-100900-EntropyCalibration2\ninput: 3c010a14\n")
    clip = clips.write_clip(given / "clip.mp4", clips.every_40_ms(20))
    render = given / "render"
    assert quietly("deepstream", "config", made["nvinfer"], "-o", render)[0] == 0
    return made | {
        "checkpoint": checkpoint, "city": given / "city", "pictures": pictures, "images": images,
        "plain": plain, "foreign": given / "foreign.onnx", "cache": given / "x.calib",
        "clip": clip, "config": render / "nvinfer_config.txt",
    }  # fmt: skip


def verbs(given: dict[str, Path], out: Path) -> dict[str, list[list[object]]]:
    """Two command lines each, which write the same names: what the first one wrote has to outlive the second one."""
    render = ["deepstream", "config", given["nvinfer"], "-o", out, "--deepstream"]
    repository = ["triton", given["frames"], "--backend", "python", "-o", out, "--areas", "--delay"]
    cache = ["cache", "convert", given["cache"], "-o", out / "x.calib", "--for"]
    run = ["run", given["frames"], given["pictures"], "-o", out]
    bench = ["bench", given["plain"], "--duration", "0.01", "--warmup", "0", "--json", out / "b.json"]
    bench += ["--export-times", out / "times.json"]
    evaluate = ["evaluate", given["frames"], "--dataset", "cityscapes", "--root", given["city"], "-o", out]
    write = ["export", given["checkpoint"], "--interface", "frames", "-o", out / "x.onnx", "--size"]
    quantize = ["quantize", given["plain"], "--images", given["images"], "--max-drop", "100", "-o", out]
    build = ["build-engine", given["plain"], "--runtime", "tensorrt-rtx", "-o", out / "x.engine", "--target"]
    adopt = ["adopt", given["foreign"], "-o", out / "x.onnx", "--interface"]
    clip = ["run", given["frames"], given["clip"], "-o", out / "o.mp4", "--json", out / "o.jsonl"]
    replay = ["deepstream", "replay", "-c", given["config"], "-i", given["clip"], "-o", out / "o.mp4"]
    return {
        "deepstream config": [[*render, "9.1"], [*render, "9.2"]],
        "triton": [[*repository, "1"], [*repository, "2"]],
        "cache convert": [[*cache, "8.6.1"], [*cache, "10.3.0"]],
        "run on images": [run, [*run, "--alpha", "0.9"]],
        "report": [["report", given["frames"].parent, "-o", out / "page.html"]] * 2,
        "bench": [bench] * 2,
        "evaluate": [evaluate, [*evaluate, "--limit", "2"]],
        "export": [[*write, "64x64"], [*write, "64x96"]],
        "quantize": [[*quantize, "--method", "minmax"], [*quantize, "--method", "mse"]],
        "build-engine": [[*build, "sm_86"], [*build, "sm_89"]],
        "adopt": [[*adopt, "nvinfer"], [*adopt, "frames"]],
        "run to a clip": [clip, [*clip, "--alpha", "0.9"]],
        "deepstream replay": [replay, replay],
    }


def quietly(*words: object) -> tuple[int, str]:
    said = io.StringIO()
    files.clear_leftovers.cache_clear()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main([*map(str, words), "--quiet"])
        except BaseException as error:  # noqa: BLE001 # it is what is looked for
            return 99, f"{type(error).__name__}: {error}"
    return status, said.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def attempt(words: list[object], old: dict[str, bytes], out: Path, number: int, error: int) -> Facts:
    shutil.rmtree(out, ignore_errors=True)
    for name, data in old.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    FAULTS.fault_set(str(out).encode(), number, error)
    status, said = quietly(*words)
    calls = FAULTS.fault_seen()
    FAULTS.fault_set(b"", 0, 0)
    return {
        "call": number, "error": errno.errorcode.get(error, ""), "status": status, "said": said, "calls": calls,
        "old": bool(old), "folder": out.exists(), "now": contents(out) if out.exists() else {},
    }  # fmt: skip


def state(name: str, now: dict[str, bytes], before: dict[str, bytes], new: dict[str, bytes]) -> str:
    """Tell whether a file is as before, or new and whole; JSON with times in it has the same keys, not bytes."""
    data = now.get(name)
    if data == before.get(name):
        return "old"
    if data == new.get(name):
        return "new"
    return "new" if data and name.endswith(".json") and keys_in(data) == keys_in(new[name]) else "other"


def keys_in(data: bytes) -> list[str]:
    """Take the keys of a record, or of a list's first item."""
    with contextlib.suppress(ValueError):
        found = json.loads(data)
        return list(found[0] if isinstance(found, list) else found)
    return ["no JSON"]


def attempts(most: int, first: list[object], second: list[object], out: Path) -> Facts:
    """Let each call fail with each error, with and without old files there; or `most` calls, errors in turn."""
    old = attempt(first, {}, out, 0, 0)["now"]
    plain = attempt(second, old, out, 0, 0)
    assert plain["status"] == 0, plain["said"]
    new = plain["now"]
    seen = []
    calls = range(1, plain["calls"] + 1)
    few = len(calls) > most
    for turn, number in enumerate(calls[:: len(calls) // most if few else 1]):
        errors = [ERRORS[turn % 4]] if few else ERRORS
        seen += [attempt(second, old, out, number, error) for error in errors]
        seen.append(attempt(second, {}, out, number, errno.EIO))
    for one in seen:
        now, before = one.pop("now"), old if one["old"] else {}
        names = sorted(now.keys() | before.keys())
        one["states"] = {name: state(name, now, before, new) for name in names}
    return {"calls": plain["calls"], "names": sorted({*new, *old}), "attempts": seen}


def trace_once() -> None:
    """Let `export` trace a network once for each size, since that takes seconds and writes nothing."""
    trace, traced = export.trace, dict[str, ModelProto]()

    def kept(deployed: Any, card: Any, signature: Signature, opset: int = 0) -> ModelProto:
        key = f"{signature} {opset}"
        if key not in traced:
            traced[key] = trace(deployed, card, signature, *([opset] if opset else []))
        return copy_of(traced[key])

    vars(export)["trace"] = kept


def build_once() -> None:
    """Let `deepstream replay` compile the parser once, since that takes seconds and writes nothing beside -o."""
    built = Path("parser.so").resolve()
    library.build_own_parser(built)

    def copied(target: Path) -> None:
        shutil.copy(built, target)

    vars(parse_output)["build_own_parser"] = copied


def main_of_faults(place: Path, few: bool, chosen: list[str]) -> None:
    os.chdir(place)
    trace_once()
    build_once()
    out = place / "out"
    lines = verbs(materials(place), out)
    most = MOST_CALLS if few else sys.maxsize
    found = {verb: attempts(most, lines[verb][0], lines[verb][1], out) for verb in chosen or lines}
    print(json.dumps(found))


if __name__ == "__main__":
    words = sys.argv[2:]
    main_of_faults(Path(sys.argv[1]).resolve(), "--few" in words, [word for word in words if word != "--few"])
