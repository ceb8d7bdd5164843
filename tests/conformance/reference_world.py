"""What the reference model of the store knows: plain dicts, and what is read from them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.conformance.world import NOW

from eventwright.runs.event import Event
from eventwright.runs.records import Run, person
from eventwright.runs.states import AT_AN_END

#: The facts of a run that the model keeps.
RUN_FACTS = (
    "workflow", "version", "state", "outcome", "reason", "error", "fence", "worker", "crashes", "cancel_requested_by",
    "due_at", "serial_key", "turn", "idle", "generation", "lane", "created_at", "pruned_at", "expired_at",
)  # fmt: skip


class Refused(Exception):
    """A verb finds the world changed; by these errors it may say so."""

    def __init__(self, *names: str) -> None:
        self.names = names


class World:
    """Runs, reviews, effects and so on by their ids, each a dict of facts."""

    def __init__(self) -> None:
        self.now: datetime = NOW
        self.events: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.journals: dict[str, list[dict[str, Any]]] = {}
        self.reviews: dict[str, dict[str, Any]] = {}
        #: By review: its run and when it is due.
        self.timers: dict[str, tuple[str, datetime]] = {}
        self.effects: dict[str, dict[str, Any]] = {}
        self.visits: dict[tuple[str, int], dict[str, Any]] = {}
        #: Ids by thread.
        self.checkpoints: dict[str, set[str]] = {}
        self.budgets: dict[str, dict[str, Any]] = {}
        #: What a call took, by its key and the budget.
        self.taken: dict[tuple[str, str], dict[str, Any]] = {}
        self.bells: list[dict[str, Any]] = []
        # Of the commit that is under way.
        self.arriving: set[tuple[str, str]] = set()
        self.left_lines: set[tuple[str, str]] = set()
        self.new_bells: list[dict[str, Any]] = []
        self.here: set[str] = set()

    # -- runs --------------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> dict[str, Any]:
        if run_id not in self.runs:
            raise Refused("UnknownRun")
        return self.runs[run_id]

    def change(self, run_id: str, **columns: Any) -> None:
        run = self.runs[run_id]
        if "state" in columns and run["serial_key"] is not None:
            if columns["state"] in AT_AN_END:
                columns["turn"] = None
                self.left_lines.add(line_of(run))
            elif run["turn"] is None:
                columns.setdefault("turn", 1)
        run.update(columns, updated_at=self.now)

    def tell(self, run_id: str, kind: str, actor: str, **facts: Any) -> None:
        """A line of the journal, with some of what must stand in it."""
        self.journals[run_id].append({"kind": kind, "actor": actor, "at": self.now, "facts": facts})

    def accepted(self, event: Event) -> bool:
        named = (stored for stored in self.events.values() if stored["name"] == (event.source, event.id))
        return any(stored["state"] == "accepted" for stored in named)

    def place_of(self, run_id: str) -> tuple[str, int]:
        """Where a run stands: its newest checkpoint, and how many calls it has done."""
        run = self.runs[run_id]
        done = [effect for effect in self.effects.values() if effect["run_id"] == run_id and effect["state"] == "done"]
        return max(self.checkpoints.get(thread_of(run_id, run["generation"]), set()), default=""), len(done)

    # -- lines -------------------------------------------------------------------------------------------------------

    def line(self, line: tuple[str, str]) -> list[str]:
        """Who stands in a line: who goes, then those who wait, the oldest first."""
        there = [name for name, run in self.runs.items() if run["turn"] is not None and line_of(run) == line]
        return sorted(there, key=lambda name: (self.runs[name]["turn"], self.runs[name]["created_at"], name))

    def is_first(self, run_id: str) -> bool:
        return self.line(line_of(self.runs[run_id]))[0] == run_id

    def in_line(self, run: Mapping[str, Any]) -> bool:
        return run["turn"] == 1 and run["due_at"] is None

    def _move_up(self, line: tuple[str, str]) -> None:
        """Whoever is next is due, and is told so."""
        if (there := self.line(line)) and self.runs[there[0]]["turn"] == 1:
            self.runs[there[0]].update(due_at=self.now, updated_at=self.now)
            self.ring(there[0])

    def ahead(self) -> dict[str, str]:
        """Who goes, or goes next, for each run that waits."""
        waiting = {name: self.line(line_of(run))[0] for name, run in self.runs.items() if self.in_line(run)}
        return {name: head for name, head in waiting.items() if head != name}

    # -- bells -------------------------------------------------------------------------------------------------------

    def ring(self, run_id: str, *, surely: bool = True) -> None:
        self.new_bells.append({"id": None, "run_id": run_id, "created_at": self.now, "sent_at": None, "sure": surely})

    def hear(self, bells: list[dict[str, Any]]) -> None:
        """Take the store's bells for ours: those that must be there are, and none that must not be."""
        left = list(self.bells)
        for bell in sorted(bells, key=lambda bell: bell["id"]):
            like = [ours for ours in left if {**ours, "id": None, "sure": None} == {**bell, "id": None, "sure": None}]
            # The one that we know, else one that must be there, else one that may.
            like.sort(key=lambda ours: (ours["id"] != bell["id"], not ours["sure"]))
            assert like, f"a bell that nobody rang: {bell}"
            left.remove(like[0])
        missing = [ours for ours in left if ours["sure"]]
        assert not missing, f"bells are lost: {missing}"
        # In an order that does not hang on their ids, which the store makes up.
        ordered = sorted(bells, key=lambda bell: (bell["created_at"], bell["run_id"], str(bell["sent_at"])))
        self.bells = [bell | {"sure": True} for bell in ordered]

    # -- reviews -----------------------------------------------------------------------------------------------------

    def about_the_same(self, review_id: str) -> list[dict[str, Any]]:
        """The reviews of the same call, itself included."""
        this = self.reviews[review_id]
        return [
            other
            for other in self.reviews.values()
            if (other["run_id"], other["digest"]) == (this["run_id"], this["digest"])
        ]

    def agreed(self, review_id: str) -> list[str]:
        """Who has agreed to this call, and not to an earlier one."""
        this = self.reviews[review_id]
        agreeing = [
            other["decision"]
            for other in self.about_the_same(review_id)
            if other["state"] == "decided" and other["consumed_by"] == this["consumed_by"]
        ]
        return [by for kind, by, _ in sorted(agreeing, key=lambda one: one[2]) if kind in ("approve", "edit")]

    def may_decide(self, review_id: str, by: str) -> bool:
        review = self.reviews[review_id]
        among = not review["approvers"] or person(by) in map(person, review["approvers"])
        free = person(by) not in map(person, review["barred"])
        return among and free and (review["people"] == 1 or person(by) not in map(person, self.agreed(review_id)))

    # -- what is due -------------------------------------------------------------------------------------------------

    def due(self) -> dict[str, datetime]:
        times = {name: run["due_at"] for name, run in self.runs.items() if run["due_at"] is not None}
        return {name: time for name, time in times.items() if time <= self.now}

    def held(self) -> list[str]:
        """Runs that some worker has."""
        return [name for name, run in self.runs.items() if run["worker"] is not None]

    def waiting(self) -> list[str]:
        """Runs that wait for their turn."""
        return [name for name, run in self.runs.items() if run["turn"] == 1]

    def next_due(self) -> datetime | None:
        times = [run["due_at"] for run in self.runs.values() if run["due_at"] is not None]
        return min([*times, *(time for _, time in self.timers.values())], default=None)

    def used(self) -> dict[str, tuple[Decimal, Decimal | None]]:
        return {scope: (budget["used"], budget["most"]) for scope, budget in self.budgets.items()}


def row_of(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in RUN_FACTS} | {
        "event": run.event.uid, "stood_at": None, "updated_at": run.updated_at,
    }  # fmt: skip


def line_of(run: Mapping[str, Any]) -> tuple[str, str]:
    return run["workflow"], run["serial_key"]


def thread_of(run_id: str, generation: int) -> str:
    return run_id if generation == 0 else f"{run_id}:{generation}"
