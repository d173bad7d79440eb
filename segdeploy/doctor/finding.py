"""Defines a finding: one thing that is present, missing or wrong, and its remedy."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Remark:
    level: str  # ok | note | problem
    subject: str
    found: str
    remedy: str = ""  # in words
    command: str = ""  # the remedy as a command
