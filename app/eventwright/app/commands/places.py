"""Where things are, in words that may be shown: addresses without their passwords, the database's file."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from eventwright.app.settings import Settings


def without_password(url: str) -> str:
    """The address with `***` where a password stands."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    name, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{name.partition(':')[0]}:***@{host}"))


def sqlite_file(url: str) -> Path | None:
    """The file of a `sqlite:///…` address; None for another database."""
    scheme, _, rest = url.partition("://")
    return Path(rest.partition("?")[0].removeprefix("/")) if scheme.startswith("sqlite") else None


def redis_place(settings: Settings) -> str:
    """How workers are woken."""
    if settings.redis_url == "none":
        return "none: the sweep finds what is due"
    return without_password(settings.redis_url) if settings.redis_url else "embedded Valkey"
