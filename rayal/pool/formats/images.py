"""Files that hold one row each: images below a folder, as they are, undecoded.

What cannot be decoded is a row's matter, and the model's transform's to reject.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.fs as pa_fs

from rayal.errors import PoolError
from rayal.pool.formats.reading import BLOCK_BYTES, Reading

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
ID_COLUMN = "path"
NUMBER = "number"  # a column only where it is asked for as the id
MAX_FILE_BYTES = 256 << 20
_BLOCK_FILES = 4_096
_READS_AT_ONCE = 16  # a file waits for a network or a disk; a block of all of them is in memory


def read(
    filesystem: pa_fs.FileSystem, infos: Sequence[pa_fs.FileInfo], root: str, how: Reading
) -> Iterator[tuple[tuple[str, ...], pa.RecordBatch]]:
    """Gives the paths of some files, and their rows: columns `image`, `path` below the root,
    `folder` (the name of the file's folder, "" for the root itself), and `number` where it is the
    id column: the whole number that the file's name is.

    Raises:
        PoolError: a path leaves the root, a file is far too large, or its name is no number.
    """
    names = ["image", "path", "folder", *[NUMBER] * (how.id_column == NUMBER)]
    how.check(names)
    kept = how.kept(names)
    refuse_escapes(filesystem, [info.path for info in infos], root)
    with ThreadPoolExecutor(_READS_AT_ONCE) as threads:
        for some in _blocks(infos):
            paths = tuple(info.path for info in some)
            below = [path[len(root) :].lstrip("/") for path in paths]
            columns = {
                "path": pa.array(below, pa.string()),
                "folder": pa.array([_folder(path) for path in below], pa.string()),
            }
            if NUMBER in kept:
                numbers = [_number(path) for path in paths]
                columns[NUMBER] = pa.array(numbers, pa.int64())
            if "image" in kept:
                content = list(threads.map(lambda path: _content(filesystem, path), paths))
                columns["image"] = pa.array(content, pa.binary())
            yield paths, pa.RecordBatch.from_arrays([columns[name] for name in kept], names=kept)


def refuse_escapes(filesystem: pa_fs.FileSystem, paths: Sequence[str], root: str) -> None:
    """Refuses what only looks as if it lay below the root.

    Raises:
        PoolError: a path has `..` in it, or is or goes through a link that leaves the root.
    """
    is_local = isinstance(filesystem, pa_fs.LocalFileSystem)
    base = root.rstrip("/")
    top = os.path.realpath(root) if is_local else base
    known: dict[str, bool] = {base: False}
    for path in paths:
        if ".." in path[len(base) :].split("/"):
            raise PoolError(f"{path} leaves its root {root} by '..'; mend or remove it")
        if is_local and _has_link(path, known):
            real = os.path.realpath(path)
            if not real.startswith(top.rstrip("/") + "/"):
                raise PoolError(
                    f"{path} is a link to {real}, outside of its root {root}; put the file itself "
                    "there, or ingest the folder that holds it"
                )


def _has_link(path: str, known: dict[str, bool]) -> bool:
    """Whether a path is a link, or goes through one below the root; one look a folder."""
    folder = os.path.dirname(path)
    if folder not in known:
        known[folder] = folder != "/" and _has_link(folder, known)
    return known[folder] or os.path.islink(path)


def _blocks(infos: Sequence[pa_fs.FileInfo]) -> Iterator[list[pa_fs.FileInfo]]:
    held: list[pa_fs.FileInfo] = []
    num_bytes = 0
    for info in infos:
        size = info.size or 0
        if size > MAX_FILE_BYTES:
            raise PoolError(
                f"{info.path} has {size >> 20:,} MiB, expected an image of at most "
                f"{MAX_FILE_BYTES >> 20} MiB; remove it, or write it smaller"
            )
        held.append(info)
        num_bytes += size
        if num_bytes >= BLOCK_BYTES or len(held) == _BLOCK_FILES:
            yield held
            held, num_bytes = [], 0
    if held:
        yield held


def _content(filesystem: pa_fs.FileSystem, path: str) -> bytes:
    try:
        with filesystem.open_input_file(path) as file:
            return bytes(file.read())
    except OSError as error:
        said = " ".join(str(error).split())[:300]
        raise PoolError(f"{path} cannot be read: {said}; mend or remove it") from error


def _folder(below: str) -> str:
    return below.rpartition("/")[0].rpartition("/")[2]


def _number(path: str) -> int:
    stem = path.rpartition("/")[2].rpartition(".")[0]
    if stem.isascii() and stem.isdigit() and len(stem) <= 18:
        return int(stem)
    raise PoolError(
        f"{path} has a name that is no whole number of up to 18 digits, expected one such as "
        f"00017.png for the id column '{NUMBER}'; leave the id column out to have paths as ids"
    )
