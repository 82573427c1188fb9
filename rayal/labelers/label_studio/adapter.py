"""Orders as the projects of a Label Studio server, answers as its annotations."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from rayal.errors import ConfigError, LabelError
from rayal.labelers import payload
from rayal.labelers.chunks import check_prices, check_rows, cut, job_key
from rayal.labelers.gate import Gate, Redaction
from rayal.labelers.http import secret
from rayal.labelers.label_studio.reading import (
    FIELDS,
    Place,
    begun,
    ended,
    events_of,
    sample_of,
    withdrawn,
)
from rayal.labelers.label_studio.screen import Screen
from rayal.labelers.label_studio.server import ANSWERED, UNANSWERED, Project, Server, tagged, where
from rayal.labelers.label_studio.tasks import MODEL, TAG, Layout, tasks
from rayal.labelers.label_studio.told import Known, Told
from rayal.types import Ack, Capabilities, Chunk, Ids, LabelEvent, Order, Status, Vocabulary

if TYPE_CHECKING:
    import httpx

_LONGEST_TITLE = 50  # Label Studio's own limit
_LONGEST_JOB = 27
_MOST_BYTES = 150_000_000  # of a chunk: a server takes 250 MB, and bytes grow by a third
_PAGES_A_FETCH = 10


class LabelStudio:
    """A Label Studio server: a project a round, made by us, with a task a row.

    url, token_env  the server, and the environment variable with a token of it: a personal access
                    token, or a legacy one
    columns     what leaves; the column `show` (kind text or image) or all of them (kind table) are
                shown, what else leaves stands in a table below
    pixels      height and width of an image that is a vector of uint8; other images are encoded
                bytes, which leave whole as data: URLs, or URLs, which leave as they are
    boxes       rectangles on the image and not classes of it
    prelabel    the column with a model's label, shown as a suggestion
    title       begins every project's title, which must stay as it is: rows are found by it
    overlap     answers a sample; the free edition does not enforce it
    in_doubt_s  a call that was cut off has ended by then: a server's or its proxy's limit
    doorbell_env  the environment variable with what the webhook's header X-Rayal-Doorbell holds
    """

    def __init__(
        self,
        url: str,
        token_env: str = "LABEL_STUDIO_TOKEN",
        columns: Sequence[str] | str | None = None,
        kind: str = "text",
        show: str | None = None,
        pixels: Sequence[int] | None = None,
        boxes: bool = False,
        prelabel: str | None = None,
        title: str = "rayal",
        instruction: str = "",
        overlap: int = 1,
        price_minor: int = 0,
        currency: str = "USD",
        rows_per_chunk: int = 1_000,
        pseudonyms: str | None = None,
        redact: Redaction | None = None,
        in_doubt_s: float = 60.0,
        timeout_s: float = 60.0,
        doorbell_env: str | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        check_prices(rows_per_chunk, price_minor)
        if overlap < 1:
            raise ConfigError(f"labeler.overlap={overlap}; give 1 or more answers a sample")
        if not 1 <= len(title) <= _LONGEST_TITLE - _LONGEST_JOB - 1:
            raise ConfigError(
                f"labeler.title has {len(title)} letters, and Label Studio leaves room for 1 to "
                f"{_LONGEST_TITLE - _LONGEST_JOB - 1} before a round's name"
            )
        self.overlap, self.price_minor, self.currency = overlap, price_minor, currency
        self.rows_per_chunk, self.title, self.instruction = rows_per_chunk, title, instruction
        self.layout = Layout(kind, show, tuple(pixels or ()), prelabel)
        self.boxes = boxes
        self.gate = Gate(columns, pseudonyms, redact)
        self.capabilities = Capabilities("tag", rows_per_chunk, in_doubt_s)
        self.server = Server(url, token_env, timeout_s, transport, sleep, now)
        self.client = self.server.client
        self._doorbell_env, self._now = doorbell_env, now
        self._run: tuple[Vocabulary | None, Path] | None = None
        self._told: dict[int, Told] = {}  # by project

    # ------------------------------------------------------------------------------ before a run

    def bind(self, secret_labels: object, vocabulary: Vocabulary | None, folder: str) -> None:
        """Gives the labeler what only a run knows: what a label may be (None: any text), and a
        folder of the run. `secret_labels` is for oracles; nothing here looks at it.

        Raises:
            ConfigError: the vocabulary cannot be put on a screen, or there is no token.
        """
        Screen(self.layout.kind, vocabulary, self.boxes)
        secret(self.server.tokens.token_env, "a token of Label Studio")
        self._run, self._told = (vocabulary, Path(folder) / "label_studio"), {}

    def check(self, schema: pa.Schema) -> None:
        """Refuses a pool whose rows cannot leave as configured, before any is ordered.

        Raises:
            ConfigError: a column is not there, or cannot be shown.
        """
        self.gate.check(schema.names)
        self.layout.check(self.gate.leaving(schema.names), schema)

    # --------------------------------------------------------------------------------- the orders

    def plan(self, job_id: str, rows: pa.Table) -> tuple[Chunk, ...]:
        """Gives the chunks of a batch.

        Raises:
            LabelError: a chunk is larger than a server takes in one call.
        """
        for start in range(0, rows.num_rows, self.rows_per_chunk):
            size_bytes = rows.slice(start, self.rows_per_chunk).nbytes
            if size_bytes > _MOST_BYTES:
                raise LabelError(
                    f"job {job_id}: {self.rows_per_chunk} rows are {size_bytes:,} bytes, and Label "
                    f"Studio takes about {_MOST_BYTES:,} a call; lower labeler.rows_per_chunk"
                )
        return cut(
            job_id, rows, self.rows_per_chunk, self.price_minor, payload.sha256, self.overlap
        )

    def submit(self, chunk: Chunk, rows: pa.Table) -> Ack:
        """Imports a chunk into its round's project, which is made where there is none; a chunk that
        is there already would be there twice.

        Raises:
            InDoubt: a call was cut off.
            LabelError: the server refuses, or these are not the rows of the chunk.
        """
        check_rows(chunk, rows, payload.sha256(rows))
        return Ack(chunk.key, str(self._import(chunk.key, rows)), rows.num_rows)

    def supply(self, chunk: Chunk, rows: pa.Table) -> None:
        """Imports rows of a chunk that the server lacks. Raises: as `submit`."""
        self._import(chunk.key, rows)

    def lookup(self, key: str) -> Ack | None:
        """Gives the ack of a chunk of which the server has tasks, and how many, or None."""
        counts = {
            project.id: self.server.count(project.id, [tagged(TAG, key)])
            for project in self._projects(_job(key))
        }
        there = [project for project, count in counts.items() if count]
        return Ack(key, str(there[0]), sum(counts.values())) if there else None

    def held(self, key: str) -> dict[int, list[str]]:
        """Gives a chunk's tasks by sample_id, as PROJECT:TASK, the oldest first."""
        found: dict[int, list[str]] = {}
        for project in self._projects(_job(key)):
            for task in self.server.every(project.id, [tagged(TAG, key)], "id,meta"):
                found.setdefault(sample_of(task, {key}), []).append(f"{project.id}:{task['id']}")
        return found

    def withdraw(self, key: str, items: Sequence[str]) -> None:
        """Deletes tasks, by their names in `held`, with the answers that they have."""
        by_project: dict[int, list[int]] = {}
        for item in items:
            project, _, task = item.partition(":")
            by_project.setdefault(int(project), []).append(int(task))
        for number, some in by_project.items():
            self.server.delete(number, some)

    # -------------------------------------------------------------------------------- the answers

    def status(self, order: Order) -> Status:
        """Gives how many tasks have an answer or a refusal."""
        num_done = sum(
            self.server.count(project.id, ANSWERED, any_of=True)
            for project in self._projects_of(order)
        )
        return Status(order.num_rows, min(num_done, order.num_rows))

    def fetch(self, order: Order, cursor: str) -> tuple[list[LabelEvent], str]:
        """Gives what annotations say that changed since the cursor; of very many, some pages.

        Raises:
            LabelError: the order's project is not there.
        """
        places = json.loads(cursor) if cursor else {}
        keys = frozenset(ack.key for ack in order.chunks)
        events: list[LabelEvent] = []
        for project in self._projects_of(order):
            place = Place(**places.get(str(project.id), {}))
            some, place = self._read(project, place, keys)
            events += some
            places[str(project.id)] = asdict(place)
        return events, json.dumps(places, sort_keys=True)

    def cancel(self, order: Order) -> None:
        """Deletes the tasks that nobody has answered."""
        for project in self._projects_of(order):
            waiting = self.server.every(project.id, UNANSWERED, "id")
            self.server.delete(project.id, [task["id"] for task in waiting], UNANSWERED)

    def erase(self, order: Order, ids: Ids) -> None:
        """Deletes the tasks of these samples, with their answers, and forgets that there were any.
        What was fetched before is not its to take back."""
        gone = set(np.asarray(ids, np.int64).tolist())
        for ack in order.chunks:
            self.withdraw(
                ack.key,
                [
                    item
                    for one, items in self.held(ack.key).items()
                    if one in gone
                    for item in items
                ],
            )
        for project in self._projects_of(order):
            self._told_of(project.id).forget(ids)

    def rings(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether a request has our secret in its header X-Rayal-Doorbell: Label Studio signs
        nothing, and sends no time. A ring that is heard twice makes one fetch more."""
        if self._doorbell_env is None:
            return False
        expected = secret(self._doorbell_env, "the secret of the doorbell")
        given = headers.get("x-rayal-doorbell", "")
        return hmac.compare_digest(given.encode(errors="replace"), expected.encode())

    # -------------------------------------------------------------------------------------- below

    def _import(self, key: str, rows: pa.Table) -> int:
        """Gives the project that the rows went to: the oldest of its title, which may be new."""
        vocabulary, _ = self._bound()
        has_more = bool(self.layout.more(rows.schema.names))
        screen = Screen(self.layout.kind, vocabulary, self.boxes, has_more)
        encoded = tasks(rows, key, self.layout, screen)
        there = self._projects(_job(key))
        if there:
            number = there[0].id
        else:
            number = self.server.create(
                {
                    "title": self._title(_job(key)),
                    "description": "made by rayal, which finds its rows by this title: keep it",
                    "label_config": screen.config(),
                    "maximum_annotations": self.overlap,
                    "expert_instruction": self.instruction,
                    "show_instruction": bool(self.instruction),
                    "model_version": MODEL if self.layout.prelabel else "",
                }
            )
        self.server.import_tasks(number, encoded)
        return number

    def _read(
        self, project: Project, place: Place, keys: frozenset[str]
    ) -> tuple[list[LabelEvent], Place]:
        """Gives the events of some pages, and the place behind them."""
        window_s = self.capabilities.in_doubt_s
        if not place.is_reading:
            newest, num_tasks = self.server.newest(project.id)
            place = begun(place, newest, num_tasks, self._now(), window_s)
        told, events, new = self._told_of(project.id), list[LabelEvent](), list[Known]()
        vocabulary, _ = self._bound()
        screen = Screen(self.layout.kind, vocabulary, self.boxes)
        for _ in range(_PAGES_A_FETCH):
            if not place.is_reading:
                break
            since = [where("updated_at", "greater", place.start, "Datetime")] if place.start else []
            page = self.server.page(project.id, since, place.after, FIELDS, whole=True)
            ids = [int(task["id"]) for task in page.tasks]
            last = None if page.is_last else ids[-1]
            known = told.of_tasks(ids) if place.start else told.between(place.after, last)
            by_task: dict[int, list[Known]] = {one: [] for one in ids}
            for one in known:
                if one.task in by_task:
                    by_task[one.task].append(one)
                else:
                    events.append(withdrawn(one))
            for task in page.tasks:
                some, met = events_of(
                    task, keys, by_task[int(task["id"])], screen, self.price_minor
                )
                events += some
                new += met
            place = (
                ended(place, self._now(), window_s)
                if page.is_last
                else replace(place, after=ids[-1])
            )
        told.add(new)
        return events, place

    def _projects_of(self, order: Order) -> list[Project]:
        handles = sorted({int(ack.handle) for ack in order.chunks if ack.handle.isdigit()})
        found = self._projects(job_key(order.job_id), handles)
        if not found:
            raise LabelError(
                f"Label Studio has no project '{self._title(job_key(order.job_id))}', which job "
                f"{order.job_id} was placed in; was it deleted, or is labeler.url another server?"
            )
        return found

    def _projects(self, job: str, ids: Sequence[int] = ()) -> list[Project]:
        return self.server.projects(self._title(job), ids)

    def _title(self, job: str) -> str:
        if len(job) > _LONGEST_JOB:
            job = hashlib.sha256(job.encode()).hexdigest()[:_LONGEST_JOB]
        return f"{self.title} {job}"

    def _told_of(self, project: int) -> Told:
        if project not in self._told:
            self._told[project] = Told(self._bound()[1] / str(project))
        return self._told[project]

    def _bound(self) -> tuple[Vocabulary | None, Path]:
        if self._run is None:
            raise LabelError("label_studio was not bound to a run; call bind() before its orders")
        return self._run


def _job(key: str) -> str:
    """Gives the job of a chunk: its key without the number."""
    return key.rpartition("-")[0]
