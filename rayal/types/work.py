"""What a part of a run will do, in a form that a small measured one can be scaled by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Work:
    """How much there is to do: `amount` in any unit of the part's own that its time grows with (of
    a selector multiplications, of a trainer rows), `steps` one after the other (questions to all
    slices, minibatches), `held_bytes` that stay in memory while it is done."""

    amount: float
    steps: int = 1
    held_bytes: float = 0.0


@runtime_checkable
class Costed(Protocol):
    """A selector that knows what it will do. One without is measured at two sizes."""

    def work(self, num_candidates: int, budget: int, width: int) -> Work:
        """Gives the work of one selection among M candidates whose feature has D numbers."""
        ...


@runtime_checkable
class CostedTrainer(Protocol):
    """A trainer that knows what it will do, and can be tried for a few steps."""

    def work(self, num_labels: int) -> Work:
        """Gives the work of one `fit`: rows passed forward and backward, and steps."""
        ...

    def brief(self, num_steps: int) -> CostedTrainer:
        """Gives the same trainer for so few steps a member, for a trial."""
        ...
