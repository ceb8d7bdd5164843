"""The embedded signature system, for demonstrations and tests: a SQLite file in which somebody signs.

python -m eventwright.tools.embedded_signatures FILE                          what was sent
python -m eventwright.tools.embedded_signatures FILE sign ENVELOPE
python -m eventwright.tools.embedded_signatures FILE decline ENVELOPE "too expensive"
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from eventwright.runs.event import new_id
from eventwright.tools.contract import Permanent
from eventwright.tools.signatures import Envelope, EnvelopeEnded, Letter, Signatures, Status
from eventwright.tools.sqlite_file import SqliteFile

_ENVELOPES = "SELECT * FROM envelopes LEFT JOIN endings ON envelope_id = id"


class EmbeddedSignatures(SqliteFile, Signatures):
    """A signature system in a file. `async with EmbeddedSignatures.open(path) as signatures`."""

    host = "the embedded signature system"

    async def prepare(self) -> None:
        # The amount is text: SQLite would keep a decimal as a float.
        await self._connection.execute(
            "CREATE TABLE IF NOT EXISTS envelopes (key TEXT PRIMARY KEY NOT NULL, id TEXT NOT NULL UNIQUE,"
            " email TEXT NOT NULL, name TEXT NOT NULL, reference TEXT NOT NULL, amount TEXT NOT NULL,"
            " currency TEXT NOT NULL, subject TEXT NOT NULL, document TEXT NOT NULL, sent_at TEXT NOT NULL)"
        )
        await self._connection.execute(
            "CREATE TABLE IF NOT EXISTS endings (envelope_id TEXT PRIMARY KEY NOT NULL REFERENCES envelopes (id),"
            " status TEXT NOT NULL, ended_at TEXT NOT NULL, reason TEXT NOT NULL)"
        )

    async def send(self, letter: Letter, *, key: str) -> Envelope:
        row = letter.model_dump(mode="json") | {"key": key, "id": new_id("env"), "sent_at": _now()}
        await self.execute(
            "INSERT INTO envelopes VALUES (:key, :id, :email, :name, :reference, :amount, :currency,"
            " :subject, :document, :sent_at)"
            " ON CONFLICT (key) DO NOTHING",
            row,
        )
        [kept] = await self.execute(f"{_ENVELOPES} WHERE key = ?", (key,))
        return _envelope(kept)

    async def by_key(self, key: str) -> Envelope | None:
        rows = await self.execute(f"{_ENVELOPES} WHERE key = ?", (key,))
        return _envelope(rows[0]) if rows else None

    async def read(self, envelope_id: str) -> Envelope | None:
        rows = await self.execute(f"{_ENVELOPES} WHERE id = ?", (envelope_id,))
        return _envelope(rows[0]) if rows else None

    async def void(self, envelope_id: str, reason: str) -> Envelope:
        return await self._end(envelope_id, "voided", reason)

    async def sign(self, envelope_id: str) -> Envelope:
        """What the customer does. Raises EnvelopeEnded, Permanent."""
        return await self._end(envelope_id, "completed", "")

    async def decline(self, envelope_id: str, reason: str) -> Envelope:
        """What the customer does. Raises EnvelopeEnded, Permanent."""
        return await self._end(envelope_id, "declined", reason)

    async def sent(self) -> list[Envelope]:
        """Every envelope, the oldest first."""
        return [_envelope(row) for row in await self.execute(f"{_ENVELOPES} ORDER BY envelopes.rowid")]

    async def _end(self, envelope_id: str, status: Status, reason: str) -> Envelope:
        await self.execute(
            "INSERT INTO endings SELECT id, ?, ?, ? FROM envelopes WHERE id = ? ON CONFLICT (envelope_id) DO NOTHING",
            (status, _now(), reason, envelope_id),
        )
        envelope = await self.read(envelope_id)
        if envelope is None:
            raise Permanent(f"there is no envelope {envelope_id!r}")
        if envelope.status != status:
            raise EnvelopeEnded(f"envelope {envelope_id} was {envelope.status} before it could be {status}")
        return envelope


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _envelope(row: sqlite3.Row) -> Envelope:
    names = ("id", "email", "name", "reference", "amount", "currency", "sent_at", "ended_at")
    told = {name: row[name] for name in names}
    return Envelope.model_validate({**told, "status": row["status"] or "sent", "reason": row["reason"] or ""})


async def _main(arguments: Sequence[str]) -> list[Envelope]:
    """What the command line says it did."""
    if not arguments:
        raise SystemExit(__doc__)
    async with EmbeddedSignatures.open(arguments[0]) as signatures:
        match arguments[1:]:
            case []:
                return await signatures.sent()
            case ["sign", envelope_id]:
                return [await signatures.sign(envelope_id)]
            case ["decline", envelope_id, reason]:
                return [await signatures.decline(envelope_id, reason)]
    raise SystemExit(__doc__)


if __name__ == "__main__":
    for line in asyncio.run(_main(sys.argv[1:])):
        sys.stdout.write(line.model_dump_json() + "\n")
