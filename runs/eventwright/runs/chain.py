"""The chain of a run's journal: each entry holds the hash of the one before it."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from eventwright.runs.event import digest_of
from eventwright.runs.records import JournalEntry


def journal_row(entry: JournalEntry) -> dict[str, Any]:
    """The entry as the journal table's row."""
    names = ("run_id", "seq", "at", "actor", "node", "version", "data", "prev", "hash")
    return {"kind": str(entry.kind), **{name: getattr(entry, name) for name in names}}


def hash_of(entry: JournalEntry) -> str:
    """What an entry's `hash` must be: SHA-256 over the canonical JSON of everything else, `prev` included.

    Raises:
        ValueError: the entry's data are not canonical JSON.
    """
    body = journal_row(entry)
    del body["hash"]
    body["at"] = entry.at and entry.at.astimezone(UTC).isoformat(timespec="microseconds")
    return digest_of(body)
