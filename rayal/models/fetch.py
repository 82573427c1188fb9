"""The bytes that a URI or a path leads to: within a time, a size and a kind of content."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rayal.errors import PlaceError, PoolError
from rayal.places import Place, is_store
from rayal.places.opened import filesystem
from rayal.places.patience import Patience, patiently

_HERE = ("local", "git")  # of fsspec: they lead to this machine's disks, past any root
_AGAIN = (429, 500, 502, 503, 504)  # a server that is busy, not one that says no
_FIRST_WAIT_S = 0.2
_CHUNK = 1 << 16


class Unfetchable(Exception):
    """One URI that gave nothing to use, and why; `again`: it may, a little later."""

    def __init__(self, why: str, *, again: bool = False) -> None:
        self.again = again
        super().__init__(why)


@dataclass(frozen=True)
class Limits:
    """What one fetch may take."""

    timeout_s: float
    retries: int
    max_bytes: int
    content_types: Sequence[str]  # how a type that is taken begins; one that is not said is taken


def fetch(uri: str, root: str | None, limits: Limits) -> bytes:
    """Gives the bytes of http(s)://, of a store (s3://, gs:// and what else `rayal.places` opens),
    or of a path or file:// below `root`. Tries again after 0.2, 0.4, 0.8 ... s where a server is
    busy or silent.

    Raises:
        Unfetchable: there are none, too many, or of another kind.
        PoolError: a path leaves its root, or there is no root for it.
    """
    wait_s = _FIRST_WAIT_S
    for left in range(limits.retries, -1, -1):
        try:
            scheme = uri.partition("://")[0].lower() if "://" in uri else "file"
            if scheme in ("http", "https"):
                return _of_web(uri, limits)
            if scheme in _HERE or ("::" in uri and scheme != "file" and not is_store(uri)):
                raise PoolError(
                    f"{uri[:200]!r} may lead to any file of this machine, expected a path or "
                    "file:// below the transform's root, or the URL of a server; mend it"
                )
            if scheme != "file":
                return _of_store(uri, limits)
            return _of_disk(uri, root, limits)
        except Unfetchable as error:
            if not error.again or not left:
                raise
        time.sleep(wait_s)
        wait_s *= 2
    raise AssertionError("a last try gives or raises")


def _of_web(uri: str, limits: Limits) -> bytes:
    end_s = time.monotonic() + limits.timeout_s
    try:
        if urllib.parse.urlsplit(uri).username is not None:
            raise Unfetchable("a name or a password stands in the URL; leave it out")
        with urllib.request.urlopen(uri, timeout=limits.timeout_s) as answer:
            kind = answer.headers.get("Content-Type", "").split(";")[0].strip().lower()
            if kind and not kind.startswith(tuple(limits.content_types)):
                raise Unfetchable(f"{kind} came, expected {' or '.join(limits.content_types)}")
            return _read(answer.read1, end_s, limits, getattr(answer, "length", None))
    except urllib.error.HTTPError as error:
        with error:
            raise Unfetchable(f"HTTP {error.code}", again=error.code in _AGAIN) from error
    except TimeoutError as error:
        raise Unfetchable(f"nothing came within {limits.timeout_s:g} s", again=True) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            why = f"nothing came within {limits.timeout_s:g} s"
            raise Unfetchable(why, again=True) from error
        raise Unfetchable(f"no connection ({_short(error.reason)})", again=True) from error
    except (http.client.HTTPException, OSError) as error:
        raise Unfetchable(f"the connection broke ({_short(error)})", again=True) from error
    except ValueError as error:  # no such URL
        raise Unfetchable(f"it is no URL ({_short(error)})") from error


def _of_store(uri: str, limits: Limits) -> bytes:
    end_s = time.monotonic() + limits.timeout_s
    patience = Patience(attempts=limits.retries + 1, within_s=limits.timeout_s)

    def read() -> bytes:
        opened, path = filesystem(uri)
        with opened.open_input_file(path) as file:
            return _read(file.read, end_s, limits)

    try:
        try:
            return patiently(uri, read, patience)
        except FileNotFoundError as error:
            Place(uri).exists()  # a bucket that is not there is another thing to say
            raise Unfetchable("there is no such file") from error
    except PlaceError as error:
        raise Unfetchable(str(error)) from error
    except (ValueError, TypeError, LookupError) as error:  # clients differ in how they say so
        raise Unfetchable(f"it is no URL ({_short(error)})") from error


def _of_disk(uri: str, root: str | None, limits: Limits) -> bytes:
    try:
        with open(_inside(uri, root), "rb") as file:
            return _read(file.read, time.monotonic() + limits.timeout_s, limits)
    except FileNotFoundError as error:
        raise Unfetchable("there is no such file") from error
    except OSError as error:
        raise Unfetchable(f"it cannot be read ({_short(error)})", again=True) from error
    except ValueError as error:  # a null byte
        raise Unfetchable(f"it is no path ({_short(error)})") from error


def _inside(path: str, root: str | None) -> str:
    if root is None:
        raise PoolError(
            f"{path[:200]!r} is a path, and no folder is named that it lies in; set the "
            "transform's root"
        )
    top = os.path.realpath(os.path.expanduser(root))
    real = os.path.realpath(os.path.join(top, path.removeprefix("file://")))
    if not real.startswith(top.rstrip("/") + "/"):
        raise PoolError(
            f"{path[:200]!r} leads to {real}, outside of the root {top}; mend the path, or set the "
            "transform's root to a folder that holds it"
        )
    return real


def _read(
    read: Callable[[int], bytes], end_s: float, limits: Limits, size_bytes: int | None = None
) -> bytes:
    """Gives all bytes; a server that sends drop by drop does not hold a worker for ever, as long as
    `read` gives what is there and does not wait for more."""
    found = bytearray()
    while size_bytes is None or len(found) < size_bytes:
        chunk = read(min(_CHUNK, limits.max_bytes + 1 - len(found)))
        if not chunk:
            break
        found += chunk
        if len(found) > limits.max_bytes:
            raise Unfetchable(f"it has more than {limits.max_bytes:,} bytes")
        if time.monotonic() > end_s:
            raise Unfetchable(f"it was not whole within {limits.timeout_s:g} s", again=True)
    if size_bytes is not None and len(found) < size_bytes:  # http.client does not say so
        raise Unfetchable(f"{len(found):,} of {size_bytes:,} bytes came", again=True)
    return bytes(found)


def _short(error: object) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
