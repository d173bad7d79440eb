from __future__ import annotations

import argparse
import json


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.card import known_cards, read_card

    cards = [read_card(name) for name in known_cards()]
    if arguments.json:
        rows = [
            {
                "card": card.name,
                "checkpoint": card.checkpoint,
                "size": str(card.size),
                "classes": len(card.labels.names),
                "published_miou": card.published_miou,
                "licence": card.licence,
            }
            for card in cards
        ]
        print(json.dumps(rows, indent=1))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("card", "size", "classes", "mIoU (published)", "checkpoint", box=None)
    for card in cards:
        miou = "" if card.published_miou is None else f"{card.published_miou:.1f}"
        table.add_row(card.name, str(card.size), str(len(card.labels.names)), miou, card.checkpoint)
    Console().print(table)
    print("\nnext: segdeploy export nvidia/segformer-b0-finetuned-cityscapes-1024-1024 -o out")
    return 0
