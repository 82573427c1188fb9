"""Lance tables: rows lie in fragments, of one data file or of several, less those that are deleted.

The package pylance reads them. A fragment is known by the bytes of all its files, also of the one
that says which of its rows are deleted, so that no change of it goes unseen.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.fs as pa_fs

from rayal.errors import PoolError
from rayal.pool.formats.reading import BLOCK_BYTES, Reading, blocks, decoded, stored, stored_type
from rayal.pool.formats.table import Part, Table, refusal, store_options

ENDING, VERSIONS = ".lance", "_versions"
# What is decoded at once, and read ahead of it: pylance's own defaults (16 batches, 2 GiB) hold far
# more of wide rows and long texts than an ingest needs.
_STEP_ROWS, _STEP_BYTES = 1_024, BLOCK_BYTES // 2
_AHEAD_BYTES = 16 << 20


def table_at(filesystem: pa_fs.FileSystem, folder: str, uri: str) -> Table | None:
    """Gives the table that a folder is: one named `*.lance`, or with manifests of versions; None
    for any other. O(fragments) time and memory.

    Raises:
        PoolError: the manifest cannot be read, or rows lie elsewhere than in the table.
    """
    if not _is_table(filesystem, folder):
        return None
    try:
        import lance
    except ImportError as error:
        raise PoolError(
            f"{folder} is a Lance table, which needs a package that is not there "
            f"({' '.join(str(error).split())}); pip install 'rayal[lance]'"
        ) from error
    try:
        found = lance.dataset(uri, storage_options=store_options(uri))
        fragments = sorted(found.get_fragments(), key=lambda fragment: fragment.fragment_id)
        parts = {_name(folder, one): _part(folder, one) for one in fragments}
        ids = {_name(folder, one): one.fragment_id for one in fragments}
    except PoolError:
        raise
    except BaseException as error:
        raise PoolError(
            f"{folder} cannot be read as a Lance table: {refusal(error)}; restore its {VERSIONS}, "
            "or write its rows into a new table"
        ) from error
    return Table("lance", folder, parts, functools.partial(_read, found=found, ids=ids))


def _is_table(filesystem: pa_fs.FileSystem, folder: str) -> bool:
    below = pa_fs.FileSelector(f"{folder}/{VERSIONS}", allow_not_found=True)
    if any(info.path.endswith(".manifest") for info in filesystem.get_file_info(below)):
        return True
    if not folder.endswith(ENDING):
        return False
    raise PoolError(
        f"{folder} is named as a Lance table is, and has no manifest in {VERSIONS}; copy the table "
        "whole, or write its rows into a new one"
    )


def _name(folder: str, fragment: Any) -> str:
    return f"{folder}/data/{fragment.metadata.files[0].path}"


def _part(folder: str, fragment: Any) -> Part:
    meta = fragment.metadata
    if any(file.base_id is not None for file in meta.files):
        raise PoolError(
            f"{folder} is a Lance table whose fragment {fragment.fragment_id} lies in another "
            "table, expected files of its own, as a deep clone has; write its rows into a new table"
        )
    if meta.overlays:
        raise PoolError(
            f"{folder} is a Lance table whose fragment {fragment.fragment_id} has values laid over "
            "its files, expected none; write them in with dataset.optimize.compact_files()"
        )
    paths = [f"{folder}/data/{file.path}" for file in meta.files]
    if fragment.deletion_file() is not None:
        paths.append(f"{folder}/{fragment.deletion_file()}")
    return Part(tuple(paths), num_rows=fragment.count_rows())


def _read(
    filesystem: pa_fs.FileSystem,
    path: str,
    schema: pa.Schema | None,
    how: Reading,
    *,
    found: Any,
    ids: Mapping[str, int],
) -> Iterator[pa.RecordBatch]:
    """Gives the rows of one fragment that are not deleted, a block at a time; first an empty one,
    which says the columns. One that came after a fragment was written is null in its rows.

    Raises:
        PoolError: a column's values lie apart from the rows.
    """
    columns = found.schema
    if schema is None:
        how.check(columns.names)
    names = how.kept(columns.names)
    with _as_arrow():
        rows = found.scanner(
            columns=names,
            fragments=[found.get_fragment(ids[path])],
            scan_in_order=True,
            batch_size=_STEP_ROWS,
            batch_size_bytes=_STEP_BYTES,
            batch_readahead=1,
            fragment_readahead=1,
            io_buffer_size=_AHEAD_BYTES,
        ).to_reader()
    for name in names:
        if stored_type(rows.schema.field(name).type) != stored_type(columns.field(name).type):
            raise PoolError(
                f"the Lance table {path.rpartition('/data/')[0]} keeps column '{name}' as blobs, "
                "apart from its rows, expected plain binary; write the column so, or leave it out "
                f"with --drop {name} (pool.drop=[{name}])"
            )
    plain = pa.schema([pa.field(n, stored_type(columns.field(n).type)) for n in names])
    yield pa.RecordBatch.from_pylist([], schema=plain)
    yield from blocks(decoded(stored(some, names), plain) for some in _batches(rows))


def _batches(rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        with _as_arrow():
            some = next(rows, None)
        if some is None:
            return
        yield some


@contextlib.contextmanager
def _as_arrow() -> Iterator[None]:
    """Runs what pylance does.

    Raises:
        pa.ArrowInvalid: it failed, also where it panics, which is no Exception.
    """
    try:
        yield
    except BaseException as error:
        raise pa.ArrowInvalid(refusal(error)) from error
