"""Labelling through two folders: any person, tool or vendor can be on the other side.

OUTBOX/<chunk key>/part-00000.jsonl   the rows: sample_id, source_id where there is one, payload
OUTBOX/<chunk key>/manifest.json      written last: what the part holds, what an answer may be
INBOX/<chunk key>/*                   answers to that chunk (.jsonl, .csv, .manifest); any number of
                                      files, in any order
INBOX/<job>/*, INBOX/*                answers to any chunk of a job (a chunk key without its
                                      number), or of any job
Whoever writes an answer file gives it its name when it is complete: names that begin with "." or
end in ".tmp" are not read. A file that was read may stay; the same answer again changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from rayal.errors import ConfigError, LabelError
from rayal.labelers import payload
from rayal.labelers.answers import SUFFIXES, Answer, AnswerReader
from rayal.labelers.chunks import check_other_payload, check_prices, check_rows, cut
from rayal.labelers.gate import Gate, Redaction
from rayal.labelers.inbox import Inbox
from rayal.labelers.manifests import line_of
from rayal.labelers.outbox import Manifest, Outbox
from rayal.storage import is_disk_full, named, path_of
from rayal.types import (
    PICK_COLUMNS,
    Ack,
    Capabilities,
    Chunk,
    Ids,
    LabelEvent,
    Order,
    Status,
    Vocabulary,
)

_MOST_PROBLEMS = 5
_FORMATS = ("jsonl", "csv", "manifest")


class FileDrop:
    """Orders as files in one folder, answers as files in another.

    outbox, inbox   the two folders; None: `outbox` and `inbox` in the folder that `bind` names
    format          of the parts: jsonl, csv or manifest (of SageMaker Ground Truth: `source_ref` or
                    `source` is the column that is labelled); answers may come in any of them
    attribute       of answers in manifests, where they have several
    columns, pseudonyms, redact  what leaves, under which ids, and how (`Gate`)
    overlap         answers a sample that are ordered and taken; None: any number, one is expected
    price_minor     of an answer that does not say what it cost; refusals and corrections cost 0
    """

    def __init__(
        self,
        outbox: str | None = None,
        inbox: str | None = None,
        format: str = "jsonl",
        columns: Sequence[str] | str | None = None,
        rows_per_chunk: int = 5_000,
        price_minor: int = 0,
        currency: str = "USD",
        pseudonyms: str | None = None,
        redact: Redaction | None = None,
        overlap: int | None = None,
        source_ref: str | None = None,
        source: str | None = None,
        attribute: str | None = None,
    ) -> None:
        if format not in _FORMATS:
            raise ConfigError(f"file_drop cannot write '{format}'; choose {', '.join(_FORMATS)}")
        if (format == "manifest") != ((source_ref is None) != (source is None)):
            raise ConfigError(
                f"labeler.format={format} with source_ref={source_ref} and source={source}; give "
                "format=manifest and one of the two, the column that is labelled, or none of them"
            )
        self.source_ref, self.source, self.attribute = source_ref, source, attribute
        check_prices(rows_per_chunk, price_minor)
        if overlap is not None and overlap < 1:
            raise ConfigError(f"labeler.overlap={overlap}; give 1 or more answers a sample")
        self.format, self.overlap = format, overlap
        self.gate = Gate(columns, pseudonyms, redact)
        self.rows_per_chunk = rows_per_chunk
        self.price_minor, self.currency = price_minor, currency
        self.capabilities = Capabilities(family="path", max_rows_per_chunk=rows_per_chunk)
        self._places = (outbox, inbox)
        self._vocabulary: Vocabulary | None = None
        self._boxes: tuple[Outbox, Inbox] | None = None

    def bind(self, secret_labels: object, vocabulary: Vocabulary | None, folder: str) -> None:
        """Gives the labeler what only a run knows: what a label may be (None: any JSON value), and
        a folder of the run. `secret_labels` is for oracles; nothing here looks at it.

        Raises:
            ConfigError: the two folders cannot be told apart, made, written or read.
        """
        self._vocabulary = vocabulary
        named_boxes = zip(self._places, ("outbox", "inbox"), strict=True)
        out, back = (_box(place or str(Path(folder) / name)) for place, name in named_boxes)
        if out.resolve().is_relative_to(back.resolve()):
            raise ConfigError(
                f"labeler.outbox={named(out)} lies in labeler.inbox={named(back)}, so what goes "
                "out would be taken for an answer; give two folders"
            )
        _open_folders(out, back)
        outbox = Outbox(out)
        reader = AnswerReader(vocabulary, self.price_minor, self.currency, self.attribute)
        self._boxes = outbox, Inbox(back, outbox, reader)

    def check(self, schema: pa.Schema) -> None:
        """Refuses a pool whose rows cannot leave as configured, before any is ordered.

        Raises:
            ConfigError: a column is not there, or its type has no form in the parts.
        """
        there = [*schema.names, *(n for n in PICK_COLUMNS if n not in schema.names)]
        self.gate.check(there)
        names = self.gate.leaving(there)
        for name in (self.source_ref, self.source):
            if name is not None and name not in names:
                raise ConfigError(
                    f"the manifest's source is column '{name}', which does not leave (there leave: "
                    f"{', '.join(names)}); name it in labeler.columns, too"
                )
        types = {name: schema.field(name).type for name in names if name in schema.names}
        formless = [name for name, kind in types.items() if not payload.has_form(kind)]
        if formless:
            rest = [n for n in names if n not in (*formless, "sample_id", "source_id")]
            raise ConfigError(
                f"file_drop cannot write column '{formless[0]}', which is {types[formless[0]]}; "
                f"name the columns to send, such as 'labeler.columns=[{', '.join(rest)}]'"
            )

    def plan(self, job_id: str, rows: pa.Table) -> tuple[Chunk, ...]:
        """Gives the chunks of a batch, which has passed the gate."""
        each = self.overlap or 1
        return cut(job_id, rows, self.rows_per_chunk, self.price_minor, self._sha256, each)

    def submit(self, chunk: Chunk, rows: pa.Table) -> Ack:
        """Gives the ack of a chunk, placed now or before. `rows` are the chunk's own rows.

        Raises:
            LabelError: the rows are not the chunk's, or its key was placed with other rows.
        """
        outbox, _ = self._bound()
        names, content = self._encoded(rows)
        sha256 = hashlib.sha256(content).hexdigest()
        check_rows(chunk, rows, sha256)
        placed = outbox.find(chunk.key)
        if placed is not None:
            check_other_payload(chunk.key, placed["payload_sha256"], sha256, str(outbox.folder))
            return _ack(placed)
        schema = rows.schema
        manifest = {
            "version": 1,
            "key": chunk.key,
            "rows": rows.num_rows,
            "payload_sha256": sha256,
            "columns": [{"name": name, "type": str(schema.field(name).type)} for name in names],
            "cost_minor": chunk.cost_minor,
            "currency": self.currency,
            "answers_a_row": chunk.overlap,
            "answer": self._answer_form(chunk.key),
        }
        return _ack(outbox.place(manifest, f"part-00000.{self.format}", content))

    def lookup(self, key: str) -> Ack | None:
        """Gives the ack of a chunk whose manifest is there, or None."""
        placed = self._bound()[0].find(key)
        return None if placed is None else _ack(placed)

    def status(self, order: Order) -> Status:
        """Gives how many samples of an order have an answer that can be read."""
        answers = [answer for file in self._bound()[1].files(order) for answer in file.answers]
        return Status(order.num_rows, len({answer.event.sample_id for answer in answers}))

    def fetch(self, order: Order, cursor: str) -> tuple[list[LabelEvent], str]:
        """Gives the events of the files that the cursor has not seen, by (sample, event, revision).

        Raises:
            LabelError: lines cannot be read, are of unknown samples or labels, or contradict
                others; the message names file and line. Nothing is lost: all events come once the
                files are corrected.
        """
        inbox = self._bound()[1]
        seen: dict[str, str] = json.loads(cursor) if cursor else {}
        problems = inbox.strangers(order)
        answers: dict[tuple[str, int], Answer] = {}
        fresh: set[tuple[str, int]] = set()
        for file in inbox.files(order):
            problems += file.problems
            for answer in file.answers:
                key = (answer.event.event_id, answer.event.revision)
                problems += _contradiction(answers.setdefault(key, answer), answer)
                if seen.get(file.name) != file.sha256:
                    fresh.add(key)
            seen[file.name] = file.sha256
        if problems:
            raise LabelError(_report(problems, str(inbox.folder)))
        in_order = sorted(fresh, key=lambda key: (answers[key].event.sample_id, *key))
        return [answers[key].event for key in in_order], json.dumps(seen, sort_keys=True)

    def cancel(self, order: Order) -> None:
        """Marks the chunks of an order with a file `cancelled.json`; answers still count."""
        for ack in order.chunks:
            self._bound()[0].cancel(ack.key)

    def erase(self, order: Order, ids: Ids) -> None:
        """Takes rows out of the outbox for good and records it in the manifests; answers of these
        samples are not read any more. The inbox is the other side's to clean."""
        for ack in order.chunks:
            self._bound()[0].erase(ack.key, [int(sample_id) for sample_id in ids])

    def _encoded(self, rows: pa.Table) -> tuple[list[str], bytes]:
        names = list(rows.schema.names)
        if self.format != "manifest":
            return names, payload.encode(rows, names, self.format)
        lines = payload.encode(rows, names, "jsonl").decode().split("\n")
        told = (line_of(json.loads(x), self.source_ref, self.source) for x in lines if x)
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in told)
        return names, text.encode()

    def _sha256(self, rows: pa.Table) -> str:
        return hashlib.sha256(self._encoded(rows)[1]).hexdigest()

    def _answer_form(self, key: str) -> dict[str, Any]:
        known = self._vocabulary
        label = {"kind": "any"} if known is None else {"kind": known.kind, "classes": known.classes}
        optional = ["annotator", "at", "cost", "cost_minor", "event_id", "revision"]
        return {
            "folder": key,
            "files": [f"*{suffix}" for suffix in SUFFIXES],
            "label": label,
            "columns": {"needed": ["sample_id", "label"], "optional": optional},
        }

    def _bound(self) -> tuple[Outbox, Inbox]:
        if self._boxes is None:
            raise LabelError("file_drop was not bound to a run; call bind() before its orders")
        return self._boxes


def _box(text: str) -> Path:
    return path_of(text) if "://" in text else Path(text).expanduser()


def _open_folders(outbox: Path, inbox: Path) -> None:
    for name, folder in (("outbox", outbox), ("inbox", inbox)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if name == "outbox":
                tempfile.TemporaryFile(dir=folder).close()
            else:
                next(folder.iterdir(), None)  # whose it is, the other side may have settled
        except OSError as error:
            if is_disk_full(error):
                raise
            raise ConfigError(
                f"labeler.{name}={named(folder)} cannot be "
                f"{'written' if name == 'outbox' else 'read'} "
                f"({error.strerror or error}); give a folder of yours that is there or can be made"
            ) from error


def _ack(manifest: Manifest) -> Ack:
    return Ack(manifest["key"], manifest["key"], manifest["rows"])


def _contradiction(first: Answer, other: Answer) -> list[str]:
    one, two = first.event, other.event
    if (one.sample_id, one.value, one.annotator, one.cost_minor) == (
        two.sample_id,
        two.value,
        two.annotator,
        two.cost_minor,
    ):
        return []
    return [
        f"{other.where}: says {two.value!r} of sample_id {two.sample_id} where {first.where} says "
        f"{one.value!r} of {one.sample_id} (event '{one.event_id}' revision {one.revision}; cost "
        f"{two.cost_minor} and {one.cost_minor}); remove one, or give the later one a higher "
        "'revision'"
    ]


def _report(problems: Sequence[str], inbox: str) -> str:
    more = len(problems) - _MOST_PROBLEMS
    shown = " | ".join([*problems[:_MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])])
    return (
        f"the answers in {inbox} cannot be taken yet: {shown}; correct these lines and run the "
        "same command again, nothing is lost"
    )
