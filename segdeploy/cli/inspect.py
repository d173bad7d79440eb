from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from segdeploy.cli.arguments import MOST_BATCH, add_json, between
from segdeploy.cli.model_argument import add_model
from segdeploy.cli.printing import print_lines, print_next, put_json
from segdeploy.cli.words import methods_in_words, probes_in_words, step_in_words
from segdeploy.devices import PEAKS
from segdeploy.shell import command_line, shell_word

if TYPE_CHECKING:
    from onnx import ModelProto
    from rich.table import Table

    from segdeploy.graph.cost import Cost
    from segdeploy.graph.load import Graph
    from segdeploy.model.record import ArtifactRecord


def describe(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "an .onnx or an .engine", dest="file")
    parser.add_argument("--card", metavar="NAME", help="a card or .yaml that describes a foreign graph")
    add_json(parser)
    parser.add_argument(
        "--cost",
        action="store_true",
        help="count multiply-adds and the least memory traffic, by group of layers",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="with --cost: show the least time on this device, and a prediction (benchmarks/devices.yaml)",
    )
    parser.add_argument(
        "--precision",
        choices=tuple(PEAKS),
        default="fp16",
        help="with --device: the precision of that time (default: fp16)",
    )
    parser.add_argument(
        "--batch",
        type=between(1, MOST_BATCH),
        metavar="N",
        default=1,
        help="with --device: batch of that time (default: 1)",
    )
    parser.add_argument(
        "--measured",
        type=between(0.0001, 1e9, whole=False),
        metavar="MS",
        help="a batch's time on --device: show the share of the floor that it reaches",
    )


def execute(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    if arguments.file.suffix == ".engine":
        from segdeploy.cli.inspect_engine import inspect_engine

        inspect_engine(arguments.file, arguments.json)
        return 0

    from segdeploy.graph.load import read_graph
    from segdeploy.model.card import read_card
    from segdeploy.model.signature import describe as tensor
    from segdeploy.run.peek import why_not_loaded

    card = read_card(arguments.card) if arguments.card else None
    graph = read_graph(arguments.file, card, weights=False)
    if arguments.cost or arguments.device or arguments.measured is not None:
        return show_cost(arguments, graph.at(arguments.graph_size).model)
    if arguments.graph_size:
        graph = graph.at(arguments.graph_size)
    signature = graph.signature
    record = graph.record
    refused = (
        why_not_loaded(graph.model) if record is None else None
    )  # what has a record was computed when it was proven
    if refused and arguments.json != "-":
        tell_of(refused, graph)
    facts = {
        "file": str(arguments.file),
        "card": signature.card,
        "interface": signature.interface,
        "input": tensor(signature.input),
        "output": tensor(signature.output),
        "size": signature.size_in_words,
        "batch": "dynamic" if signature.batch is None else signature.batch,
        "mean": signature.mean,
        "scale": signature.scale,
        "classes": signature.labels.names,
    }
    told = facts | {"onnxruntime": refused, "record": None if record is None else asdict(record)}
    if put_json(arguments.json, told):
        return 0
    for name, value in facts.items():
        print_lines(f"{name:>10}  {', '.join(map(str, value)) if isinstance(value, tuple) else value}")
    if record is None:
        print_lines(
            f"{'record':>10}  none beside it: what it was made from and how well it agrees is not known"
        )
        print_next(command_line("segdeploy", "adopt", arguments.file, "-o", "out"))
        return 0
    show_record(record)
    file = shell_word(arguments.file)
    print_next(
        f"segdeploy quantize {file} --images DIR"
        if record.calibration is None
        else f"segdeploy build-engine {file}"
    )
    return 0


def show_record(record: ArtifactRecord) -> None:
    print_lines(f"{'made from':>10}  {record.source.checkpoint} ({record.source.licence})")
    print_lines(
        f"{'nodes':>10}  {record.cost.get('nodes', 'not counted')}, opset {record.opset}, {record.precision}"
    )
    if record.islands:
        print_lines(f"{'islands':>10}  {len(record.islands)} nodes in FP32: {', '.join(record.islands)}")
    for step in (*record.source.steps, *record.ledger):
        print_lines(f"{step.name:>10}  {step_in_words(step)}")
    if record.calibration is not None and record.calibration.methods:
        print_lines(f"{'thresholds':>10}  {methods_in_words(record.calibration.methods)}")
    judged = probes_in_words(record.calibration)
    if judged:
        print_lines(f"{'judged':>10}  {judged}")
    if record.verdict:
        print_lines(f"{'verdict':>10}  {record.verdict}")


def tell_of(refused: str, graph: Graph) -> None:
    """Say that no runtime loads a graph; where it has operators of others, only that ONNX Runtime does not."""
    from segdeploy.graph.view import STANDARD

    others = sorted({node.domain for node in graph.model.graph.node} - set(STANDARD))
    where = (
        f"not in ONNX Runtime, since it has operators of {', '.join(others)}"
        if others
        else "nowhere that is known"
    )
    print_lines(f"{'runs':>10}  {where}: ONNX Runtime cannot load it: {refused}")


def show_cost(arguments: argparse.Namespace, model: ModelProto) -> int:
    """In place of the other facts: it is long."""
    from segdeploy.assess.bench.roofline import floor_of, predicted
    from segdeploy.cli.console import show_tables
    from segdeploy.devices import device_called
    from segdeploy.errors import RequestError
    from segdeploy.graph.cost import cost_of

    if arguments.measured is not None and not arguments.device:
        raise RequestError(f"--measured {arguments.measured} needs the --device it was measured on")
    device = device_called(arguments.device) if arguments.device else None
    cost = cost_of(model, arguments.precision if device else None)
    floor = prediction = share = None
    if device:
        half = cost_of(model, "fp16")
        floor = floor_of(cost, device, arguments.batch)
        prediction = predicted(cost, device, arguments.batch, half)
        share = None if arguments.measured is None else floor.share_of(arguments.measured)
    facts = {
        "file": str(arguments.file),
        "precision": cost.precision or "as written",
        "gmacs": cost.macs / 1e9,
        "weight_bytes": cost.weight_bytes,
        "activation_bytes": cost.activation_bytes,
        "groups": [vars(group) for group in cost.groups()],
        "floor": None if floor is None else vars(floor),
        "prediction": None if prediction is None else prediction.as_json(),
        "achieved_share": share,
    }
    if put_json(arguments.json, facts):
        return 0
    show_tables([cost_table(cost)])
    print_lines(
        "bytes: what an ideal runtime that fuses all between two products must move, per image; weights per batch"
    )
    if floor:
        print_lines(
            f"floor on {floor.device}, {floor.precision}, batch {floor.batch}: {floor.ms:.3f} ms, {floor.fps:.0f} FPS"
            f" (multiplications {floor.compute_ms:.3f} ms, bytes {floor.memory_ms:.3f} ms)"
        )
        print_lines(prediction)
    if share is not None:
        print_lines(f"measured {arguments.measured:g} ms: {share:.1%} of the floor's speed is achieved")
    print_next(command_line("segdeploy", "bench", arguments.file))
    return 0


def cost_table(cost: Cost) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="cost of one image", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("group")
    for heading in ("GMACs", "share", "weights, MB", "activations, MB"):
        table.add_column(heading, justify="right")
    total = cost.macs or 1
    for group in cost.groups():
        table.add_row(
            group.group,
            f"{group.all_macs / 1e9:.3f}",
            f"{group.all_macs / total:.1%}",
            f"{group.weight_bytes / 1e6:.3f}",
            f"{group.activation_bytes / 1e6:.2f}",
        )
    table.add_section()
    table.add_row(
        "all",
        f"{cost.macs / 1e9:.3f}",
        "",
        f"{cost.weight_bytes / 1e6:.3f}",
        f"{cost.activation_bytes / 1e6:.2f}",
    )
    return table
