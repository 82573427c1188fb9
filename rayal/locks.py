"""A folder for one process at a time.

The lock is the kernel's, on an open file, and ends with its process: a ledger's lease wants a
database, and SQLite's is none on a network filesystem, where a pool or the folder of a selection
may lie for workers on several nodes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import BinaryIO

from rayal.errors import ConfigError

_HELD = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)


def lock(path: Path, *, shared: bool = False) -> BinaryIO | None:
    """Gives the open file of a lock, whose folder is made where there is none, held until it is
    closed, with this process's name in it; None: another holds it. Those who hold it `shared` do so
    together, and beside nobody else; their names are not noted.

    Raises:
        ConfigError: files cannot be locked there.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+b")
        except FileNotFoundError:  # the folder was removed meanwhile
            continue
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                if shared:
                    return file
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
                file.flush()
                return file
        except FileNotFoundError:
            pass
        except OSError as error:
            file.close()
            if error.errno in _HELD:
                return None
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ConfigError(
                f"files in {path.parent} cannot be locked ({error.strerror}), so that two "
                "processes could spoil each other's there; name a folder on another disk"
            ) from error
        file.close()  # whoever held it removed it: the next is another file


def lock_shared(path: Path) -> BinaryIO:
    """Gives the open file of a lock that several processes hold at once, until it is closed.

    Raises:
        OSError: files cannot be locked there.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
        fcntl.flock(file, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # whoever held it alone removed it: the next is another file


def holder(path: Path) -> str:
    """Gives the words for the process that holds a lock."""
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip() or "another process"
    return "another process"
