"""What is done when a store does not do as asked: wait and ask again, or say in one line why not.

This is the only place of rayal that asks a store again. Its clients are told to try once, for their
own waits cannot be bounded, and attempts within attempts multiply.
"""

from __future__ import annotations

import errno
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rayal.errors import PlaceError, RayalError
from rayal.places import settings

T = TypeVar("T")

# What the clients of pyarrow, s3fs, gcsfs and adlfs call their failures: pyarrow gives text alone.
_BUCKET = re.compile(r"NO_SUCH_BUCKET|NoSuchBucket|bucket does not exist|ContainerNotFound", re.I)
_REFUSED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID"
    r"|AUTHORIZATION_?FAILURE|failed to authenticate"
    r"|UNRECOGNIZED_CLIENT|EXPIRED_?TOKEN|MISSING_AUTHENTICATION_TOKEN|AUTHENTICATION_?FAILED"
    r"|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|Forbidden|Unauthorized"
    r"|HTTP status 40[13]|\b40[13] (?!of )|Unable to locate credentials|could not.{0,40}credentials"
    r"|OAuth2 access token",
    re.I,
)
_UNREACHED = re.compile(
    r"Could not connect to server|Could not resolve host|curlCode: [67]\b"
    r"|Could not connect to the endpoint|Cannot connect to host|Name or service not known",
    re.I,
)
_BUSY = re.compile(
    r"SLOW_?DOWN|THROTTL|SERVICE_UNAVAILABLE|INTERNAL_(FAILURE|ERROR)|InternalError"
    r"|REQUEST_?TIMEOUT|ConditionalRequestConflict|HTTP status (408|409|429|5\d\d)"
    r"|Too ?Many ?Requests|Service ?Unavailable|reduce your request rate|NETWORK_CONNECTION"
    r"|curlCode|Connection (was )?(reset|aborted|closed)|timed? ?out|incomplete ?read"
    r"|Server ?Disconnected|OperationAborted|Bad Gateway|Gateway Time-?out",
    re.I,
)
_BUSY_NUMBERS = {
    errno.EBUSY, errno.EAGAIN, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ETIMEDOUT,
    errno.EREMOTEIO,
}  # fmt: skip
_CLIENTS = {"adlfs", "aiohttp", "azure", "botocore", "gcsfs", "google"}  # with errors of their own
_UNREACHED_NUMBERS = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH}


@dataclass(frozen=True)
class Patience:
    """How often, and how long, a store is asked again. Waits double, each cut by chance to between
    half of it and all, so that a thousand workers do not come back in the same moment."""

    attempts: int = 8
    connects: int = 3  # attempts at a server that does not take the connection
    first_wait_s: float = 0.2
    longest_wait_s: float = 10.0
    within_s: float = 60.0  # no attempt begins later

    def wait_s(self, attempt: int) -> float:
        """Gives the wait after an attempt, counted from 1."""
        wait_s = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (attempt - 1))
        return wait_s * random.uniform(0.5, 1.0)


DEFAULT = Patience()


def patiently(url: str, ask: Callable[[], T], patience: Patience | None = None) -> T:
    """Gives what a store answers, asked again where it was busy or a connection broke.

    Raises:
        PlaceError: it refuses, has no such bucket, cannot be reached, or stayed busy.
        FileNotFoundError: it has no object of this name.
    """
    patience = patience or DEFAULT
    began = time.monotonic()
    attempt = 1
    while True:
        try:
            return ask()
        except Exception as error:
            again = _attempts(error, patience)
            if again is None:
                raise
            wait_s = patience.wait_s(attempt)
            spent_s = time.monotonic() - began
            if attempt >= again or spent_s + wait_s > patience.within_s:
                raise _explained(url, error, attempt, spent_s) from error
        time.sleep(wait_s)
        attempt += 1


def _attempts(error: Exception, patience: Patience) -> int | None:
    """Gives how many attempts an error is worth; None: it is not the store's to explain."""
    if isinstance(error, RayalError | NotImplementedError):
        return None
    text, number = _text(error), getattr(error, "errno", None)
    if _BUCKET.search(text):
        return 1
    if isinstance(error, FileNotFoundError | FileExistsError):
        return None
    if isinstance(error, PermissionError) or _REFUSED.search(text):
        return 1
    if number in _UNREACHED_NUMBERS or _UNREACHED.search(text):
        return patience.connects
    if number in _BUSY_NUMBERS or isinstance(error, ConnectionError | TimeoutError):
        return patience.attempts
    if _BUSY.search(text):
        return patience.attempts
    # adlfs gives RuntimeErrors, too.
    is_the_stores = type(error).__module__.partition(".")[0] in _CLIENTS
    return 1 if is_the_stores or isinstance(error, OSError | RuntimeError) else None


def _explained(url: str, error: Exception, attempts: int, spent_s: float) -> PlaceError:
    text, bucket = settings.scrubbed(_text(error)), settings.bucket_of(url)
    if _BUCKET.search(text):
        return no_bucket(url)
    if isinstance(error, PermissionError) or _REFUSED.search(text):
        return refused(url, text)
    if _UNREACHED.search(text):
        return PlaceError(
            f"{url}: the store {settings.server_of(url)} cannot be reached, tried {attempts} times "
            f"({text}); check the network and {settings.of(url).endpoint_name}"
        )
    if attempts > 1:
        return PlaceError(
            f"{url}: the store {settings.server_of(url)} was busy or cut the connection {attempts} "
            f"times in {spent_s:.1f} s ({text}); run the same command again later"
        )
    return PlaceError(f"{url} cannot be read or written: {text}; check the URL and {bucket}")


def no_bucket(url: str) -> PlaceError:
    """Gives the error of a bucket that is not there."""
    return PlaceError(
        f"{url}: there is no bucket {settings.bucket_of(url)!r} {settings.server_of(url)}; make "
        f"it, or correct the URL or {settings.of(url).endpoint_name}"
    )


def refused(url: str, text: str) -> PlaceError:
    """Gives the error of credentials that are missing, or that a store does not take."""
    names = settings.of(url)
    keys = " and ".join(names.keys)
    if names.are_missing():
        return PlaceError(
            f"{url} cannot be reached without credentials, and none were found: {keys} are not "
            f"set, nor is {names.instead}; set them for every process that reads or writes there"
        )
    return PlaceError(
        f"{url}: the store refuses the credentials ({text}); they are wrong, or expired, or may "
        f"not do this there: correct {keys}, or what {settings.bucket_of(url)!r} allows"
    )


def _text(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r" ?\(Request ID: [^)]*\)", "", text)
    return re.sub(r"^When .*?: (?=AWS Error)", "", text)[:300]
