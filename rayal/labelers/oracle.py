"""The oracle: reveals the labels that ingest kept apart, with a real vendor's faults on demand."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rayal.errors import ConfigError, LabelError
from rayal.keys import Keys
from rayal.labelers.chunks import check_other_payload, check_prices, check_rows, cut
from rayal.labelers.noise import noisy
from rayal.storage import here, named, write_text
from rayal.types import (
    Ack,
    Capabilities,
    Chunk,
    Ids,
    Label,
    LabelEvent,
    Order,
    Status,
    Vocabulary,
)


class Oracle:
    """Answers from the pool's own labels; for experiments, tests and demonstrations.

    noise          classes: the share of answers that name another class, any other alike;
                   multi-label: the share of (sample, class) entries turned over; numbers: the
                   standard deviation of Gaussian noise added
    latency_s      seconds from submit until a chunk's answers are there; the clock goes on while
                   the process is gone
    partial_share  share of the answers still out that one part holds (at least one of a chunk), in
                   a keyed order. A poll, which is fetches up to one that finds nothing new, gets
                   the parts that are there; each poll, in whatever process, lets one more come

    A row whose label is not known is refused: its event has no value and costs nothing. Noise and
    order are functions of (seed, sample_id), so neither parts nor latency change a label. An order
    is one small file a chunk, holding its answers and how many parts of them are there: what a
    restart asks for again is what was asked for.
    """

    may_be_tried = True  # an order stays in its folder: a plan may place one in a folder of its own

    def __init__(
        self,
        noise: float = 0.0,
        latency_s: float = 0.0,
        partial_share: float = 1.0,
        price_minor: int = 0,
        currency: str = "USD",
        annotator: str = "oracle",
        seed: int = 0,
        rows_per_chunk: int = 5_000,
    ) -> None:
        if noise < 0 or latency_s < 0 or not 0 < partial_share <= 1:
            raise ConfigError(
                f"the oracle has noise={noise}, latency_s={latency_s}, "
                f"partial_share={partial_share}; give 0 or more, 0 or more, and a share in (0, 1]"
            )
        check_prices(rows_per_chunk, price_minor)
        self.noise, self.latency_s, self.partial_share = noise, latency_s, partial_share
        self.price_minor, self.currency, self.annotator = price_minor, currency, annotator
        self.rows_per_chunk = rows_per_chunk
        self.capabilities = Capabilities(family="path", max_rows_per_chunk=rows_per_chunk)
        self._keys = Keys(seed, 0)
        self._secret_labels: Callable[[Ids], Sequence[Label | None]] | None = None
        self._vocabulary: Vocabulary | None = None
        self._folder: Path | None = None

    def bind(
        self,
        secret_labels: Callable[[Ids], Sequence[Label | None]],
        vocabulary: Vocabulary,
        folder: str,
    ) -> None:
        """Gives the oracle what only a run knows: where labels come from (in the order of the ids),
        what they may be, and a folder of the run for its orders.

        Raises:
            ConfigError: `noise` is above 1 for classes.
            PoolError: the pool has no labels.
        """
        if vocabulary.kind != "number" and self.noise > 1:
            raise ConfigError(
                f"the oracle has noise={self.noise} for labels of kind '{vocabulary.kind}'; give a "
                "share from 0 to 1"
            )
        secret_labels(np.empty(0, np.int64))  # a pool without labels says so now, not at the order
        self._secret_labels, self._vocabulary = secret_labels, vocabulary
        self._folder = Path(folder)

    def plan(self, job_id: str, rows: pa.Table) -> tuple[Chunk, ...]:
        """Gives the chunks of a batch."""
        return cut(job_id, rows, self.rows_per_chunk, self.price_minor, _payload_sha256)

    def submit(self, chunk: Chunk, rows: pa.Table) -> Ack:
        """Gives the ack of a chunk, placed now or before. `rows` are the chunk's own rows.

        Raises:
            LabelError: the rows are not the chunk's, or the key was placed with others.
        """
        payload = _payload_sha256(rows)
        check_rows(chunk, rows, payload)
        placed = self._read(chunk.key)
        if placed is not None:
            where = str(self._path(chunk.key))
            check_other_payload(chunk.key, placed["payload_sha256"], payload, where)
            return Ack(chunk.key, chunk.key, len(placed["ids"]))
        ids = np.asarray(rows.column("sample_id"), np.int64)
        order = {
            "key": chunk.key,
            "payload_sha256": payload,
            "submitted_at": time.time(),
            "ids": ids.tolist(),
            "values": self._answers(ids),
        }
        self._write(order)
        return Ack(chunk.key, chunk.key, len(ids))

    def lookup(self, key: str) -> Ack | None:
        """Gives the ack of a chunk that was placed, or None."""
        placed = self._read(key)
        return None if placed is None else Ack(key, key, len(placed["ids"]))

    def status(self, order: Order) -> Status:
        """Gives how many rows have an answer that can be fetched."""
        return Status(order.num_rows, sum(self._num_out(self._order(a.key)) for a in order.chunks))

    def fetch(self, order: Order, cursor: str) -> tuple[list[LabelEvent], str]:
        """Gives the answers that are there behind the cursor, and the cursor behind them.

        The same cursor gives the same again, and more once more is there. A cursor that stands
        still means that nothing more is there now; the next part then is, for the next poll.
        """
        before: dict[str, int] = json.loads(cursor) if cursor else {}
        after: dict[str, int] = {}
        events: list[LabelEvent] = []
        for ack in order.chunks:
            placed = self._order(ack.key)
            start = before.get(ack.key, 0)
            stop = after[ack.key] = max(start, self._num_out(placed))
            events += self._events(placed, start, stop)
        if all(before.get(key, 0) == stop for key, stop in after.items()):
            for ack in order.chunks:
                self._let_come(ack.key)
        return events, json.dumps(after, sort_keys=True)

    def cancel(self, order: Order) -> None:
        """Takes back the answers that are not there yet; those that are stay."""
        for ack in order.chunks:
            placed = self._order(ack.key)
            parts = placed.get("parts", 1) if self._num_out(placed) else 0
            self._write(placed | {"parts": parts, "cancelled": True})

    def erase(self, order: Order, ids: Ids) -> None:
        """Forgets the answers of these samples; what was fetched before is not its to take back."""
        gone = {int(sample_id) for sample_id in ids}
        for ack in order.chunks:
            placed = self._order(ack.key)
            erased = sorted(gone.intersection(placed["ids"]) | set(placed.get("erased", ())))
            pairs = zip(placed["ids"], placed["values"], strict=True)
            values = [None if sample_id in gone else value for sample_id, value in pairs]
            if erased != placed.get("erased", []):
                self._write(placed | {"values": values, "erased": erased})

    # -------------------------------------------------------------------------------------- below

    def _answers(self, ids: Ids) -> list[Label | None]:
        """Gives the answer of each sample; None: the pool does not know it."""
        secret_labels, vocabulary, _ = self._bound()
        answers = [None if label is None else _plain(label) for label in secret_labels(ids)]
        known_L = np.flatnonzero([answer is not None for answer in answers])
        labels = [answers[place] for place in known_L]
        said = noisy(ids[known_L], labels, vocabulary, self.noise, self._keys)
        for place, label in zip(known_L.tolist(), said, strict=True):
            answers[place] = label
        return answers

    def _events(self, placed: dict[str, Any], start: int, stop: int) -> list[LabelEvent]:
        ids = np.asarray(placed["ids"], np.int64)
        turn_M = np.lexsort((ids, self._keys.stream("oracle order").uniform(ids)))
        at = datetime.fromtimestamp(placed["submitted_at"] + self.latency_s, UTC).isoformat()
        erased = set(placed.get("erased", ()))
        pairs = [(placed["ids"][i], placed["values"][i]) for i in turn_M[start:stop].tolist()]
        return [
            LabelEvent(
                sample_id=sample_id,
                value=value,
                event_id=str(sample_id),
                annotator=self.annotator,
                cost_minor=0 if value is None else self.price_minor,
                at=at,
            )
            for sample_id, value in pairs
            if sample_id not in erased
        ]

    def _num_out(self, placed: dict[str, Any]) -> int:
        """Gives how many answers of a chunk are there, in the order of their turn."""
        if time.time() < placed["submitted_at"] + self.latency_s:
            return 0
        num_out, num_rows = 0, len(placed["ids"])
        for _ in range(placed.get("parts", 1)):
            num_out += math.ceil(self.partial_share * (num_rows - num_out))
        return num_out

    def _let_come(self, key: str) -> None:
        placed = self._order(key)
        num_out = self._num_out(placed)
        if 0 < num_out < len(placed["ids"]) and not placed.get("cancelled"):
            self._write(placed | {"parts": placed.get("parts", 1) + 1})

    def _path(self, key: str) -> Path:
        return self._bound()[2] / f"{key}.json"

    def _write(self, placed: dict[str, Any]) -> None:
        write_text(self._path(placed["key"]), json.dumps(placed, ensure_ascii=False))

    def _read(self, key: str) -> dict[str, Any] | None:
        path = here(self._path(key))
        return json.loads(path.read_text()) if path.exists() else None

    def _order(self, key: str) -> dict[str, Any]:
        placed = self._read(key)
        if placed is None:
            raise LabelError(
                f"the oracle knows no chunk {key} (no file {named(self._path(key))}); restore the "
                "run's folder, or start a new run_dir"
            )
        return placed

    def _bound(self) -> tuple[Callable[[Ids], Sequence[Label | None]], Vocabulary, Path]:
        if self._secret_labels is None or self._vocabulary is None or self._folder is None:
            raise LabelError("the oracle was not bound to a pool; call bind() before its orders")
        return self._secret_labels, self._vocabulary, self._folder


def _payload_sha256(rows: pa.Table) -> str:
    ids = np.ascontiguousarray(rows.column("sample_id"), np.int64)
    return hashlib.sha256(ids.tobytes()).hexdigest()


def _plain(label: Any) -> Any:
    if isinstance(label, np.generic):
        return label.item()
    if isinstance(label, np.ndarray | list | tuple):
        return [_plain(item) for item in label]
    return label
