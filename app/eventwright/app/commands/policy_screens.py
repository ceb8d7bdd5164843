"""Screens about policies: a workflow's as a table, and what `eventwright check` finds in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from eventwright.app.commands.screens import commands, spaced
from eventwright.app.commands.telling import line
from eventwright.graphs.check import Checked
from eventwright.graphs.checks.finding import Finding
from eventwright.graphs.described import Line, by_facet, described, described_whole
from eventwright.graphs.workflow import Workflow

#: Columns of a table that a node's name may take before it is broken.
WIDEST_NAME = 24

# -- policy show -------------------------------------------------------------------------------------------------------


def policy_screen(workflow: Workflow, nodes: Sequence[str]) -> RenderableType:
    """What these nodes may do, and what holds for the whole workflow."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold", overflow="fold", max_width=WIDEST_NAME)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    told = [(node, described(workflow.policy(node))) for node in nodes]
    for name, lines in [*told, ("the whole workflow", described_whole(workflow))]:
        for row in _rows(name, lines):
            made.add_row(*row)
        made.add_row()
    for row in _exceptions(workflow):
        made.add_row(*row)
    if workflow.exceptions is not None:
        made.add_row()
    head = Text.assemble((workflow.name, "bold"), (f"  version {workflow.version}", "dim"))
    return Group(head, Text(), made, commands([f"eventwright check {workflow.name}"]))


def _rows(name: str, lines: Sequence[Line]) -> Iterator[tuple[Text, str, str]]:
    """A row a line; the name and each facet stand where they begin."""
    before = None
    for number, each in enumerate(lines):
        facet = each.facet.meaning if each.facet is not before else ""
        yield Text(line(name) if number == 0 else ""), facet, line(each.words)
        before = each.facet
    if not lines:
        yield Text(line(name)), "may call", "nothing"


def _exceptions(workflow: Workflow) -> Iterator[tuple[Text, str, str]]:
    """A row for each kind of exception."""
    for number, (kind, sentence) in enumerate(workflow.exceptions or ()):
        yield Text("" if number else "exceptions"), kind.replace("_", " "), line(sentence)


def policy_document(workflow: Workflow, nodes: Sequence[str]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "workflow": workflow.name,
        "version": workflow.version,
        "nodes": [{"name": node, "policy": by_facet(described(workflow.policy(node)))} for node in nodes],
        "whole": by_facet(described_whole(workflow)),
        "exceptions": None if workflow.exceptions is None else dict(workflow.exceptions),
    }


def policy_page(workflow: Workflow, nodes: Sequence[str]) -> str:
    """The table as Markdown, for a page of the documentation."""
    rows = ["| node | | |", "|---|---|---|"]
    told = [(f"`{node}`", described(workflow.policy(node))) for node in nodes]
    tables = [_rows(name, lines) for name, lines in [*told, ("the whole workflow", described_whole(workflow))]]
    for first, facet, words in chain(*tables, _exceptions(workflow)):
        cells = (first.plain, facet, words.replace("|", "\\|").replace("<", "&lt;"))
        rows.append("|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|")
    return "\n".join(rows) + "\n"


# -- check -------------------------------------------------------------------------------------------------------------


def check_screen(results: Sequence[Checked]) -> RenderableType:
    """What was found in each workflow, and what is well."""
    if not results:
        return Text("No workflow is loaded; EVENTWRIGHT_WORKFLOWS names the modules.")
    return Group(*spaced(_checked(result) for result in results))


def _checked(result: Checked) -> RenderableType:
    name = f"{result.workflow.name} {result.workflow.version}"
    if not result.findings:
        return Text.assemble(("✓ ", "green"), (name, "bold"), f": {line(result.summary)}")
    count = len(result.findings)
    head = Text.assemble(("✗ ", "red"), (name, "bold"), f": {count} finding{'' if count == 1 else 's'}")
    return Group(head, *(Padding(_finding(finding), (1, 0, 0, 2)) for finding in result.findings))


def _finding(finding: Finding) -> RenderableType:
    where = f" at {line(finding.node)}" if finding.node else ""
    parts: list[RenderableType] = [Text.assemble((str(finding.kind), "bold yellow"), where)]
    if finding.path:
        parts.append(Text(f"  {line(finding.drawn)}"))
    advice = Text(f"→ {line(finding.advice)}", style="cyan")
    return Group(*parts, Padding(Group(Text(line(finding.message)), advice), (0, 0, 0, 2)))


def check_document(results: Sequence[Checked]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "ok": not any(result.findings for result in results),
        "workflows": [
            {
                "name": result.workflow.name,
                "version": result.workflow.version,
                "findings": [finding.as_json() for finding in result.findings],
                "writes": [asdict(write) for write in result.writes],
                "approved": result.approved,
            }
            for result in results
        ],
    }
