"""Whole files on a disk: written under a temporary name, synced, and renamed into place.

A file that has its name is complete; what a crash leaves under `.tmp-` is never read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from rayal.errors import RayalError


def commit_file(temporary: Path, final: Path) -> None:
    """Makes a finished file or folder visible under its name; where files of a disk appear."""
    if temporary.is_dir() and final.is_dir():
        shutil.rmtree(final)  # a folder of the same step from an attempt that was not recorded
    os.replace(temporary, final)


def remove_folder(folder: Path) -> None:
    """Removes what is needed no more; where files of a disk disappear."""
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def atomic_path(
    final: Path | str, *, durable: bool = True, commit: Callable[[Path, Path], None] | None = None
) -> Iterator[Path]:
    """Gives a temporary path beside `final`; what the block leaves there is renamed into place, by
    `commit` where one is given.

    On an error nothing appears under `final`, and the temporary file is removed. Not `durable`: a
    power cut may leave a damaged file under its name, which the reader must be able to tell.

    Raises:
        RayalError: the disk is full.
    """
    final = Path(final)
    temporary = final.parent / f".tmp-{final.name}-{uuid.uuid4().hex[:8]}"
    try:
        with explained(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if durable:
                _sync_all(temporary)
            (commit or commit_file)(temporary, final)
            if durable:
                sync(final.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def explained(final: Path) -> Iterator[None]:
    """Runs what makes a file or a folder.

    Raises:
        RayalError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, RayalError) and is_disk_full(error):
            raise RayalError(
                f"the disk is full while writing {final}; nothing was half-written: free some "
                "space and run the same command again"
            ) from error
        raise


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error is, or came of, a full disk or quota; torch hides it in a RuntimeError."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_bytes(final: Path | str, content: bytes) -> None:
    """Writes a whole file at once."""
    with atomic_path(final) as temporary:
        temporary.write_bytes(content)


def write_text(final: Path | str, content: str) -> None:
    """Writes a whole UTF-8 file at once."""
    write_bytes(final, content.encode())


def sync(path: Path) -> None:
    """Makes what a file holds, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_all(path: Path) -> None:
    for one in (path,) if path.is_file() else path.iterdir():
        if one.is_file():
            sync(one)
        else:
            _sync_all(one)
