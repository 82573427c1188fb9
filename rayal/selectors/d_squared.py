"""D^2 sampling over slices by rejection: the exact law of k-means++ without a pass a pick.

Each pick is drawn in proportion to its squared distance to the nearest center. Distances only fall,
so a stale weight w >= D^2 is an upper bound: a row drawn in proportion to w and accepted with
chance D^2 / w has exactly the law wanted. Proposals come in batches, since stale weights stay as
they are; a slice measures those rows alone against the centers. Where too many are refused, the
rows that hold 98 % of the weight are brought up to date.

Weights are int64 and summed exactly, a proposal is an integer below their sum, located by hash
bucket of the id, then by id, and all counters are integers: no slicing changes a draw. Costs about
B^2 / (2 x acceptance) distances and a few refreshes, where a pass a pick takes M B.

References: Arthur & Vassilvitskii, k-means++, SODA 2007 (the law); Cohen-Addad et al., Fast and
Accurate k-means++ via Rejection Sampling, NeurIPS 2020, arXiv:2012.11891 (rejection, there from a
tree; here from stale weights).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rayal.keys import hash_u64, salt, uniform
from rayal.selectors.nearest_center import News
from rayal.selectors.potential import FOLLOWED, Potential, sample_size
from rayal.selectors.room import Room
from rayal.selectors.space import Int64s
from rayal.selectors.stale_weights import (
    NO_BIN,
    Measured,
    gathered,
    histogram,
    learn,
    measure,
    measure_all,
    open_slice,
    refresh,
    rows_of_buckets,
    weigh,
)
from rayal.selectors.within import LABELLED_STEP, Told, retake
from rayal.types import Candidates, Ids, Work

_WEIGHT_BITS = 60  # all weights together stay below 2^61
_BUCKET_BITS = 6  # a bucket holds about 64 rows, and there are at most 2^20 of them
_PROPOSALS = 512
_REFUSED = 8 * _PROPOSALS  # in a row: perhaps no distance is left, and only a refresh can tell
_HEAVY = 0.98  # of the weight: the rows that a refresh brings up to date
_GROWTH = 1.5  # of the batch between two refreshes
_REFRESH_PAYS = 2.0  # a distance of a proposal costs more than one of a refresh, in larger blocks


def work_of_draws(num_candidates: int, budget: int, width: int, kept_bytes: float) -> Work:
    """Gives the work of drawing B of M rows, of which `kept_bytes` a row stay beside 48 of weights.

    Rows are opened, weighed and summed some times, and about B^2 / (2 x acceptance) distances are
    measured, each pick with some questions. Measured (mixture, D = 32, 20,000 to 200,000 rows, 200
    and 800 picks): a row takes as long as a hundred of B^2.
    """
    amount = (100.0 * num_candidates + float(budget) ** 2) * width
    return Work(amount, max(1, budget), num_candidates * (48.0 + kept_bytes))


class Drawn(NamedTuple):
    """An accepted row."""

    sample_id: int
    score: float
    squared: float  # D^2 when it was drawn, in units of the space
    chance: float  # of this draw, given those before; NaN: not known, see `potential`
    nearest: int  # the number of its nearest center
    labelled_squared: float


class First(NamedTuple):
    """A slice's best first pick, where nothing is labelled."""

    drawn: Drawn
    precedence: float  # the highest of all slices is picked; of equals the smallest id
    num_rows: int  # that it was drawn from, each with the same chance; 0: it was not drawn


@dataclass
class Counters:
    """What the driver decides by; integers and quotients of them, so the same for any slicing."""

    drawn: int = 0  # proposals so far
    accepted: int = 0  # of the last batch
    proposed: int = 0  # in the last batch
    refused: int = 0  # since a row was accepted
    undecided: bool = False  # whether to refresh after the last batch
    refreshed_at: int = 0  # picks made before it
    refreshes: int = 0


@dataclass
class DSquared:
    """The driver's side. It asks from `step` on."""

    candidates: Candidates
    space: Any
    num_labelled: int
    stream: int  # salt of the draws
    step: int
    counters: Counters = field(default_factory=Counters)
    room: Room | None = None  # what limits leave
    shift: int = 0  # a squared distance of 1 weighs 2^shift
    picked: list[Drawn] = field(default_factory=list)
    evaluations: int = 0
    _told: int = 0
    _potential: Potential | None = None
    _sums_K: Int64s = field(default_factory=lambda: np.empty(0, np.int64))

    def open(self) -> None:
        """Opens every slice."""
        rows = self.candidates.num_rows
        bits = min(20, max(1, rows.bit_length() - _BUCKET_BITS))
        self.ask(open_slice, self.space, self.num_labelled, bits)
        if self.room is not None:
            self.room.ask_from(LABELLED_STEP)
            self.tell(Told(None, self.room.gate, np.empty(0, np.int64)))

    def tell(self, news: News | Told) -> None:
        """Tells all slices of centers, and of rows that may not be drawn any more."""
        self._told += 1
        self.ask(learn, self._told, news, None if self.room is None else self.room.limits)

    def pick(self, budget: int, keep: Callable[[dict[str, Any]], None]) -> None:
        """Draws until `picked` holds `budget` rows, or no row is left with any distance."""
        if not len(self._sums_K):
            self.refresh(NO_BIN, keep)  # weighs rows by the first bounds
        while len(self.picked) < budget:
            if self.counters.undecided:
                # Decided here and not after a batch, so that a driver that died there decides, too.
                if self.counters.refused >= _REFUSED:
                    self.refresh(0, keep)  # every row: the next first proposal is accepted
                elif lowest_bin := self._is_due(budget):
                    self.refresh(lowest_bin, keep)
                self.counters.undecided = False
            if not int(self._sums_K.sum()) or (self.room is not None and self.room.left < 1):
                return
            new, news, closed = self._batch(budget)
            self.picked += new
            self._tell(news, closed)
            self.counters.undecided = True
            entry = {"picks": new, "closed": closed.tolist(), "counters": asdict(self.counters)}
            keep(entry)

    def _tell(self, news: News | None, closed: Ids) -> None:
        if self.room is not None:
            self.tell(Told(news, self.room.gate, closed))
        elif news is not None:
            self.tell(news)

    def refresh(self, lowest_bin: int, keep: Callable[[dict[str, Any]], None]) -> None:
        """Brings rows whose weight is in this bin or a higher one up to date, and weighs all.

        The unit of weights follows the largest distance left: once a far row is picked, that of
        the others is what weights must tell apart.
        """
        answers = self.ask(refresh, lowest_bin)
        highest = max(one.largest for one in answers)
        room = _WEIGHT_BITS - self.candidates.num_rows.bit_length()
        self.shift = room - math.frexp(max(highest, 5e-324))[1]
        self.evaluations += sum(one.evaluations for one in answers)
        self.counters.refreshed_at = len(self.picked)
        self.counters.refreshes += 1
        self.counters.undecided = False
        self._sums_K = np.sum(self.ask(weigh, self.shift), axis=0)
        keep({"refresh": lowest_bin, "counters": asdict(self.counters)})

    def replay(self, entries: Sequence[dict[str, Any]], tell: Callable[[list[int]], News]) -> None:
        """Does again what an earlier attempt did to the slices, and takes its picks."""
        for entry in entries:
            if "refresh" in entry:
                self.refresh(entry["refresh"], lambda _: None)
            else:
                new = [Drawn(*one) for one in entry["picks"]]
                self.picked += new
                ids = [one.sample_id for one in new]
                retake(self, self.room, ids, tell_all=False)
                self._tell(tell(ids) if ids else None, np.array(entry["closed"], np.int64))
            self.counters = Counters(**entry["counters"])

    def _is_due(self, budget: int) -> int:
        """Gives the bin from which on rows hold 98 % of the weight, if to bring those up to date
        costs less than the proposals that it is expected to save; else 0."""
        one, done = self.counters, len(self.picked)
        if self._rate() >= 0.5 or done < _GROWTH * one.refreshed_at:
            return 0
        sums, counts = np.sum(self.ask(histogram), axis=0)
        from_top = np.cumsum(sums[::-1])
        lowest_bin = NO_BIN - 1 - int(np.searchsorted(from_top, _HEAVY * float(from_top[-1])))
        heavy = int(counts[lowest_bin:].sum())
        since = self.num_labelled + done if one.refreshes == 1 else done - one.refreshed_at
        waste = (1.0 / self._rate() - 1.0) * (budget - done) * (budget + done) / 2.0
        return max(lowest_bin, 1) if heavy * since < _REFRESH_PAYS * waste else 0

    def _rate(self) -> float:
        """Gives the share of proposals that the last batch accepted."""
        one = self.counters
        return max(one.accepted, 0.5) / one.proposed if one.proposed else 1.0

    def _batch(self, budget: int) -> tuple[list[Drawn], News | None, Ids]:
        """Proposes some rows; gives those that are accepted, as picks and as centers, and those
        that limits close."""
        potential = self._followed(budget)
        total = int(self._sums_K.sum())
        left = budget - len(self.picked)
        num_proposed = min(_PROPOSALS, math.ceil(1.5 * left / self._rate()) + 16)
        turns = np.arange(self.counters.drawn, self.counters.drawn + num_proposed)
        numbers = hash_u64(self.stream, 2 * turns).tolist()
        targets = np.array([number * total >> 64 for number in numbers], np.int64)
        ids, weights = self._locate(targets)
        unique, place = np.unique(ids, return_inverse=True)
        limits = None if self.room is None else self.room.limits
        rows = gathered(self.ask(measure, unique, limits))
        self.evaluations += int(rows.evaluations)
        # Those proposed last come first: the rows that an accepted one may still matter to.
        last = np.zeros(len(unique), np.int64)
        np.maximum.at(last, place, np.arange(num_proposed))
        order = np.argsort(-last)
        rows, place = rows.take(order), np.argsort(order)[place]
        lefts = np.searchsorted(-last[order], -np.arange(num_proposed)).tolist()
        unique, points = rows.ids, self.space.place(rows.payload)
        squared, nearest = rows.squared.copy(), rows.nearest.copy()
        closed = self._barred(rows)
        squared[closed] = 0.0
        luck = uniform(self.stream, 2 * turns + 1)
        new: list[Drawn] = []
        accepted: list[int] = []
        stand_for: list[float] = []
        proposed = seen = 0  # of the accepted rows, the potential has seen so many
        for turn in range(num_proposed):
            proposed += 1
            at = int(place[turn])
            # Not rounded, as weights are: the law is that of distances, to their last bit.
            if not luck[turn] * int(weights[turn]) < math.ldexp(float(squared[at]), self.shift):
                continue
            new.append(
                Drawn(
                    int(unique[at]),
                    float(rows.scores[at]),
                    float(squared[at]),
                    math.nan,
                    int(nearest[at]),
                    float(rows.labelled[at]),
                )
            )
            accepted.append(at)
            stand_for.append(total / int(weights[turn]))
            if self.room is not None and rows.carried is not None:
                self.room.take(rows.carried, at)
                closed |= ~self.room.admits(rows.carried) | self.room.like_row(rows.carried, at)
            is_last = len(self.picked) + len(new) == budget
            is_last |= self.room is not None and self.room.left < 1
            if is_last or potential.is_due(len(new) - seen, len(self.picked) + len(new)):
                self._tell_chances(new, seen, potential, points, rows, accepted, stand_for)
                seen = len(new)
            if is_last:
                break
            left_points = self.space.take(points, slice(lefts[turn]))
            _, near = self.space.nearest(left_points, self.space.take(points, slice(at, at + 1)))
            self.evaluations += len(near)
            closer = np.flatnonzero(near < squared[: len(near)])
            squared[closer] = near[closer]
            nearest[closer] = self.num_labelled + len(self.picked) + len(new) - 1
            squared[at] = 0.0  # it is taken; no draw is below 0
            squared[closed] = 0.0
        if seen < len(new):
            self._tell_chances(new, seen, potential, points, rows, accepted, stand_for)
        self.counters.drawn += proposed
        self.counters.accepted, self.counters.proposed = len(new), proposed
        self.counters.refused = 0 if new else self.counters.refused + proposed
        chosen = np.array(accepted, np.int64)
        news = News(tuple(column[chosen] for column in rows.payload), unique[chosen])
        closed[chosen] = False
        return new, news if new else None, np.sort(unique[closed])

    def _followed(self, budget: int) -> Potential:
        """Gives the rows that tell chances: all, or a sample by the weights of the last refresh."""
        if self._potential is not None:
            if not self._potential.is_sample:
                return self._potential
            if self._potential.refreshes == self.counters.refreshes:
                return self._potential
        limits = None if self.room is None else self.room.limits
        is_sample = self.candidates.num_rows > FOLLOWED
        if is_sample:
            total, number = int(self._sums_K.sum()), sample_size(budget)
            own = salt(self.stream, "chances")  # a stream of its own
            start = int(hash_u64(own, np.array([self.counters.refreshes]))[0]) * total >> 64
            targets = [(place * total + start) // number for place in range(number)]
            ids, weights = self._locate(np.array(targets, np.int64))
            unique, first, times = np.unique(ids, return_index=True, return_counts=True)
            rows = gathered(self.ask(measure, unique, limits))
            counts, stand_for = times.astype(np.float64), total / weights[first]
        else:
            rows = gathered(self.ask(measure_all, limits))
            counts = stand_for = np.ones(len(rows.ids))
        self.evaluations += rows.evaluations
        self._potential = Potential(
            self.space,
            rows,
            counts,
            stand_for,
            is_sample,
            self.counters.refreshes,
            self._barred(rows),
        )
        return self._potential

    def _tell_chances(
        self,
        new: list[Drawn],
        seen: int,
        potential: Potential,
        points: Any,
        rows: Measured,
        accepted: Sequence[int],
        stand_for: Sequence[float],
    ) -> None:
        """Writes the chances of the last of the new picks, from the place `seen` on."""
        some = np.array(accepted[seen:], np.int64)
        if self.room is not None and rows.carried is not None:
            potential.close(self.room, rows.carried, some)
        before = potential.evaluations
        squared = np.array([one.squared for one in new[seen:]])
        centers = self.space.take(points, some)
        chances = potential.chances(squared, np.array(stand_for[seen:]), centers)
        self.evaluations += potential.evaluations - before
        for place, chance in enumerate(chances.tolist(), start=seen):
            new[place] = new[place]._replace(chance=chance)

    def _barred(self, rows: Measured) -> npt.NDArray[np.bool_]:
        """Gives (n,) which rows limits close."""
        barred = np.zeros(len(rows.ids), bool)
        if self.room is not None and rows.carried is not None:
            barred = ~self.room.admits(rows.carried)
            open_rows = np.flatnonzero(~barred)
            barred[open_rows] = self.room.like(rows.carried.take(open_rows))
        return barred

    def _locate(self, targets: Int64s) -> tuple[Ids, Int64s]:
        """Gives the row in whose weight each target falls, in order of bucket, then of id."""
        sums_K = np.cumsum(self._sums_K)
        buckets = np.searchsorted(sums_K, targets, side="right")
        offsets = targets - np.where(buckets, sums_K[buckets - 1], 0)
        wanted, which = np.unique(buckets, return_inverse=True)
        answers = self.ask(rows_of_buckets, wanted)
        of_row, ids, weights = (np.concatenate(column) for column in zip(*answers, strict=True))
        order = np.lexsort((ids, of_row))
        of_row, ids, weights = of_row[order], ids[order], weights[order]
        starts = np.searchsorted(of_row, np.arange(len(wanted)))
        below = np.cumsum(weights) - weights
        rows = np.searchsorted(below, below[starts[which]] + offsets, side="right") - 1
        return ids[rows], weights[rows]

    def ask(self, ask: Callable[..., Any], *args: Any) -> list[Any]:
        """Asks every slice, in the next step."""
        self.step += 1
        return self.candidates.each(ask, self.step - 1, *args)
