"""What the page shows of a run, as plain values; whoever has the ledger fills it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

Curve: TypeAlias = tuple[tuple[int, float | None], ...]  # (num_labels, test metric), in order
Shares: TypeAlias = Mapping[str, float]  # class name -> share of the rows, 0 to 1

_NONE: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class PickView:
    """One picked row: why it was picked, and what it is."""

    sample_id: int
    score: float
    reason: str
    label: str = ""  # empty while no answer is there
    preview: str = ""  # the row as text, as far as it can be one


@dataclass(frozen=True)
class RoundView:
    """One round. Shares are empty where there are no classes or nothing was predicted."""

    round: int
    num_labels: int  # in all, at the end of the round
    test_metric: float | None = None
    seconds: Mapping[str, float] = field(default_factory=lambda: _NONE)
    predicted_shares: Shares = field(default_factory=lambda: _NONE)  # of the pool
    picked_shares: Shares = field(default_factory=lambda: _NONE)  # of the batch, by its labels
    picks: tuple[PickView, ...] = ()  # a sample of them


@dataclass(frozen=True)
class SpendView:
    """What the labels cost so far."""

    num_labels: int
    amount_minor: int = 0
    currency: str = "USD"


@dataclass(frozen=True)
class RunView:
    """A whole run, as its page shows it."""

    title: str
    run_name: str  # the name of the run's folder, not its path
    state: str  # done, waiting, running, interrupted or failed
    strategy: str
    num_pool_rows: int
    metric: str
    higher_is_better: bool
    config: str  # YAML; what looks like a secret is masked on the page
    rounds: tuple[RoundView, ...] = ()
    spend: SpendView | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)  # to compare with: {"random": ...}
    waiting_for: str | None = None
    seed: int | None = None
    ended_because: str | None = None  # the stopping rule's word
