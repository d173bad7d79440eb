"""REPORT.md and its plots, made of results/*.json, so that every number has its file, machine and command."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from segdeploy.assess.bench.roofline import Achieved, read_achieved
from segdeploy.assess.report.charts import bars, curves, pareto, roofline, standing_alone, waterfall
from segdeploy.devices import read_devices

HERE = Path(__file__).resolve().parent
Facts = dict[str, Any]
FORMS = ("gridsample", "gather")
ON_ROOF = ("jetson-agx-orin-64gb", "t4", "l4", "a100-80gb-sxm", "h100-sxm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results", metavar="DIR")
    parser.add_argument("-o", "--output", type=Path, default=HERE, metavar="DIR")
    asked = parser.parse_args()
    render(
        {path.stem: json.loads(path.read_text()) for path in sorted(asked.results.glob("*.json"))},
        asked.output,
    )


def render(results: dict[str, Facts], output: Path) -> None:
    plots: dict[str, str] = {}
    parts = [OPENING, sources(results)]
    for title, kind, show in SECTIONS:
        found = {name: facts for name, facts in results.items() if kind_of(name, facts) == kind}
        shown = [part for name, facts in found.items() for part in show(name, facts, plots)]
        parts += [f"## {title}", *shown] if shown else []
    parts += trade_off(results, plots)
    folder = output / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in set(folder.glob("*.svg")) - {folder / f"{name}.svg" for name in plots}:
        stale.unlink()
    for name, chart in plots.items():
        (folder / f"{name}.svg").write_text(standing_alone(chart))
    (output / "REPORT.md").write_text("\n\n".join(part.strip("\n") for part in parts) + "\n")


OPENING = """# Results

Rendered by `python benchmarks/report.py` from `results/*.json`; a test compares the two. [README.md](README.md) says
what each script measures, and how. Absolute times are those of one machine on one day: ratios hold elsewhere too."""


def kind_of(name: str, facts: Facts) -> str:
    """The older files have no kind: their names begin with the script's."""
    if "kind" in facts:
        return str(facts["kind"])
    return "evaluation" if {"dataset", "models", "options"} <= facts.keys() else name.partition(".")[0]


def sources(results: dict[str, Facts]) -> str:
    rows = []
    for name, facts in results.items():
        machine = facts.get("machine", {})
        cpu = f"{machine['cpu']}, {machine['threads']} threads" if machine else "–"
        load = machine.get("load_before", facts.get("load_before"))
        rows.append(
            [
                f"[{name}](results/{name}.json)",
                facts.get("date", "–")[:10],
                machine.get("device") or cpu,
                "–" if load is None else f"{load:.1f}",
                f"`{facts['command']}`" if facts.get("command") else "–",
            ]
        )
    return table(("file", "date", "machine", "load before", "command"), rows)


# ---- one section per kind of file ------------------------------------------------------------------------------


def against_transformers(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    sides = list(dict.fromkeys(side for row in facts["rows"] for side in row["sides"]))
    rows, drawn = [], {}
    for row in facts["rows"]:
        cells = []
        for place, side in enumerate(sides):
            seen = row["sides"][side]
            low, high = seen["ratio_quartiles"]
            ratio = f", {seen['ratio']:.2f}× ({low:.2f}–{high:.2f})" if place else ""
            cells.append(f"{seen['ms']:.0f} ms{ratio}")
        rows.append([row["row"], *cells, f"{row['agreement']['labels_equal_at_input_size']:.3%}"])
        drawn[row["row"]] = {side: seen["ms"] for side, seen in row["sides"].items()}
    plots[name] = bars("Median time of one image, in turn", drawn, "ms")
    yield table(("row", *sides, "labels equal"), rows)
    packages = ("onnxruntime", "openvino", "torch", "transformers", "opencv-python-headless")
    versions = ", ".join(f"{one} {facts['versions'][one]}" for one in packages if one in facts["versions"])
    yield (
        f"{facts['rounds']} rounds of runs in turn on the CPU; the ratio (quartiles) is to {sides[0]}, round by round."
        f" {versions}."
    )
    yield picture(name, "median times against transformers")
    counted = [kind for kind in facts["rows"][0]["graphs"]["usual"] if kind != "size_bytes"]
    graphs = {f"{row['network']} {row['size']} {row['measured']}": row["graphs"] for row in facts["rows"]}
    yield table(
        ("graph, transformers → segdeploy", *counted),
        [
            [what, *(f"{both['usual'][kind]} → {both['ours'][kind]}" for kind in counted)]
            for what, both in graphs.items()
        ],
    )


def precision(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    sides = list(dict.fromkeys(side for row in facts["rows"] for side in row["sides"]))

    def said(row: Facts, side: str) -> str:
        seen = row["sides"].get(side)
        if seen is None:
            return "–"
        low, high = seen["ratio_quartiles"]
        ratio = f", {seen['ratio']:.2f}× ({low:.2f}–{high:.2f})" if side != sides[0] else ""
        return f"{seen['ms']:.0f} ms{ratio}"

    own = [side for side in sides if any(side in row["labels_equal"] for row in facts["rows"])]
    yield table(
        ("row", *sides), [[row["row"], *(said(row, side) for side in sides)] for row in facts["rows"]]
    )
    yield (
        f"{facts['rounds']} rounds of runs in turn on {facts['machine']['threads']} threads of a CPU with"
        f" {', '.join(facts['cpu_has'])}; the ratio (quartiles) is to {sides[0]}, round by round."
    )
    plots[name] = bars(
        "Median time of one image, in turn",
        {
            row["row"]: {side: row["sides"][side]["ms"] for side in sides if side in row["sides"]}
            for row in facts["rows"]
        },
        "ms",
    )
    yield picture(name, "median times, precision by precision")
    yield table(
        ("labels equal to the first of ours; mIoU, pixel accuracy", *own),
        [[row["row"], *(equal_and_scored(row, side) for side in own)] for row in facts["rows"]],
    )
    for row in facts["rows"]:
        for side, why in row["left_out"].items():
            yield f"{row['row']}, {side}: {why}"


def equal_and_scored(row: Facts, side: str) -> str:
    if side not in row["labels_equal"]:
        return "–"
    scored = row["scores"].get(side)
    return f"{row['labels_equal'][side]:.2%}" + (
        f"; {scored['miou']:.2f}, {scored['pixel_accuracy']:.2f}" if scored else ""
    )


def usual_export(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    def said(seen: Facts) -> str:
        low, high = seen["ratio_quartiles"]
        return f"{seen['ms']:.0f} ms, {seen['ratio']:.2f}× ({low:.2f}–{high:.2f})"

    def parts(graph: Facts) -> str:
        return ", ".join(f"{kind} {share:.0%}" for kind, share in list(graph["share_of_time"].items())[:3])

    yield table(
        (
            "network",
            "usual",
            "segdeploy's graph",
            "as `run` opens it",
            "nodes",
            "GMACs",
            "usual's time in",
            "ours in",
        ),
        [
            [
                row["network"],
                f"{row['sides']['usual']['processor']['ms']:.0f} ms",
                *(said(row["sides"][side]["processor"]) for side in ("segdeploy", "session")),
                *(
                    f"{row['graphs']['usual'][key]} → {row['graphs']['segdeploy'][key]}"
                    for key in ("nodes", "gmacs")
                ),
                *(parts(row["graphs"][side]) for side in ("usual", "segdeploy")),
            ]
            for row in facts["rows"]
        ],
    )
    loads = [row["load"] for row in facts["rows"]]
    ratios = {row["network"]: row["sides"]["segdeploy"]["processor"]["ratio"] for row in facts["rows"]}
    least = min(ratios, key=lambda network: ratios[network])
    yield (
        f"Processor time at {facts['size']}, {facts['rounds']} rounds of runs in turn, on a machine with loads of"
        f" {min(loads):.0f} to {max(loads):.0f}; the ratio (quartiles) is to the usual export, round by round. The"
        f" lowest is {least}'s, {ratios[least]:.2f}×: what is convolution or a matrix product takes the same time in"
        " both graphs, so a rewrite gains what it saves of the multiplications, and of the nodes between."
    )


def agreement(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    yield (
        f"{facts['checkpoint']}, {facts['size']}, {facts['classes']} classes: over {facts['frames']} frames"
        f" {facts['labels_equal']:.5%} of {facts['pixels']:,} labels are those of transformers' own pipeline"
        f" (lowest frame {facts['labels_equal_lowest_frame']:.4%}); with the arg-max at the input's size"
        f" {facts['labels_equal_argmax_before_resize']:.2%}."
    )
    if facts["against_truth"]:
        scores = facts["against_truth"].items()
        rows = [[side, f"{seen['pixel_accuracy']:.4f}", f"{seen['miou']:.4f}"] for side, seen in scores]
        yield table(("labels of", "accuracy", "mIoU"), rows)


def int8(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    yield (
        f"{facts['checkpoint']} on {facts['dataset']}: {facts['val_images']} images scored, none of them calibrated"
        " on; in points."
    )
    if "note" in facts:
        yield facts["note"]
    rows, drawn = [], {}
    splits = facts.get("splits", {"": facts["val_images"]})
    for row in facts["rows"]:
        rows.append(
            [
                row["graph"],
                str(row.get("images", "–")),
                f"{row['int8_share']:.0%}" if "int8_share" in row else "–",
                *(cell for one in row.get("splits", [row]) for cell in scored(one)),
            ]
        )
        if "miou_drop" in row:
            drawn[row["graph"]] = {"mIoU lost": row["miou_drop"]}
    plots[name] = bars(f"mIoU that INT8 costs, {facts['checkpoint']}", drawn, "points")
    headings = [
        f"{what}{split and f', {images} of {split}'}"
        for split, images in splits.items()
        for what in ("mIoU", "lost", "pixel accuracy lost")
    ]
    yield table(("graph", "calibrated on", "in INT8", *headings), rows)
    chosen = {row["thresholds"] for row in facts["rows"] if "auto" in row["graph"] and "thresholds" in row}
    if chosen:
        yield f"Thresholds that auto chose: {'; '.join(sorted(chosen))}. In brackets: the drop over other images, 95 %."
    yield picture(name, "mIoU lost by each quantiser")


def scored(row: Facts) -> list[str]:
    """The mIoU, what of it is lost, with its interval where that was measured, and the pixel accuracy lost."""
    drop, pixels = row.get("miou_drop"), row.get("pixel_accuracy_drop")
    low, high = row.get("miou_drop_interval", (None, None))
    between = "" if low is None else f" ({low:+.2f} to {high:+.2f})"
    return [
        f"{row['miou']:.2f}",
        "–" if drop is None else f"{drop:+.2f}{between}",
        "–" if pixels is None else f"{pixels:+.2f}",
    ]


def int8_choice(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    yield (
        f"{facts['checkpoint']} at {facts['size']} on {facts['dataset']}, calibrated on {facts['train_images']} frames."
        " INT8 loses points of mIoU (over other frames like these, 95 %) and changes per cent of the labels:"
    )
    headings, rows = ["kept out of INT8", "in INT8"], []
    for one in facts["rows"][0]["on"]:
        whole = one["part"] == "all"
        place = f"{one['images']} of {one['split']}" + ("" if whole else f", {one['part']}")
        headings += [f"lost, {place}", *([f"changed, {place}"] if whole else [])]
    for row in facts["rows"]:
        cells = [cell for one in row["on"] for cell in lost_and_changed(one)]
        rows.append([", ".join(row["keep"]) or "nothing", f"{row['int8_share']:.1%}", *cells])
    yield table(headings, rows)
    for column, one in enumerate(facts["rows"][0]["on"]):
        if one["part"] == "all":
            intervals = [row["on"][column]["miou_drop_interval"] for row in facts["rows"]]
            reach = sorted((high - low) / 2 for low, high in intervals)
            few, many = (one["images"] * (half / 0.05) ** 2 for half in (reach[0], reach[-1]))
            yield (
                f"On {one['images']} frames of {one['split']} an interval reaches {reach[0]:.2f} to {reach[-1]:.2f}"
                f" points to either side. It narrows with the root of their number: for 0.05 it takes {few:.0f} to"
                f" {many:.0f} frames."
            )


def lost_and_changed(one: Facts) -> Iterator[str]:
    low, high = one["miou_drop_interval"]
    yield f"{one['miou_drop']:+.2f} ({low:+.2f} to {high:+.2f})"
    if one["part"] == "all":
        yield f"{one['changed']:.2f} %"


def attention_int8(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    size = f" at {facts['size']}" if facts["size"] else ""
    yield (
        f"`quantize` leaves the products of attention out, which have no weights. {facts['checkpoint']}{size} on CamVid"
        f" with all {facts['products']} of them in INT8 too: {facts['val_images']} images scored, thresholds of"
        f" {facts['train_images']} others; in points, with the drop over other images, 95 %."
    )
    first, *others = facts["rows"]
    rows = [[first["graph"], "–", *scored({"miou": first["miou"]})]]
    rows += [[row["graph"], f"{row['int8_share_of_all']:.0%}", *scored(row)] for row in others]
    yield table(("graph", "in INT8, of all", "mIoU", "lost", "pixel accuracy lost"), rows)


def collection(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    rows = [
        [
            str(row["images"]),
            f"{row['forward_ms_per_image']:.0f} ms",
            f"{row['collect_ms_per_image']:.0f} ms",
            f"{row['ratio']:.2f}",
            f"{row['collect_peak_gb']:.2f} GB",
        ]
        for row in facts["rows"]
    ]
    beside = facts["entropy_beside_onnxruntime"]
    yield table(("images", "forward", "with collection", "ratio", "peak memory"), rows)
    yield (
        f"Beside onnxruntime's entropy calibrator on {beside['images']} images: {beside['times_less_memory']:.1f} times"
        f" less memory, {beside['times_faster']:.1f} times as fast."
    )


def verbs(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    yield (
        f"The shipped B0 at {facts['size']}, each command a process of its own on one core: processor time (median of"
        f" {facts['rounds']} rounds) and peak memory, from the start of Python on. Measured beside other work."
    )
    rows = [
        [
            row["verb"],
            f"`segdeploy {facts['commands'][row['verb']]}`",
            f"{row['cpu_s']:.1f} s",
            f"{row['peak_mib']:.0f} MiB",
        ]
        for row in facts["rows"]
    ]
    yield table(("what", "command", "processor time", "peak memory"), rows)
    more = ", ".join(f"`{verb}` {seconds:.2f} s" for verb, seconds in facts["cpu_s_per_frame"].items())
    yield f"One more frame costs {more}."


def corruptions(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    yield (
        f"{facts['checkpoint']}, {facts['size']}, {facts['frames']} frames: per cent of the labels kept under our"
        f" corruptions / under those of the benchmark's own code; {facts['largest_difference_points']} points apart at"
        " the most."
    )
    rows = [
        [
            kind,
            *(f"{100 * ours:.1f} / {100 * row['benchmark'][one]:.1f}" for one, ours in row["ours"].items()),
        ]
        for kind, row in facts["labels_kept"].items()
    ]
    severities = next(iter(facts["labels_kept"].values()))["ours"]
    yield table(("corruption", *(f"severity {one}" for one in severities)), rows)


def bench(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    if facts["measurements"]:
        yield from measured(name, facts, plots)
    for one in facts["comparisons"]:
        rows = [
            [
                row["model"],
                row["runtime"],
                f"{row['median_ms']:.1f} ms",
                f"{row['ratio']:.2f} ({row['ratio_low']:.2f}–{row['ratio_high']:.2f})",
            ]
            for row in one["rows"]
        ]
        yield f"Batch {one['batch']}, {one['rounds']} rounds in turn:"
        yield table(("model", "runtime", "median", "times as fast as the first (quartiles)"), rows)
    if facts["waterfall"]:
        yield from end_to_end(name, facts, plots)


def measured(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    model, rows = facts["models"][0], facts["measurements"]
    yield f"{model['name']} in {model['runtime']}:"
    yield table(
        ("batch", "images/s", "median latency", "p99", "queries"),
        [
            [
                str(row["batch"]),
                f"{row['images_per_s']:.1f}",
                f"{row['timings']['latency']['median']:.2f} ms",
                f"{row['timings']['latency']['p99']:.2f} ms",
                str(row["timings"]["queries"]),
            ]
            for row in rows
        ],
    )
    if len(rows) > 1:
        lines = {
            part: [(row["batch"], row["timings"]["latency"][part]) for row in rows]
            for part in ("median", "p99")
        }
        plots[name] = curves(f"Latency by batch size, {model['name']}", "batch", "ms", lines, "ms")
        yield picture(name, "latency by batch size")


def end_to_end(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    fall, model = facts["waterfall"], facts["models"][0]
    yield (
        f"{model['name']} in {model['runtime']}, from a file of {fall['frame']} to its overlay:"
        f" {fall['median_ms']:.1f} ms, of which {fall['outside_network']:.1%} is not the network."
    )
    stages = [(stage["name"], stage["median_ms"], stage["p99_ms"]) for stage in fall["stages"]]
    plots[name] = waterfall("Medians, one stage after the other", stages)
    yield picture(name, "time of each stage")


def cost(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    yield (
        "Counted and computed, not measured. Bytes and floors are those of an ideal runtime that fuses all between two"
        " products (`segdeploy inspect --cost`). Predictions divide the floor by the shares that published networks"
        " reach, and stay predictions until somebody measures."
    )
    shape = ("network", "graph", "size", "GMACs", "weights, MB", "activations, MB")
    yield table(
        shape,
        [
            [
                row["network"],
                row["graph"],
                row["size"],
                f"{row['gmacs']:.2f}",
                f"{row['weights_mb_fp16']:.1f}",
                f"{row['activations_mb_fp16']:.0f}",
            ]
            for row in facts["rows"]
        ],
    )
    yield "FP16 at batch 1, deployed graph: floor, and the prediction as an interval, in ms."
    deployed = [row for row in facts["rows"] if row["graph"] == "deployed"]
    devices = read_devices()
    rows = []
    for key in deployed[0]["devices"]:
        row = [devices[key].name]
        for one in deployed:
            there = one["devices"][key]
            low, high = there["fp16_prediction_ms"]
            row.append(f"{there['fp16_floor_ms']:.2f}; predicted {low:.1f}–{high:.1f}")
        rows.append(row)
    yield table(("device", *(f"{one['network']} {one['size']}" for one in deployed)), rows)
    yield "The shares of their floors that predictions are made of:"
    yield table(("network", "device", "share", "source"), [achieved(one) for one in read_achieved()])
    roofs = {
        devices[key].name: (devices[key].peak("fp16").value, devices[key].bandwidth_gb_s.value)
        for key in ON_ROOF
    }
    points = []
    for one in deployed:
        if one["size"] != deployed[-1]["size"]:  # the sizes of one network lie on each other
            continue
        moved = one["weights_mb_fp16"] + one["activations_mb_fp16"]
        reached = 2 * one["gmacs"] / one["devices"]["a100-80gb-sxm"]["fp16_floor_ms"]
        points.append((f"{one['network']} {one['size']}", 2000 * one["gmacs"] / moved, reached))
    plots[name] = roofline("FP16 roofs, and the graphs' floors on an A100", roofs, points)
    yield picture(name, "roofline")


def achieved(seen: Achieved) -> list[str]:
    worst, best = seen.shares
    share = f"{worst:.0%}" if worst == best else f"{worst:.0%} to {best:.0%}"
    return [seen.what, read_devices()[seen.device].name, share, seen.source]


def mask2former(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    part, found = name.partition(".")[2], facts["result"]
    if part == "agreement":
        rows = [
            [
                row,
                small(one["class_logits_error"]),
                small(one["mask_logits_error"]),
                f"{max(one['class_logits_error_fp64'], one['mask_logits_error_fp64']):.0e}",
                *(
                    f"{one[f'labels_equal_{form}']:.4%}" if f"labels_equal_{form}" in one else "–"
                    for form in FORMS
                ),
            ]
            for row, one in found.items()
        ]
        yield (
            "Against transformers, random weights, two images: logits' largest error as a share of their range, of the"
            " plain network in PyTorch, and the labels of the exported graphs in ONNX Runtime. The plain network sums"
            " in transformers' order, because a mask beside zero decides what its query sees next."
        )
        yield table(
            (
                "network",
                "class logits",
                "mask logits",
                "the larger one in FP64",
                *(f"labels, {form}" for form in FORMS),
            ),
            rows,
        )
    elif part in ("graphs", "half"):
        rows = [
            [row, f"{one['nodes']}", f"{one.get('layers', '–')}", f"{one.get('build_seconds', '–')}"]
            + (in_half(one) if part == "half" else [])
            for row, one in found.items()
        ]
        yield "Swin-T in FP16:" if part == "half" else "Swin-T at 256x512:"
        more = ("nodes in FP32", "labels equal", "logits error") if part == "half" else ()
        yield table(("graph", "ONNX nodes", "TensorRT layers", "built in, s", *more), rows)
    elif part == "speed":
        rows = [
            [row, f"{one['ms']:.0f} ms", f"{one['ratio']:.2f}", f"{found['processor'][row]['ratio']:.2f}"]
            for row, one in found["wall"].items()
        ]
        yield table(("Swin-T at 256x512", "time", "ratio", "ratio of processor time"), rows)
    elif part == "postprocess":
        yield from orders(found)
    elif part == "memory":
        rows = [[row, f"{one['peak_bytes'] / 1e6:.0f} MB"] for row, one in found.items()]
        yield table(("Swin-T at 256x512", "peak memory"), rows)
    else:
        yield (
            f"Swin-L at {found['size']}: exported and proven in {found['seconds'] / 60:.1f} minutes and"
            f" {found['peak_bytes'] / 1e9:.1f} GB; {found['file_bytes'] / 1e6:.0f} MB, {found['gmacs']} GMACs."
        )


def orders(found: Facts) -> Iterator[str]:
    made, cost = found["scenes"], found["cost"]
    equal = ", ".join(f"{share:.1%} at {size}" for size, share in found["labels_equal"].items())
    yield (
        "`--postprocess scores` sums masks at a quarter of the image and raises the classes' scores, `published` raises"
        f" the masks first. Where 100 masks of 19 classes are all borders, they give {equal} of the same labels. On"
        f" {made['scenes']} made scenes at {made['size']}, with the truth's own masks and noise for a network,"
        f" {made['labels_equal']:.2%} of the labels are the same."
    )
    yield table(
        ("order", "mIoU, made scenes", f"GMACs, Swin-T {cost['size']}", "processor time", "peak memory"),
        [
            [
                order,
                f"{made[order]:.2f}",
                f"{one['gmacs']:.2f}",
                f"{one['processor_ratio']:.2f}",
                f"{one['peak_bytes'] / 1e6:.0f} MB",
            ]
            for order, one in cost["orders"].items()
        ],
    )


def small(error: float) -> str:
    return f"{error:.0e}" if error else "0"


def in_half(row: Facts) -> list[str]:
    agreement = row["agreement"]
    counted = sum(row["fp32_nodes"].values())
    return [f"{counted}", f"{agreement['pixel_agreement']:.3%}", f"{agreement['logits_error']:.0e}"]


def flops(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    yield (
        "FLOPs of the CV-3315 report's networks as fvcore counts them (a multiply-add is one), with the resize to the"
        " image's size. Every number of its table is its network's, at the size named here; a U-Net cannot take"
        " 375x1242. Its conclusion gives B2 79.472 G, which are Swin-T + SegFormer's; B2's are 50.633 G. Its baseline"
        " has no max-unpooling, as the text says, but three transposed convolutions and a resize to 256x864. Parameters"
        " are without the auxiliary head, which no deployed network has."
    )
    yield table(
        ("network", "size", "said, G", "counted, G", "deployed, G", "of it", "parameters, M"),
        [
            [
                row["network"],
                row["size"],
                f"{row['said_g']:g}",
                f"{row['counted_g']:.3f}",
                f"{row['deployed_g']:.3f}" if "deployed_g" in row else "–",
                f"{row['deployed_g'] / row['counted_g']:.1%}" if "deployed_g" in row else "–",
                f"{row['parameters_m']:.2f}",
            ]
            for row in facts["rows"]
        ],
    )


def matrix(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    yield (
        f"Whether each network goes the whole way at {facts['size']}, step by step as a user types it: ● where it does."
        " Weights are random, but for the bundled B0's, so that this says what is possible and proven, not how accurate"
        " a network is: INT8 changes more labels of random weights, which stand close to each other, than of trained"
        " ones. In brackets: labels equal to the step before, and the share of the multiplications in INT8. Engines are"
        " TensorRT-RTX's: layers, and seconds of building by a shared machine's clock, or, where it says CPU-s, the"
        " processor time of the whole command; none was run. `classes` are those in the answer to one frame: where it"
        " is one, equal labels say little."
    )
    steps = list(dict.fromkeys(step for row in facts["rows"].values() for step in row))
    yield table(
        ("network", "nodes", "classes", *steps),
        [
            [
                network,
                str(row["export"].get("nodes", "–")),
                str(row.get("run", {}).get("classes", "–")),
                *(seen(row.get(step)) for step in steps),
            ]
            for network, row in facts["rows"].items()
        ],
    )
    refused = [
        f"- {network}, {step}: {cell['why']}"
        for network, row in facts["rows"].items()
        for step, cell in row.items()
        if not cell["ok"]
    ]
    if refused:
        yield "\n".join(refused)


def seen(cell: Facts | None) -> str:
    """Show a cell of the matrix; a step that was not reached is a dash, and a refusal stands below the table."""
    if cell is None:
        return "–"
    if not cell["ok"]:
        return "no"
    said = [
        f"{cell['equal']:.3%}" if "equal" in cell else "",
        f"{cell['int8']:.0%} INT8" if cell.get("int8") else "",
        f"{cell['layers']} layers, {time_of(cell)}" if "layers" in cell else "",
    ]
    return " ".join(["●", *([f"({', '.join(filter(None, said))})"] if any(said) else [])])


def time_of(built: Facts) -> str:
    if "processor_seconds" in built:
        return f"{built['processor_seconds']:g} CPU-s"
    return f"{built['build_seconds']:g} s"


def finetune(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    reported, recipe = facts["reported"], facts["recipe"]
    memory = f" and {facts['peak_bytes'] / 1e9:.2f} GB" if "peak_bytes" in facts else ""
    yield (
        f"{facts['checkpoint']} fine-tuned on {facts['images']} images of {facts['data']}"
        f" ({facts['watched_images']} more were watched), {recipe['steps']} steps of {recipe['batch']} crops of"
        f" {recipe['crop']}, in"
        f" {facts['processor_seconds']:.0f} s of one thread's processor time{memory}. On"
        f" {reported['images']} images that training did not see: mIoU {100 * reported['miou']:.2f} %"
        f" ({100 * reported['low']:.2f} to {100 * reported['high']:.2f} with other images), pixel accuracy"
        f" {100 * reported['pixel_accuracy']:.2f} %. Before: {100 * facts['before']:.2f} % on the watched ones."
    )
    yield table(
        ("class", "IoU, %"),
        [
            [one["name"], "–" if one["iou"] is None else f"{100 * one['iou']:.1f}"]
            for one in reported["classes"]
        ],
    )


def ladder(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    shared, runs = facts["shared"], facts["runs"]
    scores: dict[str, dict[int, float]] = {}
    for run in runs:
        scores.setdefault(run["rung"], {})[run["seed"]] = 100 * run["miou"]
    whole = set.intersection(*(set(own) for own in scores.values()))
    seeds = "1 seed" if len(whole) == 1 else f"{len(whole)} seeds"
    kinds = {run["rung"]: run["kind"] for run in runs}
    climbed = [rung for rung in scores if kinds[rung] == "climbed"]
    yield (
        f"What each trick adds to {facts['checkpoint']} on {facts['data']}, at {facts['size']}: {shared['steps']} steps"
        f" of {shared['batch']} crops of {shared['crop']}, {seeds}, scored on images that nothing was chosen"
        " by."
        " So short a training of so small crops is far from what the network can reach: what counts is the difference,"
        " beside what another seed changes. Each of the first rungs stands on the one before, each of the others on"
        f" “{climbed[-1]}”. The difference is the mean over seeds, each against the same seed, with"
        " the least and the greatest."
    )
    if "note" in facts:
        yield facts["note"]
    rows = []
    for place, rung in enumerate([*climbed, *(rung for rung in scores if rung not in climbed)]):
        below = climbed[place - 1] if 0 < place < len(climbed) else climbed[-1] if place else None
        own, spent = scores[rung], [run["processor_seconds"] for run in runs if run["rung"] == rung]
        row = [rung if rung in climbed else f"alone: {rung}", spread_of(list(own.values()), "")]
        more = [own[seed] - scores[below][seed] for seed in own if seed in scores[below]] if below else []
        rows.append([*row, spread_of(more, "+") if more else "–", f"{sum(spent) / len(spent):.0f}"])
    yield table(("rung", "mIoU, %", "difference", "processor seconds"), rows)


def spread_of(values: list[float], sign: str) -> str:
    """Write the mean, and the least and the greatest where there are several."""
    mean = f"{sum(values) / len(values):{sign}.1f}"
    return f"{mean} ({min(values):{sign}.1f} to {max(values):{sign}.1f})" if len(values) > 1 else mean


def distilled(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    recipe, runs = facts["recipe"], facts["runs"]
    others = facts.get("unlabelled")
    beside = f" (with the teacher {others} others without labels too, in every second crop)" if others else ""
    yield (
        f"Half of {facts['teacher']}'s blocks, trained on {facts['learnt']} made scenes at {facts['size']}{beside} for"
        f" {recipe['steps']} steps of {recipe['batch']} crops, with the whole network as its teacher and without, and"
        f" scored on {facts['reported']} other scenes. It begins at {100 * runs[0]['before']:.1f} % on watched ones."
    )
    rows = []
    for arm in dict.fromkeys(run["arm"] for run in runs):
        own = [run for run in runs if run["arm"] == arm]
        gain = facts["gains"].get(arm)
        between = (
            " to ".join(f"{side:+.2f}" for side in gain["interval"]) if gain and gain["interval"] else "–"
        )
        rows.append(
            [
                arm,
                ", ".join(f"{run['steps']}" for run in own),
                ", ".join(f"{100 * run['miou']:.2f}" for run in own),
                f"{gain['mean']:+.2f}" if gain else "–",
                between,
                f"{sum(run['processor_seconds'] for run in own) / len(own):.0f}",
            ]
        )
    headings = (
        "student",
        "steps",
        "mIoU by seed, %",
        "the teacher adds",
        "95 % interval",
        "processor seconds",
    )
    yield table(headings, rows)
    for arm, gain in facts["gains"].items():
        if gain["interval"] and gain["interval"][0] <= 0 <= gain["interval"][1]:
            yield f"Beside “{arm}” the interval holds 0: that a teacher helps is not shown here."
        elif gain["interval"] and gain["interval"][0] > 0:
            yield f"Beside “{arm}” the whole interval lies above 0: here the teacher helps."


def chain(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    yield (
        f"From the bundled checkpoint to a DeepStream folder at {facts['size']}, as a user types it, with trainings of"
        f" {facts['training_steps']} steps: too short to reach much, long enough to see that the last record tells of"
        " every step. Below is that record's ledger, the engine's, which was built and not run. A training is scored on"
        " its split for reports, the steps from FP32 on those images that judge INT8."
    )
    steps = next(found for path, found in facts["ledgers"].items() if path.endswith(".engine"))
    rows = []
    for step in steps:
        equal, low_high = step["pixel_agreement"], step["miou_interval"]
        between = f" ({low_high[0]:.2f} to {low_high[1]:.2f})" if low_high else ""
        lost = step["drop_interval"]
        rows.append(
            [
                step["name"],
                step["compared_with"] or "–",
                "–" if equal is None else f"{equal:.4%}",
                "–" if step["miou"] is None else f"{100 * step['miou']:.2f}{between}",
                f"{lost[0]:.2f} to {lost[1]:.2f}" if lost else "–",
            ]
        )
    yield table(("step", "compared with", "equal pixels", "mIoU, %", "lost, with other images"), rows)
    yield "\n".join(f"    {step['command']}" for step in facts["steps"].values())


def stream(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    yield f"A clip of {facts['clip']} through B0 at {facts['size']} to a clip with overlays, beside the network alone:"
    rows = [
        [
            row["kernel"],
            f"{row['network_fps']:.2f} FPS",
            f"{row['whole_way_fps']:.2f} FPS",
            f"{row['ratio']:.1%} ({row['lowest_ratio']:.1%})",
        ]
        for row in facts["rows"]
    ]
    yield table(("resize", "network alone", "whole way", "ratio (lowest)"), rows)
    seen = facts["memory"]
    yield (
        f"Resident memory after {seen['frames']:,} frames: {seen['resident_mib'][-1]:.0f} MiB,"
        f" {seen['grown_mib_after_500_frames']:+.1f} MiB since the 500th."
    )


def soak(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    yield (
        f"{facts['minutes']:g} minutes of `segdeploy run` on three cameras ({facts['source']}; B0 at {facts['size']})"
        " into clips, JSON lines and a page. A stream's figures leave out when its own camera was away; its source"
        " paused too, because the machine was busy with other work."
    )
    streams = [
        [
            row["name"],
            str(row["losses"]),
            f"{row['sent']:,}",
            f"{row['answered'] / row['sent']:.2%}",
            f"{row['longest_pause_s']:.1f} s ({row['longest_pause_of_its_source_s']:.1f} s)",
            f"{row['frames_in_its_clip']:,} of {row['lines']:,}",
        ]
        for row in facts["streams"]
    ]
    shape = (
        "camera",
        "lost",
        "frames sent",
        "answered",
        "longest pause (of its source)",
        "frames in its clip",
    )
    yield table(shape, streams)
    yield table(
        ("camera", "times", "back", "after, once it is there (longest)"),
        [
            [row["how"], str(row["count"]), str(row["back"]), median_and_longest(row, "back_after_s")]
            for row in facts["losses"]
        ],
    )
    yield table(
        (
            "output that stalls",
            "times",
            "given up after (longest)",
            "what the others got",
            "SIGTERM ends it in (longest)",
        ),
        [
            [
                row["what"],
                str(row["count"]),
                median_and_longest(row, "given_up_after_s"),
                f"{row['arrived']:,} of {row['sent_to_the_others']:,}",
                median_and_longest(row, "ended_after_s"),
            ]
            for row in facts["stalled_outputs"]
        ],
    )
    memory, page = facts["memory"], facts["page"]
    plots[name] = curves(
        "Resident memory of the run",
        "minute",
        "MiB",
        {"resident": list(zip(memory["minute"], memory["resident_mib"], strict=True))},
        "MiB",
    )
    yield (
        f"The page gave {page['answers']:,} answers, beside {page['visitors_that_read_nothing']} visitors that read"
        " nothing. Resident memory:"
        f" {min(memory['resident_mib']):.0f} to {max(memory['resident_mib']):.0f} MiB, at the end"
        f" {memory['resident_mib'][-1]:.0f}; descriptors {min(memory['descriptors'])} to {max(memory['descriptors'])},"
        f" threads {min(memory['threads'])} to {max(memory['threads'])}."
    )
    yield picture(name, "resident memory over time")


def kills(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    yield (
        f"{facts['kills']} recordings of `segdeploy run` ({facts['frames']} frames; B0 at {facts['size']}) were killed"
        f" with -9 after {min(facts['fed_s']):g} to {max(facts['fed_s']):g} s, beside other work. Of what was fed until"
        f" then {facts['median_lost_s']:g} s are lost (median; {facts['most_lost_s']:g} s at the most);"
        f" {facts['clips_without_a_gap_or_an_error']} clips play to their end without a gap or an error,"
        f" {facts['within_2_s']} lost no more than 2 s."
    )


def fuzz(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    most = sorted(facts["readers"].items(), key=lambda one: -one[1])
    yield (
        f"{facts['inputs']:,} inputs, mutations of good files and words, went into {len(most)} readers (tests/fuzz):"
        f" {facts['targets_with_a_fault']} of them raised what is no `SegdeployError`. "
        + ", ".join(f"{reader} {count:,}" for reader, count in most)
        + "."
    )
    for run in facts["parser"]:
        yield (
            f"libFuzzer on DeepStream's output parser ({run['build']}; address and undefined-behaviour sanitizers):"
            f" {run['inputs']:,} inputs in {run['seconds'] / 60:.0f} minutes, {run['reports']} reports."
        )


def archive(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    """Show what an archive costs and how it grows, or what kills have lost."""
    if "growth" not in facts:
        kills = ", ".join(f"{count} × {what}" for what, count in facts["kills"].items())
        yield (
            f"An archive of {facts['files']:,} images of {facts['frame']} on Ray ({facts['runs']} runs, two actors, an"
            f" object store of {facts['store_mib']} MiB) was killed with -9 at random moments: {kills}. Held against"
            f" what one process makes of the same images: {facts['lost']} files lost, {facts['cut_or_different']} cut"
            f" or different, {facts['strange']} too many; of the table's rows {facts['rows_lost']} lost,"
            f" {facts['rows_doubled']} doubled, {facts['rows_different']} different; {facts['hidden_files_left']}"
            f" hidden files left. {facts['done_again']} files were done by two workers, as one was killed before it"
            " could say so."
        )
        return
    rows = [
        [
            f"{row['files']:,}",
            f"{row['archive']['cpu_s']:.0f} s",
            f"{row['one_process']['cpu_s']:.0f} s",
            f"{row['archive']['driver_mib']:.0f} MiB",
            f"{row['archive']['worker_mib']:.0f} MiB",
            f"{row['again']['cpu_s']:.1f} s",
        ]
        for row in facts["growth"]
    ]
    yield table(
        [
            "files",
            "processor time",
            "in one process",
            "who hands out",
            "a worker",
            "again, with nothing to do",
        ],
        rows,
    )
    more = facts["marginal"]
    yield (
        f"One more image ({facts['frames']} pixels, one convolution) takes {more['archive_ms']:.2f} ms of processor"
        " time in `segdeploy archive` with two workers and the table of areas,"
        f" {more['one_process_ms']:.2f} ms in one process that reads, segments and writes it in a loop"
        f" ({more['ratio']:.2f} times as much)."
    )


def serving(name: str, facts: Facts, plots: dict[str, str]) -> Iterator[str]:
    answered, wrong = sum(facts["answered"].values()), sum(facts["wrong"].values())
    first, last, most = facts["server_mib"]
    own_first, own_last, _ = facts["clients_mib"]
    yield (
        f"{facts['clients']} clients sent {facts['requests']:,} requests of one frame to a real Triton"
        f" ({facts['server']}), in which segdeploy's session ran the shipped B0 at {facts['size']}. {answered:,} were"
        f" answered, {wrong} of them wrongly."
    )
    yield (
        f"It took {facts['seconds']:.0f} s beside other work: a median of {facts['median_ms']:.0f} ms, and"
        f" {facts['images_per_execution']:.2f} images an execution. From the first tenth on, the server's memory went"
        f" from {first:.0f} to {last:.0f} MiB (at the most {most:.0f}), the clients' from {own_first:.0f} to"
        f" {own_last:.0f} MiB."
    )


def median_and_longest(row: Facts, name: str) -> str:
    return f"{row[name]:.1f} s ({row[f'longest_{name}']:.1f} s)" if name in row else "–"


SECTIONS: tuple[tuple[str, str, Callable[[str, Facts, dict[str, str]], Iterable[str]]], ...] = (
    ("Speed, against transformers", "against_transformers", against_transformers),
    ("Speed, against the usual export", "usual_export", usual_export),
    ("Speed, precision by precision", "precision", precision),
    ("Measured by segdeploy bench", "bench", bench),
    ("Agreement, with transformers", "agreement", agreement),
    ("INT8", "int8", int8),
    ("INT8: what the judged frames can tell", "int8_choice", int8_choice),
    ("INT8 of attention's products too", "attention_int8", attention_int8),
    ("What each verb takes", "verbs", verbs),
    ("Calibration", "collection", collection),
    ("Corruptions", "corruptions", corruptions),
    ("Floors and predictions", "cost", cost),
    ("FLOPs of the CV-3315 report", "flops", flops),
    ("The whole way", "matrix", matrix),
    ("Mask2Former", "mask2former", mask2former),
    ("Fine-tuning", "finetune", finetune),
    ("The recipe, trick by trick", "ladder", ladder),
    ("With a teacher and without", "distilled", distilled),
    ("From a checkpoint to a DeepStream folder", "chain", chain),
    ("Streams", "stream", stream),
    ("Soak", "soak", soak),
    ("Fuzzed readers", "fuzz", fuzz),
    ("Kills", "kills", kills),
    ("Archives", "archive", archive),
    ("Serving with Triton", "serving", serving),
)


def trade_off(results: dict[str, Facts], plots: dict[str, str]) -> list[str]:
    """mIoU against speed: of models that were both measured and evaluated, told by the digest of their files."""
    scored = {
        model["digest"]: model["scores"]["miou"]
        for name, facts in results.items()
        if kind_of(name, facts) == "evaluation"
        for model in facts["models"]
    }
    points = [
        (facts["models"][0]["name"], row["images_per_s"], 100 * scored[facts["models"][0]["digest"]])
        for name, facts in results.items()
        if kind_of(name, facts) == "bench" and facts["models"][0]["digest"] in scored
        for row in facts["measurements"]
        if row["batch"] == 1
    ]
    if len(points) < 2:
        return []
    plots["pareto"] = pareto("mIoU against speed at batch 1", "images per second", "mIoU, %", points)
    rows = [[name, f"{fps:.1f}", f"{miou:.2f}"] for name, fps, miou in points]
    return [
        "## Accuracy against speed",
        table(("model", "images/s", "mIoU, %"), rows),
        picture("pareto", "mIoU against images per second"),
    ]


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Columns of numbers are set to the right."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    headings = list(headings)
    rules = [
        "--:" if all(row[place][:1] in "+-–0123456789" for row in cells) else "---"
        for place in range(len(headings))
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in (headings, rules, *cells))


def picture(name: str, alt: str) -> str:
    return f"![{alt}](plots/{name}.svg)"


if __name__ == "__main__":
    main()
