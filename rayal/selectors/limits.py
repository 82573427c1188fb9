"""What a batch may hold: so many rows of a group, so much money, and nothing twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rayal.columns import TAG_BYTES, tag_of
from rayal.errors import ScoringError
from rayal.selectors.alike import Carried, digests_of, flat
from rayal.selectors.lazy import KEPT
from rayal.selectors.limit_arguments import check_limits
from rayal.types import OUTPUTS, PREDICTED_CLASS, Float64s, Ids, Kind, Needs, Slice, tags_of

T = TypeVar("T")
Int64s = npt.NDArray[np.int64]
Group = int | str

_DIGITS = 12  # of the most that may be spent: costs are counted in steps as fine as that


@dataclass(frozen=True)
class Limits:
    """Quotas, money and duplicates: what of a method's choice is picked.

    `group`: 'predicted_class' (the likeliest of `probs`; of several labels, too) or a column of
    whole numbers or text. Of each group at most `quota` rows are picked (`quotas`: of those named;
    others have `quota`, or no limit), and at least `least` (a number for every group that has a
    candidate, or one each for those named). Instead `balance` gives all groups the same number of
    rows, and `shares` gives those named rows in these proportions, and others none; what a group
    lacks the rest share by the same rule.

    `cost`: a column of what a row costs, in whole minor units or as decimals, which float32 holds
    as well; a batch costs at most `max_cost`. Costs are counted in steps of twelve digits below
    that, so that sums are exact.

    `duplicates`: an output or a column; of rows with equal values, bit for bit, one is picked, and
    none if a labelled or pending row has that value. `near`: the same where the cosine of two rows'
    `feature` is above this. A row without length is near nothing.

    `classes`: what the classes are called, in the order of the probabilities (rayal says so where
    it is known). Groups by 'predicted_class' have these names; without them, places from 0 on.

    `strict`: quotas that cannot be met, that allow fewer rows than are to be picked (where money
    does not end the batch before them), or that name a group which no row has, labelled ones
    included, are an error, else the batch's note says so.

    A selector judges rows by the room that is left (`rayal.selectors.room`); 8 bytes a row for the
    group and 8 for the cost stay in the slices.

    Raises:
        ConfigError: bounds without a group, a group without bounds, bounds at odds, a cost without
            `max_cost`, or a number that cannot mean anything.

    Reference: Abbas et al., SemDeDup, 2023, arXiv:2303.09540 (a threshold of cosines; there within
    clusters, here among all rows that a method looks at).
    """

    group: str | None = None
    quota: int | None = None
    quotas: Mapping[Group, int] | None = None
    least: int | Mapping[Group, int] | None = None
    balance: bool = False
    shares: Mapping[Group, float] | None = None
    cost: str | None = None
    max_cost: float | None = None
    duplicates: str | None = None
    near: float | None = None
    feature: str = "embeds"
    strict: bool = True
    classes: tuple[str | int, ...] | None = None  # None: as the labels are, see Strategy.for_kind

    def __post_init__(self) -> None:
        check_limits(self)

    # --------------------------------------------------------------------------------- groups

    @property
    def most_named(self) -> Mapping[Group, int]:
        """Groups with a quota of their own."""
        return self.quotas or {}

    @property
    def least_named(self) -> Mapping[Group, int]:
        """Groups that must give rows, by name."""
        return self.least if isinstance(self.least, Mapping) else {}

    @property
    def named(self) -> tuple[Group, ...]:
        """All groups that bounds name, each once."""
        return tuple(dict.fromkeys((*self.most_named, *self.least_named, *(self.shares or {}))))

    @property
    def codes(self) -> dict[Group, int]:
        """What stands in the slices for each group that bounds name."""
        if self.classes is None or not self.is_of_predictions:
            return {group: tag_of(group) for group in self.named}
        # By text: a configuration reads 1 where a class is called '1'.
        places = {str(name): place for place, name in enumerate(self.classes)}
        return {group: places.get(str(group), tag_of(str(group))) for group in self.named}

    @property
    def no_classes(self) -> list[Group]:
        """Groups that bounds name and that are no class, where rows are grouped by class."""
        if not self.is_of_predictions:
            return []
        if self.classes is None:
            return [group for group in self.named if isinstance(group, str) or group < 0]
        known = set(map(str, self.classes))
        return [group for group in self.named if str(group) not in known]

    @property
    def is_of_predictions(self) -> bool:
        """Whether the group of a row is what the model says now."""
        return self.group == PREDICTED_CLASS

    def most_of(self, group: Group | None) -> int | None:
        """Gives how many rows a group may give; None: any number."""
        return self.quota if group is None else self.most_named.get(group, self.quota)

    def least_of(self, group: Group | None) -> int:
        """Gives how many rows a group must give."""
        if isinstance(self.least, Mapping):
            return 0 if group is None else self.least.get(group, 0)
        return self.least or 0

    @property
    def kinds(self) -> tuple[Kind, ...] | None:
        """The kinds of labels that a group makes sense for; None: any."""
        return ("class", "multilabel") if self.group == PREDICTED_CLASS else None

    @property
    def needs(self) -> Needs:
        """What candidates and labelled rows must carry."""
        named = (self._group_need, self.cost, *self.compared)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def compared(self) -> Needs:
        """The features in which rows must differ."""
        named = (self.value_need, self.feature if self.near is not None else None)
        return tuple(name for name in named if name is not None)

    @property
    def _group_need(self) -> str | None:
        if self.group is None or self.group == PREDICTED_CLASS:
            return self.group
        return tags_of(self.group)

    @property
    def value_need(self) -> str | None:
        """The feature of which duplicates have equal values."""
        if self.duplicates is None or self.duplicates in OUTPUTS:
            return self.duplicates
        return tags_of(self.duplicates)

    @property
    def counts_groups(self) -> bool:
        """Whether bounds hang on how many rows each group has, or on which groups there are."""
        by_size = self.balance or self.shares is not None or self.least is not None
        return by_size or bool(self.quotas)

    # --------------------------------------------------------------------------------- money

    @property
    def steps_a_unit(self) -> float:
        """How many steps a cost of 1 has."""
        most = self.max_cost or 1.0
        return float(10 ** max(0, _DIGITS - math.floor(math.log10(most))))

    @property
    def most_steps(self) -> int | None:
        """What a batch may cost; None: there is no limit."""
        return None if self.max_cost is None else round(self.max_cost * self.steps_a_unit)

    # -------------------------------------------------------------------- what a slice knows

    @property
    def _groups_name(self) -> str:
        return f"groups by {self.group}"

    @property
    def _costs_name(self) -> str:
        return f"costs by {self.cost} up to {self.max_cost}"

    def held(self, ids: Ids, scores: Float64s, groups: Ids, costs: Int64s) -> Slice:
        """Gives rows that travelled as a slice of their own."""
        known = {self._groups_name: groups, self._costs_name: costs}
        return Slice(0, ids, scores, {}, dict(known))

    def groups(self, part: Slice) -> Ids:
        """Gives (m,) the groups of a slice's rows; all 0 without a group."""
        return _kept(part, self._groups_name, self._groups)

    def _groups(self, part: Slice) -> Ids:
        values = self.raw_groups(part)
        if values is None:
            return np.zeros(len(part), np.int64)
        with np.errstate(invalid="ignore"):  # what is no whole number is refused, see survey
            return values.astype(np.int64)

    def raw_groups(self, part: Slice) -> np.ndarray | None:
        """Gives (m,) the numbers of a slice's groups as they lie, or the tags of text; None: there
        is no group."""
        if self._group_need is None or not len(part):
            return None
        values = part.feature(self._group_need)
        if _is_text(values):
            return np.ascontiguousarray(values[:, :8]).view("<i8").reshape(-1)
        return one_a_row(values, self.group)

    def texts(self, part: Slice, rows: Any) -> np.ndarray:
        """Gives (n,) how the groups of some rows are called; empty where that is their code."""
        if self._group_need is not None and len(part):
            values = part.feature(self._group_need)
            if _is_text(values):
                text = np.ascontiguousarray(values[rows, 8:])
                return text.view(f"S{TAG_BYTES - 8}").reshape(-1)
        return np.zeros(len(np.arange(len(part))[rows]), "S1")

    def costs(self, part: Slice) -> Int64s:
        """Gives (m,) what a slice's rows cost, in steps; all 0 without a cost."""
        return _kept(part, self._costs_name, self._costs)

    def _costs(self, part: Slice) -> Int64s:
        if self.cost is None or not len(part):
            return np.zeros(len(part), np.int64)
        name = f"{KEPT}costs by {self.cost} and {self.max_cost}"
        if name not in part.cache:
            part.cache[name] = self._counted(one_a_row(part.feature(self.cost), self.cost))
        costs: Int64s = part.cache[name]
        return costs

    def _counted(self, costs: np.ndarray) -> Int64s:
        """Gives (m,) costs in steps."""
        values = _as_written(costs)
        # What is dearer than a batch may be is as good as a step dearer: sums stay in 64 bits.
        dear = float(self.most_steps or 0) + 1.0
        with np.errstate(over="ignore"):
            steps = np.minimum(np.rint(values * self.steps_a_unit), dear)
        return steps.astype(np.int64)

    def carry(self, part: Slice, rows: np.ndarray) -> Carried:
        """Gives what limits must know of some rows of a slice."""
        digests = np.empty((len(rows), 0), np.uint8)
        vectors = np.empty((len(rows), 0), np.float32)
        if self.value_need is not None:
            digests = digests_of(part.feature(self.value_need)[rows])
        if self.near is not None:
            vectors = flat(part.feature(self.feature)[rows])
        return Carried(
            self.groups(part)[rows],
            self.texts(part, rows),
            self.costs(part)[rows],
            digests,
            vectors,
        )


def one_a_row(values: np.ndarray, name: str | None) -> np.ndarray:
    """Gives (m,) the numbers of a column.

    Raises:
        ScoringError: it holds several a row.
    """
    if values.size != len(values):
        raise ScoringError(
            f"'{name}' holds {values.size // len(values)} numbers a row, expected one; name a "
            "column of single values in limits"
        )
    return values.reshape(-1)


def _as_written(values: np.ndarray) -> Float64s:
    """Gives (m,) numbers in float64: of a shorter float the decimal that it is written as, since
    0.1 is 0.10000000149 in float32, and ten of these are more than 1."""
    wide = values.astype(np.float64)
    if values.dtype.kind == "f" and values.dtype.itemsize < wide.itemsize:
        broken = np.flatnonzero(wide != np.rint(wide))
        for digits in (0, 1):  # beyond those that every such float keeps
            some = wide[broken]
            with np.errstate(invalid="ignore", over="ignore"):  # others refuse what is not finite
                places = np.finfo(values.dtype).precision - 1 + digits
                ten = 10.0 ** (places - np.floor(np.log10(np.abs(some))))
                decimals = np.rint(some * ten) / ten
                is_same = decimals.astype(values.dtype) == values[broken]
            wide[broken[is_same]] = decimals[is_same]
            broken = broken[~is_same]
    return wide


def _is_text(values: np.ndarray) -> bool:
    return values.dtype == np.uint8 and values.shape[1:] == (TAG_BYTES,)


def _kept(part: Slice, name: str, make: Callable[[Slice], T]) -> T:
    """Gives what a slice keeps under a name, made again where somebody cleared its cache."""
    if name not in part.cache:
        part.cache[name] = make(part)
    found: T = part.cache[name]
    return found
