"""Candidates under another score: what an ask left in the slices stands in for the scorer's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rayal.types import Candidates, Slice


@dataclass(frozen=True)
class Rescored:
    """The same rows where they are, scored by `cache[name]` (m,) float64 of each slice."""

    candidates: Candidates
    name: str

    @property
    def num_rows(self) -> int:
        """How many rows all slices hold."""
        return self.candidates.num_rows

    def each(self, ask: Callable[..., Any], step: int, *args: Any) -> list[Any]:
        """Asks every slice."""
        return self.candidates.each(_under, step, self.name, ask, args)


def _under(part: Slice, step: int, name: str, ask: Callable[..., Any], args: Any) -> Any:
    scored = Slice(part.key, part.ids, part.cache[name], part.features, part.cache)
    return ask(scored, step, *args)
