"""Hides users, passwords and tokens in addresses of streams and servers, before they are shown.

A password may hold characters that end one elsewhere: quotes, spaces, `/`, `?`, `#`, `@`. So an address without a valid
host and port is taken to have such a password. In doubt more is left out, never less.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

REMOTE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}://")
_REMOTE_OR_PATH = re.compile(
    r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}:/{1,2}"
)  # an address that was taken for a path has one /
HIDDEN = "…"
LONGEST = 4096  # of a text that is searched as a whole: the time grows with the square of it
_ENDS = r"(?=[\s,;:)\]}!]|$)"  # behind a quote that closes
_NO_SCHEME = re.compile(r"(?s)(?:[a-zA-Z][\w+.-]{0,30}:/*)?[^\s/:@]{1,255}:.*@")
_ENCODED_USER = re.compile(r"(?i)(%(?:25)*3a(?:%(?:25)*2f){2})(?:(?!%(?:25)*[23]f)[^&/?#])*%(?:25)*40")
_HOST = re.compile(r"(?:\[[\w:.%]*\]|[^\[\]:]*)(?::\d+)?")
_THEN_WORDS = re.compile(rf"{_HOST.pattern}:? |[^:]*$")
_QUERY = re.compile(r"\?[\w.%$-]+=")  # as opposed to a password with a question mark
_NAME = re.compile(r"([\w.%$-]{1,80}?)(\s*=\s*|%(?:25)*3[dD]|[\"']\s*:\s*)")
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_SCHEME = (
    r"(?:\((?:\w+)\)\s*)?(?:(?i:basic|bearer|digest)\s+)?"  # of a value: GStreamer's type, HTTP's method
)
_PARAMETER = re.compile(rf"(?:(?![\"']{_ENDS}|%(?:25)*26)[^&\s])+")
_LAST_PARAMETER = re.compile(r"(?:(?!%(?:25)*26)[^&])+")  # of an address alone, which may hold spaces
_STRING = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[^,}\]\s]+")  # of JSON
_SHOWN = re.compile(
    rf"{HIDDEN}(?:(?=&)|{_ENDS})"
)  # a value that was left out before, maybe with words behind it
_WORD = re.compile(rf"{_SCHEME}(?:\"(?:\\.|[^\"\\])*\"|'[^']*'{_ENDS}|(?![\"']{_ENDS})\S)+")
ALONE = {"user", "pass", "pw", "pwd", "auth", "sig", "pin", "sid", "login", "session", "jwt"}
ANYWHERE = re.compile(
    "user(?:name|id|pw|pass)|passw|passphrase|pwd|secret|token|credential|signature|authoriz|sessionid"
    "|(?:api|auth|access|private|stream|license)key"
)


def is_remote(text: str) -> bool:
    return REMOTE.match(text) is not None


def without_credentials(text: str) -> str:
    """Leave users and passwords out of `text`, which is an address, or words with addresses in them.

    Values that are named like secrets become `…`, and so does what follows the first 4,096 characters of a line.
    """
    if len(text) > LONGEST:
        return "\n".join(map(_cut, text.split("\n")))
    return _hidden_in(text)


def _cut(line: str) -> str:
    return _hidden_in(line) if len(line) <= LONGEST else _hidden_in(line[:LONGEST]) + HIDDEN


def _hidden_in(text: str) -> str:
    alone = is_remote(text)
    return _without_values(_ENCODED_USER.sub(r"\1", _without_users(text, alone)), alone)


def as_typed(text: str) -> str:
    """Do the same for a mistyped address, such as `user:password@host` without a scheme."""
    if is_remote(text):
        return without_credentials(text)
    if len(text) > LONGEST:
        return as_typed(text[:LONGEST]) + HIDDEN
    last = text.rfind("@") + 1  # beyond it the pattern would search in vain, from every place to the end
    return without_credentials(_NO_SCHEME.sub(f"{HIDDEN}@", text[:last], count=1) + text[last:])


def _without_users(text: str, alone: bool) -> str:
    shown, place = [], 0
    while found := _REMOTE_OR_PATH.search(text, place):
        rest = text[found.end() :]
        shown.append(text[place : found.end()])
        place = found.end() + _user_in(rest if alone else _address_in(text, found), rest)
    return "".join([*shown, text[place:]])


def _address_in(text: str, scheme: re.Match[str]) -> str:
    """Give the text behind the scheme, up to the closing quote if a quote stands before it, else up to a space."""
    rest, before = text[scheme.end() :], text[: scheme.start()][-1:]
    if before and before in "'\"" and (closing := re.search(before + _ENDS, rest)):
        return rest[: closing.start()]
    return re.split(r"\s", rest, maxsplit=1)[0]


def _user_in(address: str, rest: str) -> int:
    """Count the characters to leave out, so that the host comes next."""
    authority = re.split(r"[/?#]", address, maxsplit=1)[0]
    _, at, host = authority.rpartition("@")
    if not _HOST.fullmatch(host):  # the port is part of a password, which goes on behind the seeming end
        return rest.rfind("@") + 1 or (0 if _THEN_WORDS.match(host) else len(authority))
    if not at:
        return 0
    query = _QUERY.search(address)
    return address.rfind("@", 0, query.start() if query else None) + 1


def _without_values(text: str, alone: bool) -> str:
    shown, place = [], 0
    while found := _NAME.search(text, place):
        shown.append(text[place : found.end()])
        place = found.end()
        value = _SHOWN if _SHOWN.match(text, place) else _value_at(found, alone)
        if is_secret(found[1]) and (hidden := value.match(text, place)):
            shown.append(HIDDEN)
            place = hidden.end()
    return "".join([*shown, text[place:]])


def _value_at(name: re.Match[str], alone: bool) -> re.Pattern[str]:
    if ":" in name[2]:
        return _STRING
    if alone:
        return _LAST_PARAMETER
    return _PARAMETER if name.string[: name.start()][-1:] in ("?", "&", ";", "/") else _WORD


def is_secret(name: str) -> bool:
    """Tell whether a value of this name is a secret: `password`, `user-pw`, `apiKey`; not `key-int-max`, `author`."""
    parts = [part.lower() for part in _PARTS.findall(unquote(unquote(name)))]
    together = "".join(parts)
    if not parts or together.endswith("useragent"):
        return False
    return ANYWHERE.search(together) is not None or parts[-1] == "key" or not ALONE.isdisjoint(parts)
