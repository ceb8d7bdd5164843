"""A process that may open no file and no connection any more says so or waits, and goes on when it may again."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from tests.faults.proxy import Proxy

from eventwright.runs.states import RunState

pytestmark = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
JSON = {"content-type": "application/cloudevents+json"}


@contextmanager
def no_descriptors(process: asyncio.subprocess.Process) -> Iterator[None]:
    """In here the process has no file descriptor left."""
    enough, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    used = {int(file.name) for file in Path(f"/proc/{process.pid}/fd").iterdir()}
    lowest = min(set(range(len(used) + 1)) - used)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (enough, hard))


def through(proxy: Proxy, database_url: str) -> str:
    url = sa.make_url(database_url).set(host="127.0.0.1", port=proxy.port, query={})
    return url.render_as_string(hide_password=False)


def socket_of(database_url: str) -> str:
    return f"{sa.make_url(database_url).query['host']}/.s.PGSQL.5432"


def event(name: str) -> dict[str, Any]:
    return {"specversion": "1.0", "id": name, "source": "/shop", "type": "naps", "data": {"seconds": 0}}


@pytest.mark.soak
async def test_an_api_without_any_answers_503_or_waits_and_goes_on_afterwards(service: Any, database_url: str) -> None:
    async with Proxy(socket_of(database_url)) as line:
        api, url = await service.serve(database_url=through(line, database_url))
        async with httpx.AsyncClient(base_url=url, headers=JSON) as known, httpx.AsyncClient(base_url=url) as new:
            assert (await known.post("/v1/events", json=event("1"))).status_code == 202
            with no_descriptors(api):
                line.cut()
                refused = await known.post("/v1/events", json=event("2"), timeout=60)
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
                with pytest.raises(httpx.ReadTimeout):
                    await new.get("/healthz", timeout=0.5)
                waiting = asyncio.create_task(new.post("/v1/events", json=event("3"), headers=JSON, timeout=60))
                await asyncio.sleep(0.5)
                assert not waiting.done()
            assert (await waiting).status_code == 202
            again = await known.post("/v1/events", json=event("2"), timeout=60)
            assert (again.status_code, again.json()["events"][0]["duplicate"]) == (202, False)
        async with service.app() as app:
            assert sorted(stored.event.id for stored in await app.store.events()) == ["1", "2", "3"]
        api.terminate()
        assert await api.wait() == 0


@pytest.mark.soak
async def test_a_worker_without_any_loses_nothing_and_goes_on_afterwards(
    service: Any, database_url: str, redis_url: str
) -> None:
    """Its connections are cut as well, so that it needs new ones."""
    async with Proxy(socket_of(database_url)) as line, Proxy(redis_url.removeprefix("unix://")) as bells:
        there = {"database_url": through(line, database_url), "redis_url": f"redis://127.0.0.1:{bells.port}"}
        worker = await service.start(**there | service.brisk)
        async with service.app() as app:
            ids = await service.send(app, "thrifty", 10, seconds=0.3)
            await service.eventually(lambda: len(service.ledger("doze")) == 10)
            with no_descriptors(worker):
                line.cut()
                bells.cut()
                ids += await service.send(app, "thrifty", 5)
                await asyncio.sleep(2.5)
                assert worker.returncode is None
            runs = await service.final(app, ids)
        assert {run.state for run in runs} == {RunState.COMPLETED}
        assert "Too many open files" in service.log(worker)
        assert service.ledger("pay") == dict.fromkeys(ids, 1)
        worker.terminate()
        assert await worker.wait() == 0
