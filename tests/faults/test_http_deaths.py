"""The API process is killed between a request and its answer. Whoever repeats the request to the next one gets the same
answer, and nothing is doubled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from eventwright.runs.failpoints import Failpoint
from eventwright.runs.records import ReviewState
from eventwright.runs.states import RunState

ON_SQLITE = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.soak)], indirect=True
)
#: Where a process may die over a request, and whether what it says is on record then.
OVER_AN_EVENT = {
    Failpoint.INTAKE_STORING: False,
    Failpoint.COMMIT_APPLIED: False,
    Failpoint.INTAKE_STORED: True,
}
OVER_A_DECISION = {
    Failpoint.DESK_DECIDING: False,
    Failpoint.COMMIT_APPLIED: False,
    Failpoint.DESK_DECIDED: True,
}


class Doors:
    """API processes of one service, of which each but the last dies when it is told to, each at its own boundary."""

    def __init__(self, service: Any, folder: Path, points: list[Failpoint]) -> None:
        self._service = service
        self._points = points
        self._armed = [folder / f"armed-{number}" for number, _ in enumerate(points)]

    async def open(self) -> Doors:
        hurts = [{"kill": point, "armed": str(armed)} for point, armed in zip(self._points, self._armed, strict=True)]
        self._open = await asyncio.gather(*(self._service.serve(hurt=hurt) for hurt in hurts), self._service.serve())
        return self

    async def post(self, number: int, path: str, body: Any) -> httpx.Response:
        """Ask that process. Raises httpx.RemoteProtocolError or ReadError if it dies over it."""
        async with httpx.AsyncClient(base_url=self._open[number][1], timeout=60) as client:
            headers = {"content-type": "application/cloudevents+json" if path == "/v1/events" else "application/json"}
            return await client.post(path, json=body, headers=headers)

    async def die_over(self, number: int, path: str, body: Any) -> None:
        """Let that process be killed over this request, at its boundary."""
        self._armed[number].touch()
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await self.post(number, path, body)
        assert await self._open[number][0].wait() == -9


@ON_SQLITE
async def test_an_event_that_is_sent_again_after_the_process_died_starts_one_run(service: Any, tmp_path: Path) -> None:
    doors = await Doors(service, tmp_path, list(OVER_AN_EVENT)).open()
    async with service.working(**service.brisk) as app:
        ids = []
        for number, (point, on_record) in enumerate(OVER_AN_EVENT.items()):
            event = {
                "specversion": "1.0",
                "id": str(number),
                "source": "/shop",
                "type": "chores",
                "data": {"seconds": 0},
            }
            await doors.die_over(number, "/v1/events", event)
            stored = [stored for stored in await app.store.events() if stored.event.id == event["id"]]
            assert len(stored) == on_record, point

            again = await doors.post(number + 1, "/v1/events", event)
            (told,) = again.json()["events"]
            assert (again.status_code, told["duplicate"]) == (202, on_record), point
            assert (await doors.post(number + 1, "/v1/events", event)).json()["events"][0]["runs"][0]["id"] == (
                told["runs"][0]["id"]
            )
            ids.append(told["runs"][0]["id"])
        assert {run.state for run in await service.final(app, ids)} == {RunState.COMPLETED}
        assert len(await app.store.runs(limit=100)) == len(ids)
    for what in ("pay", "post", "shout"):
        assert service.ledger(what) == dict.fromkeys(ids, 1), what


@ON_SQLITE
@pytest.mark.soak
async def test_a_decision_that_is_made_again_after_the_process_died_is_heeded_once(
    service: Any, tmp_path: Path
) -> None:
    doors = await Doors(service, tmp_path, list(OVER_A_DECISION)).open()
    async with service.working(**service.brisk) as app:
        ids = await service.send(app, "asking", len(OVER_A_DECISION))
        for number, (point, on_record) in enumerate(OVER_A_DECISION.items()):
            await service.eventually(lambda number=number: asked(app, ids[number]))
            (review,) = await app.store.reviews(run_ids=[ids[number]])
            yes = {"type": "approve", "comment": "go on", "digest": review.digest}
            await doors.die_over(number, f"/v1/reviews/{review.id}/decision", yes)
            found = await app.store.review(review.id)
            assert (found.decision is not None) == on_record, point

            again = await doors.post(number + 1, f"/v1/reviews/{review.id}/decision", yes)
            assert (again.status_code, again.json()["decision"]["type"]) == (200, "approve"), point
            no = await doors.post(number + 1, f"/v1/reviews/{review.id}/decision", {"type": "reject"})
            assert no.status_code == 409
        assert {run.state for run in await service.final(app, ids)} == {RunState.COMPLETED}
        decisions = [entry for run_id in ids for entry in await app.store.journal(run_id) if entry.kind == "decision"]
        assert len(decisions) == len(ids)
    assert service.ledger("pay") == dict.fromkeys(ids, 1)


async def asked(app: Any, run_id: str) -> bool:
    return bool(await app.store.reviews(run_ids=[run_id], state=ReviewState.OPEN))
