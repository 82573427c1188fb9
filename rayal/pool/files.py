"""The source files of a pool: which it has taken, known by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace

import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq

from rayal.errors import PoolError
from rayal.places import Place
from rayal.pool.faults import is_of_a_file, one_line
from rayal.pool.manifest import Manifest
from rayal.pool.sources import Files

FOLDER = "files"
_READ_BYTES = 1 << 20
# Files that are read in one go: a small one alone would cost more than its rows.
_LOT_FILES, _LOT_BYTES = 1024, 32 << 20
_SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "size_bytes": pa.int64(),
        "mtime_ns": pa.int64(),
        "content_hash": pa.string(),
        "num_rows": pa.int64(),
    }
)


@dataclass(frozen=True)
class TakenFile:
    """A source file as it was when its rows were taken."""

    path: str
    size_bytes: int
    mtime_ns: int | None  # None: the store does not say
    content_hash: str
    num_rows: int | None = None  # None: its reader does not say which rows are of which file

    def looks_like(self, info: pa_fs.FileInfo) -> bool:
        """Whether a file of this name has neither changed its size nor its time."""
        is_dated = self.mtime_ns is not None
        return is_dated and (self.size_bytes, self.mtime_ns) == (info.size, info.mtime_ns)


def write(folder: Place, version: int, files: Sequence[TakenFile]) -> str:
    """Writes the table of a version's files; gives its path in the pool."""
    name = f"{FOLDER}/v{version:05d}.parquet"
    table = pa.Table.from_pylist([asdict(file) for file in files], _SCHEMA)
    out = pa.BufferOutputStream()
    pq.write_table(table, out)
    (folder / name).put_bytes(out.getvalue())
    return name


def read(folder: Place, manifest: Manifest) -> list[TakenFile]:
    """Gives the files of all versions.

    Raises:
        PoolError: a table is missing or damaged.
    """
    found: list[TakenFile] = []
    names = [field.name for field in fields(TakenFile)]
    for version in manifest.versions:
        if not version.files:
            continue
        place = folder / version.files
        try:
            rows = pq.read_table(place.open_input(), columns=names).to_pylist()
        except (pa.ArrowException, OSError, KeyError) as error:
            text = " ".join(str(error).split())[:200]
            raise PoolError(
                f"{place}, the table of the files that the pool has taken, cannot be read "
                f"({text}); restore it from a copy, or ingest the source into another folder"
            ) from error
        found += [TakenFile(**row) for row in rows]
    return found


def hashed(found: Files, info: pa_fs.FileInfo) -> TakenFile:
    """Gives a file with the hash of its bytes, as they lie there; a part of a table with that of
    all its files and of its values of partitions. O(bytes) time.

    Raises:
        PoolError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for place, path in enumerate(found.paths(info)):
            if place:
                digest.update(b"\x1e")
            with found.filesystem.open_input_stream(path, compression=None) as stream:
                while block := stream.read(_READ_BYTES):
                    digest.update(block)
    except Exception as error:
        if not is_of_a_file(error):
            raise
        raise PoolError(
            f"{info.path} cannot be read: {one_line(error)}; mend or remove the file"
        ) from error
    digest.update(found.mark(info).encode())
    return TakenFile(info.path, info.size, info.mtime_ns, digest.hexdigest())


def untaken(found: Files, taken: Sequence[TakenFile]) -> list[pa_fs.FileInfo]:
    """Gives the files of a source that no version has taken under their names. O(files), and
    O(bytes) of those whose size or time changed.

    Raises:
        PoolError: a file that was taken holds something else by now, or a table that has new files
            no longer has one that was taken.
    """
    by_name = {file.path: file for file in taken}
    new = []
    for info in found.infos:
        known = by_name.get(info.path)
        if known is None:
            new.append(info)
        elif not known.looks_like(info) and hashed(found, info).content_hash != known.content_hash:
            advice = (
                "restore the file, give what is new a name of its own"
                if found.table is None
                else "take what its table deleted out with rayal pool delete"
            )
            raise PoolError(
                f"{info.path} has changed since its rows were taken into the pool ({info.size} "
                f"bytes now, {known.size_bytes} then); rows keep what they were: {advice}, or "
                "ingest into another folder"
            )
    if new and found.table is not None:
        _refuse_rewritten(found, new, taken)
    return new


def gone(found: Files, taken: Sequence[TakenFile]) -> list[TakenFile]:
    """Gives the files that were taken and that a source has no more under their names; of one that
    was moved, neither under those that were taken since."""
    names = {info.path for info in found.infos}
    moved = {file.content_hash for file in taken if file.path in names}
    root = found.root.rstrip("/") + "/"
    return [
        file
        for file in taken
        if file.path not in names and (file.path.startswith(root) or file.content_hash not in moved)
    ]


def _refuse_rewritten(
    found: Files, new: Sequence[pa_fs.FileInfo], taken: Sequence[TakenFile]
) -> None:
    """Refuses a table whose new files may hold rows of files that it had: compacted, or updated.

    Raises:
        PoolError: it has new files, and one that was taken is neither there nor among them.
    """
    lost = gone(found, taken)
    if not lost:
        return
    sizes = {file.size_bytes for file in lost}  # a table that was moved has them, elsewhere
    there = {hashed(found, info).content_hash for info in new if info.size in sizes}
    lost = [file for file in lost if file.content_hash not in there]
    if lost:
        raise PoolError(
            f"{found.root} has {len(new)} new files, and no longer {len(lost)} whose rows the pool "
            f"took, such as {lost[0].path}; it was compacted, updated or overwritten, and rows may "
            "come twice: ingest into another folder"
        )


def shares(found: Files, taken: Sequence[TakenFile]) -> bool:
    """Whether a source has a file that was taken: by name, or its first one by content; of a table
    any one, since names of new files may sort before it."""
    names = {file.path for file in taken}
    if any(info.path in names for info in found.infos):
        return True
    some = found.infos[:1] if found.table is None else found.infos
    sizes = {file.size_bytes for file in taken}
    hashes = {file.content_hash for file in taken}
    alike = (info for info in some if info.size in sizes)
    return any(hashed(found, info).content_hash in hashes for info in alike)


def refuse_changed(found: Files, infos: Iterable[pa_fs.FileInfo]) -> None:
    """Refuses files that changed while they were read.

    Raises:
        PoolError: one is of another size or time than in the listing.
    """
    for info in infos:
        now = found.now(info)
        if (now.size, now.mtime_ns) != (info.size, info.mtime_ns):
            raise PoolError(
                f"{info.path} changed while it was read ({info.size} bytes before, {now.size} "
                "now); ingest again once nobody writes there"
            )


def lots(infos: Sequence[pa_fs.FileInfo]) -> Iterator[list[pa_fs.FileInfo]]:
    """Cuts a listing into runs of files that are read in one go; the same for the same listing."""
    lot: list[pa_fs.FileInfo] = []
    num_bytes = 0
    for info in infos:
        if lot and (len(lot) == _LOT_FILES or num_bytes + info.size > _LOT_BYTES):
            yield lot
            lot, num_bytes = [], 0
        lot.append(info)
        num_bytes += info.size
    if lot:
        yield lot


def counted(file: TakenFile, rows: dict[str, int]) -> TakenFile:
    """Gives a file with how many rows were read of it, where its reader names files."""
    return replace(file, num_rows=rows.get(file.path, 0 if not rows else None))
