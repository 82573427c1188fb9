"""Who may speak with the desk: the browser that was given the address first, and no other page.

The page is on loopback, where every program and every site that a browser shows can send requests
to it. So the address holds a token that opens one session and no second; a request must name the
desk's own host (a name that another site points at 127.0.0.1 is refused) and come from its page.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from http.cookies import CookieError, SimpleCookie

_BYTES = 32


class Guard:
    """The token of one desk on this port, and the session that it opened."""

    def __init__(self, port: int) -> None:
        self.token = secrets.token_urlsafe(_BYTES)
        # By port: browsers send cookies to all ports of a host.
        self._cookie = f"rayal_desk_{port}"
        self._hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        self._session: str | None = None
        self._lock = threading.Lock()

    def admit(self, token: str) -> str | None:
        """Gives the Set-Cookie line of the session that the token opens; None: it is no token, or
        it was used before."""
        with self._lock:
            is_right = hmac.compare_digest(token.encode(), self.token.encode())
            if self._session is not None or not is_right:
                return None
            self._session = secrets.token_urlsafe(_BYTES)
            return f"{self._cookie}={self._session}; Path=/; HttpOnly; SameSite=Strict"

    def knows(self, cookies: str) -> bool:
        """Whether a Cookie header has the session."""
        try:
            found = SimpleCookie(cookies).get(self._cookie)
        except CookieError:
            return False
        if found is None or self._session is None:
            return False
        return hmac.compare_digest(found.value.encode(), self._session.encode())

    def is_own_host(self, host: str) -> bool:
        """Whether a Host header names this desk."""
        return host.lower() in self._hosts

    def is_own_origin(self, origin: str | None, host: str) -> bool:
        """Whether an Origin header is that of the desk's own page, at the same host."""
        return origin is not None and origin.lower() == f"http://{host.lower()}"
