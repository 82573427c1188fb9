"""What the user gives: Parquet files, or rows in memory; read group by group, never whole.

A group is a row group of a file, or a batch of rows in memory. A stream (a Ray Dataset, or a
pyarrow Dataset that is more than plain Parquet files) is written into a Parquet file first.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq

from rayal.columns import content_hash
from rayal.errors import ConfigError, PoolError
from rayal.pool.sources import find
from rayal.selection.columns import as_array
from rayal.storage import commit_file, sync

_BUFFER_BYTES = 4 << 20  # or a column of a row group is read whole, however large
_FOOTER_BYTES = 8


class Group(NamedTuple):
    """Rows that are read in order, from the first."""

    file: int
    place: int  # in the file
    num_rows: int


class Given(Protocol):
    """Rows of named columns, in groups."""

    @property
    def names(self) -> list[str]: ...
    @property
    def groups(self) -> Sequence[Group]: ...

    def where(self, group: Group) -> str:
        """Gives what to call the place of a group."""
        ...

    def rows(
        self, group: Group, names: Sequence[str], batch_rows: int, start: int, stop: int
    ) -> Iterator[pa.RecordBatch]:
        """Gives rows [start, stop) of a group, at most `batch_rows` at a time."""
        ...

    @property
    def fingerprint(self) -> str:
        """What tells contents apart."""
        ...


@dataclass(frozen=True)
class Held:
    """Rows in memory."""

    batches: tuple[pa.RecordBatch, ...]
    schema: pa.Schema
    what: str

    @classmethod
    def of(cls, table: pa.Table, what: str) -> Held:
        """Gives a table's rows where they are."""
        return cls(tuple(one for one in table.to_batches() if one.num_rows), table.schema, what)

    @property
    def names(self) -> list[str]:
        return list(self.schema.names)

    @property
    def groups(self) -> list[Group]:
        return [Group(i, 0, batch.num_rows) for i, batch in enumerate(self.batches)]

    def where(self, group: Group) -> str:
        return self.what

    def rows(
        self, group: Group, names: Sequence[str], batch_rows: int, start: int, stop: int
    ) -> Iterator[pa.RecordBatch]:
        _check_once(names, self.names, self.what)
        batch = self.batches[group.file].select(list(names))
        for lo in range(start, stop, batch_rows):
            yield batch.slice(lo, min(batch_rows, stop - lo))

    def stream(self) -> Stream:
        """Gives the rows for processes elsewhere, which cannot see this one's memory."""
        return Stream(
            self.names, lambda names: (batch.select(names) for batch in self.batches), self.what
        )

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for batch in self.batches:
            digest.update(content_hash(pa.Table.from_batches([batch])).encode())
        return digest.hexdigest()


@dataclass
class Files:
    """Parquet files of the same columns."""

    filesystem: pa_fs.FileSystem
    paths: tuple[str, ...]
    schema: pa.Schema  # of the first file
    groups: tuple[Group, ...]
    content: str = ""  # a hash of the rows, where whoever wrote the files made one
    # The reader of a group stays open where the last rows ended, so that those after them are not
    # decoded from the group's beginning: (what it reads, the row it stands at, itself).
    _open: tuple[Any, int, Iterator[pa.RecordBatch]] | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": None}

    @classmethod
    def of(
        cls, filesystem: pa_fs.FileSystem, parts: Sequence[tuple[str, Sequence[int] | None]]
    ) -> Files:
        """Gives files, each whole or of some row groups. Reads their footers.

        Raises:
            PoolError: one is no Parquet file.
        """
        groups, first = list[Group](), None
        for place, (path, chosen) in enumerate(parts):
            try:
                footer = pq.read_metadata(path, filesystem=filesystem)
                first = footer.schema.to_arrow_schema() if first is None else first
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(path, error) from error
            for j in range(footer.num_row_groups) if chosen is None else chosen:
                if num_rows := footer.row_group(j).num_rows:
                    groups.append(Group(place, j, num_rows))
        return cls(filesystem, tuple(path for path, _ in parts), first, tuple(groups))

    def moved(self, final: Path) -> Files:
        """Gives the one file in its last place. One that is there stays: it holds the same rows, in
        the order that slices may have been cut in."""
        (path,) = self.paths
        if not final.exists():
            sync(Path(path))
            commit_file(Path(path), final)
        return replace(Files.of(self.filesystem, [(str(final), None)]), content=self.content)

    @property
    def names(self) -> list[str]:
        return list(self.schema.names)

    def where(self, group: Group) -> str:
        return self.paths[group.file]

    def rows(
        self, group: Group, names: Sequence[str], batch_rows: int, start: int, stop: int
    ) -> Iterator[pa.RecordBatch]:
        key, path = (group, tuple(names), batch_rows), self.paths[group.file]
        at, batches = 0, self._batches(path, group.place, names, batch_rows)
        if self._open is not None and self._open[0] == key and self._open[1] <= start:
            _, at, batches = self._open
        self._open = None
        try:
            for batch in batches:
                lo, at = at, at + batch.num_rows
                if at <= start:
                    continue
                if stop <= at < group.num_rows:
                    self._open = (key, at, batches)
                yield batch.slice(max(start - lo, 0), min(at, stop) - max(lo, start))
                if at >= stop:
                    return
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from error

    def _batches(
        self, path: str, place: int, names: Sequence[str], batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        with self.filesystem.open_input_file(path) as stream:
            file = pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            missing = [name for name in names if name not in file.schema_arrow.names]
            if missing:
                raise PoolError(
                    f"{path} has no column '{missing[0]}' (it has: "
                    f"{', '.join(file.schema_arrow.names)}), expected the columns of "
                    f"{self.paths[0]}; write all files alike, or leave this one out"
                )
            _check_once(names, file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_rows, [place], list(names)):
                yield batch.select(list(names))

    @cached_property
    def fingerprint(self) -> str:
        """The rows' hash, else paths, sizes, times of change and footers: the last hold where every
        column's pages lie, and what is smallest and largest in them."""
        if self.content:
            return self.content
        digest = hashlib.sha256(repr(self.groups).encode())
        for info in self.filesystem.get_file_info(list(self.paths)):
            digest.update(f"{info.path}\x1f{info.size}\x1f{info.mtime_ns}\x1e".encode())
            with self.filesystem.open_input_file(info.path) as file:
                file.seek(info.size - _FOOTER_BYTES)
                size_bytes = int.from_bytes(file.read(4), "little")
                file.seek(info.size - _FOOTER_BYTES - size_bytes)
                digest.update(file.read(size_bytes))
        return digest.hexdigest()


@dataclass(frozen=True)
class Stream:
    """Rows that come once, to be written into files."""

    names: list[str]
    batches: Callable[[list[str]], Iterator[pa.RecordBatch]]  # of these columns
    what: str

    def read(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Gives the rows with these columns.

        Raises:
            PoolError: they cannot be read, or have two columns of a name.
        """
        _check_once(names, self.names, self.what)
        try:
            yield from self.batches(names)
        except (pa.ArrowException, OSError) as error:
            raise PoolError(
                f"{self.what} cannot be read ({_said(error)}); mend the files, or the schema of "
                "the dataset where they differ from it"
            ) from error


def open_given(outputs: Any, what: str = "the outputs") -> Held | Files | Stream:
    """Gives the rows of arrays by name, a table, a dataset of pyarrow or Ray, or Parquet files.

    Raises:
        ConfigError: it is nothing of the kind, or arrays differ in length.
        PoolError: there are no files, or one cannot be read.
    """
    if isinstance(outputs, str | Path):
        files = find(str(outputs))
        if files.format != "parquet":
            raise ConfigError(
                f"{what} are {outputs}, whose files are {files.format}, expected Parquet; convert "
                "them first"
            )
        return Files.of(files.filesystem, [(info.path, None) for info in files.infos])
    if isinstance(outputs, pa.RecordBatch):
        outputs = pa.Table.from_batches([outputs])
    if isinstance(outputs, pa.Table):
        return Held.of(outputs, what)
    if isinstance(outputs, Mapping):
        return Held.of(_table(outputs, what), what)
    if type(outputs).__module__.startswith("ray.data"):
        return Stream(outputs.columns(), functools.partial(_of_ray, outputs), what)
    if isinstance(outputs, pa_dataset.Dataset):
        return _of_dataset(outputs, what)
    if isinstance(outputs, pa_dataset.Fragment):
        outputs = outputs.scanner()
    if isinstance(outputs, pa_dataset.Scanner):
        names = list(outputs.projected_schema.names)
        return Stream(names, functools.partial(_of_scanner, outputs), what)
    if hasattr(outputs, "__arrow_c_stream__"):  # a data frame of pandas or polars
        return Held.of(_of_frame(outputs, what), what)
    raise ConfigError(
        f"{what} are a {type(outputs).__name__}, expected arrays by name, a pyarrow Table or "
        "Dataset, a Ray Dataset, or the path, folder or glob of Parquet files"
    )


def _check_once(names: Sequence[str], there: Sequence[str], where: str) -> None:
    for name in names:
        if there.count(name) > 1:
            raise PoolError(
                f"column '{name}' comes {there.count(name)} times in {where}, expected once; "
                "rename the others, or leave them out"
            )


def _of_frame(frame: Any, what: str) -> pa.Table:
    try:
        return pa.table(frame)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise ConfigError(
            f"{what} are a {type(frame).__name__} that is no table ({_said(error)}); give columns "
            "of one type each, and each name once"
        ) from error


def _table(arrays: Mapping[str, Any], what: str) -> pa.Table:
    columns = {}
    for name, values in arrays.items():
        if not isinstance(name, str):
            raise ConfigError(
                f"{what} have a column that is called {name!r}, expected names of columns with an "
                "array each, such as sample_id"
            )
        try:
            columns[name] = as_array(values)
        except ConfigError as error:
            raise ConfigError(f"column '{name}' of {what}: {error}") from error
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise ConfigError(f"arrays of {what} differ in length ({said}); give one row each")
    return pa.table(columns)


def _of_ray(dataset: Any, names: list[str]) -> Iterator[pa.RecordBatch]:
    rows = dataset.select_columns(names)
    for table in rows.iter_batches(batch_format="pyarrow", batch_size=None):
        yield from table.select(names).to_batches()


def _of_dataset(dataset: Any, what: str) -> Files | Stream:
    """Gives the files of a dataset that is nothing but Parquet files, else what it reads."""
    stream = Stream(list(dataset.schema.names), functools.partial(_of_scan, dataset), what)
    try:
        fragments = list(dataset.get_fragments())
    except ValueError:  # filtered: its fragments do not say by what
        return stream
    plain = [one for one in fragments if type(one).__name__ == "ParquetFileFragment"]
    if not fragments or len(plain) < len(fragments):
        return stream
    if any(one.physical_schema != dataset.schema for one in plain):  # partitions, older types
        return stream
    parts = [(one.path, [group.id for group in one.row_groups]) for one in plain]
    return Files.of(plain[0].filesystem, parts)


def _of_scan(dataset: Any, names: list[str]) -> Iterator[pa.RecordBatch]:
    yield from dataset.to_batches(columns=names, batch_readahead=1, fragment_readahead=1)


def _of_scanner(scanner: Any, names: list[str]) -> Iterator[pa.RecordBatch]:
    for rows in scanner.to_batches():
        yield rows.select(names)


def _unreadable(path: str, error: BaseException) -> PoolError:
    return PoolError(f"{path} cannot be read as Parquet ({_said(error)}); mend or remove the file")


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
