"""What a batch may still take, kept by the driver as it picks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rayal.errors import ConfigError
from rayal.selectors.alike import (
    BLOCK_ROWS,
    Carried,
    Kept,
    Points,
    as_bytes,
    like_labelled,
    near,
    points,
)
from rayal.selectors.limits import Limits
from rayal.selectors.quotas import Int64s, Quotas
from rayal.types import Candidates, Ids, Slice

Mask = npt.NDArray[np.bool_]
_NAMED = 5  # groups that a note names


class Gate(NamedTuple):
    """What slices must know to see which of their rows may be picked: it only closes."""

    codes: Ids  # groups, ascending
    left: Int64s  # rows that each may still give
    others: int  # rows that any other group may still give
    money: int | None  # steps

    def bars(self, limits: Limits, part: Slice) -> Mask:
        """Gives (m,) True for rows of a slice that may not be picked any more."""
        most = Quotas(self.codes, self.left, self.left, self.others).of(limits.groups(part))[0]
        barred = most < 1
        if self.money is not None:
            barred |= limits.costs(part) > self.money
        return barred


class Room:
    """What a batch may still take: of rows, of each group, of money, and nothing it has already.

    A row is admitted where its group has given less than it may, where what remains of the budget
    suffices for what other groups must still give, and where the money suffices. A row that is not
    admitted once never will be: methods whose gains only fall stay exact (a matroid, but for the
    money). What it says depends on the rows taken and their order alone.
    """

    def __init__(
        self,
        limits: Limits,
        budget: int,
        quotas: Quotas,
        names: dict[int, str],
        labelled: Candidates,
        labelled_step: int = 0,
    ) -> None:
        self.limits, self.quotas, self.names = limits, quotas, names
        self.left = self.budget = self.space = budget  # space: rows that the groups' quotas allow
        self.money = limits.most_steps
        self.counts: dict[int, int] = {}
        self.num_like_labelled = self.num_like_taken = 0
        self.notes: list[str] = []
        self.only_least = False  # groups give what they must, and no more
        self._most = dict(zip(quotas.codes.tolist(), quotas.most.tolist(), strict=True))
        self._least = dict(zip(quotas.codes.tolist(), quotas.least.tolist(), strict=True))
        self.num_unmet = int(quotas.least.sum())
        self._kept = Kept(limits.near)
        self._labelled, self._step = labelled, labelled_step
        self._judged: _Judged | None = None  # the rows that were asked about last

    def ask_from(self, step: int) -> None:
        """Says from which step on labelled rows may be asked: others ask them, too."""
        self._step = max(self._step, step)

    # ------------------------------------------------------------------------------ the rules

    def may(self, group: int, cost: int) -> bool:
        """Whether a row of this group and cost may be picked now."""
        return self.gives(group) > 0 and (self.money is None or cost <= self.money)

    def gives(self, group: int) -> int:
        """Gives how many rows a group may still give."""
        given = self.counts.get(group, 0)
        missing = max(0, self._least.get(group, 0) - given)
        if self.only_least:
            return missing
        return min(
            self._most.get(group, self.quotas.others) - given, self.left - self.num_unmet + missing
        )

    def admits(self, carried: Carried) -> Mask:
        """Gives (n,) which rows may be picked now, as far as groups and money go."""
        if self._judged is None or self._judged.carried is not carried:
            self._judged = _Judged(self, carried)
        admitted = self._judged.gives(self) > 0
        return admitted if self.money is None else admitted & (carried.costs <= self.money)

    @property
    def gate(self) -> Gate:
        """What slices must know."""
        codes = sorted({*self._most, *self._least, *self.counts})
        left = np.array([max(0, self.gives(code)) for code in codes], np.int64)
        others = max(0, min(self.quotas.others, self.left - self.num_unmet))
        others = 0 if self.only_least else others
        return Gate(np.array(codes, np.int64), left, others, self.money)

    def like(self, carried: Carried) -> Mask:
        """Gives (n,) which rows are like a labelled, pending or picked one. Asks labelled rows."""
        return self.like_labelled(carried) | self._kept.like(carried)

    def like_labelled(self, carried: Carried) -> Mask:
        """Gives (n,) which rows are like a labelled or pending one."""
        found = np.zeros(len(carried.groups), bool)
        if not self.limits.compared or not len(found) or not self._labelled.num_rows:
            return found
        self._step += 1
        asked = (self.limits, carried.digests, carried.vectors)
        for answer in self._labelled.each(like_labelled, self._step - 1, *asked):
            found |= answer
        return found

    def like_row(self, carried: Carried, at: int) -> Mask:
        """Gives (n,) which of these rows are like the one at this place; it is like itself."""
        found = np.zeros(len(carried.groups), bool)
        if self.limits.duplicates is not None:
            found |= (carried.digests == carried.digests[at]).all(axis=1)
        if self.limits.near is not None:
            if self._judged is None or self._judged.carried is not carried:
                self._judged = _Judged(self, carried)
            found |= near(self._judged.points, points(carried.vectors[[at]]), self.limits.near)[
                :, 0
            ]
        return found

    def take(self, carried: Carried, at: int) -> None:
        """Picks a row."""
        group, cost = int(carried.groups[at]), int(carried.costs[at])
        self._pay(group, cost, carried.texts[at])
        if self.limits.compared:
            self._kept.add(carried.take(slice(at, at + 1)))

    def _pay(self, group: int, cost: int, text: bytes) -> None:
        given = self.counts.get(group, 0) + 1
        self.counts[group] = given
        if self._judged is not None:
            self._judged.count(group)
        self.num_unmet -= given <= self._least.get(group, 0)
        self.left -= 1
        if self.money is not None:
            self.money -= cost
        if text and group not in self.names:
            self.names[group] = named(text)

    # ------------------------------------------------------------------------- many rows at once

    def fill(
        self, carried: Carried, like_labelled: Mask, stops: Sequence[tuple[int, int]]
    ) -> tuple[list[int], int]:
        """Picks rows in the order given wherever there is room. Gives their places, and how many
        rows were looked at: at a stop, (place, group), it ends if the group may still give rows."""
        taken: list[int] = []
        waiting = list(reversed(stops))
        compared = bool(self.limits.compared)
        size = BLOCK_ROWS if compared else max(1, len(carried.groups))
        for lo in range(0, len(carried.groups), size):
            block = carried.take(slice(lo, lo + size))
            groups, costs = block.groups.tolist(), block.costs.tolist()
            alike = _Alike(self, block) if compared else None
            block_taken: list[int] = []
            for row, (group, cost) in enumerate(zip(groups, costs, strict=True)):
                while waiting and waiting[-1][0] <= lo + row and self.gives(waiting[-1][1]) < 1:
                    waiting.pop()
                if self.left < 1 or (waiting and waiting[-1][0] <= lo + row):
                    self._keep(block, block_taken)
                    return taken, lo + row
                if not self.may(group, cost):
                    continue
                if alike is not None:
                    if like_labelled[lo + row]:
                        self.num_like_labelled += 1
                        continue
                    if alike.has(row):
                        self.num_like_taken += 1
                        continue
                    alike.add(row)
                self._pay(group, cost, block.texts[row])
                block_taken.append(row)
                taken.append(lo + row)
            self._keep(block, block_taken)
        return taken, len(carried.groups)

    def _keep(self, block: Carried, rows: list[int]) -> None:
        if self.limits.compared and rows:
            self._kept.add(block.take(np.array(rows)))

    # ------------------------------------------------------------------------------- what to say

    def name(self, group: int) -> str:
        """Gives how a group is called."""
        return self.names.get(group, str(group))

    def reason(self, group: int, place: int) -> str:
        """Gives which bound a group's row, picked as its `place`-th, met; "" without a group."""
        if self.limits.group is None:
            return ""
        least, most = self._least.get(group, 0), self._most.get(group, self.quotas.others)
        bound = f" of at least {least}" if place <= least else f" of at most {most}"
        if place > least and most >= self.budget:
            bound = ""  # there is none
        return f", {place}{bound} of group {self.name(group)}"

    def full(self) -> list[str]:
        """Gives what to say of groups that gave all that a quota allows."""
        limits = self.limits
        if limits.quota is None and limits.quotas is None:
            return []
        most = {code: self._most.get(code, self.quotas.others) for code in sorted(self.counts)}
        full = [code for code in most if self.counts[code] >= most[code] < self.budget]
        names = ", ".join(self.name(code) for code in full[:_NAMED])
        more = ", ..." if len(full) > _NAMED else ""
        return [f"{len(full)} groups met their quota ({names}{more})"] if full else []

    def unmet(self) -> list[str]:
        """Gives what to say of groups that gave less than they must.

        Raises:
            ConfigError: `strict`, and there is one.
        """
        short = [
            code for code, least in sorted(self._least.items()) if self.counts.get(code, 0) < least
        ]
        if not short:
            return []
        said = ", ".join(
            f"{self.counts.get(code, 0)} of {self._least[code]} rows of group {self.name(code)}"
            for code in short[:_NAMED]
        )
        if self.limits.strict:
            raise ConfigError(
                f"limits.least is not met: {said}; others cost too much or are duplicates: lower "
                "it, or take what there is with limits.strict=false"
            )
        return [f"least is not met: {said}"]

    def short(self, num_picked: int) -> list[str]:
        """Gives what to say of fewer rows than the budget.

        Raises:
            ConfigError: `strict`, and the groups' quotas allow no more.
        """
        if num_picked >= self.budget:
            return []
        if self.limits.strict and num_picked >= self.space:
            raise ConfigError(
                f"limits on {self.limits.group} leave room for {self.space} rows, and "
                f"{self.budget} are to be picked; raise quotas, lower the budget, keep more "
                "candidates (strategy.num_candidates), or take what fits with limits.strict=false"
            )
        return [f"limits left {num_picked} of {self.budget} rows to pick"]


class _Judged:
    """What is known of rows that are asked about after every pick."""

    def __init__(self, room: Room, carried: Carried) -> None:
        self.carried = carried
        codes, self.at = np.unique(carried.groups, return_inverse=True)
        self.most, self.least = room.quotas.of(codes)
        self.given = np.array([room.counts.get(code, 0) for code in codes.tolist()], np.int64)
        self.place = {code: row for row, code in enumerate(codes.tolist())}

    @cached_property
    def points(self) -> Points:
        return points(self.carried.vectors)

    def count(self, group: int) -> None:
        if group in self.place:
            self.given[self.place[group]] += 1

    def gives(self, room: Room) -> Int64s:
        """Gives (n,) how many rows the group of each may still give, as `Room.gives` does."""
        missing = np.maximum(0, self.least - self.given)
        if room.only_least:
            return missing[self.at]
        spare = room.left - room.num_unmet
        return np.minimum(self.most - self.given, spare + missing)[self.at]


class _Alike:
    """Which rows of a block are like one taken before, or like one taken from the block."""

    def __init__(self, room: Room, block: Carried) -> None:
        self.digests = as_bytes(block.digests)  # empty where nobody asks
        self.seen: set[bytes] = set()
        # Rows that cannot be picked any more are not measured.
        open_rows = np.flatnonzero(room.admits(block))
        self.like = np.zeros(len(block.groups), bool)
        self.like[open_rows] = room._kept.like(block.take(open_rows))
        self.own: Mask | None = None
        if room.limits.near is not None:
            some = points(block.vectors)
            self.own = near(some, some, room.limits.near)

    def has(self, row: int) -> bool:
        return bool(self.like[row]) or bool(self.digests and self.digests[row] in self.seen)

    def add(self, row: int) -> None:
        if self.digests:
            self.seen.add(self.digests[row])
        if self.own is not None:
            self.like |= self.own[row]


def named(text: bytes) -> str:
    """Gives how a group of text is called; its first 32 bytes, whole letters."""
    return text.decode("utf-8", "ignore")
