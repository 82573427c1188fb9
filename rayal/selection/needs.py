"""What a strategy needs of the user's columns, and what stands in for what is not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rayal.errors import NeedsError, PoolError
from rayal.selection.columns import Column, Columns
from rayal.selection.predictor import GivenScore, with_given_score
from rayal.strategy import Strategy
from rayal.types import Kind, Needs, Scorer, source_of


@dataclass(frozen=True)
class Plan:
    """What is read, who scores, and who picks."""

    strategy: Strategy
    scorer: Scorer | None  # of every row; the strategy's own, unless a column stands in
    wanted: tuple[tuple[str, str], ...]  # columns to read: rayal's name and the user's
    note: str = ""

    @property
    def features(self) -> Needs:
        """What slices carry."""
        return tuple(dict.fromkeys(self.strategy.selector.needs))

    def check_columns(self, columns: Sequence[Column]) -> None:
        """Refuses a column of text where numbers are needed.

        Raises:
            PoolError: there is one.
        """
        needs = (*self.features, *self.strategy.needs_of_restriction)
        needs = (*needs, *(() if self.scorer is None else self.scorer.needs))
        for column in columns:
            if not column.dtype and column.name in needs:
                raise PoolError(
                    f"column '{column.source}' holds words or dates, and the strategy needs "
                    f"{column.name} as numbers or lists of numbers; compute it as such, or name "
                    "another column"
                )

    def with_classes(self, kind: Kind, classes: Sequence[str | int]) -> Plan:
        """Gives the plan with parts that know what the classes are called."""
        strategy = self.strategy.for_kind(kind, classes)
        return replace(self, strategy=strategy, scorer=strategy.scorer or self.scorer)

    @property
    def sources(self) -> dict[str, str]:
        """The columns that labelled rows have as well: the user's names by rayal's."""
        needs = (*self.strategy.selector.needs, *self.strategy.needs_of_restriction)
        carried = {*map(source_of, needs)}
        carried |= {"logits"} if "probs" in carried else set()
        return {name: source for name, source in self.wanted if name in carried}


def plan_of(strategy: Strategy, columns: Columns, names: Sequence[str]) -> Plan:
    """Gives what a strategy makes of columns of these names.

    A strategy's scorer scores where what it needs is there. Where it is not and there is a column
    of scores, that stands in (under the noise of Power and Softmax, which stays). A strategy
    without a scorer gets that column as the rows' scores, where there is one.

    Raises:
        NeedsError: a column is missing; the message says which.
    """
    scorer, note, has_score = strategy.scorer, "", columns.score in names
    if scorer is None:
        scorer = GivenScore() if has_score else None
    else:
        missing = [need for need in scorer.needs if not _sources(need, columns, names)]
        if missing and has_score:
            note = f"no {' or '.join(missing)}: column '{columns.score}' stands in for the scorer"
            scorer = with_given_score(scorer)
            strategy = replace(strategy, scorer=scorer)
    of_scorer = () if scorer is None else tuple(scorer.needs)
    wanted: list[tuple[str, str]] = []
    needs = (*strategy.selector.needs, *strategy.needs_of_restriction, *of_scorer)
    for need in dict.fromkeys(map(source_of, needs)):
        found = _sources(need, columns, names)
        if not found:
            raise NeedsError(_missing(need, columns, names, need in of_scorer))
        wanted.append(found[0])
    return Plan(strategy, scorer, tuple(wanted), note)


def _sources(need: str, columns: Columns, names: Sequence[str]) -> list[tuple[str, str]]:
    """Gives the columns that may serve a need, the best first."""
    ways = [(need, columns.of(need))]
    if need == "probs":
        ways.append(("logits", columns.logits))
    return [(name, source) for name, source in ways if source in names]


def _missing(need: str, columns: Columns, names: Sequence[str], is_of_scorer: bool) -> str:
    source = columns.of(need)
    lacks, other = f"no column '{source}'", f"name it: columns.{need}=NAME"
    if need == "embeds":
        other = "name it: columns.embedding=NAME"
    elif need == "probs":
        lacks += f" and no '{columns.logits}'"
        other += " or columns.logits=NAME"
    elif not hasattr(columns, need):
        other = "take a strategy that does without"
    scores = f", or scores of your own as '{columns.score}'" if is_of_scorer else ""
    return (
        f"the strategy needs {need}, and the outputs have {lacks} (they have: "
        f"{', '.join(names) or 'none'}); add it{scores}, or {other}"
    )
