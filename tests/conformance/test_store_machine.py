"""Whatever is asked of the store, in whatever order, it answers like a model of a few dicts: on SQLite and PostgreSQL.

Where it does not, Hypothesis finds the fewest steps that show it. Rules about workers are in `store_machine.py`.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from tests.conformance.budget_book import of
from tests.conformance.reference_place import opened
from tests.conformance.reference_world import thread_of
from tests.conformance.store_machine import (
    AMOUNTS,
    CALLS,
    EFFECT,
    LEASE,
    MOSTS,
    PEOPLE,
    REVIEW,
    SOME_RUNS,
    SPANS,
    THEN,
    Then,
    WorkMachine,
    among,
    there_are_effects,
    there_are_leases,
    there_are_reviews,
    there_are_runs,
)
from tests.conformance.world import question

from eventwright.runs.amends import ReadBack
from eventwright.runs.event import digest_of
from eventwright.runs.records import (
    Decision,
    DecisionType,
    Effect,
    EffectState,
    Lease,
    ReviewKind,
    ReviewState,
    Visit,
)
from eventwright.runs.retention import Keep


class StoreMachine(WorkMachine):
    """With rules about reviews, calls and retention besides."""

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
            failures=({"words": "busy"},) * failures,
        )  # fmt: skip
        visit = Visit(run_id=lease.run_id, node="send", visit=number, place=call, failures=failures)
        self.add(then, ("put_visit", {"visit": visit}), ("put_effect", {"effect": effect}), lease=lease)

    @there_are_leases
    @rule(lease=LEASE, calls=some.sets(CALLS), then=THEN)
    def is_tried_anew(self, lease: Lease, calls: set[str], then: Then) -> None:
        keys = [f"{lease.run_id} {call}" for call in calls]
        self.add(then, ("forget_failures", {"run_id": lease.run_id, "effects": keys}), lease=lease)

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
    play(sqlite_url, examples=12, steps=30)


@pytest.mark.timeout(600)
def test_the_store_answers_like_its_model_on_postgresql(postgres_url: str) -> None:
    play(postgres_url, examples=3, steps=30)


@pytest.mark.soak
def test_the_store_answers_like_its_model_for_ten_thousand_steps(database_url: str) -> None:
    play(database_url, examples=200, steps=50, derandomize=False)
