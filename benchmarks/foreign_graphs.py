"""Does a graph of other people's code go the whole way, from `adopt` to an engine and a DeepStream folder?

Each .onnx of `foreign_networks.py` goes through the commands that a user would type, in this order: adopt, which
compares it with the original, inspect, run, build-engine for TensorRT-RTX, quantize, deepstream config, lint, replay. A
row says which of them ended with status 0, and the last line of what the others said. Weights are random, so what INT8
costs here says how a network reacts to noise in its first epoch, and nothing of a trained one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import onnx
from matrix import typed
from setting import RESULTS, ROOT, setting, write_results

from segdeploy.graph.cost import cost_of
from segdeploy.model.record import read_record
from segdeploy.scenes import make_scene

STEPS = ("adopt", "inspect", "run", "build-engine", "quantize", "config", "lint", "replay")
SCENES = 16
SIZE = "256x512"
SIZES = {"transformers-dpt": "256x256"}
ANSWERS = {"as-pidnet": "output"}
CLASSES_SAID = ("as-mmdeploy", "as-tao-ids", "as-paddleseg")  # whose labels do not say how many there are
BEGUN, ENDED = "<!-- foreign graphs -->\n", "<!-- end -->\n"


def words_of(path: Path, folder: Path) -> dict[str, list[str]]:
    """Give each step's words on the command line."""
    network = path.name.partition(".")[0]
    size = SIZES.get(network, SIZE)
    made, engines = folder / "adopted.onnx", folder / "engines"
    described = ["--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375"]
    if ".open." in path.name:
        described += ["--size", size]
    if network in ANSWERS:
        described += ["--answer", ANSWERS[network]]
    described += ["--classes", str(folder / "classes.txt")]
    config = str(folder / "deepstream/nvinfer_config.txt")
    return {
        "adopt": ["adopt", str(path), *described, "-o", str(made)],
        "inspect": ["inspect", str(made), "--json"],
        "run": ["run", str(made), str(folder / "scenes/0.png"), "-o", str(folder / "out")],
        "build-engine": ["build-engine", str(made), "--runtime", "tensorrt-rtx", "--json", "-o", str(engines)],
        "quantize": [
            "quantize", str(made), "--images", str(folder / "scenes"), "--count", str(SCENES), "--max-drop", "100",
            "-o", str(folder / "int8"),
        ],
        "config": ["deepstream", "config", str(made), "-o", str(folder / "deepstream")],
        "lint": ["deepstream", "lint", config],
        "replay": ["deepstream", "replay", "-c", config, "-i", str(folder / "few"), "-o", str(folder / "r.mp4")],
    }  # fmt: skip


def tried(path: Path, steps: set[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "graph": path.name,
        "nodes_before": len(onnx.load(path, load_external_data=False).graph.node),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for step, words in words_of(path, folder).items():
            if step not in steps:
                continue
            cell = typed(*words)
            row[step] = cell["ok"] or cell["why"].removeprefix("segdeploy: ").replace(str(folder) + "/", "")
            if not cell["ok"]:
                if step == "adopt":
                    break
            elif step == "adopt":
                model = onnx.load(folder / "adopted.onnx")
                record = read_record(folder / "adopted.onnx")
                assert record is not None
                seen = record.ledger[0]
                row |= {
                    "nodes": len(model.graph.node),
                    "opset": next(one.version for one in model.opset_import if not one.domain),
                    "gmacs": round(cost_of(model).macs / 1e9, 2),
                    "pixel_agreement": seen.pixel_agreement,
                    "logits_error": seen.logits_error,
                }
            elif step == "build-engine":
                facts = json.loads(cell["said"])["record"]["engine"]
                row |= {"layers": facts["layers"]["total"], "build_s": round(facts["build_seconds"], 1)}
            elif step == "quantize":
                record = read_record(next((folder / "int8").glob("*.onnx")))
                assert record is not None and record.ledger[-1].pixel_agreement is not None
                row["int8_changes_percent"] = round(100 * (1 - record.ledger[-1].pixel_agreement), 2)
    return row


def prepare(folder: Path) -> None:
    (folder / "classes.txt").write_text("".join(f"class {index}\n" for index in range(19)))
    for place, count in (("scenes", SCENES), ("few", 2)):
        (folder / place).mkdir()
        for seed in range(count):
            cv2.imwrite(str(folder / place / f"{seed}.png"), make_scene(seed, 256, 512).image)


def table_of(rows: list[dict[str, Any]]) -> str:
    """Render rows in Markdown; where a step fails, a number leads to what it said."""
    heads = ("graph", "opset", "nodes", "GMACs", "RTX layers (build, s)", *STEPS)
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    notes: dict[str, int] = {}
    for row in rows:
        cells = [f"`{row['graph'].removesuffix('.onnx')}`", str(row.get("opset", "")), nodes_in_words(row)]
        layers = f"{row['layers']} ({row['build_s']:g})" if "layers" in row else ""
        cells += [f"{row['gmacs']:g}" if "gmacs" in row else "", layers]
        for step in STEPS:
            seen = row.get(step)
            if seen is True:
                cells.append("●")
            else:
                cells.append("" if seen is None else f"({notes.setdefault(seen, len(notes) + 1)})")
        lines.append("| " + " | ".join(cells) + " |")
    return (
        "\n".join([*lines, "", *(f"({number}) {words}  " for words, number in notes.items())]).rstrip() + "\n"
    )


def nodes_in_words(row: dict[str, Any]) -> str:
    return f"{row['nodes_before']} → {row['nodes']}" if "nodes" in row else str(row["nodes_before"])


def rendered(page: str, rows: list[dict[str, Any]]) -> str:
    before, _, rest = page.partition(BEGUN)
    return before + BEGUN + table_of(rows) + ENDED + rest.partition(ENDED)[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "graphs", type=Path, nargs="*", help=".onnx files; without any the table is only rendered again"
    )
    parser.add_argument("--steps", default=",".join(STEPS), help="those to try")
    arguments = parser.parse_args()
    place, page = RESULTS / "foreign_graphs.json", ROOT / "models" / "foreign-graphs.md"
    known = {row["graph"]: row for row in json.loads(place.read_text())["rows"]} if place.exists() else {}
    for path in sorted(arguments.graphs):
        known[path.name] = known.get(path.name, {}) | tried(path, set(arguments.steps.split(",")))
        print(known[path.name], flush=True)
        write_results(setting(2) | {"rows": [known[name] for name in sorted(known)]}, place)
    page.write_text(rendered(page.read_text(), [known[name] for name in sorted(known)]))


if __name__ == "__main__":
    main()
