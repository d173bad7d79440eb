"""Every way to render a folder for every DeepStream, read by NVIDIA's own parsers, linted, and replayed.

    python benchmarks/deepstream_renderings.py --parsers DIR --graphs DIR

DIR/parser-9.1 and so on are NVIDIA's configuration parsers, compiled from their public sources with a main that prints
a line a file: path, read or refused, values, what it said; for a version without one the nearest is asked. --graphs
holds net.onnx, net.fp16.onnx, net.int8.onnx with its calibration cache, net.int8.fp16.onnx and net.logits.onnx of one
network with a dynamic batch, and in opset16/ the same for a TensorRT without LayerNormalization. Each distinct
configuration is replayed on made scenes behind the muxer of ds-tao-segmentation, and its labels are held against the
graph's own on the muxed frame.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from setting import RESULTS, setting, write_results

from segdeploy import scenes
from segdeploy.errors import SegdeployError
from segdeploy.picture.image import fit
from segdeploy.picture.segmentation import write_image
from segdeploy.releases import rendered_versions
from segdeploy.run.session import open_session, segment
from segdeploy.serve.deepstream.config import read_config
from segdeploy.serve.deepstream.lint import lint
from segdeploy.serve.deepstream.render import render
from segdeploy.serve.deepstream.replay import graph_of, replay
from segdeploy.serve.deepstream.request import MUXERS, RenderRequest

APP = "ds-tao-segmentation"
GRAPHS = ("net", "net.fp16", "net.int8", "net.int8.fp16", "net.logits")
STREAMS = (1, 4)
WITHOUT_LAYER_NORMALIZATION = ("6.0", "6.1", "6.1.1", "6.2", "6.3")
# Of these nothing is public: the last before them, and for 8.0 the first behind it, whose apps have the same keys.
NEAREST = {"6.4": "6.3", "7.0": "6.3", "7.1": "6.3", "8.0": "9.0", "9.2": "9.1"}
PLACE = re.compile(r"(?m)^#.*\n|^(model-engine-file|batch-size)=.*\n")  # what a replay does not depend on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parsers", type=Path, required=True)
    parser.add_argument("--graphs", type=Path, required=True)
    parser.add_argument(
        "--names", nargs="+", default=GRAPHS, choices=GRAPHS, help="of the graphs (default: all)"
    )
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "deepstream_renderings.json")
    asked = parser.parse_args()
    oracles = {path.name.removeprefix("parser-"): path for path in asked.parsers.glob("parser-*")}
    rows: list[dict[str, Any]] = []
    replays: dict[tuple[str, str], dict[str, Any]] = {}
    refusals: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        frames = made_frames(place / "frames")
        for number, (version, graph, request) in enumerate(requests(asked.graphs, asked.names)):
            box = place / str(number)
            try:
                said = render(request, box).warnings
            except SegdeployError as error:
                refusals[re.sub(r"\S+\.(onnx|calib)", "MODEL", str(error)).partition(";")[0]] += 1
                continue
            row = {"deepstream": version, "graph": graph, **asked_of(request)}
            row |= read_by_nvidia(box, *nearest(version, oracles))
            row["warned"] = any("parse-segmentation-func-name" in words for words in said)
            row["lint"] = [one.code for path in configs(box) for one in lint(path)]
            config = box / "nvinfer_config.txt"
            kind = graph, PLACE.sub("", config.read_text())
            if kind not in replays:
                replays[kind] = {"graph": graph} | replayed(config, frames)
            rows.append(row)
    summary = summed(rows, replays, refusals)
    write_results(setting(1) | summary | {"rows": rows, "replays": list(replays.values())}, asked.output)
    print(summary)


def requests(graphs: Path, names: list[str]) -> Iterator[tuple[str, str, RenderRequest]]:
    """Ask for each way once: a parser where there is one, another precision where the graph has none of its own."""
    for version in rendered_versions():
        for graph in names:
            model = graphs / f"{graph}.onnx"
            if version in WITHOUT_LAYER_NORMALIZATION:
                model = graphs / "opset16" / model.name
            if not model.exists():
                continue  # `export` makes no FP16 of opset 16
            typed = graph not in ("net", "net.logits")
            for kind, parser in ((2, "segdeploy"), (2, "tao"), (100, None)):
                for precision in (None,) if typed else (None, "fp16", "int8"):
                    for streams in STREAMS:
                        yield version, graph, RenderRequest(model, version, kind, streams, parser, precision)


def asked_of(request: RenderRequest) -> dict[str, Any]:
    return {"network_type": request.network_type, "parser": request.parser, "precision": request.precision,
            "streams": request.streams}  # fmt: skip


def configs(box: Path) -> list[Path]:
    return [path for path in (box / "nvinfer_config.txt", box / "nvinfer_config.yml") if path.exists()]


def nearest(version: str, oracles: dict[str, Path]) -> tuple[str, Path]:
    name = NEAREST.get(version, version)
    return name, oracles[name]


def read_by_nvidia(box: Path, name: str, oracle: Path) -> dict[str, Any]:
    command = [str(oracle), *map(str, configs(box))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    return {
        "parser_of": name,
        "files": len(lines),
        "read": all(verdict == "read" for _, verdict, _, _ in lines),
        "said": sorted({words.strip() for _, _, _, words in lines if words}),
        "txt_is_yml": len({values for _, _, values, _ in lines}) == 1,
    }


def made_frames(folder: Path) -> Path:
    folder.mkdir()
    for number in range(2):
        scene = scenes.make_scene(seed=920_000_000 + number, height=360, width=640)
        write_image(folder / f"{number}.png", scene.image)
    return folder


def replayed(config: Path, frames: Path) -> dict[str, Any]:
    with open_session(graph_of(read_config(config))) as session:
        size, labels = session.signature.size, session.signature.interface

        def own(frame: np.ndarray) -> np.ndarray:
            return np.asarray(segment(session, fit(frame, size)[0]).labels)

        seen = replay(
            config, frames, config.with_name("out.mp4"), reference=own, trust_parser=True, muxer=MUXERS[APP]
        )
    agreement = seen.muxed.agreement
    return {
        "interface": labels,
        "equal": agreement.pixel_agreement if agreement else None,
        "notes": seen.notes,
    }


def summed(
    rows: list[dict[str, Any]], replays: dict[tuple[str, str], dict[str, Any]], refusals: Counter[str]
) -> dict[str, Any]:
    quiet = [row for row in rows if row["read"] and not row["said"]]
    spoken = [row for row in rows if row["said"]]
    return {
        "asked": len(rows) + refusals.total(),
        "refused": refusals.total(),
        "rendered": len(rows),
        "files": sum(row["files"] for row in rows),
        "read_without_a_word": len(quiet),
        "read_with_words": len(spoken),
        "of_these_warned_of": sum(row["warned"] for row in spoken),
        "words": dict(Counter(words for row in spoken for words in row["said"]).most_common()),
        "txt_is_yml": sum(row["txt_is_yml"] for row in rows),
        "lint_clean": sum(not row["lint"] for row in rows),
        "distinct_replays": len(replays),
        "replays_equal": sum(one["equal"] == 1.0 for one in replays.values()),
        "by_graph": dict(Counter(row["graph"] for row in rows)),
        "refusals": dict(refusals.most_common()),
    }


if __name__ == "__main__":
    main()
