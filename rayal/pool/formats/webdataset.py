"""WebDataset tars: members of one basename are one row, their endings are its columns.

A tar is read once, forwards, and no member is ever written to a disk.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.fs as pa_fs

from rayal.errors import PoolError
from rayal.pool.formats.reading import BLOCK_BYTES, BLOCK_ROWS, Reading, Unsettled

KEY = "__key__"
MAX_MEMBER_BYTES = 256 << 20
# Endings that say what a member is; any other is bytes, which nobody unpickles.
_WHOLE = ("cls", "cls2", "class", "count", "index", "inx", "id")
_TEXT = ("txt", "text", "transcript", "json", "jsn")
_LATE = "*."  # before the ending of a column that the first block does not have
_NAME = re.compile(r"^((?:.*/)?[^./][^./]*)\.([^/]+)$")


def read(
    filesystem: pa_fs.FileSystem, path: str, schema: pa.Schema | None, how: Reading
) -> Iterator[pa.RecordBatch]:
    """Gives the rows of one tar, a block at a time: `__key__`, and a column an ending: integers for
    `cls` and its like, text for `txt` and `json`, else bytes; null where a row has no such member.

    Raises:
        Unsettled: an ending comes that no row before had.
        PoolError: the tar is not whole, a path in it leaves it, or a member is not what its name
            says; the message names tar and member.
    """
    columns = None if schema is None else list(schema.names)
    seen = {KEY}
    late = [name.removeprefix(_LATE) for name in how.text if name.startswith(_LATE)]
    for block in _blocks(_samples(filesystem, path)):
        endings = sorted({ending for sample in block for ending in sample})
        seen.update(endings)
        if columns is None:
            columns = how.kept([KEY, *sorted({*endings, *late} - {KEY})])
        for ending in endings:
            if ending not in columns and ending not in how.drop:
                key = next(sample[KEY] for sample in block if ending in sample)
                raise Unsettled(_LATE + ending, f"it first comes with {key} of {path}")
        arrays = [_column(block, name, path) for name in columns]
        yield pa.RecordBatch.from_arrays(arrays, names=columns)
    if schema is None and columns is not None:
        how.check(sorted(seen))


def _blocks(samples: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    held: list[dict[str, Any]] = []
    num_bytes = 0
    for sample in samples:
        held.append(sample)
        num_bytes += sum(len(value) for value in sample.values())
        if num_bytes >= BLOCK_BYTES or len(held) >= BLOCK_ROWS:
            yield held
            held, num_bytes = [], 0
    if held:
        yield held


def _samples(filesystem: pa_fs.FileSystem, path: str) -> Iterator[dict[str, Any]]:
    sample: dict[str, Any] = {}
    for key, ending, content in _members(filesystem, path):
        if sample and sample[KEY] != key:
            yield sample
            sample = {}
        if ending in sample:
            raise PoolError(f"{path} has two members {key}.{ending}, expected one; write it anew")
        sample[KEY] = key
        sample[ending] = content
    if sample:
        yield sample


def _column(block: list[dict[str, Any]], name: str, path: str) -> pa.Array:
    values = [sample.get(name) for sample in block]
    if name == KEY:
        return pa.array(values, pa.string())
    if name.rpartition(".")[2] in _WHOLE:
        return pa.array(
            [_whole(value, block[at], name, path) for at, value in enumerate(values)], pa.int64()
        )
    if name.rpartition(".")[2] in _TEXT:
        return pa.array(
            [_text(value, block[at], name, path) for at, value in enumerate(values)], pa.string()
        )
    return pa.array(values, pa.binary())


def _whole(value: bytes | None, sample: Mapping[str, Any], name: str, path: str) -> int | None:
    if value is None:
        return None
    said = value.strip()
    if re.fullmatch(rb"[-+]?[0-9]{1,18}", said):
        return int(said)
    raise PoolError(
        f"{path} has {said[:40]!r} in member {sample[KEY]}.{name}, expected a whole number of up "
        "to 18 digits, as the name says; mend it, or name the member .txt"
    )


def _text(value: bytes | None, sample: Mapping[str, Any], name: str, path: str) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        raise PoolError(
            f"{path} has text that is not UTF-8 in member {sample[KEY]}.{name} (byte "
            f"{error.start}); mend it, or name the member otherwise to keep bytes"
        ) from error


# ---------------------------------------------------------------------------------------- the tar


class _Strict(tarfile.TarInfo):
    """A header that must be whole: tarfile takes a broken one for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _Strict:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            raise tarfile.ReadError("it ends without the mark of its end") from None
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _members(filesystem: pa_fs.FileSystem, path: str) -> Iterator[tuple[str, str, bytes]]:
    """Gives (key, ending, content) of the members, one in memory at a time."""
    packed = "gzip" if path.lower().endswith(".tgz") else "detect"
    last = "its beginning"
    with filesystem.open_input_stream(path, compression=packed) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Strict) as tar:
                for member in tar:
                    last = member.name
                    content = _content(tar, member, path)
                    named = _NAME.match(member.name.removeprefix("./"))
                    if content is not None and named is not None:
                        yield named[1], named[2].lower(), content
                last = f"{last}, its last"
                while rest := tar.fileobj.read(1 << 20):
                    if rest.strip(b"\0"):
                        raise tarfile.ReadError("there is more after the mark of its end")
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            said = " ".join(str(error).split())[:200]
            raise PoolError(
                f"{path} is no whole tar: {said}, at or after member {last}; write or copy it again"
            ) from error


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> bytes | None:
    """Gives the bytes of a member, None for what is no row's."""
    parts = member.name.split("/")
    if any("\ud800" <= letter <= "\udfff" for letter in member.name):  # bytes that are no UTF-8
        raise PoolError(
            f"{path} has a member {ascii(member.name)[:200]}, whose name is not UTF-8; write "
            "it anew"
        )
    if member.name.startswith("/") or ".." in parts:
        raise PoolError(
            f"{path} has a member {member.name[:200]!r}, whose path leaves the tar; write it anew"
        )
    if member.isdir() or parts[-1].startswith("__") or parts[-1][:1] == ".":
        return None
    if not member.isreg():
        raise PoolError(
            f"{path} has a member {member.name} that is a link or a device, expected a file; write "
            "it anew with tar --dereference --hard-dereference"
        )
    if member.size > MAX_MEMBER_BYTES:
        raise PoolError(
            f"{path} has a member {member.name} of {member.size >> 20:,} MiB, expected at most "
            f"{MAX_MEMBER_BYTES >> 20} MiB; leave it out"
        )
    file = tar.extractfile(member)
    content = b"" if file is None else file.read()
    if len(content) != member.size:
        raise tarfile.ReadError(f"{len(content)} of {member.size} bytes are there")
    return content
