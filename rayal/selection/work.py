"""The folder of `--work`: one folder a selection, one process in it, and what goes in the end.

WORK/0123456789abcdef/lock             who works in it; free where that process is dead
                      outputs.parquet  a stream's rows
                      shard-*.arrow    slices
                      picks.jsonl      the journal
                      done             the selection came to its end
     0123456789abcdef-*/               passes beside it, where the pool is restricted
     .tmp-rayal-*/                     a stream on its way
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rayal.errors import ConfigError, RayalError
from rayal.locks import holder, lock
from rayal.storage import remove_folder, write_text

_LOCK, _DONE, TEMPORARY = "lock", "done", ".tmp-rayal-"


def open_work(work: str | Path) -> Path:
    """Gives the folder, made where there is none.

    Raises:
        ConfigError: it has no name, or cannot be made.
    """
    if work == "":  # or it would be the current folder
        raise ConfigError(
            "work is empty, expected a folder; name one, or leave work out to keep nothing"
        )
    folder = Path(work).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"work is {work}, where no folder can be made ({error.strerror}); name another"
        ) from error
    return folder


@contextlib.contextmanager
def temporary_in(folder: Path) -> Iterator[Path]:
    """Gives a folder that goes with the block; one that a kill left goes with the next selection
    that comes to its end."""
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=folder) as name:
        file = lock(Path(name) / _LOCK)
        assert file is not None  # nobody else knows the name
        with file:
            yield Path(name)


@contextlib.contextmanager
def alone_in(place: Path) -> Iterator[None]:
    """Keeps the folder of a selection, made where there is none, for this process. Where the block
    comes to its end so does the selection, and the folders of others that did go: what they were
    kept for is done.

    Raises:
        RayalError: another has it, here or in a process that lives.
        ConfigError: files cannot be locked there.
    """
    file = lock(place / _LOCK)
    if file is None:
        raise RayalError(
            f"this selection is already running in {place}, by {holder(place / _LOCK)}; wait for "
            "it or end it, then run the same command again"
        )
    with file:
        yield
        write_text(place / _DONE, "")
        _remove_others(place)


def _remove_others(place: Path) -> None:
    """Removes the folders of selections that came to their end, but for this one, and streams that
    a kill left on their way; none that somebody works in."""
    work = place.parent
    marks = (*work.glob(f"*/{_DONE}"), *work.glob(f"{TEMPORARY}*/{_LOCK}"))
    for other in {mark.parent for mark in marks} - {place}:
        file = lock(other / _LOCK)
        if file is not None:
            with file:
                for beside in work.glob(f"{other.name}-*"):
                    remove_folder(beside)
                remove_folder(other)
