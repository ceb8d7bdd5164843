"""The book of leads in a SQLite file of its own: the embedded default.

A form is one row of `submissions`, and that row is all that is ever inserted. Triggers of the database make the contact
from it, fill what was empty and file the keys under which look-alikes are found. So a form is written down whole and
once, however many tasks and processes write at the same moment.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from eventwright.runs.event import new_id
from eventwright.tools.contract import Permanent
from eventwright.tools.leads_book import LOAD_DAYS, MOST_CANDIDATES, Contact, Details, Lead, LeadsBook, Qualification
from eventwright.tools.linkage import blocking_keys
from eventwright.tools.sqlite_file import SqliteFile

_FIELDS = tuple(Details.model_fields)
_COLUMNS = ", ".join(("id", *_FIELDS, "owner", "grade"))
_FILLED = ", ".join(
    f"{name} = CASE WHEN {name} = '' THEN json_extract(NEW.lead, '$.{name}') ELSE {name} END" for name in _FIELDS
)
_TABLES = (
    "CREATE TABLE IF NOT EXISTS contacts (id TEXT PRIMARY KEY NOT NULL, "
    + ", ".join(f"{name} TEXT NOT NULL DEFAULT ''" for name in (*_FIELDS, "owner", "assigned_at", "grade"))
    + ", qualification TEXT)",
    "CREATE INDEX IF NOT EXISTS contacts_by_owner ON contacts (owner, assigned_at)",
    "CREATE TABLE IF NOT EXISTS submissions (idempotency_key TEXT PRIMARY KEY NOT NULL, contact_id TEXT NOT NULL,"
    " lead TEXT NOT NULL, keys TEXT NOT NULL, created_at TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS submissions_by_contact ON submissions (contact_id)",
    "CREATE TABLE IF NOT EXISTS keys (key TEXT NOT NULL, contact_id TEXT NOT NULL, PRIMARY KEY (key, contact_id))"
    " WITHOUT ROWID",
    "CREATE TRIGGER IF NOT EXISTS submitted AFTER INSERT ON submissions BEGIN"  # noqa: S608 - our own names
    " INSERT OR IGNORE INTO contacts (id) VALUES (NEW.contact_id);"
    f" UPDATE contacts SET {_FILLED} WHERE id = NEW.contact_id;"
    " INSERT OR IGNORE INTO keys SELECT value, NEW.contact_id FROM json_each(NEW.keys);"
    " END",
)


class LeadsFile(SqliteFile, LeadsBook):
    """The book in a file. `async with LeadsFile.open(path) as book`."""

    async def prepare(self) -> None:
        for statement in _TABLES:
            await self._connection.execute(statement)

    async def contact(self, id: str) -> Contact | None:
        rows = await self.execute(f"SELECT {_COLUMNS} FROM contacts WHERE id = ?", (id,))  # noqa: S608 - our own names
        return Contact.model_validate(dict(rows[0])) if rows else None

    async def candidates(self, details: Details) -> list[Contact]:
        # Those that share most keys come first, should there be too many.
        rows = await self.execute(
            f"SELECT {_COLUMNS} FROM contacts JOIN (SELECT contact_id, count(*) AS shared FROM keys"  # noqa: S608
            " WHERE key IN (SELECT value FROM json_each(:keys)) GROUP BY contact_id) ON contact_id = id"
            " ORDER BY shared DESC, id LIMIT :most",
            {"keys": _keys(details), "most": MOST_CANDIDATES},
        )
        return [Contact.model_validate(dict(row)) for row in rows]

    async def add(self, lead: Lead, *, knowing: Sequence[str], idempotency_key: str) -> Contact | None:
        await self.execute(
            "INSERT INTO submissions SELECT :key, :contact_id, :lead, :keys, :at"
            " WHERE :crowd OR NOT EXISTS (SELECT 1 FROM keys WHERE key IN (SELECT value FROM json_each(:keys))"
            " AND contact_id NOT IN (SELECT value FROM json_each(:knowing))) ON CONFLICT (idempotency_key) DO NOTHING",
            self._submission(new_id("lead"), lead, idempotency_key)
            | {"knowing": json.dumps(list(knowing)), "crowd": len(knowing) >= MOST_CANDIDATES},
        )
        # Whoever wrote the row, we or an earlier call with this key, it is the one form of the key.
        rows = await self.execute("SELECT contact_id FROM submissions WHERE idempotency_key = ?", (idempotency_key,))
        return await self._known(rows[0]["contact_id"]) if rows else None

    async def amend(self, id: str, lead: Lead, *, idempotency_key: str) -> Contact:
        await self._known(id)
        await self.execute(
            "INSERT INTO submissions VALUES (:key, :contact_id, :lead, :keys, :at)"
            " ON CONFLICT (idempotency_key) DO NOTHING",
            self._submission(id, lead, idempotency_key),
        )
        return await self._known(id)

    async def qualify(self, id: str, qualification: Qualification) -> Contact:
        await self.execute(
            "UPDATE contacts SET grade = ?, qualification = ? WHERE id = ?",
            (qualification.grade, qualification.model_dump_json(), id),
        )
        return await self._known(id)

    async def assign(self, id: str, among: Sequence[str]) -> Contact:
        now = datetime.now(UTC)
        await self.execute(
            "UPDATE contacts SET assigned_at = :now, owner = (SELECT value FROM json_each(:among) ORDER BY"
            " (SELECT count(*) FROM contacts AS other WHERE other.owner = value AND other.assigned_at > :since), key"
            " LIMIT 1) WHERE id = :id AND owner = ''",
            {
                "id": id,
                "among": json.dumps(list(among)),
                "now": now.isoformat(),
                "since": (now - timedelta(days=LOAD_DAYS)).isoformat(),
            },
        )
        return await self._known(id)

    async def leads_of(self, id: str) -> list[Lead]:
        """Every form of a contact, oldest first."""
        rows = await self.execute("SELECT lead FROM submissions WHERE contact_id = ? ORDER BY rowid", (id,))
        return [Lead.model_validate_json(row["lead"]) for row in rows]

    async def _known(self, id: str) -> Contact:
        found = await self.contact(id)
        if found is None:
            raise Permanent(f"the book has no contact {id!r}; leads_book.find_matches says whom it has")
        return found

    def _submission(self, contact_id: str, lead: Lead, idempotency_key: str) -> dict[str, Any]:
        return {
            "key": idempotency_key,
            "contact_id": contact_id,
            "lead": lead.model_dump_json(),
            "keys": _keys(lead),
            "at": datetime.now(UTC).isoformat(),
        }


def _keys(details: Details) -> str:
    return json.dumps(sorted(blocking_keys(details.person(""))))
