"""Makes the pieces of HTML that sections consist of, and escapes every word that comes from a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def section(name: str, title: str, parts: Iterable[str]) -> str:
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(title)}</h2>{"".join(parts)}</section>'


def missing(words: str) -> str:
    return f'<p class="missing">{escape(words)}</p>'


def alert(words: str) -> str:
    return f'<p class="alert" role="alert">{escape(words)}</p>'


def paragraph(words: str) -> str:
    return f"<p>{escape(words)}</p>"


def headline(words: str) -> str:
    return f"<h3>{escape(words)}</h3>"


def code(words: str) -> str:
    return f"<p><code>{escape(words)}</code></p>"


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Make a table; the first cell of a row is its heading, and columns of numbers are right-aligned."""
    rows = [[str(cell) for cell in row] for row in rows]
    numeric = [bool(rows) and all(is_numeric(row[place]) for row in rows) for place in range(len(headings))]
    head = "".join(
        f'<th scope="col"{align(number)}>{escape(words)}</th>'
        for words, number in zip(headings, numeric, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(
            f"<td{align(number)}>{escape(cell)}</td>" for cell, number in zip(rest, numeric[1:], strict=True)
        )
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def align(number: bool) -> str:
    return ' class="number"' if number else ""


def is_numeric(cell: str) -> bool:
    return cell == "–" or cell.lstrip("+-−").replace(".", "", 1).replace(",", "").rstrip(" %").isdecimal()


def details(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def figure(picture: str, alt: str, caption: str) -> str:
    return f'<figure><img src="{picture}" alt="{escape(alt)}"><figcaption>{escape(caption)}</figcaption></figure>'


def percent(share: float | None, digits: int = 2) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f}"


def signed(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:+.2f}"
