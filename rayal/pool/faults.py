"""Which errors are a file's or its server's, and what they say in one line."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request

import pyarrow as pa

_TIMEOUT_S = 30.0
_CLIENTS = {"aiohttp", "fsspec", "paramiko", "requests"}  # whose errors may be no OSErrors


def is_of_a_file(error: Exception) -> bool:
    """Whether a file or its server is at fault."""
    if isinstance(error, pa.ArrowException | OSError | UnicodeDecodeError):
        return True
    return type(error).__module__.partition(".")[0] in _CLIENTS


def one_line(error: object) -> str:
    """Gives what an error says, on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def why_not_there(source: str) -> str:
    """Gives the words for a source that is not found. Of a web server, of which fsspec says so
    whether it refuses or does not answer, what it says when it is asked once more."""
    if not source.startswith(("http://", "https://")):
        return "does not exist"
    try:
        with urllib.request.urlopen(source, timeout=_TIMEOUT_S) as answer:
            return f"cannot be read, though its server answers with HTTP {answer.status}"
    except urllib.error.HTTPError as error:
        said = f"its server says HTTP {error.code} {error.reason}".rstrip()
        return f"does not exist ({said})" if error.code in (404, 410) else f"cannot be had: {said}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"cannot be reached: {one_line(getattr(error, 'reason', error))}"
