"""What the ledger records: small frozen nouns that become JSON and come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rayal.types.names import Ids, Label


@dataclass(frozen=True)
class Batch:
    """A committed batch: Parquet with sample_id, source_id, the columns of `PICK_COLUMNS`, and the
    payload columns of every row. Paths are relative to the run's storage."""

    path: str
    content_hash: str  # of the logical content, not of the file
    num_rows: int


@dataclass(frozen=True)
class Chunk:
    """One submission of a job: a deterministic key, and the rows [start, stop) of its batch."""

    key: str  # [a-z0-9-], at most 63 characters
    start: int
    stop: int
    payload_sha256: str
    cost_minor: int = 0  # of all its answers
    overlap: int = 1  # answers a row


@dataclass(frozen=True)
class Ack:
    """A vendor's word that it has a chunk."""

    key: str
    handle: str  # the vendor's own name for it
    num_rows: int


@dataclass(frozen=True)
class Order:
    """A job that a labeler has accepted in full."""

    job_id: str
    chunks: tuple[Ack, ...]
    num_rows: int


@dataclass(frozen=True)
class LabelEvent:
    """One answer. `event_id` and `revision` name it for life, so that a replay changes nothing."""

    sample_id: int
    value: Label | None  # None: refused, skipped or withdrawn
    event_id: str
    revision: int = 0
    annotator: str = ""
    cost_minor: int = 0
    at: str = ""  # ISO 8601, UTC
    is_open: bool = False  # withdrawn, and to be given again: no refusal


@dataclass(frozen=True)
class Told:
    """Many answers that hold, as columns: A answers, in no order that means anything."""

    ids: Ids  # (A,) sample_ids
    annotators: tuple[str, ...]
    annotator_A: npt.NDArray[np.int64]  # places in `annotators`
    values: tuple[Label, ...]  # the different ones
    value_A: npt.NDArray[np.int64]  # places in `values`

    @classmethod
    def of(cls, events: Sequence[LabelEvent]) -> Told:
        """Gives the columns of the events that are no refusals. O(A)."""
        said = [event for event in events if event.value is not None]
        who: dict[str, int] = {}
        annotator_A = [who.setdefault(event.annotator, len(who)) for event in said]
        return cls(
            np.asarray([event.sample_id for event in said], np.int64),
            tuple(who),
            np.asarray(annotator_A, np.int64),
            tuple(event.value for event in said if event.value is not None),
            np.arange(len(said)),
        )


@dataclass(frozen=True)
class Status:
    """How far a job is, by the vendor's word."""

    num_rows: int
    num_done: int


@dataclass(frozen=True)
class Snapshot:
    """The immutable set of labels that a training binds to: Parquet with sample_id, label, round,
    weight, and the payload columns; one row a sample, in order of sample_id."""

    path: str
    content_hash: str
    num_rows: int


@dataclass(frozen=True)
class Checkpoint:
    """What a trainer leaves: a folder with `model.json` and one `member-K.pt` a member."""

    path: str
    model_id: str  # hash of the parameters' bytes and of the architecture, not of the files
    num_members: int = 1


@dataclass(frozen=True)
class TestResult:
    """What the test split says of a checkpoint; `value` is None where test rows have no labels."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    metric: str
    higher_is_better: bool
    value: float | None
    num_rows: int


Record: TypeAlias = Batch | Chunk | Order | Ack | Snapshot | Checkpoint | TestResult
_RECORDS: dict[str, type] = {
    cls.__name__: cls for cls in (Batch, Chunk, Order, Ack, Snapshot, Checkpoint, TestResult)
}


def to_record(noun: Any) -> dict[str, Any]:
    """Gives a JSON-able form of a ledger noun that `from_record` turns back into it."""
    return {"type": type(noun).__name__, **asdict(noun)}


def from_record(record: Mapping[str, Any]) -> Any:
    """Gives the noun that `to_record` was given."""
    fields = dict(record)
    cls = _RECORDS[fields.pop("type")]
    if cls is Order:
        fields["chunks"] = tuple(Ack(**chunk) for chunk in fields["chunks"])
    return cls(**fields)
