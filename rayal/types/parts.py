"""The Protocols: what each part of a run owes the others. No base classes; a part just fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from rayal.types.names import Float64s, Ids, Needs, Scores
from rayal.types.records import (
    Ack,
    Checkpoint,
    Chunk,
    LabelEvent,
    Order,
    Status,
    TestResult,
)
from rayal.types.rows import Allowed, Candidates, Outputs, Picks
from rayal.types.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from rayal.keys import Keys


class Group(Protocol):
    """The ranks that train together. One process alone is a group of one."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def device(self) -> str: ...


class Scorer(Protocol):
    """Per-row acquisition function."""

    @property
    def needs(self) -> Needs: ...

    def score(self, outputs: Outputs, keys: Keys) -> Scores:
        """Gives (N,) float64, finite, higher = label sooner; each row's score is its own affair. N
        may be several batches: small outputs are joined."""
        ...


@runtime_checkable
class Bounded(Scorer, Protocol):
    """A scorer of one label a row whose score can be bounded by what is known of the row's two
    likeliest classes, and whose arithmetic gives a row the same bits wherever in a batch it is."""

    def highest(self, first_N: Float64s, gap_N: Float64s) -> Float64s:
        """Gives (N,) what no score exceeds where the likeliest class has at least the probability
        `first_N`, and at least e^gap_N times that of the second."""
        ...


class Selector(Protocol):
    """Batch choice among candidates."""

    @property
    def needs(self) -> Needs: ...

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in order; labelled and pending rows count as picked."""
        ...


class Predictor(Protocol):
    """Runs a checkpoint over rows, always `batch_rows` at a time (the worker pads the last batch
    of a shard): a short batch changes the bits of a forward pass."""

    @property
    def batch_rows(self) -> int: ...
    @property
    def num_threads(self) -> int: ...  # of every math library; 0: as the process has them

    def columns(self) -> tuple[str, ...]:
        """The payload columns that `encode` reads."""
        ...

    def load(self, checkpoint: Checkpoint, path: str, keys: Keys) -> None:
        """Reads the weights from `path`, a local folder; once a worker and checkpoint."""
        ...

    def encode(self, rows: pa.RecordBatch) -> Any:
        """The input transform; runs in the reader thread, beside the forward pass. Nobody else
        looks at the columns that it reads any more: the inputs may lie in their memory."""
        ...

    def predict(self, ids: torch.Tensor, encoded: Any, needs: Needs) -> Outputs:
        """The forward pass; gives the outputs among `needs` (pool columns are not its concern).
        Without any it gives `rejected` alone, and asks for no checkpoint."""
        ...


class Trainer(Protocol):
    """Fits labels. `fit` runs in every rank of the group and gives the same checkpoint in each."""

    @property
    def num_workers(self) -> int: ...  # 0: in this process
    @property
    def use_gpu(self) -> bool: ...
    @property
    def num_threads(self) -> int: ...

    def fit(
        self,
        labels: pa.Table,
        vocabulary: Vocabulary,
        start: str | None,
        out: str,
        keys: Keys,
        group: Group,
    ) -> Checkpoint:
        """Fits the rows of a snapshot (payload columns and `label`, `weight`); `start` is the local
        folder of the checkpoint to warm-start from, `out` the local folder to leave the new one in
        (written by rank 0). The checkpoint's `path` is left empty for the engine to fill."""
        ...


@dataclass(frozen=True)
class Capabilities:
    """What a vendor can do; the recovery of an order depends on `family`.

    key   the vendor refuses a key that it has: sending again is safe, and "duplicate" is its ack
    tag   it takes the same twice, and can be asked by our tag: see `Audited`
    path  sending again writes the same file again
    none  it cannot be asked: a person says whether a chunk that is in doubt is there
    """

    family: Literal["key", "tag", "path", "none"]
    max_rows_per_chunk: int = 5_000
    in_doubt_s: float = 0.0  # a call that was cut off has ended by then, one way or the other


class Restriction(Protocol):
    """Which rows of the pool are scored at all."""

    @property
    def needs(self) -> Needs: ...  # columns of the pool: outputs come with the score

    def restrict(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Allowed:
        """Gives the rows that may be scored, as many as the budget or all; labelled and pending
        rows, which are among no candidates, are none of them."""
        ...


class Labeler(Protocol):
    """Oracle, annotator or vendor: orders go out in chunks, answers come back as events.

    What it is handed has passed its gate (an attribute `gate`, where it has one): the columns that
    may leave, under the ids that may. It never sees more, and answers by these ids.
    """

    @property
    def capabilities(self) -> Capabilities: ...
    @property
    def price_minor(self) -> int: ...  # per label, in minor units of `currency`
    @property
    def currency(self) -> str: ...

    def plan(self, job_id: str, rows: pa.Table) -> tuple[Chunk, ...]:
        """Cuts a batch into chunks with deterministic keys; the same rows give the same chunks."""
        ...

    def submit(self, chunk: Chunk, rows: pa.Table) -> Ack:
        """Places one chunk; family key and path: one that was placed before changes nothing.

        Raises:
            InDoubt: the call was cut off; the vendor may have the chunk.
            LabelError: the vendor does not have it, and will not take it as it is.
        """
        ...

    def lookup(self, key: str) -> Ack | None:
        """Gives the ack of a chunk that may have been placed by an attempt that died."""
        ...

    def status(self, order: Order) -> Status: ...

    def fetch(self, order: Order, cursor: str) -> tuple[list[LabelEvent], str]:
        """Gives events since the cursor ("" at first): partial, any order, at least once. The same
        cursor as before means that nothing more is there now."""
        ...

    def cancel(self, order: Order) -> None: ...
    def erase(self, order: Order, ids: Ids) -> None: ...


@runtime_checkable
class Audited(Protocol):
    """A labeler whose vendor takes the same row twice, but says what it has of a chunk."""

    def held(self, key: str) -> Mapping[int, Sequence[str]]:
        """Gives, by sample_id, the vendor's own names of the items that it has under a chunk's key:
        more than one where a row is there twice."""
        ...

    def supply(self, chunk: Chunk, rows: pa.Table) -> None:
        """Sends rows of a chunk that the vendor does not have.

        Raises:
            InDoubt, LabelError: as `submit`.
        """
        ...

    def withdraw(self, key: str, items: Sequence[str]) -> None:
        """Takes items back, by the vendor's own names: surplus that an audit found."""
        ...


@runtime_checkable
class Doorbell(Protocol):
    """A labeler whose vendor can ring: a hint to fetch sooner, and nothing else."""

    def rings(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether a request is the vendor's, fresh and not heard before. Header names are lower
        case. What it says is not looked at: answers come by `fetch` alone."""
        ...


@dataclass(frozen=True)
class Progress:
    """What a stopping rule may look at before round `round` starts."""

    round: int
    num_labels: int  # bought so far
    amount_minor: int  # spent so far
    elapsed_s: float
    num_unlabelled: int
    tests: tuple[TestResult, ...]  # one a finished round
    next_labels: int = 0  # what the round would buy
    next_amount_minor: int = 0  # and what that would cost


@runtime_checkable
class StoppingRule(Protocol):
    def stop(self, progress: Progress) -> str | None:
        """Gives why to stop, or None."""
        ...
