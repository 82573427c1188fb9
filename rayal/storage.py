"""Where a run keeps its files: whole files that appear under their names at once.

Every outside effect of a run that is a file goes through `commit_file` or `remove_folder`, so that
a test can stop a run right before and right after each. Of a run in a store a local copy is worked
on (`rayal.copies`): these two keep the store up to date, and `here`, `folder_here` and `names_in`
get what others left there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rayal import copies, disk
from rayal.disk import explained, is_disk_full, sync


def commit_file(temporary: Path, final: Path) -> None:
    """Makes a finished file or folder visible under its name; the one point where files of a run
    appear."""
    copies.put(temporary, final)
    disk.commit_file(temporary, final)


def remove_folder(folder: Path) -> None:
    """Removes what is needed no more; the one point where files of a run disappear."""
    copies.remove(folder)
    disk.remove_folder(folder)


def remove_file(path: Path) -> None:
    """Removes one file, here and in the store that it is a copy of."""
    copies.remove(path)
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_path(final: Path | str, *, durable: bool = True) -> Iterator[Path]:
    """Gives a temporary path beside `final`; what the block leaves there gets its name.

    On an error nothing appears under `final`, and the temporary file is removed. Not `durable`: a
    power cut may leave a damaged file under its name, which the reader must be able to tell.

    Raises:
        RayalError: the disk is full.
        PlaceError: the store does not take it.
    """
    durable = durable and copies.origin(Path(final)) is None  # else the store's is what lasts

    def commit(temporary: Path, place: Path) -> None:
        commit_file(temporary, place)

    with disk.atomic_path(final, durable=durable, commit=commit) as temporary:
        yield temporary


def write_bytes(final: Path | str, content: bytes) -> None:
    """Writes a whole file at once."""
    with atomic_path(final) as temporary:
        temporary.write_bytes(content)


def write_text(final: Path | str, content: str) -> None:
    """Writes a whole UTF-8 file at once."""
    write_bytes(final, content.encode())


def path_of(text: str) -> Path:
    """Gives the path of a folder that is given as a path, a file:// URL, or the URL of a store: of
    that, the path of a local copy.

    Raises:
        PlaceError: rayal knows no such store.
    """
    if "://" in text and not text.startswith("file://"):
        return copies.copy_of(text)
    return Path(text.removeprefix("file://")).expanduser().absolute()


def named(path: Path) -> str:
    """Gives what a path is called in a message: of a copy, the URL that it is a copy of."""
    place = copies.origin(path)
    return str(path) if place is None else place.url


def here(path: Path | str, again: bool = False) -> Path:
    """Gives the path of a file, which is fetched if it lies in a store and there is no copy yet, or
    `again`: most files of a run never change. There is no file where there is none in the store."""
    copies.fetch(Path(path), again)
    return Path(path)


def folder_here(folder: Path | str) -> Path:
    """Gives the path of a folder; of a copy, with what is in the store now."""
    copies.fetch_folder(Path(folder))
    return Path(folder)


def names_in(folder: Path) -> list[str]:
    """Gives the names in a folder, here or in the store that it is a copy of."""
    local = {one.name for one in folder.iterdir()} if folder.is_dir() else set()
    return sorted(local | copies.names_in(folder))


__all__ = [
    "atomic_path",
    "commit_file",
    "explained",
    "folder_here",
    "here",
    "is_disk_full",
    "named",
    "names_in",
    "path_of",
    "remove_folder",
    "sync",
    "write_bytes",
    "write_text",
]
