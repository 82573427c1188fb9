"""Limits that cannot mean anything, refused where they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rayal.errors import ConfigError
from rayal.selectors.arguments import NO_FEATURES, check_feature
from rayal.types import OUTPUTS, PREDICTED_CLASS

if TYPE_CHECKING:
    from rayal.selectors.limits import Limits

_BOUNDS = ("quota", "quotas", "least", "balance", "shares")
_BY_NAME = ("quotas", "least", "shares")
_MOST_MONEY = 1e15  # whole numbers up to there are exact in float64
_LEAST_MONEY = 1e-10  # twelve digits below it are steps of 1e-22: no power beyond is exact


def check_limits(limits: Limits) -> None:
    """Refuses bounds without a group, a group without bounds, bounds at odds with one another,
    money without costs, thresholds out of range, and limits that limit nothing.

    Raises:
        ConfigError: they are one of these; the message names the first.
    """
    _check_group(limits)
    _check_bounds(limits)
    if (limits.cost is None) != (limits.max_cost is None):
        raise ConfigError(
            f"limits.cost is {limits.cost!r} and limits.max_cost {limits.max_cost!r}, expected "
            "both or neither: the column of what rows cost, and the most that a batch may cost"
        )
    if limits.cost in (*NO_FEATURES, ""):
        raise ConfigError(
            f"limits.cost is {limits.cost!r}, expected a column of what a row costs, and neither "
            "an id nor a label; name one"
        )
    most = limits.max_cost
    if most is not None and most != 0 and not _LEAST_MONEY <= most <= _MOST_MONEY:
        raise ConfigError(
            f"limits.max_cost is {most!r}, expected 0, or a number from {_LEAST_MONEY:g} to "
            f"{_MOST_MONEY:g}; count in other units"
        )
    if limits.near is not None and not 0.0 <= limits.near < 1.0:
        raise ConfigError(
            f"limits.near is {limits.near!r}, expected a cosine of at least 0 and below 1; for "
            "equal rows name what must be equal in limits.duplicates"
        )
    for feature in (limits.feature, limits.duplicates):
        if feature is not None:
            check_feature(limits, feature)
    if not limits.needs:
        raise ConfigError(
            "limits says nothing, expected group, cost, duplicates or near; leave limits out "
            "where there are none"
        )
    if limits.classes is not None:
        check_classes(limits)


def check_classes(limits: Limits) -> None:
    """Refuses groups that are no class, where rows are grouped by class.

    Raises:
        ConfigError: `strict`, and there is one.
    """
    wrong = limits.no_classes
    if not wrong or not limits.strict:
        return
    known = "classes are numbered from 0 on, in the order of the probabilities"
    if limits.classes is not None:
        known = f"the classes are {listed(limits.classes)}"
    raise ConfigError(
        f"limits name groups that are no class: {listed(wrong)}; {known}: correct them in limits, "
        "say what classes are called (classes of rayal select, vocabulary.classes of rayal run), "
        "or take what there is with limits.strict=false"
    )


def listed(groups: Sequence[int | str]) -> str:
    """Gives some groups to read."""
    more = f" and {len(groups) - 5} more" if len(groups) > 5 else ""
    return ", ".join(map(str, groups[:5])) + more


def _check_group(limits: Limits) -> None:
    values = {name: getattr(limits, name) for name in _BOUNDS}
    given = [name for name, value in values.items() if value is not None and value is not False]
    if limits.group in (*OUTPUTS, *NO_FEATURES, ""):
        raise ConfigError(
            f"limits.group is {limits.group!r}, expected '{PREDICTED_CLASS}' or a column of "
            "whole numbers or text, and neither an output, an id nor a label; name one"
        )
    if (limits.group is None) != (not given):
        said = " and ".join(f"limits.{name}" for name in given) or "no quota"
        raise ConfigError(
            f"limits.group is {limits.group!r} and there is {said}, expected a group with quota, "
            "quotas, least, balance or shares, or none of them"
        )
    alone = [name for name in given if name in ("balance", "shares")]
    if alone and len(given) > 1:
        raise ConfigError(
            f"limits has {' and '.join(given)}, expected {alone[0]} alone: it says already how "
            "many rows each group gives"
        )


def _check_bounds(limits: Limits) -> None:
    for name in ("quota", *_BY_NAME):
        bound = getattr(limits, name)
        is_named = isinstance(bound, Mapping) and name in _BY_NAME
        if bound is None or (not is_named and name in ("quota", "least") and _is_count(bound)):
            continue
        if not is_named:
            wanted = "a count from 0 on" if name in ("quota", "least") else "one for each group"
            raise ConfigError(f"limits.{name} is {bound!r}, expected {wanted}")
        fits = _is_share if name == "shares" else _is_count
        for group, value in bound.items():
            if not fits(value) or not isinstance(group, int | str):
                raise ConfigError(
                    f"limits.{name} is {value!r} for group {group!r}, expected "
                    f"{'a share above 0' if name == 'shares' else 'a count from 0 on'} for a group "
                    "that is a whole number or a text"
                )
    for group in {*limits.most_named, *limits.least_named, None}:
        least, most = limits.least_of(group), limits.most_of(group)
        if most is not None and least > most:
            raise ConfigError(
                f"limits.least{'' if group is None else f' of group {group}'} is {least}, more "
                f"than its quota, {most}; lower the one or raise the other"
            )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_share(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0
