"""Text without its secrets. A page is mailed around; a key that slipped into it is a lost key.

Configuration should name an environment variable and not hold a key; this is for when it does.
"""

from __future__ import annotations

import re
from collections.abc import Collection

MASK = "***"

_SECRET_WORD = (
    r"passw(?:or)?d|passphrase|secret|token(?!s|iz)|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|account[_-]?key|credential|authorization|signature|sas[_-]?key"
)
_KEY = rf"[\"']?[\w.-]*(?:{_SECRET_WORD})[\w.-]*[\"']?"
_SECRET_LINE = re.compile(
    rf"^(?P<indent>\s*)(?P<key>(?:- )?{_KEY}\s*[:=])(?P<value>.*)$", re.IGNORECASE
)
_SECRET_PAIR = re.compile(rf"({_KEY}\s*[:=]\s*)(\"[^\"]*\"|'[^']*'|[^\s,}}\]&]+)", re.IGNORECASE)
_HARMLESS = re.compile(
    r"^[\"']?(?:\$\{[^}]*\}|null|~|true|false)?[\"']?(?:\s+#.*)?$", re.IGNORECASE
)
_OPENS_BLOCK = re.compile(r"^(?:[|>][+-]?\d?)?(?:\s*#.*)?$")

# (pattern, what stays): secrets that are known by their form, wherever they stand.
_ANYWHERE = (
    (re.compile(r"([a-z][\w+.-]*://[^\s/:@]*):[^\s/@]+@", re.IGNORECASE), rf"\1:{MASK}@"),
    (re.compile(r"([a-z][\w+.-]*://)[^\s/:@]{20,}@", re.IGNORECASE), rf"\1{MASK}@"),
    (
        re.compile(rf"([?&][\w.-]*(?:{_SECRET_WORD}|sig)[\w.-]*=)[^&\s]+", re.IGNORECASE),
        rf"\1{MASK}",
    ),
    (re.compile(r"-----BEGIN [A-Z ]*KEY-----.*?(?:-----END [A-Z ]*KEY-----|\Z)", re.DOTALL), MASK),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"\b(?:sk|pk|rk)[-_][\w-]{16,}"), MASK),
    (re.compile(r"\b(?:gh[a-z]_|github_pat_|glpat-|hf_|xox[a-z]-)[\w-]{16,}"), MASK),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), MASK),
)


def mask(text: str, secrets: Collection[str] = ()) -> str:
    """Gives the text without what has the form of a secret, and without the `secrets` given."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern, stays in _ANYWHERE:
        text = pattern.sub(stays, text)
    return text


def mask_config(text: str, secrets: Collection[str] = ()) -> str:
    """Gives a YAML text without secrets: also the values of keys that sound like one.

    References to environment variables (`${oc.env:NAME}`) stay: they say where a key comes from.
    """
    lines: list[str] = []
    hidden_below: int | None = None  # the indent of a secret key whose value is on further lines
    for line in mask(text, secrets).splitlines():
        indent = len(line) - len(line.lstrip())
        if hidden_below is not None and (not line.strip() or indent > hidden_below):
            continue
        hidden_below = None
        found = _SECRET_LINE.match(line)
        if found is None:
            lines.append(_SECRET_PAIR.sub(_mask_pair, line))
            continue
        value = found["value"].strip()
        if _OPENS_BLOCK.match(value):
            hidden_below = indent
        if _HARMLESS.match(value) and value:
            lines.append(line)
        else:
            lines.append(f"{found['indent']}{found['key']} {MASK}")
    return "\n".join(lines)


def _mask_pair(pair: re.Match[str]) -> str:
    return pair[0] if _HARMLESS.match(pair[2]) else f"{pair[1]}{MASK}"
