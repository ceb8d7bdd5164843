"""The journal, told as it is committed: a line in the log and a count for what an operator looks for.

Lines are logged for the end of a segment, for a call, for a refusal and for a decision; steps between are for `debug`.
Entries are redacted already. The log redacts once more, by the rules of the process.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from eventwright.app.observing.spans import trace_id
from eventwright.app.observing.watches import Instruments
from eventwright.runs.records import JournalKind
from eventwright.runs.states import RunState
from eventwright.runs.telemetry import Committed

runs = logging.getLogger("eventwright.runs")
effects = logging.getLogger("eventwright.effects")

#: Letters of JSON that arguments and results have in a line.
LONGEST_SHOWN = 400
#: Calls that are under way and whose arguments wait for their line.
MOST_WAITING = 1000
_EFFECTS = {
    JournalKind.EFFECT_DONE: "done",
    JournalKind.EFFECT_FAILED: "failed",
    JournalKind.EFFECT_IN_DOUBT: "in_doubt",
}


class Entries:
    """Tells entries of the journal."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        #: Of calls that were announced, by effect: the line of their end does not repeat them.
        self._arguments: dict[str, Any] = {}

    def tell(self, committed: Committed) -> None:
        """Count it, and log it if it is worth a line."""
        match committed.entry.kind:
            case JournalKind.TRANSITION:
                self._transition(committed)
            case JournalKind.EFFECT_INTENDED:
                self._intended(committed)
            case JournalKind.EFFECT_DONE | JournalKind.EFFECT_FAILED | JournalKind.EFFECT_IN_DOUBT:
                self._effect(committed)
            case JournalKind.VERDICT:
                self._verdict(committed)
            case JournalKind.REVIEW_OPENED:
                self._instruments.metrics.reviews.labels(_workflow(committed), committed.entry.data["kind"]).inc()
            case JournalKind.DECISION:
                self._decision(committed)
            case _:
                pass

    def _transition(self, committed: Committed) -> None:
        data, run, metrics = committed.entry.data, committed.run, self._instruments.metrics
        workflow, state = _workflow(committed), data["to"]
        metrics.transitions.labels(workflow, state).inc()
        if data.get("taken_over"):
            metrics.takeovers.labels(workflow).inc()
        match state:
            case RunState.COMPLETED:
                metrics.outcomes.labels(workflow, data.get("outcome", "")).inc()
            case RunState.FAILED:
                metrics.failures.labels(workflow, data.get("reason", "")).inc()
            case RunState.RETRYING:
                metrics.retries.labels(workflow).inc()
        if state == RunState.PROCESSING or "event" in data:
            return  # the beginning of a segment, or of a run: the event's own line tells of it
        level = logging.WARNING if state in (RunState.FAILED, RunState.RETRYING) else logging.INFO
        if runs.isEnabledFor(level):
            told = {name: data.get(name) for name in ("outcome", "reason", "error", "node", "due_at", "replay")}
            facts = told | {"attempt": run["attempts"], "crashes": run["crashes"] or None, "by": committed.entry.actor}
            runs.log(level, "run %s", state, extra=_about(committed) | _known(facts))

    def _intended(self, committed: Committed) -> None:
        data = committed.entry.data
        if effects.isEnabledFor(logging.INFO):
            if len(self._arguments) >= MOST_WAITING:
                self._arguments.clear()  # those of calls that were cut off; nobody asks for them
            self._arguments[data["effect"]] = data.get("arguments")
        effects.debug("effect intended", extra=_about(committed) | {"tool": data["tool"], "effect": data["effect"]})

    def _effect(self, committed: Committed) -> None:
        data, outcome = committed.entry.data, _EFFECTS[committed.entry.kind]
        self._instruments.metrics.effects.labels(self._instruments.tools(data["tool"]), outcome).inc()
        arguments = data.get("arguments", self._arguments.pop(data["effect"], None))
        level = logging.INFO if outcome == "done" else logging.WARNING
        if effects.isEnabledFor(level):
            facts = {
                "tool": data["tool"],
                "class": data["class"],
                "effect": data["effect"],
                "attempt": data["attempt"],
                "seconds": data.get("seconds"),
                "arguments": _short(arguments),
                "result": _short(data.get("result")),
                "error": data.get("error"),
            }
            effects.log(level, "effect %s", outcome, extra=_about(committed) | _known(facts))

    def _verdict(self, committed: Committed) -> None:
        data = committed.entry.data
        said = next((stage for stage in data["stages"] if stage["verdict"] != "allow"), None)
        if said is None:
            return
        outcome = "denied" if said["verdict"] == "deny" else "asked"
        tool = data.get("tool") or "model.ask"
        self._instruments.metrics.effects.labels(self._instruments.tools(tool), outcome).inc()
        level = logging.WARNING if outcome == "denied" else logging.DEBUG
        if effects.isEnabledFor(level):
            facts = {"tool": tool, "stage": said["stage"], "rule": said["rule"], "reason": said["reason"]}
            effects.log(level, "effect %s", outcome, extra=_about(committed) | facts)

    def _decision(self, committed: Committed) -> None:
        data = committed.entry.data
        self._instruments.metrics.decisions.labels(_workflow(committed), data["type"]).inc()
        facts = {"review": data["review"], "type": data["type"], "by": committed.entry.actor}
        runs.info("decision", extra=_about(committed) | facts)


def _workflow(committed: Committed) -> str:
    return str(committed.run["workflow"])


def _about(committed: Committed) -> dict[str, Any]:
    """Where a line comes from."""
    run = committed.run
    facts = {
        "run": run["id"],
        "workflow": run["workflow"],
        "node": committed.entry.node,
        "worker": run["worker"],
        "trace_id": trace_id(run["trace"]),
    }
    return _known(facts)


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in facts.items() if fact is not None}


def _short(value: Any) -> Any:
    """The value, or how its JSON begins."""
    if value is None:
        return None
    text = json.dumps(value, ensure_ascii=False)
    return value if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
