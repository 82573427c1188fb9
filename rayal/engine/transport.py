"""What a crew asks of whatever carries its calls to workers: Ray's actors, or a simulation.

The crew decides and the transport only carries, so the same decisions run against workers of any
kind, on any clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol


class WorkerLost(Exception):
    """The worker of a call is gone. `kind` names what the transport saw; `is_final`: another worker
    would end alike, since it is not the loss of a process but what it was told."""

    def __init__(self, kind: str, text: str, is_final: bool = False) -> None:
        super().__init__(text)
        self.kind = kind
        self.is_final = is_final


class WorkerRaised(Exception):
    """A call raised something: `cause`, as the worker raised it."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class NoAnswer(Exception):
    """A call has no result in time."""


class Transport(Protocol):
    """Carries calls to workers and results back. A worker does its calls in the order sent."""

    def hire(self) -> Any:
        """Starts a worker and gives it at once; it is there when its call `ready` has a result."""
        ...

    def end(self, worker: Any) -> None:
        """Ends a worker, also one that is gone."""
        ...

    def call(self, worker: Any, method: str, *arguments: Any) -> Any:
        """Sends a call to a worker and gives what its result is known by."""
        ...

    def wait(self, calls: Sequence[Any], timeout_s: float) -> list[Any]:
        """Gives calls that have a result: at least one, unless the time is over first."""
        ...

    def result(self, call: Any, timeout_s: float | None = None) -> Any:
        """Gives the result of a call, and waits for it.

        Raises:
            WorkerRaised: the call raised.
            WorkerLost: its worker is gone.
            NoAnswer: there is none in time.
        """
        ...

    def cancel(self, calls: Iterable[Any]) -> None:
        """Takes calls back as far as they have not begun."""
        ...

    def put(self, thing: Any) -> Any:
        """Gives what stands for a thing in arguments, so that it travels once."""
        ...

    def now_s(self) -> float:
        """Gives the time on this transport's clock."""
        ...

    def room(self) -> str:
        """Says how much the workers may have and how much of it is free."""
        ...
