"""What may change in the configuration of a run that has begun."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

_ABSENT = "(absent)"


def compare_configs(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    may_change: Sequence[str] = (),
    may_grow: Sequence[str] = (),
) -> list[str]:
    """Gives one `key: old -> new` line for each difference that a run does not allow, by key.

    `may_change` are prefixes of dotted keys: "engine." covers the whole node (also when null),
    "labeler.poll" covers labeler.poll_s. `may_grow` are patterns of whole keys ("rules.*.hours"),
    of numbers that may go up; null is "no limit" there, above every number. Lists compare item by
    item: `rules.0.value`.
    """
    before, after = _flat(old), _flat(new)
    lines = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key, _ABSENT), after.get(key, _ABSENT)
        # 1 and 1.0 are the same number to every part; true and 1 are not.
        if was == now and isinstance(was, bool) == isinstance(now, bool):
            continue
        if any(key.startswith(prefix) or f"{key}." == prefix for prefix in may_change):
            continue
        if any(fnmatchcase(key, pattern) for pattern in may_grow) and _grows(was, now):
            continue
        lines.append(f"{key}: {_text(was)} -> {_text(now)}")
    return lines


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, Mapping) and node:
        pairs = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, list | tuple) and node:
        pairs = [(str(index), value) for index, value in enumerate(node)]
    else:
        return {prefix: node} if prefix else {}
    flat: dict[str, Any] = {}
    for key, value in pairs:
        flat.update(_flat(value, f"{prefix}.{key}" if prefix else key))
    return flat


def _grows(was: Any, now: Any) -> bool:
    if was is None or _is_number(was):
        return now is None or (was is not None and _is_number(now) and now >= was)
    return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is _ABSENT:
        return str(_ABSENT)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
