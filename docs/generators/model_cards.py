"""Makes the table of the shipped cards."""

from __future__ import annotations

from segdeploy.model.card import known_cards, read_card


def page() -> str:
    rows = []
    for card in map(read_card, known_cards()):
        published = "" if card.published_miou is None else f"{card.published_miou:.1f}"
        classes = f"{len(card.labels.names)} ({card.labels.name})"
        rows.append(
            f"| `{card.name}` | {card.family or 'a graph'} | `{card.checkpoint}` | {card.size} | {classes}"
            f" | {published} | {card.licence} |"
        )
    heading = [
        "| card | family | checkpoint | size | classes | published mIoU | licence |",
        "|---|---|---|---|---|--:|---|",
    ]
    return "\n".join([*heading, *rows, ""])
