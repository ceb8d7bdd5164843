"""The whole suite, every case in every arm, and its tables as Markdown: `make attacks`.

Nothing in it is drawn by lot, so there is no seed: the table is the same everywhere, and so must the figures be.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# LangGraph reads this once, at its import.
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"

from tests.attacks.arms import ATTENDED, OPEN_EYES, UNATTENDED, Outcome, honest, run_arm
from tests.attacks.table import CASES, SUBJECTS, one_vector_each
from tests.attacks.words import Case, Goal

from eventwright.guardrails.stages import ALL_STAGES
from eventwright.guardrails.verdicts import Stage

Row = Sequence[object]


def table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def goals(cases: Iterable[Case]) -> str:
    """Which goals there are among the cases: G1 to G15."""
    found = {case.attack.goal for case in cases}
    return " ".join(goal for goal in Goal if goal in found) or "none"


def matrix() -> str:
    """How many cases there are, by subject and goal."""
    count = Counter((case.subject.name, case.attack.goal) for case in CASES)
    rows = [
        [subject.name, *(count[subject.name, goal] or "·" for goal in Goal), _total(subject.name)]
        for subject in SUBJECTS
    ]
    return table(["subject", *Goal, "all"], rows)


def _total(subject: str) -> int:
    return sum(case.subject.name == subject for case in CASES)


def left_out() -> str:
    """What is not tried, and why."""
    lines = []
    for subject in SUBJECTS:
        by_reason: dict[str, list[str]] = {}
        for what, why in subject.left_out.items():
            by_reason.setdefault(why, []).append(str(what))
        lines += [f"- {subject.name}: {', '.join(what)}: {why}" for why, what in by_reason.items()]
    return "\n".join(lines)


async def arm(cases: Sequence[Case], *reviewers: Any, **settings: Any) -> list[Outcome]:
    with tempfile.TemporaryDirectory(prefix="attacks-") as folder:
        return await run_arm(cases, Path(folder), reviewers or UNATTENDED, **settings)


def _arm_row(name: str, outcomes: Sequence[Outcome], seconds: float) -> Row:
    achieved = sum(outcome.achieved for outcome in outcomes)
    approvals = sum(outcome.approvals for outcome in outcomes)
    denials = sum(len(outcome.denials) for outcome in outcomes)
    share = f"{100 * achieved / len(outcomes):.1f} %"
    obeyed = sum(outcome.obeyed for outcome in outcomes)
    alone = sum(outcome.delivered and not outcome.obeyed for outcome in outcomes)
    return [name, len(outcomes), obeyed, alone, f"**{achieved}**", share, approvals, denials, f"{seconds:.0f} s"]


async def arms() -> tuple[str, bool]:
    """The arms, and whether they are as they must be."""
    plan: list[tuple[str, Sequence[Case], Sequence[Any], dict[str, Any], bool]] = [
        ("control: guard off", CASES, UNATTENDED, {"stages": frozenset(), "redaction": OPEN_EYES}, True),
        ("attack: nobody answers, then the deadline", CASES, UNATTENDED, {}, False),
        ("attack: a perfect reviewer", CASES, ATTENDED, {}, False),
        ("benign: a perfect reviewer", honest(CASES), ATTENDED, {}, True),
    ]
    rows, right = [], True
    for name, cases, reviewers, settings, wanted in plan:
        began = time.monotonic()
        outcomes = await arm(cases, *reviewers, **settings)
        rows.append(_arm_row(name, outcomes, time.monotonic() - began))
        wrong = [outcome for outcome in outcomes if outcome.achieved is not wanted]
        wrong += [outcome for outcome in outcomes if cases is CASES and not outcome.delivered]
        for outcome in wrong:
            sys.stderr.write(f"{name}: {outcome}\n")
        right = right and not wrong
    head = ["arm", "cases", "obeyed", "by themselves", "achieved", "share", "approvals", "denials", "time"]
    return table(head, rows), right


async def mutations() -> tuple[str, bool]:
    """What gets through when one stage is off."""
    cases = one_vector_each()
    rows = []
    parts: list[tuple[str, dict[str, Any]]] = [(stage, {"stages": ALL_STAGES - {stage}}) for stage in Stage]
    for name, settings in [*parts, ("redaction", {"redaction": OPEN_EYES})]:
        outcomes = await arm(cases, **settings)
        through = [outcome.case for outcome in outcomes if outcome.achieved]
        rows.append([name, len(cases), f"**{len(through)}**", goals(through), through[0].name if through else "-"])
    head = ["off", "cases", "achieved", "goals", "the first of them"]
    return table(head, rows), all(row[2] != "**0**" for row in rows)


async def main() -> int:
    sys.stdout.write(f"{matrix()}\n\n{left_out()}\n\n")
    whole, right = await arms()
    sys.stdout.write(f"{whole}\n\n")
    parts, bearing = await mutations()
    sys.stdout.write(f"{parts}\n")
    return 0 if right and bearing else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
