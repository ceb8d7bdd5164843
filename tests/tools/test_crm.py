"""The account book: who is found, who is not, and what happens when several processes open a new book at once."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from eventwright.tools import crm
from eventwright.tools.contract import Call, OutsideGate, ResourceMissing, Resources, ToolClass, ToolError
from eventwright.tools.crm import Account, Crm, packaged_accounts


async def find(book: Crm | None, email: str) -> Account | None:
    arguments = crm.find_account.arguments(email=email)
    resources = Resources((book,) if book else ())
    call = Call(run_id="run_1", node="look_up", idempotency_key="key", attempt=1, resources=resources)
    found: Account | None = await crm.find_account.perform(arguments, call)
    return found


async def test_outside_a_node_nobody_can_be_looked_up() -> None:
    with pytest.raises(OutsideGate, match=r"crm\.find_account"):
        await crm.find_account("lachlan.berry.122@example.org")


async def test_a_process_without_an_account_book_says_what_is_missing() -> None:
    with pytest.raises(ResourceMissing, match="Crm"):
        await find(None, "lachlan.berry.122@example.org")


@pytest.mark.parametrize(
    "email",
    ["", "nobody@example.org", "%", "lachlan.berry.122@example.org' OR '1'='1", "lachlan.berry.122", "\0"],
)
async def test_an_address_that_is_not_in_the_book_finds_nobody(tmp_path: Path, email: str) -> None:
    async with Crm.open(tmp_path / "crm.db") as book:
        assert await find(book, email) is None


async def test_a_file_that_is_no_database_is_an_error_and_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "crm.db"
    path.write_text("a shopping list, long enough not to be taken for an empty file\n" * 100)
    before = path.read_bytes()

    with pytest.raises(ToolError, match="not a database"):
        async with Crm.open(path):
            pass

    assert path.read_bytes() == before


async def test_a_book_that_was_damaged_while_open_is_an_error_and_not_a_customer_unknown(tmp_path: Path) -> None:
    async with Crm.open(tmp_path / "crm.db") as book:
        with closing(sqlite3.connect(tmp_path / "crm.db")) as other:
            other.execute("DROP TABLE accounts")

        with pytest.raises(ToolError, match="no such table"):
            await find(book, "lachlan.berry.122@example.org")


@pytest.mark.parametrize("email", ["lachlan.berry.122@example.org", " Lachlan.BERRY.122@Example.org\n"])
async def test_a_customer_is_found_by_address_however_it_is_written(tmp_path: Path, email: str) -> None:
    async with Crm.open(tmp_path / "deep" / "crm.db") as book:
        assert await find(book, email) == Account(
            id="rec-122-org",
            name="Lachlan Berry",
            email="lachlan.berry.122@example.org",
            suburb="Bittern",
            state="QLD",
        )


def test_every_original_person_has_an_account_and_an_address_of_their_own() -> None:
    accounts = list(packaged_accounts())

    assert len(accounts) == 500
    assert len({account.id for account in accounts}) == 500
    assert len({account.email for account in accounts}) == 500
    assert {account.email for account in accounts} >= {
        "waller.223@example.org",  # no given name is known
        "john.vanthof.125@example.org",  # van't hof
        "alexarose.lowe.335@example.org",
    }


async def test_what_the_book_has_been_told_since_is_kept_when_it_is_opened_again(tmp_path: Path) -> None:
    async with Crm.open(tmp_path / "crm.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "crm.db")) as other, other:
        other.execute("UPDATE accounts SET suburb = 'Bundoora' WHERE id = 'rec-122-org'")
        other.execute("DELETE FROM accounts WHERE id = 'rec-223-org'")

    async with Crm.open(tmp_path / "crm.db") as book:
        moved = await find(book, "lachlan.berry.122@example.org")
        gone = await find(book, "waller.223@example.org")

    assert moved is not None
    assert moved.suburb == "Bundoora"
    assert gone is None


async def test_processes_that_open_a_new_book_at_once_all_find_it_whole(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from eventwright.tools.crm import Crm\n"
        "async def main():\n"
        "    async with Crm.open(sys.argv[1]) as book:\n"
        "        [row] = await book.execute('SELECT count(*) FROM accounts')\n"
        "        print(row[0])\n"
        "asyncio.run(main())\n"
    )
    path = tmp_path / "crm.db"

    async def open_it() -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, path, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        return output

    assert await asyncio.gather(*(open_it() for _ in range(4))) == [b"500\n"] * 4


async def test_a_book_whose_first_filling_was_cut_off_is_filled_by_the_next_one(tmp_path: Path) -> None:
    class CutOff(Crm):
        async def prepare(self) -> None:
            await super().prepare()
            raise ConnectionAbortedError("the process died here")

    with pytest.raises(ConnectionAbortedError):
        async with CutOff.open(tmp_path / "crm.db"):
            pass

    async with Crm.open(tmp_path / "crm.db") as book:
        assert await find(book, "lachlan.berry.122@example.org") is not None


def test_looking_up_an_account_is_a_read_and_the_policy_names_it_so() -> None:
    assert crm.find_account.name == "crm.find_account"
    assert crm.find_account.tool_class is ToolClass.READ
