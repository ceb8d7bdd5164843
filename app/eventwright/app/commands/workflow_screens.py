"""Screens about workflows: what is loaded, and one of them as a tree that reads from its start to its ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from eventwright.app.commands.screens import STATES, commands, facts, heading, mark, table
from eventwright.app.commands.telling import line
from eventwright.graphs.described import asked_about, lane_words, longest, retries, unsure
from eventwright.graphs.schedules import Every, schedules_of
from eventwright.graphs.serial import key_words
from eventwright.graphs.waiting import Continues
from eventwright.graphs.workflow import On, Workflow, Workflows
from eventwright.guardrails.policy import Policy
from eventwright.runs.states import RunState

START, END = "__start__", "__end__"


def workflows_screen(workflows: Workflows, counts: Mapping[tuple[str, str, str], int]) -> RenderableType:
    """The loaded workflows in their versions, one a line, with how many of their runs are where.

    Args:
        counts: by workflow, version and state.
    """
    loaded = list(workflows.versions())
    if not loaded:
        return Text("No workflow is loaded; EVENTWRIGHT_WORKFLOWS names the modules.")
    made = table("workflow", "version", "on", "runs", flexible="on")
    for workflow in loaded:
        runs = Text()
        for state in RunState:
            if number := counts.get((workflow.name, workflow.version, str(state))):
                runs.append_text(mark(STATES[state], f"{number} {state}  "))
        made.add_row(
            Text(workflow.name, style="bold"),
            workflow.version,
            ", ".join(_trigger(trigger) for trigger in workflow.triggers)
            if workflows.is_newest(workflow)
            else Text("nothing: it goes on with its runs", style="dim"),
            runs or Text("none", style="dim"),
        )
    return Group(made, Text(), commands([f"eventwright workflows {loaded[0].name}"]))


def workflow_screen(workflow: Workflow, graph: Any) -> RenderableType:
    """One workflow: what starts it, and its graph with what each node may do."""
    head = Text.assemble((workflow.name, "bold"), (f"  version {workflow.version}, lane {workflow.lane}", "dim"))
    about = [Text(line(workflow.description))] if workflow.description else []
    triggers = [("on", Text(_trigger(trigger))) for trigger in workflow.triggers]
    sent = [trigger.type for trigger in workflow.triggers if not isinstance(trigger, Every | Continues)]
    clock = ["eventwright schedules"] if schedules_of(workflow) else []
    examples = [f"eventwright send --type {kind} --data '{{…}}'" for kind in sent[:1]] + clock
    return Group(
        head,
        *about,
        Text(),
        facts(triggers),
        heading("Graph"),
        graph_tree(workflow, graph),
        heading("Next"),
        commands(
            [*examples, f"eventwright policy show {workflow.name}", f"eventwright runs --workflow {workflow.name}"]
        ),
    )


def _trigger(trigger: On) -> str:
    if isinstance(trigger, Every):
        return line(f"{trigger.type} by the clock: {trigger.cron} {trigger.zone}")
    versions = f" (payload {', '.join(trigger.payload)})" if trigger.payload else ""
    how = "goes on by" if isinstance(trigger, Continues) else "one at a time by"
    key = "" if trigger.key is None else f", {how} {key_words(trigger.key)}"
    key += "" if trigger.flow is None else f", {trigger.flow.words(trigger.key)}"
    return line(f"{trigger.type}{f' from {trigger.source}' if trigger.source else ''}{versions}{key}")


def graph_tree(workflow: Workflow, graph: Any) -> Tree:
    """The graph from its start on: each node once with its policy, and by name where another way leads to it.

    Args:
        workflow: whose policies are shown.
        graph: LangGraph's drawing of it, with `edges` of source, target and `conditional`.
    """
    ways: dict[str, list[tuple[str, bool]]] = {}
    for edge in graph.edges:
        ways.setdefault(edge.source, []).append((edge.target, edge.conditional))
    tree = Tree(Text("start", style="dim"), guide_style="dim")
    told = {START}

    def grow(branch: Tree, node: str) -> None:
        for target, conditional in ways.get(node, []):
            way = ("? " if conditional else "", "yellow")
            if target == END:
                branch.add(Text.assemble(way, ("end", "dim")))
            elif target in told:
                branch.add(Text.assemble(way, (f"{target} ↑", "dim")))
            else:
                told.add(target)
                grow(branch.add(_node(way, target, workflow.policy(target))), target)

    grow(tree, START)
    for node in workflow.graph.nodes:
        if node not in told:  # reached by a Command alone, which no drawing knows
            told.add(node)
            grow(tree.add(_node(("→ ", "yellow"), node, workflow.policy(node))), node)
    return tree


def _node(way: tuple[str, str], name: str, policy: Policy) -> Text:
    """A node with its policy below it; `way` is how one comes to it."""
    text = Text.assemble(way, (name, "bold"))
    for tool in policy.tools:
        text.append(f"\n{tool.name}").append(f"  {tool.tool_class}", style="dim")
        if asked := asked_about(policy, tool):
            text.append(f"  {line(asked)}", style="yellow")
    if doubt := unsure(policy):
        text.append(f"\n{doubt}", style="yellow")
    words = [words for words in (retries(policy), longest(policy)) if words is not None]
    if policy.fallback is not None:
        words.append("a prepared answer if the model is away")
    if policy.lane is not None:
        words.append(lane_words(policy.lane))
    return text.append(f"\n{', '.join(words)}", style="dim") if words else text
