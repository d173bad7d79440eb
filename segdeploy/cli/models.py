from __future__ import annotations

import argparse

from segdeploy.cli.arguments import add_json
from segdeploy.cli.printing import print_lines, print_next, put_json


def describe(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.cli.console import show_columns
    from segdeploy.model.card import known_cards, read_card

    cards = [read_card(name) for name in known_cards()]
    facts = [
        {
            "card": card.name,
            "checkpoint": card.checkpoint,
            "size": str(card.size),
            "classes": len(card.labels.names),
            "published_miou": card.published_miou,
            "miou_source": card.miou_source,
            "licence": card.licence,
        }
        for card in cards
    ]
    if put_json(arguments.json, facts):
        return 0
    sources = list(dict.fromkeys(card.miou_source for card in cards if card.miou_source))
    rows = [("card", "size", "classes", "mIoU, published", "checkpoint")]
    for card in cards:
        miou = "" if card.published_miou is None else str(card.published_miou)
        if card.miou_source:
            miou += f" [{sources.index(card.miou_source) + 1}]"
        rows.append((card.name, str(card.size), str(len(card.labels.names)), miou, card.checkpoint))
    show_columns(rows)
    print_lines("", "mIoU as published in:")
    print_lines(*(f"[{number}] {source}" for number, source in enumerate(sources, start=1)))
    print_next("segdeploy export nvidia/segformer-b0-finetuned-cityscapes-1024-1024 -o out")
    return 0
