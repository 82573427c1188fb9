"""The doorbell: a vendor's webhook is believed to be the vendor's, and nothing it says is used.

The signature is HMAC-SHA256 of "TIMESTAMP.BODY" with a shared secret, in hexadecimal, as several
vendors send it. A ring that is old, or was heard before, is no ring.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping

from rayal.errors import ConfigError
from rayal.labelers.http import secret


class Bell:
    """One vendor's doorbell.

    secret_env   the environment variable with the shared secret
    signature, timestamp  the headers; a scheme in front of the signature ("sha256=") is passed over
    tolerance_s  how old or how far ahead a ring may be
    """

    def __init__(
        self,
        secret_env: str,
        signature: str = "X-Signature",
        timestamp: str = "X-Timestamp",
        tolerance_s: float = 300.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not tolerance_s > 0:
            raise ConfigError(f"doorbell.tolerance_s is {tolerance_s:g}; give a number above 0")
        self._secret_env, self._tolerance_s, self._now = secret_env, tolerance_s, now
        self._signature, self._timestamp = signature.lower(), timestamp.lower()
        self._heard: dict[str, float] = {}

    def is_rung(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether a request is signed, fresh and new. Header names are lower case."""
        now = self._now()
        stamp, signed = headers.get(self._timestamp, ""), headers.get(self._signature, "")
        try:
            age_s = abs(now - float(stamp))
        except ValueError:
            return False
        if not age_s <= self._tolerance_s:  # NaN is no age either
            return False
        key = secret(self._secret_env, "the secret of the doorbell").encode()
        digest = hmac.new(key, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        told = signed.rpartition("=")[2].lower()
        if not hmac.compare_digest(digest.encode(), told.encode(errors="replace")):
            return False
        oldest = now - 2 * self._tolerance_s
        self._heard = {one: at for one, at in self._heard.items() if at > oldest}
        if digest in self._heard:
            return False
        self._heard[digest] = now
        return True
