"""The command line about policies: `policy show` for who reads them, `check` for who writes them.

Both read the workflows alone, and need no database; but for `check --against`, which looks at one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from eventwright.app.commands.console import AsJson, perform, show, show_json
from eventwright.app.commands.session import read_settings

if TYPE_CHECKING:
    from eventwright.graphs.workflow import Workflow, Workflows

KEEP = "Look after it"

app = typer.Typer()
policy = typer.Typer(help="Read what the nodes of a workflow may do.", no_args_is_help=True, rich_markup_mode="rich")

Version = Annotated[str | None, typer.Option(help="Another version than the one that new events start.")]


@policy.command("show")
def show_policy(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="Whose policy.")],
    node: Annotated[str | None, typer.Argument(metavar="NODE", help="Only this node's.")] = None,
    version: Version = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as Markdown text, for a page.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what each node of a workflow may do, as a table.

    Tools and how a repeat of them is made harmless, what bounds their
    arguments, when people are asked and who, retries, budgets and how they
    end. What does not stand there is not allowed.

      [cyan]eventwright policy show support[/]
      [cyan]eventwright policy show support refund[/]
      [cyan]eventwright policy show support --markdown > policy.md[/]
      [cyan]eventwright policy show support --json | jq '.nodes[].policy.tools'[/]

    Next: [cyan]eventwright check WORKFLOW[/].
    """
    if markdown and as_json:
        raise typer.BadParameter("goes without --json", param_hint="--markdown")

    async def work() -> None:
        from eventwright.app.commands.policy_screens import policy_document, policy_page, policy_screen

        found = _loaded().get(workflow, version)
        nodes = _nodes(found, node)
        if as_json:
            show_json(policy_document(found, nodes))
        elif markdown:
            typer.echo(policy_page(found, nodes), nl=False)
        else:
            show(policy_screen(found, nodes))

    perform(work(), as_json=as_json)


@app.command(rich_help_panel=KEEP)
def check(
    workflows: Annotated[
        list[str] | None, typer.Argument(metavar="WORKFLOW", help="Only these; by default all that are loaded.")
    ] = None,
    approved: Annotated[
        list[str] | None,
        typer.Option(metavar="TOOL", help="Prove that no call of this tool is made without an approval; repeatable."),
    ] = None,
    version: Version = None,
    against: Annotated[
        bool, typer.Option("--against", help="Look instead for unfinished runs that this code would break.")
    ] = False,
    database: Annotated[
        str | None, typer.Option(metavar="URL", help="With --against: another database than that of the settings.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look for what is wrong with workflows before they run.

    Writes that untrusted data may choose, sensitive data with a way out,
    tools of which nobody says what they do, approvals that nobody can give,
    loops without a budget, names of nothing; each with the path that leads
    there. Exit code 1 if there is any. docs/checks.md describes each.

    With --against it reads a database instead, before a deploy: each run that
    is not finished and that this code would break, why, and the way out. Exit
    code 1 if there is any. docs/versions.md tells what breaks a run.

      [cyan]eventwright check[/]                        all workflows, as in CI
      [cyan]eventwright check support --approved payments.refund[/]
      [cyan]eventwright check --against --database postgresql://…[/]

    Next: [cyan]eventwright policy show WORKFLOW[/].
    """

    if version is not None and not workflows:
        raise typer.BadParameter("goes with a WORKFLOW", param_hint="--version")
    if against and (version or approved):
        given = "--version" if version else "--approved"
        raise typer.BadParameter("goes without --against, which looks at every version", param_hint=given)
    if database is not None and not against:
        raise typer.BadParameter("goes with --against", param_hint="--database")

    names = workflows or []
    work = _check_against(names, database, as_json) if against else _check(names, approved or [], version, as_json)
    perform(work, as_json=as_json)


async def _check(names: Sequence[str], approved: Sequence[str], version: str | None, as_json: bool) -> int:
    from eventwright.app.commands.policy_screens import check_document, check_screen
    from eventwright.graphs.check import checked

    loaded = _loaded()
    chosen = [loaded.get(name, version) for name in names] if names else list(loaded.versions())
    results = [checked(each, approved=_named(each, approved, chosen)) for each in chosen]
    if as_json:
        show_json(check_document(results))
    else:
        show(check_screen(results))
    return 1 if any(result.findings for result in results) else 0


async def _check_against(names: Sequence[str], database: str | None, as_json: bool) -> int:
    from eventwright.app.commands.version_screens import against_document, against_screen
    from eventwright.app.commands.versions import look_at

    found, where = await look_at(_loaded(), database, names)
    if as_json:
        show_json(against_document(found, where))
    else:
        show(against_screen(found, where))
    return 1 if found.broken else 0


def _loaded() -> Workflows:
    from eventwright.app.loading import load_workflows
    from eventwright.graphs.workflow import Workflows

    return Workflows(load_workflows(read_settings().workflows))


def _nodes(workflow: Workflow, node: str | None) -> list[str]:
    """The nodes to show. Raises UnknownNode."""
    from eventwright.graphs.described import UnknownNode

    known = list(workflow.graph.nodes)
    if node is not None and node not in known:
        raise UnknownNode(node, workflow)
    return known if node is None else [node]


def _named(workflow: Workflow, approved: Collection[str], chosen: Sequence[Workflow]) -> list[str]:
    """Those of the tools that this workflow may call. Raises UnknownTool if none of the workflows may call one."""
    from eventwright.graphs.check import UnknownTool
    from eventwright.graphs.checks.proof import tool_names

    for tool in approved:
        if all(tool not in tool_names(each) for each in chosen):
            raise UnknownTool(tool, chosen)
    return [tool for tool in approved if tool in tool_names(workflow)]


app.add_typer(policy, name="policy", rich_help_panel=KEEP)
