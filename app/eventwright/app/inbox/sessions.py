"""Sessions of the inbox: a cookie that names who signed in, and marks by which our own pages are known.

The cookie holds no key. It is signed with a key that is made from the API key, so every process that has the API key
takes it, none has to remember it, and a new API key ends it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from itsdangerous import BadData, Signer, URLSafeTimedSerializer

from eventwright.app.web.access import KEY_HOLDER, Principal

#: Seconds that a session lasts.
LASTS = 12 * 3600
#: Seconds by which the clock of another machine may be ahead.
AHEAD = 30
#: Characters that a cookie of ours has at most.
_LONGEST = 2000


class Sessions:
    """Makes and reads the tokens of one service.

    Args:
        key: the API key; None for a service without one, where nobody signs in.
    """

    def __init__(self, key: str | None) -> None:
        self.key = key
        root = secrets.token_bytes(32) if key is None else key.encode()
        self._cookies = URLSafeTimedSerializer(
            root,
            salt="eventwright inbox: sessions, 1",
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )
        self._marks = Signer(
            root, salt="eventwright inbox: forms, 1", key_derivation="hmac", digest_method=hashlib.sha256
        )

    def is_key(self, given: str) -> bool:
        """Whether this is the API key, found out in the same time whatever was given."""
        return self.key is not None and hmac.compare_digest(given.encode(), self.key.encode())

    def token(self, principal: Principal) -> str:
        """What the cookie of this principal holds, from now on for `LASTS` seconds."""
        return str(self._cookies.dumps(None if principal.verified else principal.name))

    def read(self, token: str) -> Principal | None:
        """Who signed in; None for a token that is not ours, not of this key, or too old."""
        if len(token) > _LONGEST:
            return None
        try:
            name, began = self._cookies.loads(token, return_timestamp=True)
        except BadData:
            return None
        if not -AHEAD <= time.time() - began.timestamp() <= LASTS:
            return None
        return Principal(KEY_HOLDER, verified=True) if name is None else Principal(name, verified=False)

    def mark(self, session: str) -> str:
        """What each form of this session carries, and a page of anybody else cannot know."""
        return self._marks.get_signature(session).decode()
