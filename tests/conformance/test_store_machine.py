"""Whatever is asked of the store, in whatever order, it answers like a model of a few dicts: on SQLite and PostgreSQL.

Each step adds a verb to a transaction. Transactions are committed one by one or several at once; what the store answers
then is compared with what the model says (`reference.py`). Where it does not, Hypothesis finds the fewest steps that
show it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from tests.conformance.budget_book import of
from tests.conformance.reference import Reference, Unit
from tests.conformance.reference_place import Place, assert_told, expected, opened
from tests.conformance.reference_world import thread_of
from tests.conformance.world import event, question

from eventwright.runs.amends import ReadBack
from eventwright.runs.event import digest_of
from eventwright.runs.records import (
    WAITS,
    Decision,
    DecisionType,
    Effect,
    EffectState,
    EventState,
    Lease,
    ReviewKind,
    ReviewState,
    Run,
    Visit,
)
from eventwright.runs.retention import Keep
from eventwright.runs.states import Outcome, Reason, RunState


class Then(Enum):
    """What comes after a verb."""

    COMMIT = "its transaction is committed, with those that wait"
    GO_ON = "the next verb is in the same transaction"
    WAIT = "its transaction is committed together with the next"


THEN = some.sampled_from([Then.COMMIT, Then.COMMIT, Then.GO_ON, Then.WAIT])
WORKERS = some.sampled_from(["worker 1", "worker 2", "worker 3"])
PEOPLE = some.sampled_from(["ann", "bob", "Ann "])
CALLS = some.sampled_from(["call 1", "call 2"])
SECONDS = some.sampled_from([0, 3, 6, 30])
AMOUNTS = some.sampled_from([Decimal(0), Decimal(1), Decimal("2.5")])
MOSTS = some.sampled_from([None, Decimal(0), Decimal(3)])
SPANS = some.sampled_from([None, timedelta(0), timedelta(days=7)])
NOBODY = "run of nobody"


def among(pick: Callable[[StoreMachine], Collection[Any]]) -> some.SearchStrategy[Any]:
    """One of what there is by then."""
    return some.runner().flatmap(lambda machine: some.sampled_from(list(pick(machine))))


RUN = among(lambda machine: [*machine.model.runs])
ANY_RUN = among(lambda machine: [*machine.model.runs, NOBODY])
LEASE = among(lambda machine: machine.leases)
REVIEW = among(lambda machine: [*machine.model.reviews])
EFFECT = among(lambda machine: [*machine.model.effects])
SOME_RUNS = among(lambda machine: [*machine.model.runs]).flatmap(
    lambda one: some.sets(RUN, max_size=2).map(lambda more: sorted({one, *more}))
)
there_are_runs = precondition(lambda machine: machine.model.runs)
there_are_leases = precondition(lambda machine: machine.leases)
there_are_reviews = precondition(lambda machine: machine.model.reviews)
there_are_effects = precondition(lambda machine: machine.model.effects)


class StoreMachine(RuleBasedStateMachine):
    """Plays with a store and with the model of it."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place, self.model = place, Reference()
        place.empty()
        #: Transactions that wait for the next commit; the last one may be open.
        self.units: list[Unit] = []
        self.is_open = False
        self.number = 0
        #: Leases that workers have been given, the newest first.
        self.leases: list[Lease] = []

    # -- how it is written and compared ------------------------------------------------------------------------------

    def add(self, then: Then, *verbs: tuple[str, dict[str, Any]], lease: Lease | None = None) -> None:
        """Add verbs to the open transaction; those of another lease begin another one."""
        if not self.is_open or (lease is not None and self.units[-1].lease not in (None, lease)):
            self.units.append(Unit())
        self.units[-1].lease = lease or self.units[-1].lease
        self.units[-1].verbs += verbs
        self.is_open = then is Then.GO_ON
        if then is Then.COMMIT:
            self.commit()

    def commit(self) -> None:
        units, self.units, self.is_open = self.units, [], False
        answers, together = self.place.commit(units)
        wanted = self.model.commit(units, together=together)
        for unit, answer, want in zip(units, answers, wanted, strict=True):
            if want.refusals:
                assert set(answer.refusals) & set(want.refusals), (unit, answer, want)
                continue
            assert answer == want, unit
            self.leases[:0] = [value[0] for value in answer.values if isinstance(value, tuple)]
        self.compare()

    def compare(self) -> None:
        answers, wanted = self.place.look(), expected(self.model)
        self.model.hear(answers.pop("bells"))
        assert_told(self.model, answers.pop("journals"))
        for what, answer in answers.items():
            assert answer == wanted[what], what

    def new(self, kind: str) -> str:
        self.number += 1
        return f"{kind} {self.number:03}"

    def teardown(self) -> None:
        if self.units:
            self.commit()
        self.place.steps += 1

    # -- events ------------------------------------------------------------------------------------------------------

    @initialize(key=some.sampled_from([None, "invoice"]), crashes=some.integers(0, 2), asked=some.booleans())
    def begin(self, key: str | None, crashes: int, asked: bool) -> None:
        """Two runs; one is at work, perhaps in the hands of its second worker, and has perhaps asked a person."""
        self.arrives("a", key, Then.WAIT)
        self.arrives("b", key, Then.COMMIT)
        run_id = next(iter(self.model.runs))
        self.claim(run_id, "worker 1", 6, Then.COMMIT)
        if asked:
            self.asks(self.leases[0], "a", 7, 2, {}, None, Then.COMMIT)
        for number in range(crashes):
            self.dies(run_id, f"worker {number + 2}", Then.COMMIT)

    @rule(name=some.sampled_from("abcdef"), key=some.sampled_from([None, "invoice"]), then=THEN)
    def arrives(self, name: str, key: str | None, then: Then) -> None:
        arrived = event(name, uid=self.new("event"), received_at=self.model.now, data={"n": self.number % 3})
        begun = Run(
            id=self.new("run"), workflow="test", version="1", state=RunState.RECEIVED, lane="default", event=arrived,
            created_at=self.model.now, updated_at=self.model.now, serial_key=key, turn=None if key is None else WAITS,
        )  # fmt: skip
        self.add(
            then,
            ("add_event", {"event": arrived, "state": EventState.ACCEPTED}),
            ("add_run", {"run": begun}),
            ("wake", {"run_id": begun.id, "lane": "default"}),
        )

    @rule(name=some.sampled_from("abcdef"), then=THEN)
    def is_refused(self, name: str, then: Then) -> None:
        refused = event(name, uid=self.new("event"), received_at=self.model.now)
        given = {"event": refused, "state": EventState.REFUSED, "problem": {"title": "unfit", "detail": "n"}}
        self.add(then, ("add_event", given))

    @precondition(lambda self: any(stored["state"] == "refused" for stored in self.model.events.values()))
    @rule(data=some.data(), then=THEN)
    def is_taken_in_after_all(self, data: some.DataObject, then: Then) -> None:
        refused = [uid for uid, stored in self.model.events.items() if stored["state"] == "refused"]
        uid = data.draw(some.sampled_from(refused))
        source, name = self.model.events[uid]["name"]
        self.add(then, ("accept_event", {"event": event(name, uid=uid, source=source)}))

    @there_are_runs
    @rule(run_id=RUN, workflow=some.sampled_from(["test", "other"]), then=some.sampled_from([Then.COMMIT, Then.WAIT]))
    def starts_another_run(self, run_id: str, workflow: str, then: Then) -> None:
        """An event starts one run of a workflow, and no second one."""
        run = self.place.read(run_id)
        another = Run(
            id=self.new("run"), workflow=workflow, version="1", state=RunState.RECEIVED, lane="default",
            event=run.event, created_at=self.model.now, updated_at=self.model.now,
        )  # fmt: skip
        self.is_open = False
        self.add(then, ("add_run", {"run": another}))

    # -- workers -----------------------------------------------------------------------------------------------------

    @rule(run_id=ANY_RUN, worker=WORKERS, seconds=some.sampled_from([6, 30]), then=THEN)
    def claim(self, run_id: str, worker: str, seconds: float, then: Then) -> None:
        self.add(then, ("claim", {"run_id": run_id, "worker": worker, "seconds": seconds}))

    @precondition(lambda self: self.model.due())
    @rule(worker=WORKERS, then=THEN, data=some.data())
    def claim_what_is_due(self, worker: str, then: Then, data: some.DataObject) -> None:
        run_ids = data.draw(some.permutations(sorted(self.model.due())))[:2]
        self.add(then, *(("claim", {"run_id": run_id, "worker": worker, "seconds": 6}) for run_id in run_ids))

    @precondition(lambda self: self.model.held())
    @rule(run_id=among(lambda machine: machine.model.held()), heir=WORKERS, then=THEN)
    def dies(self, run_id: str, heir: str, then: Then) -> None:
        """A run's worker, and another takes the run over."""
        self.time_passes(7)
        self.claim(run_id, heir, 6, then)

    @there_are_runs
    @rule(worker=WORKERS, times=some.integers(1, 2), heir=WORKERS, then=THEN)
    def everything_dies(self, worker: str, times: int, heir: str, then: Then) -> None:
        """A worker takes all that is due, and dies; in the end another takes it all."""
        for _ in range(times):
            self.claim_all(worker, Then.COMMIT)
            self.time_passes(7)
        self.claim_all(heir, then)

    def claim_all(self, worker: str, then: Then) -> None:
        due = sorted(self.model.due())
        verbs = [("claim", {"run_id": run_id, "worker": worker, "seconds": 6}) for run_id in due]
        self.add(then, *verbs, ("wake_next_suspect", {}))

    @precondition(lambda self: self.model.waiting())
    @rule(run_id=among(lambda machine: machine.model.waiting()), worker=WORKERS, then=THEN)
    def is_rung_for_out_of_turn(self, run_id: str, worker: str, then: Then) -> None:
        claim = {"run_id": run_id, "worker": worker, "seconds": 6}
        self.add(then, ("make_due", {"run_id": run_id}), ("claim", claim))

    @there_are_leases
    @rule(
        lease=LEASE,
        to=some.sampled_from(RunState),
        due_in=some.sampled_from([None, 0, 3]),
        heed_cancel=some.booleans(),
        blind=some.booleans(),
        then=THEN,
    )
    def segment_ends(
        self, lease: Lease, to: RunState, due_in: int | None, heed_cancel: bool, blind: bool, then: Then
    ) -> None:
        ends: dict[str, Any] = {"outcome": Outcome.AUTO} if to is RunState.COMPLETED else {"crashes": 0}
        if to is RunState.FAILED:
            ends = {"reason": Reason.ATTEMPTS, "error": "no answer"}
        if due_in is not None:
            ends["due_at"] = self.model.now + timedelta(seconds=due_in)
        ends |= {"run_id": lease.run_id, "to": to, "actor": lease.worker, "heed_cancel": heed_cancel}
        verbs: list[tuple[str, dict[str, Any]]] = [("move", ends)]
        if to is RunState.PENDING_APPROVAL:
            told = {"run_id": lease.run_id, "seen": [] if blind else list(self.model.reviews), "lane": "default"}
            verbs.append(("wake_if_decided_meanwhile", told))
        self.add(then, *verbs, ("wake_next_suspect", {}), lease=lease)

    @there_are_leases
    @rule(lease=LEASE, late=some.booleans(), then=THEN)
    def gives_up(self, lease: Lease, late: bool, then: Then) -> None:
        given = {"run_id": lease.run_id, "worker": lease.worker}
        self.add(then, ("give_up", given), lease=None if late else lease)

    @there_are_leases
    @rule(lease=LEASE, segments=some.integers(0, 3), then=THEN)
    def gets_nowhere(self, lease: Lease, segments: int, then: Then) -> None:
        self.add(then, ("count_idle", {"run_id": lease.run_id, "segments": segments}), lease=lease)

    @there_are_leases
    @rule(lease=LEASE, then=THEN)
    def blocks_its_worker(self, lease: Lease, then: Then) -> None:
        given = {"run_id": lease.run_id, "worker": lease.worker, "node": "parse", "seconds": 30.0}
        self.add(then, ("blame", given))

    @rule(seconds=some.sampled_from([1, 3, 6, 7, 86_400 * 8]))
    def time_passes(self, seconds: float) -> None:
        self.place.clock.pass_seconds(seconds)
        self.model.now = self.place.clock.now

    @precondition(lambda self: self.model.runs and not self.units)
    @rule(worker=WORKERS, held=SOME_RUNS, seconds=some.sampled_from([6, 30]))
    def heart_beats(self, worker: str, held: list[str], seconds: float) -> None:
        self.place.beat(worker, held, seconds)
        self.model.beat(worker, held, seconds)
        self.compare()

    @precondition(lambda self: self.model.bells)
    @rule(data=some.data(), then=THEN)
    def rings(self, data: some.DataObject, then: Then) -> None:
        ids = data.draw(some.sets(some.sampled_from([bell["id"] for bell in self.model.bells]), max_size=2))
        self.add(then, ("wakeups_sent", {"ids": ids})) if ids else None

    # -- operators ---------------------------------------------------------------------------------------------------

    @rule(run_id=ANY_RUN, to=some.sampled_from(RunState), meant=some.booleans(), then=THEN)
    def is_moved(self, run_id: str, to: RunState, meant: bool, then: Then) -> None:
        only_from = RunState.PROCESSING if meant else None
        self.add(then, ("move", {"run_id": run_id, "to": to, "actor": "ann", "only_from": only_from}))

    @rule(run_id=ANY_RUN, then=THEN)
    def is_cancelled(self, run_id: str, then: Then) -> None:
        self.add(then, ("cancel", {"run_id": run_id, "by": "ann"}))

    @there_are_runs
    @rule(run_id=RUN, from_start=some.booleans(), given_up=some.booleans(), then=THEN)
    def is_replayed(self, run_id: str, from_start: bool, given_up: bool, then: Then) -> None:
        generation = self.model.runs[run_id]["generation"] + from_start
        again = {"run_id": run_id, "to": RunState.RECEIVED, "actor": "ann", "only_from": RunState.FAILED}
        self.add(
            then,
            ("refuse_undone", {"run_id": run_id, "given_up": ["undo"] if given_up else []}),
            ("move", again | {"crashes": 0, "idle": 0, "generation": generation}),
            ("reset_failures", {"run_id": run_id}),
            ("wake", {"run_id": run_id, "lane": "default"}),
        )

    @there_are_runs
    @rule(run_id=RUN, then=THEN)
    def is_made_due(self, run_id: str, then: Then) -> None:
        self.add(then, ("make_due", {"run_id": run_id}), ("wake", {"run_id": run_id, "lane": "default"}))

    @there_are_leases
    @rule(lease=LEASE, run_id=ANY_RUN, then=THEN)
    def is_noted(self, lease: Lease, run_id: str, then: Then) -> None:
        self.add(then, ("note", {"run_id": run_id, "actor": lease.worker, "data": {"text": "here"}}), lease=lease)

    # -- reviews -----------------------------------------------------------------------------------------------------

    @there_are_leases
    @rule(
        lease=LEASE,
        digest=some.sampled_from(["a", "b"]),
        due_in=some.sampled_from([None, 0, 3, 7]),
        people=some.sampled_from([1, 2]),
        named=some.sampled_from([{}, {"approvers": ("bob",)}, {"barred": ("ann",)}]),
        doubt=some.sampled_from([None, "call 1", "call 2"]),
        then=THEN,
    )
    def asks(
        self, lease: Lease, digest: str, due_in: int | None, people: int, named: Any, doubt: str | None, then: Then
    ) -> None:
        deadline = None if due_in is None else self.model.now + timedelta(seconds=due_in)
        given = named | {"digest": digest, "deadline": deadline, "people": people, "arguments": {"to": "ann"}}
        if doubt is not None:
            key = f"{lease.run_id} {doubt}"
            given |= {"kind": ReviewKind.IN_DOUBT, "evidence": {"idempotency_key": key}, "deadline": None}
        reviews = [question(lease.run_id, id=self.new("review"), **given) for _ in range(people)]
        self.add(then, *(("open_review", {"review": review}) for review in reviews), lease=lease)

    @there_are_reviews
    @rule(review_id=REVIEW, by=PEOPLE, kind=some.sampled_from(DecisionType), then=THEN)
    def is_decided(self, review_id: str, by: str, kind: DecisionType, then: Then) -> None:
        self._decide(review_id, Decision(type=kind, by=by), ReviewState.DECIDED, then)

    @there_are_reviews
    @rule(review_id=REVIEW, then=THEN)
    def comes_to_its_deadline(self, review_id: str, then: Then) -> None:
        self._decide(review_id, Decision(type=DecisionType.REJECT, by="deadline"), ReviewState.EXPIRED, then)

    def _decide(self, review_id: str, decision: Decision, state: ReviewState, then: Then) -> None:
        known = self.model.reviews[review_id]
        names = ("digest", "people", "approvers", "barred")
        review = question(known["run_id"], id=review_id, **{name: known[name] for name in names})
        self.add(
            then,
            ("decide", {"review": review, "decision": decision, "state": state}),
            ("make_due", {"run_id": review.run_id}),
            ("wake", {"run_id": review.run_id, "lane": "default"}),
        )

    @there_are_reviews
    @rule(review_id=REVIEW, by=CALLS, then=THEN)
    def is_used_up(self, review_id: str, by: str, then: Then) -> None:
        self.add(then, ("consume_review", {"review_id": review_id, "by": by}))

    @there_are_reviews
    @rule(review_id=REVIEW, alone=some.booleans(), then=THEN)
    def is_asked_no_more(self, review_id: str, alone: bool, then: Then) -> None:
        given = {"run_id": self.model.reviews[review_id]["run_id"], "state": ReviewState.SUPERSEDED}
        self.add(then, ("close_reviews", given | {"ids": [review_id] if alone else None}))

    # -- calls -------------------------------------------------------------------------------------------------------

    @there_are_leases
    @rule(
        lease=LEASE,
        call=CALLS,
        state=some.sampled_from(EffectState),
        failures=some.integers(0, 2),
        attempt=some.integers(1, 2),
        then=THEN,
    )
    def calls(self, lease: Lease, call: str, state: EffectState, failures: int, attempt: int, then: Then) -> None:
        number = int(call[-1])
        effect = Effect(
            key=f"{lease.run_id} {call}", run_id=lease.run_id, node="send", visit=number, tool="mail.send",
            ordinal="0", tool_class="plain", state=state, requested_digest="d", executed_digest="d",
            arguments={"to": "ann"}, result="sent" if state is EffectState.DONE else None, attempt=attempt,
        )  # fmt: skip
        visit = Visit(run_id=lease.run_id, node="send", visit=number, place=call, failures=failures)
        self.add(then, ("put_visit", {"visit": visit}), ("put_effect", {"effect": effect}), lease=lease)

    @there_are_leases
    @rule(lease=LEASE, then=THEN)
    def takes_a_step(self, lease: Lease, then: Then) -> None:
        thread = thread_of(lease.run_id, self.model.runs[lease.run_id]["generation"])
        row = {"thread_id": thread, "ns": "", "id": self.new("checkpoint"), "parent": None, "type": "msgpack"}
        self.add(then, ("put_checkpoint", {"row": row | {"body": b"", "metadata": {}}}), lease=lease)

    @there_are_leases
    @rule(lease=LEASE, call=CALLS, calls=AMOUNTS, money=AMOUNTS, most=MOSTS, then=THEN)
    def reserves(
        self, lease: Lease, call: str, calls: Decimal, money: Decimal, most: Decimal | None, then: Then
    ) -> None:
        wanted = [of("calls", calls, 3, spent=True), of("money", money, most)]
        given = {"run_id": lease.run_id, "effect_key": f"{lease.run_id} {call}", "reservations": wanted}
        self.add(then, ("reserve", given), lease=lease)

    @there_are_leases
    @rule(lease=LEASE, call=CALLS, money=AMOUNTS, then=THEN)
    def spends(self, lease: Lease, call: str, money: Decimal, then: Then) -> None:
        given = {"run_id": lease.run_id, "effect_key": f"{lease.run_id} {call}", "actual": {digest_of("money"): money}}
        self.add(then, ("settle", given), lease=lease)

    @there_are_leases
    @rule(lease=LEASE, call=CALLS, then=THEN)
    def gives_back(self, lease: Lease, call: str, then: Then) -> None:
        given = {"run_id": lease.run_id, "effect_key": f"{lease.run_id} {call}"}
        self.add(then, ("release", given), lease=lease)

    @there_are_effects
    @rule(key=EFFECT, expect=some.booleans(), then=THEN)
    def is_taken_back(self, key: str, expect: bool, then: Then) -> None:
        effect = self.model.effects[key]
        before = effect["undone_by"] if expect else None
        given = {"run_id": effect["run_id"], "effects": {key: before}, "by_run": "undo"}
        self.add(then, ("take_back", given))

    @there_are_effects
    @rule(key=EFFECT, attempt=some.integers(1, 2), happened=some.booleans(), then=THEN)
    def is_read_back(self, key: str, attempt: int, happened: bool, then: Then) -> None:
        found = ReadBack(effect=key, attempt=attempt, happened=happened, result="sent" if happened else None)
        given = {"run_id": self.model.effects[key]["run_id"], "found": [found], "by": "reconciler"}
        self.add(then, ("settle_read_back", given))

    # -- retention ---------------------------------------------------------------------------------------------------

    @there_are_runs
    @rule(
        run_ids=SOME_RUNS,
        verb=some.sampled_from(["prune", "expire_runs"]),
        ended=some.booleans(),
        twice=some.booleans(),
        then=THEN,
    )
    def is_forgotten(self, run_ids: list[str], verb: str, ended: bool, twice: bool, then: Then) -> None:
        """Perhaps by two at once, and just when it was cancelled."""
        if ended:
            self.add(Then.COMMIT, *(("cancel", {"run_id": run_id, "by": "ann"}) for run_id in run_ids))
        if twice:
            self.add(Then.WAIT, (verb, {"run_ids": run_ids}))
        self.add(then, (verb, {"run_ids": run_ids}))

    @precondition(lambda self: self.model.events)
    @rule(uid=among(lambda machine: [*machine.model.events]), then=THEN)
    def loses_its_data(self, uid: str, then: Then) -> None:
        self.add(then, ("expire_events", {"uids": [uid], "before": self.model.now}))

    @precondition(lambda self: not self.units)
    @rule(checkpoints=SPANS, payloads=SPANS)
    def is_kept_long_enough(self, checkpoints: timedelta | None, payloads: timedelta | None) -> None:
        keep = Keep(checkpoints=checkpoints, payloads=payloads)
        wanted = self.model.keep(keep)
        assert self.place.keep(keep) == (wanted, wanted)
        self.compare()


def play(url: str, *, examples: int, steps: int, **more: Any) -> None:
    """Play so often, with so many steps each time."""
    calm = [
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.large_base_example,
    ]
    with opened(url) as place:
        how = settings(max_examples=examples, stateful_step_count=steps, suppress_health_check=calm, **more)
        run_state_machine_as_test(lambda: StoreMachine(place), settings=how)


@pytest.mark.timeout(600)
def test_the_store_answers_like_its_model_on_sqlite(sqlite_url: str) -> None:
    play(sqlite_url, examples=20, steps=30)


@pytest.mark.timeout(600)
def test_the_store_answers_like_its_model_on_postgresql(postgres_url: str) -> None:
    play(postgres_url, examples=8, steps=30)


@pytest.mark.soak
def test_the_store_answers_like_its_model_for_ten_thousand_steps(database_url: str) -> None:
    play(database_url, examples=200, steps=50, derandomize=False)
