"""The annotations that were told of: who asks again sees from them which are gone.

Label Studio forgets what is deleted. Kept are five numbers an annotation (40 bytes in memory, about
7 on disk), in files beside the run: level k holds more than level k - 1, new ones are merged with
all levels below the first empty one, so that each row is written O(log) times and there are few
files. A crash between two writes leaves a row in two levels, which are read as one.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rayal.storage import here, names_in, write_bytes
from rayal.types import Ids

_COLUMNS = ("task", "annotation", "sample_id", "is_paid")
_SUFFIX = ".parquet"


@dataclass(frozen=True)
class Known:
    """One annotation."""

    task: int
    annotation: int
    sample_id: int
    annotator: str
    is_paid: bool  # its first revision was told with its price


class Told:
    """The annotations of one project that were told of, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._codes: dict[str, int] = {}
        self._levels: list[npt.NDArray[np.int64]] = []
        for level in range(len([name for name in names_in(folder) if name.endswith(_SUFFIX)])):
            self._levels.append(self._read(level))
        self._rows = self._sorted()

    def of_tasks(self, tasks: Sequence[int]) -> list[Known]:
        """Gives what was told of some tasks. O(T log A)."""
        return [one for task in tasks for one in self._between(task, task + 1)]

    def between(self, after: int, last: int | None) -> list[Known]:
        """Gives what was told of the tasks with ids above `after`, up to `last` or to the end."""
        return list(self._between(after + 1, None if last is None else last + 1))

    def add(self, new: Sequence[Known]) -> None:
        """Keeps annotations for good, before anybody is told of them."""
        if not new:
            return
        parts = [self._numbers(new)]
        level = 0
        while level < len(self._levels) and len(self._levels[level]):
            parts.append(self._levels[level])
            level += 1
        if level == len(self._levels):
            self._levels.append(parts[0][:0])
        self._write(level, np.concatenate(parts))
        for below in range(level):
            self._write(below, parts[0][:0])
        self._rows = self._sorted()

    def forget(self, ids: Ids) -> None:
        """Forgets all annotations of some samples."""
        for level, rows in enumerate(self._levels):
            left = rows[~np.isin(rows[:, 2], ids)]
            if len(left) < len(rows):
                self._write(level, left)
        self._rows = self._sorted()

    # -------------------------------------------------------------------------------------- below

    def _between(self, start: int, stop: int | None) -> Iterator[Known]:
        tasks_A = self._rows[:, 0]
        first = int(np.searchsorted(tasks_A, start))
        end = len(tasks_A) if stop is None else int(np.searchsorted(tasks_A, stop))
        names = list(self._codes) if end > first else []
        for task, annotation, sample_id, is_paid, who in self._rows[first:end].tolist():
            yield Known(task, annotation, sample_id, names[who], bool(is_paid))

    def _numbers(self, some: Iterable[Known]) -> npt.NDArray[np.int64]:
        rows = [
            (one.task, one.annotation, one.sample_id, one.is_paid, self._code(one.annotator))
            for one in some
        ]
        return np.asarray(rows, np.int64)

    def _code(self, annotator: str) -> int:
        return self._codes.setdefault(annotator, len(self._codes))

    def _sorted(self) -> npt.NDArray[np.int64]:
        rows = np.concatenate([np.empty((0, 5), np.int64), *self._levels])
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        is_new = np.ones(len(rows), bool)
        is_new[1:] = rows[1:, 1] != rows[:-1, 1]
        return rows[is_new]

    def _path(self, level: int) -> Path:
        return self._folder / f"level-{level:02d}{_SUFFIX}"

    def _write(self, level: int, rows: npt.NDArray[np.int64]) -> None:
        names = list(self._codes)
        columns = {name: pa.array(rows[:, at]) for at, name in enumerate(_COLUMNS)}
        table = pa.table(columns | {"annotator": [names[who] for who in rows[:, 4].tolist()]})
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        write_bytes(self._path(level), sink.getvalue())
        self._levels[level] = rows

    def _read(self, level: int) -> npt.NDArray[np.int64]:
        table = pq.read_table(here(self._path(level), again=True))
        numbers = [np.asarray(table.column(name), np.int64) for name in _COLUMNS]
        who = [self._code(str(name)) for name in table.column("annotator").to_pylist()]
        return np.stack([*numbers, np.asarray(who, np.int64)], axis=1)
