from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="an .onnx or an .engine")
    parser.add_argument("--card", metavar="NAME", help="describes a graph from elsewhere: a card, or a .yaml")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    if arguments.file.suffix == ".engine":
        from segdeploy.cli.inspect_engine import inspect_engine

        inspect_engine(arguments.file, as_json=arguments.json)
        return 0

    from segdeploy.card import read_card
    from segdeploy.record import read_record
    from segdeploy.sessions import open_session
    from segdeploy.signature import describe as tensor

    card = read_card(arguments.card) if arguments.card else None
    with open_session(arguments.file, card=card) as session:
        signature = session.signature
    record = read_record(arguments.file)
    facts = {
        "file": str(arguments.file),
        "card": signature.card,
        "interface": signature.interface,
        "input": tensor(signature.input),
        "output": tensor(signature.output),
        "size": str(signature.size),
        "batch": "dynamic" if signature.batch is None else signature.batch,
        "mean": signature.mean,
        "scale": signature.scale,
        "classes": signature.labels.names,
    }
    if arguments.json:
        print(json.dumps(facts | {"record": None if record is None else asdict(record)}, indent=1))
        return 0
    for name, value in facts.items():
        print(f"{name:>10}  {', '.join(map(str, value)) if isinstance(value, tuple) else value}")
    if record is None:
        print(f"{'record':>10}  none beside it: what it was made from and how well it agrees is not known")
        return 0
    print(f"{'made from':>10}  {record.source['checkpoint']} ({record.source['licence']})")
    print(f"{'nodes':>10}  {record.cost['nodes']}, opset {record.opset}, {record.precision}")
    if record.islands:
        print(f"{'islands':>10}  {len(record.islands)} nodes in FP32: {', '.join(record.islands)}")
    for step in record.ledger:
        print(f"{step['step']:>10}  {spelled(step)}")
    if record.verdict:
        print(f"{'verdict':>10}  {record.verdict}")
    return 0


def spelled(step: dict[str, Any]) -> str:
    words = "not compared with a network"
    if step["compared_with"]:
        words = f"{step['pixel_agreement']:.4%} of the pixels equal to {step['compared_with']}"
    if step.get("logits_error") is not None:
        words += f", largest logits error {step['logits_error']:.1e} of their range"
    if step.get("miou") is not None:
        words += f", mIoU {100 * step['miou']:.2f}, pixel accuracy {100 * step['pixel_accuracy']:.2f}"
    if step.get("worst_class"):
        worst = step["worst_class"]
        words += f", worst {worst['name']} {worst['delta_points']:+.1f}"
    if "macs" in step:
        shares = [f"{share:.0%} in {precision.upper()}" for precision, share in step["macs"].items()]
        words += f", multiplications {' and '.join(shares)}"
    return words
