"""What may be said of where a stream comes from or goes: all of it but what opens doors."""

from __future__ import annotations

import re

REMOTE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_USER = re.compile(r"(?<=://)[^\s\"']*@")  # to the last @: a password may hold one, or a slash
_VALUE = re.compile(
    r"(?i)([\w-]*(?:user|pass|pwd|pw|token|secret|key|auth|sig|credential)[\w-]*=)(\"[^\"]*\"|'[^']*'|[^&;\s]*)"
)


def is_remote(text: str) -> bool:
    return REMOTE.match(text) is not None


def without_credentials(text: str) -> str:
    """A URI or a pipeline without the user and the password, and with `…` for values that are named like secrets."""
    return _VALUE.sub(r"\1…", _USER.sub("", text))
