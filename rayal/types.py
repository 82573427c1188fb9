"""The nouns, the Protocols and the dimension key.

Dimension key, the suffix of local arrays: N rows of a shard or minibatch, M candidates, B budget,
C classes, D embedding width, K draws, L labelled, S slices, T targets of a regression.

Nothing here imports torch, ray, faiss or hydra: `import rayal.types` is cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from rayal.errors import LabelError, NeedsError

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from rayal.keys import Keys

T = TypeVar("T")
Ids: TypeAlias = npt.NDArray[np.int64]
Float64s: TypeAlias = npt.NDArray[np.float64]
Scores: TypeAlias = "torch.Tensor"  # (N,) float64, finite, higher = label sooner
Needs: TypeAlias = tuple[str, ...]  # names out of OUTPUTS, or of pool columns
Label: TypeAlias = str | int | float | bool | list[Any] | dict[str, Any]

OUTPUTS = ("probs", "embeds", "draws", "preds")

Kind: TypeAlias = Literal["class", "multilabel", "number"]


# --------------------------------------------------------------------------- outputs and slices


@dataclass(frozen=True)
class Outputs:
    """What a predictor says of N rows, as tensors on the worker's device.

    probs  (N, C) class probabilities (softmax; sigmoid for multi-label), float32
    embeds (N, D) penultimate features, float32
    draws  (N, K, C) class probabilities of K ensemble members or dropout draws, or (N, K, T)
           predictions for a regression, float32
    preds  (N, T) predictions of a regression (the mean over draws where there are draws), float32
    Pool columns that were asked for lie in `arrays` by their own name. `rejected` marks rows that
    could not be decoded; their other values mean nothing.
    """

    ids: torch.Tensor
    arrays: Mapping[str, torch.Tensor]
    rejected: torch.Tensor | None = None  # (N,) bool

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.arrays:
            raise NeedsError(
                f"output '{name}' was asked for but is not there (there are: "
                f"{', '.join(sorted(self.arrays)) or 'none'}); declare needs = ('{name}',), "
                "and use a predictor that gives it"
            )
        return self.arrays[name]

    @property
    def probs(self) -> torch.Tensor:
        return self["probs"]

    @property
    def embeds(self) -> torch.Tensor:
        return self["embeds"]

    @property
    def draws(self) -> torch.Tensor:
        return self["draws"]

    @property
    def preds(self) -> torch.Tensor:
        return self["preds"]


@dataclass
class Slice:
    """A part of the candidates (or of the labelled rows), where scoring left it; ids ascend.

    `features` holds what the selector needs, one (m, ...) array a name, perhaps memory-mapped and
    read-only. `cache` is what asks remember between steps: it is lost with its worker, and made
    again by asking the same questions in the same order.
    """

    key: int  # place in the fixed order of slices
    ids: Ids  # (m,)
    scores: Float64s  # (m,)
    features: Mapping[str, np.ndarray]
    cache: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def feature(self, name: str) -> np.ndarray:
        """Gives the (m, ...) array of this name."""
        if name not in self.features:
            raise NeedsError(
                f"slice {self.key} carries no '{name}' (it has: "
                f"{', '.join(sorted(self.features)) or 'none'}); declare it in the selector's needs"
            )
        return self.features[name]


class Candidates(Protocol):
    """M rows in S slices, each where scoring left it. Labelled rows come in the same form, with
    the features `label` (L,) float64 (class index or number, NaN while pending; (L, C) for
    multi-label) and `pending` (L,) bool beside those that the selector needs."""

    @property
    def num_rows(self) -> int: ...

    def each(self, ask: Callable[..., T], step: int, *args: Any) -> list[T]:
        """Asks every slice: `ask(slice, step, *args)`, answers in slice-key order.

        `ask` is a module-level function, a pure function of the slice, its cache and the arguments.
        `step` counts up by the caller, so that a lost slice can be asked again from the start.
        """
        ...


@dataclass(frozen=True)
class Picks:
    """The batch in the order picked: unique ids and why each was picked."""

    ids: Ids  # (B,)
    scores: Float64s  # (B,) what the scorer said
    keys: Float64s  # (B,) what decided the order (score, distance, noisy score)
    probabilities: Float64s  # (B,) inclusion probability, NaN where the method has none
    reasons: tuple[str, ...]  # B short sentences

    def __post_init__(self) -> None:
        if len(np.unique(self.ids)) != len(self.ids):
            raise ValueError("picks hold an id twice")


# ------------------------------------------------------------------------------- ledger records


@dataclass(frozen=True)
class Batch:
    """A committed batch: Parquet with sample_id, source_id, rank, score, key, probability, reason,
    and the payload columns of every row. Paths are relative to the run's storage."""

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
    cost_minor: int = 0


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
    """What the test split says of a checkpoint; `value` is None where the test rows have no labels."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    metric: str
    higher_is_better: bool
    value: float | None
    num_rows: int


@dataclass(frozen=True)
class Vocabulary:
    """What a label may be: the classes in order (class, multilabel), or a number."""

    kind: Kind
    classes: tuple[str | int, ...] = ()

    @property
    def num_outputs(self) -> int:
        """The width of the model's last layer."""
        return 1 if self.kind == "number" else len(self.classes)

    def encode(self, labels: Sequence[Label]) -> np.ndarray:
        """Gives (L,) float64 class indices or numbers, or (L, C) float64 0/1 for multi-label.

        Raises:
            LabelError: a label is outside the vocabulary; the message names the first one.
        """
        if self.kind == "number":
            numbers = np.asarray([_number(label) for label in labels], np.float64)
            if not np.isfinite(numbers).all():
                at = int(np.flatnonzero(~np.isfinite(numbers))[0])
                raise LabelError(
                    f"label {labels[at]!r} is not a finite number; correct it at its source"
                )
            return numbers
        place = {name: index for index, name in enumerate(self.classes)}
        if self.kind == "class":
            return np.asarray([self._place(place, label) for label in labels], np.float64)
        out_LC = np.zeros((len(labels), len(self.classes)), np.float64)
        for row, label in enumerate(labels):
            for name in label if isinstance(label, list | tuple | np.ndarray) else [label]:
                out_LC[row, self._place(place, name)] = 1.0
        return out_LC

    def _place(self, place: Mapping[str | int, int], label: Any) -> int:
        found = place.get(label.item() if isinstance(label, np.generic) else label)
        if found is None:
            some = ", ".join(repr(name) for name in self.classes[:8])
            more = "" if len(self.classes) <= 8 else f", ... ({len(self.classes)} classes)"
            raise LabelError(
                f"label {label!r} is outside the vocabulary ({some}{more}); correct the answer, "
                "or start a run whose vocabulary has it"
            )
        return found


def _number(label: Any) -> float:
    try:
        return float(label)
    except (TypeError, ValueError):
        raise LabelError(f"label {label!r} is not a number; correct it at its source") from None


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


# ------------------------------------------------------------------------------------ protocols


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
        """Gives (N,) float64, finite, higher = label sooner."""
        ...


class Selector(Protocol):
    """Batch choice among candidates."""

    @property
    def needs(self) -> Needs: ...

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order picked; labelled and pending rows count as picked."""
        ...


class Predictor(Protocol):
    """Runs a checkpoint over rows. The worker gives it `batch_rows` rows at a time, always that many
    (the last batch of a shard is padded): a short batch changes the bits of a forward pass."""

    @property
    def batch_rows(self) -> int: ...
    @property
    def num_threads(self) -> int: ...

    def columns(self) -> tuple[str, ...]:
        """The payload columns that `encode` reads."""
        ...

    def load(self, checkpoint: Checkpoint, path: str, keys: Keys) -> None:
        """Reads the weights from `path`, a local folder; once a worker and checkpoint."""
        ...

    def encode(self, rows: pa.RecordBatch) -> Any:
        """The input transform; runs in the reader thread, beside the forward pass."""
        ...

    def predict(self, ids: torch.Tensor, encoded: Any, needs: Needs) -> Outputs:
        """The forward pass; gives the outputs among `needs` (pool columns are not its concern)."""
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
    """What a vendor can do; the ledger's recovery depends on `family`."""

    family: Literal["key", "tag", "path", "none"]
    max_rows_per_chunk: int = 5_000
    in_doubt_s: float = 0.0


class Labeler(Protocol):
    """Oracle, annotator or vendor: orders go out in chunks, answers come back as events."""

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
        """Places one chunk; with a chunk that was placed before it changes nothing."""
        ...

    def lookup(self, key: str) -> Ack | None:
        """Gives the ack of a chunk that may have been placed by an attempt that died."""
        ...

    def status(self, order: Order) -> Status: ...

    def fetch(self, order: Order, cursor: str) -> tuple[list[LabelEvent], str]:
        """Gives events since the cursor ("" at first): partial, any order, at least once."""
        ...

    def cancel(self, order: Order) -> None: ...
    def erase(self, order: Order, ids: Ids) -> None: ...


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
