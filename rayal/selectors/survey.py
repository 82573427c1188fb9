"""What limits ask of all slices before the first pick, and the room that follows from it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rayal.errors import ConfigError, ScoringError
from rayal.selectors.alike import flat
from rayal.selectors.limit_arguments import check_classes, listed
from rayal.selectors.limits import Limits, one_a_row
from rayal.selectors.quotas import Int64s, Quotas, balanced, in_shares
from rayal.selectors.room import Room, named
from rayal.types import Candidates, Ids, Slice

_BLOCK_ROWS = 16_384


class Problem(NamedTuple):
    """What is wrong with some rows."""

    what: str
    num_rows: int
    first_id: int


class Survey(NamedTuple):
    """What a slice says of its rows: what is wrong, and where it matters, its groups."""

    problems: tuple[Problem, ...]
    codes: Ids
    sizes: Int64s
    texts: np.ndarray
    widths: tuple[int, ...]  # of the features that are compared
    is_enough: bool  # its groups alone leave room for the budget, and nobody need count them


def open_room(
    limits: Limits, candidates: Candidates, labelled: Candidates, budget: int, step: int
) -> Room:
    """Gives the room of an empty batch. Asks both sides once, at `step`; when it is asked about
    duplicates it asks labelled rows from `step` + 1 on.

    O(M D) where features are compared, O(M log M) where groups are counted, else O(M). Where bounds
    hang on the sizes of groups, 48 bytes a group and slice travel; where `strict` alone asks for
    them, of a slice whose groups leave no room for the budget.

    Raises:
        ScoringError: a cost is negative or not finite, a group no whole number, or a compared
            feature not finite or of several widths.
        ConfigError: `strict`, and groups cannot give what they must, are named and not there or no
            class, or leave room for fewer rows than are to be picked.
    """
    budget = min(budget, candidates.num_rows)
    answers = candidates.each(survey, step, limits, budget)
    asks_labelled = limits.compared or (limits.named and not limits.is_of_predictions)
    told = labelled.each(survey, step, limits, None) if asks_labelled else []
    _refuse(limits, [*answers, *told])
    there = [one for one in answers if len(one.codes)]
    codes, at = np.unique(_joined([one.codes for one in there]), return_inverse=True)
    sizes = np.zeros(len(codes), np.int64)
    np.add.at(sizes, at, _joined([one.sizes for one in there]))
    check_classes(limits)
    names = {code: str(group) for group, code in limits.codes.items()}
    if limits.is_of_predictions:
        names.update(enumerate(map(str, limits.classes or ())))
    for one in there:
        texts = zip(one.codes.tolist(), one.texts.tolist(), strict=True)
        names.update({code: named(text) for code, text in texts if text})
    notes = _absent(limits, codes, _joined([one.codes for one in told]))
    quotas = _quotas(limits, codes, sizes, budget, names, notes)
    room = Room(limits, budget, quotas, names, labelled, step + 1)
    room.notes += notes
    if _asks_space(limits) and not any(one.is_enough for one in answers):
        room.space = int(np.minimum(sizes, quotas.of(codes)[0]).sum())
    if limits.cost is None:  # money may end a batch before its quotas do, and that is no error
        room.short(min(budget, room.space))
    return room


def survey(part: Slice, step: int, limits: Limits, budget: int | None) -> Survey:
    """Asks a slice what is wrong with its rows, and how many each group has, where the room for a
    batch hangs on it. `budget`: of candidates; None: these are labelled rows."""
    is_candidate = budget is not None
    problems = [_not_finite(part, name) for name in limits.compared]
    codes = sizes = np.empty(0, np.int64)
    texts = np.empty(0, "S1")
    is_enough = False
    if is_candidate and len(part):
        problems += [_no_score(part), _no_cost(part, limits), _no_group(part, limits)]
    asks = limits.counts_groups or (is_candidate and _asks_space(limits))
    if len(part) and (is_candidate or not limits.is_of_predictions) and asks:
        codes, first, sizes = np.unique(limits.groups(part), return_index=True, return_counts=True)
        if budget is not None and not limits.counts_groups:
            is_enough = int(np.minimum(sizes, limits.quota or 0).sum()) >= budget
        if is_enough:
            codes, first, sizes = codes[:0], first[:0], sizes[:0]
        texts = limits.texts(part, first)
    widths = tuple(part.feature(name)[:1].size if len(part) else 0 for name in limits.compared)
    return Survey(tuple(one for one in problems if one), codes, sizes, texts, widths, is_enough)


def _asks_space(limits: Limits) -> bool:
    """Whether it matters how many rows the groups' quotas allow."""
    return limits.group is not None and limits.strict


def _not_finite(part: Slice, name: str) -> Problem | None:
    values = part.feature(name)
    if values.dtype.kind != "f":
        return None
    bad: list[np.ndarray] = []
    for lo in range(0, len(part), _BLOCK_ROWS):
        block = flat(values[lo : lo + _BLOCK_ROWS])
        bad.append(lo + np.flatnonzero(~np.isfinite(block).all(axis=1)))
    return _problem(part, f"'{name}' is NaN or infinite", bad)


def _no_score(part: Slice) -> Problem | None:
    bad = np.flatnonzero(~np.isfinite(part.scores))
    return _problem(part, "the score is NaN or infinite", [bad])


def _no_cost(part: Slice, limits: Limits) -> Problem | None:
    if limits.cost is None:
        return None
    costs = one_a_row(part.feature(limits.cost), limits.cost)
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(~((costs >= 0) & (costs < np.inf)))
    return _problem(part, f"'{limits.cost}' is negative, NaN or infinite", [bad])


def _no_group(part: Slice, limits: Limits) -> Problem | None:
    values = limits.raw_groups(part)
    if values is None or values.dtype.kind != "f":
        return None
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(~((np.rint(values) == values) & (np.abs(values) < 2.0**53)))
    return _problem(part, f"'{limits.group}' is no whole number", [bad])


def _problem(part: Slice, what: str, bad: list[np.ndarray]) -> Problem | None:
    rows = _joined(bad)
    return Problem(what, len(rows), int(part.ids[rows].min())) if len(rows) else None


def _refuse(limits: Limits, surveys: list[Survey]) -> None:
    problems = [one for survey in surveys for one in survey.problems]
    if problems:
        what = problems[0].what
        same = [one for one in problems if one.what == what]
        raise ScoringError(
            f"{what} in {sum(one.num_rows for one in same)} rows (first sample_id "
            f"{min(one.first_id for one in same)}), and limits cannot judge them; correct the "
            "column, or leave these rows out of the pool"
        )
    for j, name in enumerate(limits.compared):
        widths = sorted({survey.widths[j] for survey in surveys} - {0})
        if len(widths) > 1:
            raise ScoringError(
                f"'{name}' has {' and '.join(map(str, widths))} numbers a row, expected the same "
                "in candidates and labelled rows; compare another feature in limits"
            )


# ------------------------------------------------------------------------------------- quotas


def _absent(limits: Limits, codes: Ids, known: Ids) -> list[str]:
    """Gives what to say of groups that bounds name and no candidate has. A group that labelled rows
    have is used up, and a class may be predicted again; what is nowhere is mistyped.

    Raises:
        ConfigError: `strict`, and there is one; those that `least` asks for are told elsewhere.
    """
    code_of, may_come = limits.codes, {*known.tolist()}
    told = (code_of[group] for group, least in limits.least_named.items() if least)
    there = {*codes.tolist(), *told}
    absent = [group for group, code in code_of.items() if code not in there]
    nowhere = [group for group in absent if code_of[group] not in may_come]
    if nowhere and limits.strict and not limits.is_of_predictions:
        raise ConfigError(
            f"limits name groups that no row has: {listed(nowhere)}; correct their names in "
            "limits, leave them out, or take what there is with limits.strict=false"
        )
    return [f"limits name groups that no candidate has: {listed(absent)}"] if absent else []


def _quotas(
    limits: Limits,
    codes: Ids,
    sizes: Int64s,
    budget: int,
    names: dict[int, str],
    notes: list[str],
) -> Quotas:
    """Gives what each group may and must give, and notes what cannot be met."""
    none = np.zeros(len(codes), np.int64)
    if limits.balance:
        most = balanced(sizes, budget)
        notes += _scant("balance", codes, sizes, most, names)
        return Quotas(codes, most, none, 0)
    code_of, size_of = limits.codes, dict(zip(codes.tolist(), sizes.tolist(), strict=True))
    if limits.shares is not None:
        shares = {code_of[group]: share for group, share in limits.shares.items()}
        codes = np.array(sorted(shares), np.int64)
        sizes = np.array([size_of.get(code, 0) for code in codes.tolist()], np.int64)
        most = in_shares(sizes, np.array([shares[code] for code in codes.tolist()]), budget)
        notes += _scant("shares", codes, sizes, most, names)
        return Quotas(codes, most, np.zeros(len(codes), np.int64), 0)
    others = budget if limits.quota is None else limits.quota
    named_most = {code_of[group]: most for group, most in limits.most_named.items()}
    least = {code_of[group]: count for group, count in limits.least_named.items()}
    if isinstance(limits.least, int):
        least = dict.fromkeys(codes.tolist(), limits.least)
    least = _within(limits, least, size_of, budget, names, notes)
    bound = sorted({*named_most, *least})
    return Quotas(
        np.array(bound, np.int64),
        np.array([named_most.get(code, others) for code in bound], np.int64),
        np.array([least.get(code, 0) for code in bound], np.int64),
        others,
    )


def _within(
    limits: Limits,
    least: dict[int, int],
    size_of: dict[int, int],
    budget: int,
    names: dict[int, str],
    notes: list[str],
) -> dict[int, int]:
    """Gives what groups must give as far as they can, and the budget allows.

    Raises:
        ConfigError: `strict`, and that is less than was asked for.
    """
    short = {code: size_of.get(code, 0) for code in least if size_of.get(code, 0) < least[code]}
    for code in sorted(short)[:1]:
        found = (
            f"limits.least asks for {least[code]} rows of group {names.get(code, code)}, and "
            f"{short[code]} candidates are of it"
        )
        more = f" ({len(short) - 1} more groups are short)" if len(short) > 1 else ""
        if limits.strict:
            raise ConfigError(
                f"{found}{more}; lower it, keep more candidates (strategy.num_candidates), or take "
                "what there is with limits.strict=false"
            )
        notes.append(found + more)
    least = {code: min(count, size_of.get(code, 0)) for code, count in least.items()}
    if sum(least.values()) > budget:
        found = f"limits.least asks for {sum(least.values())} rows in all, and {budget} are picked"
        if limits.strict:
            raise ConfigError(
                f"{found}; raise the budget, lower it, or take what fits with limits.strict=false"
            )
        notes.append(found)
        wanted = np.array([least[code] for code in sorted(least)], np.int64)
        least = dict(zip(sorted(least), balanced(wanted, budget).tolist(), strict=True))
    return least


def _scant(rule: str, codes: Ids, sizes: Int64s, most: Int64s, names: dict[int, str]) -> list[str]:
    """Gives what to say of groups that gave all they have, so that others give more."""
    level = int(most.max(initial=0))
    short = (
        np.flatnonzero((most == sizes) & (most < level))
        if rule == "balance"
        else (np.flatnonzero(most == sizes))
    )
    said = ", ".join(
        f"{names.get(c, c)} {n}"
        for c, n in zip(codes[short][:5].tolist(), sizes[short][:5].tolist(), strict=True)
    )
    if not len(short):
        return [f"{rule}: {len(codes)} groups, the largest of {level} rows"]
    more = ", ..." if len(short) > 5 else ""
    return [
        f"{rule}: {len(codes)} groups, the largest of {level} rows; {len(short)} give all they "
        f"have ({said}{more}), and the others share the rest"
    ]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
