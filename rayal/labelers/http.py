"""Calls to vendors over HTTP, and what it means when one fails.

A call that certainly did nothing is made again, with growing waits. One that may have done
something is not: `InDoubt` says so, and the ledger's recovery takes over. Secrets come from the
environment, and leave this process in a header and nowhere else.
"""

from __future__ import annotations

import email.utils
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rayal.errors import ConfigError, InDoubt, LabelError

if TYPE_CHECKING:
    import httpx

_LONGEST_WORDS = 300
_LONGEST_WAIT_S = 60.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Reply:
    """What a server said: the status, and its JSON or its text."""

    status: int
    body: Any


class Client:
    """One vendor's server.

    headers    gives the headers of a call, secrets among them; asked anew for each call, and once
               more with True where the server said that they are not valid (401)
    timeout_s  of a call; reading may take longer than writing at a busy server
    patience   how often a call that did nothing is made again
    transport, sleep  for tests
    """

    def __init__(
        self,
        url: str,
        headers: Callable[[bool], Mapping[str, str]] = lambda anew: {},
        timeout_s: float = 60.0,
        patience: int = 6,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.password:
            shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            raise ConfigError(
                f"labeler.url is '{shown}'; give https://host/path, without a password in it"
            )
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ConfigError(
                f"labeler.url={url} is not encrypted, so rows and tokens could be read on their "
                "way; give https:// (http:// is for this machine alone)"
            )
        self.url = url.rstrip("/")
        self._headers, self._sleep, self._patience = headers, sleep, patience
        self._timeout_s, self._transport = timeout_s, transport
        self._made: httpx.Client | None = None

    def get(self, path: str, params: Mapping[str, Any] | None = None, **more: Any) -> Reply:
        """Asks; a call that was cut off is made again.

        Raises:
            LabelError: the server refuses, or cannot be reached.
        """
        return self.call("GET", path, params=params, again=True, **more)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        again: bool = False,
        allowed: tuple[int, ...] = (),
    ) -> Reply:
        """Makes a call; gives a reply of status 2xx, or one of `allowed`. `again`: doing it twice
        is the same as once, so that one that was cut off is made again.

        Raises:
            InDoubt: it was cut off, or the server failed, after it may have been done.
            LabelError: the server refuses, or cannot be reached: nothing was done.
        """
        import httpx

        anew, said = False, ""
        for attempt in range(self._patience + 1):
            wait_s = min(0.5 * 2.0**attempt, _LONGEST_WAIT_S)
            try:
                response = self._client().request(
                    method,
                    f"{self.url}{path}",
                    json=body,
                    params=None if params is None else dict(params),
                    headers=dict(self._headers(anew)),
                )
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                said = f"it cannot be reached ({type(error).__name__})"
            except httpx.TransportError as error:
                said = f"the call was cut off ({type(error).__name__})"
                if not again:
                    raise InDoubt(f"{self._named(method, path)}: {said}") from None
            else:
                status = response.status_code
                if status < 300 or status in allowed:
                    return Reply(status, _body(response))
                said = f"{status} {self._words(response)}"
                if status == 401 and not anew:
                    anew, wait_s = True, 0.0
                elif status in (408, 425, 429) or (status == 503 and _asks_to_wait(response)):
                    wait_s = _retry_after(response, wait_s)
                elif status >= 500:
                    if not again:
                        raise InDoubt(f"{self._named(method, path)}: {said}")
                else:
                    raise LabelError(f"{self._named(method, path)} was refused: {said}")
            if attempt < self._patience:
                self._sleep(wait_s)
        raise LabelError(
            f"{self._named(method, path)}: {said}; asked {self._patience + 1} times. The same "
            "command again goes on"
        )

    def close(self) -> None:
        """Closes the connections."""
        if self._made is not None:
            self._made.close()
            self._made = None

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def _client(self) -> httpx.Client:
        if self._made is None:
            try:
                import httpx
            except ModuleNotFoundError as error:
                raise ConfigError(
                    "labellers over HTTP need the package 'httpx', which is not installed; run: "
                    "pip install 'rayal[vendors]'"
                ) from error
            # No redirects: credentials must not follow one, and a POST would become a GET.
            self._made = httpx.Client(
                timeout=self._timeout_s, transport=self._transport, follow_redirects=False
            )
        return self._made

    def _named(self, method: str, path: str) -> str:
        return f"{method} {self.url}{path.partition('?')[0]}"

    def _words(self, response: httpx.Response) -> str:
        words = " ".join(response.text.split())[:_LONGEST_WORDS]
        for secret in self._headers(False).values():
            for part in secret.split():
                if len(part) >= 8:  # a scheme's name is no secret
                    words = words.replace(part, "***")
        if response.is_redirect:
            return f"(it points to {urlsplit(response.headers.get('location', '')).netloc}) {words}"
        return words


def secret(name: str, what: str) -> str:
    """Gives a secret from the environment.

    Raises:
        ConfigError: it is not there.
    """
    found = os.environ.get(name, "").strip()
    if not found:
        raise ConfigError(
            f"the environment variable {name} is empty, where {what} is expected; set it (a secret "
            "in a configuration would be in the ledger)"
        )
    return found


def _body(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return response.text


def _asks_to_wait(response: httpx.Response) -> bool:
    return "retry-after" in response.headers


def _retry_after(response: httpx.Response, usual: float) -> float:
    raw = response.headers.get("retry-after", "")
    try:
        wait_s = float(raw)
    except ValueError:
        try:
            wait_s = email.utils.parsedate_to_datetime(raw).timestamp() - time.time()
        except (TypeError, ValueError):
            return usual
    return min(max(wait_s, 0.0), _LONGEST_WAIT_S)
