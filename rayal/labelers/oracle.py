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
from rayal.storage import write_text
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
    partial_share  share of the answers not yet fetched that one fetch gives (at least one of a
                   chunk), in a keyed order; fetching with the cursors gives all in the end

    Noise and order are functions of (seed, sample_id). An order is one small file a chunk, holding
    its answers: what a restart asks for again is what was asked for.
    """

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
            LabelError: the rows are not the chunk's, the key was placed with others, or the pool
                has no label for one of them.
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
            "values": self._answers(chunk.key, ids),
        }
        write_text(self._path(chunk.key), json.dumps(order, ensure_ascii=False))
        return Ack(chunk.key, chunk.key, len(ids))

    def lookup(self, key: str) -> Ack | None:
        """Gives the ack of a chunk that was placed, or None."""
        placed = self._read(key)
        return None if placed is None else Ack(key, key, len(placed["ids"]))

    def status(self, order: Order) -> Status:
        """Gives how many rows have an answer that can be fetched."""
        ready = [self._ready(self._order(ack.key)) for ack in order.chunks]
        return Status(order.num_rows, sum(len(part["ids"]) for part in ready))

    def fetch(self, order: Order, cursor: str) -> tuple[list[LabelEvent], str]:
        """Gives the next part of the answers, and the cursor behind it.

        The same cursor gives the same part, and more once the latency is over. No events means that
        nothing more is there now.
        """
        given: dict[str, int] = json.loads(cursor) if cursor else {}
        events: list[LabelEvent] = []
        for ack in order.chunks:
            placed = self._order(ack.key)
            ready = self._ready(placed)
            ids = np.asarray(ready["ids"], np.int64)
            turn_M = np.lexsort((ids, self._keys.stream("oracle order").uniform(ids)))
            erased = set(placed.get("erased", ()))
            start = given.get(ack.key, 0)
            stop = start + math.ceil(self.partial_share * max(len(ids) - start, 0))
            # A part of erased rows alone would look like the end.
            while stop < len(ids) and erased.issuperset(ids[turn_M[start:stop]].tolist()):
                stop += 1
            at = datetime.fromtimestamp(placed["submitted_at"] + self.latency_s, UTC).isoformat()
            for place in turn_M[start:stop].tolist():
                if ready["ids"][place] in erased:
                    continue
                events.append(
                    LabelEvent(
                        sample_id=ready["ids"][place],
                        value=ready["values"][place],
                        event_id=str(ready["ids"][place]),
                        annotator=self.annotator,
                        cost_minor=self.price_minor,
                        at=at,
                    )
                )
            given[ack.key] = stop
        return events, json.dumps(given, sort_keys=True)

    def cancel(self, order: Order) -> None:
        """Takes back the answers that are not there yet; those that are stay."""
        for ack in order.chunks:
            placed = self._order(ack.key)
            if not self._ready(placed)["ids"]:
                write_text(
                    self._path(ack.key),
                    json.dumps(placed | {"cancelled": True}, ensure_ascii=False),
                )

    def erase(self, order: Order, ids: Ids) -> None:
        """Forgets the answers of these samples; what was fetched before is not its to take back."""
        gone = {int(sample_id) for sample_id in ids}
        for ack in order.chunks:
            placed = self._order(ack.key)
            erased = sorted(gone.intersection(placed["ids"]) | set(placed.get("erased", ())))
            pairs = zip(placed["ids"], placed["values"], strict=True)
            values = [None if sample_id in gone else value for sample_id, value in pairs]
            if values != placed["values"]:
                order_file = placed | {"values": values, "erased": erased}
                write_text(self._path(ack.key), json.dumps(order_file, ensure_ascii=False))

    # -------------------------------------------------------------------------------------- below

    def _answers(self, key: str, ids: Ids) -> list[Label]:
        secret_labels, vocabulary, _ = self._bound()
        labels = list(secret_labels(ids))
        missing = np.flatnonzero([label is None for label in labels])
        if len(missing):
            raise LabelError(
                f"chunk {key}: the pool has no label for {len(missing)} of {len(ids)} samples "
                f"(first sample_id {ids[missing[0]]}); the oracle only reveals what was ingested "
                "with --label-column: use labeler=file_drop"
            )
        plain = [_plain(label) for label in labels]
        return noisy(ids, plain, vocabulary, self.noise, self._keys)

    def _ready(self, placed: dict[str, Any]) -> dict[str, list[Any]]:
        if placed.get("cancelled") or time.time() < placed["submitted_at"] + self.latency_s:
            return {"ids": [], "values": []}
        return {"ids": placed["ids"], "values": placed["values"]}

    def _path(self, key: str) -> Path:
        return self._bound()[2] / f"{key}.json"

    def _read(self, key: str) -> dict[str, Any] | None:
        path = self._path(key)
        return json.loads(path.read_text()) if path.exists() else None

    def _order(self, key: str) -> dict[str, Any]:
        placed = self._read(key)
        if placed is None:
            raise LabelError(
                f"the oracle knows no chunk {key} (no file {self._path(key)}); restore the run's "
                "folder, or start a new run_dir"
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
